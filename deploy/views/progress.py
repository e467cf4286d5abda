"""Progress on long work: bars on a terminal, lines elsewhere; always on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from coordinator.ports import IngestProgress, Listener, Notice, Remark, RequestMoved, TrainingStarted
from deploy.views.output import lasting
from shards.learners.trainer import EpochsDone, SliceLearned

MOST_BARS = 32
"""With more shards, one bar stands for all of them."""


@contextmanager
def listening(stream: TextIO | None = None, *, quiet: bool = False) -> Iterator[Listener]:
    """Give a listener that shows progress on ``stream`` (default: stderr) while the block runs.

    When the stream is lost the listener goes on and says nothing more: work does not stop because nobody watches.
    """
    out = lasting(stream or sys.stderr)
    if quiet:
        yield lambda _: None
    elif out.isatty():
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=Console(file=out),
        ) as progress:
            yield _Bars(progress)
    else:
        yield _Lines(out)


class _Lines:
    """One line per slice learned and per state reached."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._told_points = 0
        self._slices = 0

    def __call__(self, notice: Notice) -> None:
        for line in self._lines(notice):
            self._out.write(line + "\n")
            self._out.flush()

    def _lines(self, notice: Notice) -> Iterator[str]:
        match notice:
            case IngestProgress(points=points) if points >= 2 * self._told_points:
                self._told_points = points
                yield f"ingest: {points:,} data points"
            case TrainingStarted(shards=shards, slices=slices):
                self._slices, self._told_points = slices, 0  # another site's ingest may follow
                yield f"training {len(shards)} shards of {slices} slices"
            case SliceLearned(shard=shard, slice=slice_):
                yield f"shard {shard}: slice {slice_} of {self._slices}"
            case RequestMoved(request=request):
                yield f"request {request.request_id}: {request.shown.value}"
            case Remark(text=text):
                yield text
            case _:
                pass


class _Bars:
    """A bar per shard, slices within."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._ingest: TaskID | None = None
        self._bars: dict[int, TaskID] = {}
        self._done: dict[int, float] = {}
        self._together = False

    def __call__(self, notice: Notice) -> None:
        match notice:
            case IngestProgress(points=points):
                self._show_ingest(points)
            case TrainingStarted(shards=shards, slices=slices):
                self._start(dict(shards), slices)
            case EpochsDone(shard=shard, slice=slice_, epochs=epochs, of_epochs=of_epochs):
                self._move(shard, slice_ - 1 + epochs / of_epochs, f"slice {slice_}, epoch {epochs}/{of_epochs}")
            case SliceLearned(shard=shard, slice=slice_):
                self._move(shard, slice_, f"slice {slice_} learned")
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
        for bar in set(self._bars.values()):
            self._progress.remove_task(bar)
        self._done = {shard: float(count) for shard, count in done.items()}
        self._together = len(done) > MOST_BARS
        if self._together:
            bar = self._progress.add_task(f"{len(done)} shards", total=len(done) * slices, note="")
            self._bars = dict.fromkeys(done, bar)
        else:
            self._bars = {
                shard: self._progress.add_task(f"shard {shard}", total=slices, completed=count, note="")
                for shard, count in done.items()
            }

    def _move(self, shard: int, completed: float, note: str) -> None:
        self._done[shard] = completed
        shown = sum(self._done.values()) if self._together else completed
        self._progress.update(self._bars[shard], completed=shown, note="" if self._together else note)
