"""Progress on long work: bars on a terminal, lines elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TextIO

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from coordinator.ports import IngestProgress, Listener, Notice, Remark, RequestMoved, TrainingStarted
from deploy.views.output import lasting
from shards.learners.trainer import EpochsDone, SliceLearned

MOST_BARS = 32
"""With more shards than this, one bar shows all of them."""

_BAR_CHARACTERS: Final = 30
_ALL_SLICES: Final = "all slices"
"""For learners that learn all slices together."""
_LEAST_SECONDS: Final = 5.0
"""No estimate of the time left is shown before this long, nor if less than this is left."""


@contextmanager
def listening(
    stream: TextIO | None = None, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic
) -> Iterator[Listener]:
    """Give a listener that shows progress on ``stream`` (default: stderr) while the block runs.

    If the stream is lost, the listener prints nothing more, and the work continues.
    """
    out = lasting(stream or sys.stderr)
    if quiet:
        yield lambda _: None
    elif out.isatty():
        console = Console(file=out)
        columns = (TextColumn("{task.description}"), _Bar(console.encoding), TextColumn("{task.fields[note]}"))
        with Progress(*columns, console=console) as progress:
            yield _Bars(progress, clock)
    else:
        yield _Lines(out, clock)


class _Work:
    """How much of a training is done, and how long the rest will take.

    Slice r is learned from slices 1..r, so its share of a shard's work is taken as r.
    """

    def __init__(self, done: Mapping[int, int], slices: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started = clock()
        self._begun = {shard: _cost(count) for shard, count in done.items()}
        self._now = dict(self._begun)
        self._whole = _cost(slices)

    def move(self, shard: int, slices: float) -> None:
        """Record how many slices of a shard are learned."""
        self._now[shard] = _cost(slices)

    def share(self, shard: int) -> float:
        """Return the share of a shard's work that is done."""
        whole = self._whole - self._begun[shard]
        return (self._now[shard] - self._begun[shard]) / whole if whole else 0.0

    def share_of_all(self) -> float:
        """Return the share of all work that is done."""
        whole = sum(self._whole - begun for begun in self._begun.values())
        return sum(self._now[shard] - self._begun[shard] for shard in self._now) / whole if whole else 0.0

    def left(self) -> str:
        """Return in words how long the rest will take at the pace so far; empty if that is not known yet."""
        elapsed, share = self._clock() - self._started, self.share_of_all()
        if elapsed < _LEAST_SECONDS or not 0 < share < 1:
            return ""
        seconds = elapsed * (1 - share) / share
        return f"about {duration(seconds)} left" if seconds >= _LEAST_SECONDS else ""


def _cost(slices: float) -> float:
    """Return the work of learning this many slices; the unit is one slice's data points."""
    whole = int(slices)
    return whole * (whole + 1) / 2 + (slices - whole) * (whole + 1)


def duration(seconds: float) -> str:
    """Return about how long something takes.

    >>> duration(20), duration(600), duration(9000)
    ('20 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _and_loss(loss: float | None) -> str:
    return "" if loss is None else f", loss {loss:.4f}"


class _Bar(ProgressColumn):
    """A bar whose filled part is visible without colours."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._signs = ("\u2588", "\u00b7") if encoding.lower().startswith("utf") else ("#", ".")

    def render(self, task: Task) -> Text:
        """Return the bar; blank while the total is unknown."""
        if not task.total:
            return Text(" " * _BAR_CHARACTERS)
        filled = min(_BAR_CHARACTERS, int(_BAR_CHARACTERS * task.completed / task.total + 1e-6))
        return Text(self._signs[0] * filled + self._signs[1] * (_BAR_CHARACTERS - filled))


class _Lines:
    """One line per slice learned and per state reached."""

    def __init__(self, out: TextIO, clock: Callable[[], float]) -> None:
        self._out = out
        self._clock = clock
        self._reported_points = 0
        self._slices = 0
        self._at_once = False
        self._work: _Work | None = None

    def __call__(self, notice: Notice) -> None:
        for line in self._lines(notice):
            self._out.write(line + "\n")
            self._out.flush()

    def _lines(self, notice: Notice) -> Iterator[str]:
        match notice:
            case IngestProgress(points=points) if points >= 2 * self._reported_points:
                self._reported_points = points
                yield f"ingest: {points:,} data points"
            case TrainingStarted(shards=shards, slices=slices, at_once=at_once):
                self._slices, self._reported_points = slices, 0  # another site's ingest may follow
                self._at_once = at_once
                self._work = _Work(dict(shards), slices, self._clock)
                yield f"training {len(shards)} shards" + (", all slices at once" if at_once else f" of {slices} slices")
            case SliceLearned(shard=shard, slice=slice_, loss=loss):
                left = ""
                if self._work is not None:
                    self._work.move(shard, slice_)
                    left = self._work.left()
                what = _ALL_SLICES if self._at_once else f"slice {slice_} of {self._slices}"
                line = f"shard {shard}: {what}{_and_loss(loss)}"
                yield f"{line}; {left}" if left else line
            case RequestMoved(request=request):
                yield f"request {request.request_id}: {request.shown.value}"
            case Remark(text=text):
                yield text
            case _:
                pass


class _Bars:
    """One bar for all shards, and one per shard that counts its slices."""

    def __init__(self, progress: Progress, clock: Callable[[], float]) -> None:
        self._progress = progress
        self._clock = clock
        self._ingest: TaskID | None = None
        self._all: TaskID | None = None
        self._bars: dict[int, TaskID] = {}
        self._work = _Work({}, 0, clock)
        self._at_once = False

    def __call__(self, notice: Notice) -> None:
        match notice:
            case IngestProgress(points=points):
                self._show_ingest(points)
            case TrainingStarted(shards=shards, slices=slices, at_once=at_once):
                self._at_once = at_once
                self._start(dict(shards), slices)
            case EpochsDone(shard=shard, slice=slice_, epochs=epochs, of_epochs=of_epochs):
                what = f"{_ALL_SLICES}, step" if self._at_once else f"slice {slice_}, epoch"
                self._move(shard, slice_ - 1 + epochs / of_epochs, f"{what} {epochs}/{of_epochs}")
            case SliceLearned(shard=shard, slice=slice_, loss=loss):
                what = _ALL_SLICES if self._at_once else f"slice {slice_}"
                self._move(shard, slice_, f"{what} learned{_and_loss(loss)}")
            case RequestMoved(request=request):
                self._progress.console.print(
                    f"request {request.request_id}: {request.shown.value}", highlight=False, markup=False
                )
            case Remark(text=text):
                self._progress.console.print(text, highlight=False, markup=False)

    def _show_ingest(self, points: int) -> None:
        if self._ingest is None:
            self._ingest = self._progress.add_task("ingest", total=None, note="")
        self._progress.update(self._ingest, note=f"{points:,} data points")

    def _start(self, done: dict[int, int], slices: int) -> None:
        if self._ingest is not None:
            self._progress.update(self._ingest, total=1, completed=1)
        for bar in (self._all, *self._bars.values()):
            if bar is not None:
                self._progress.remove_task(bar)
        self._work = _Work(done, slices, self._clock)
        self._all = self._progress.add_task(f"{len(done)} shard{'s' * (len(done) > 1)}", total=1, note="")
        self._bars = {}
        if len(done) <= MOST_BARS:
            self._bars = {shard: self._progress.add_task(f"shard {shard}", total=1, note="waits") for shard in done}

    def _move(self, shard: int, slices: float, note: str) -> None:
        self._work.move(shard, slices)
        if self._all is not None:
            self._progress.update(self._all, completed=self._work.share_of_all(), note=self._work.left())
        if shard in self._bars:
            self._progress.update(self._bars[shard], completed=self._work.share(shard), note=note)
