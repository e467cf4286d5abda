"""Progress: lines where nobody watches, bars on a terminal, nothing when asked to be quiet."""

from __future__ import annotations

import io
import os
import pty
import re

import pytest

from coordinator.ports import IngestProgress, Notice, Remark, RequestMoved, TrainingStarted
from coordinator.requests import ErasureRequest, RequestState
from deploy.views.progress import MOST_BARS, listening
from shards.learners.trainer import EpochsDone, SliceLearned
from shards.specification import ShardId, SliceIndex
from storage.digests import Sha256


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _learned(shard: int, slice_: int, loss: float | None = None) -> SliceLearned:
    return SliceLearned(
        shard=ShardId(shard), slice=SliceIndex(slice_), digest=Sha256("0" * 64), checkpoint=None, loss=loss
    )


def _epoch(shard: int, slice_: int, epochs: int) -> EpochsDone:
    return EpochsDone(shard=ShardId(shard), slice=SliceIndex(slice_), epochs=epochs, of_epochs=4)


def _started(shards: int, slices: int, done: int = 0) -> TrainingStarted:
    return TrainingStarted(shards=tuple((ShardId(number), done) for number in range(shards)), slices=slices)


REQUEST = ErasureRequest(
    request_id="er-[b]",
    body=Sha256("0" * 64),
    names=None,
    subjects=1,
    ids=0,
    received_at="2026-01-01T00:00:00+00:00",
    due_at="2026-01-31T00:00:00+00:00",
    state=RequestState.QUARANTINED,
)

STORY: tuple[Notice, ...] = (
    IngestProgress(points=100),
    IngestProgress(points=150),
    IngestProgress(points=2000),
    Remark(text="a remark [with brackets]"),
    RequestMoved(request=REQUEST),
    _started(2, 3, done=1),
    _epoch(0, 2, 1),
    _learned(0, 2),
    _learned(1, 2),
    _epoch(1, 3, 3),
    _learned(0, 3),
    _learned(1, 3),
)


def _reported(stream: io.StringIO, story: tuple[Notice, ...], *, quiet: bool = False) -> str:
    with listening(stream, quiet=quiet) as listener:
        for notice in story:
            listener(notice)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())


def test_lines_without_a_terminal() -> None:
    """Each slice, state and remark is a line; ingest speaks at every doubling; no control characters."""
    assert _reported(io.StringIO(), STORY).splitlines() == [
        "ingest: 100 data points",
        "ingest: 2,000 data points",
        "a remark [with brackets]",
        "request er-[b]: quarantined",
        "training 2 shards of 3 slices",
        "shard 0: slice 2 of 3",
        "shard 1: slice 2 of 3",
        "shard 0: slice 3 of 3",
        "shard 1: slice 3 of 3",
    ]


def test_bars_on_a_terminal() -> None:
    """A terminal gets a bar per shard, with slices and epochs within, and remarks above the bars."""
    shown = _reported(_Terminal(), STORY)
    for text in ("shard 0", "shard 1", "slice 3 learned", "ingest", "2,000 data points", "a remark [with brackets]"):
        assert text in shown
    assert "request er-[b]: quarantined" in shown


def test_learners_that_learn_all_slices_together_say_so() -> None:
    """They have one portion, and its number would be that of no slice."""
    story = (TrainingStarted(shards=((ShardId(0), 0),), slices=1, at_once=True), _epoch(0, 1, 3), _learned(0, 1))
    lines = ["training 1 shards, all slices at once", "shard 0: all slices"]
    assert _reported(io.StringIO(), story).splitlines() == lines
    assert "all slices learned" in _reported(_Terminal(), story)


def test_quiet_says_nothing() -> None:
    """With ``--json`` of the demo nothing is shown."""
    assert not _reported(_Terminal(), STORY, quiet=True)


def test_one_bar_for_very_many_shards() -> None:
    """With more shards than fit on a screen one bar stands for all, and ends full."""
    shards = MOST_BARS + 1
    story: tuple[Notice, ...] = (
        _started(shards, 2),
        *(_learned(shard, slice_) for slice_ in (1, 2) for shard in range(shards)),
    )
    shown = _reported(_Terminal(), story)
    assert f"{shards} shards" in shown
    assert not re.search(r"shard \d", shown)


def test_training_may_start_again() -> None:
    """A second training (an erasure after a train, a proof after both) replaces the bars of the first."""
    shown = _reported(_Terminal(), (_started(3, 1), _learned(2, 1), _started(1, 1), _learned(0, 1)))
    assert "shard 0" in shown.splitlines()[-1]


@pytest.mark.parametrize("shards", [1, MOST_BARS, MOST_BARS + 1])
def test_repeated_events_do_no_harm(shards: int) -> None:
    """A slice reported twice, as after a worker's death, and an epoch reported late are shown without an error."""
    story = (_started(shards, 2), _learned(0, 1), _learned(0, 1), _epoch(0, 1, 2), _learned(0, 2))
    for stream in (_Terminal(), io.StringIO()):
        assert _reported(stream, story)


def test_a_real_pseudo_terminal() -> None:
    """On a pseudo-terminal bars are drawn with control sequences; the same stream as a pipe has none."""
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w", encoding="utf-8") as stream:
        with listening(stream) as listener:
            for notice in STORY:
                listener(notice)
        stream.flush()
        shown = os.read(leader, 65_536).decode("utf-8", "replace")
    os.close(leader)
    assert "\x1b[" in shown
    assert "shard 1" in shown


class _Clock:
    """Time that passes on command."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_time_left_and_loss_are_reported() -> None:
    """Once the pace is known, a line says how long the rest takes; each slice's line gives its loss."""
    stream, clock = io.StringIO(), _Clock()
    with listening(stream, clock=clock) as listener:
        listener(_started(2, 2))
        for seconds, event in ((2.0, _learned(0, 1, 0.70001)), (60.0, _learned(1, 1, 0.25)), (400.0, _learned(0, 2))):
            clock.now = seconds
            listener(event)
    assert stream.getvalue().splitlines()[1:] == [
        "shard 0: slice 1 of 2, loss 0.7000",
        "shard 1: slice 1 of 2, loss 0.2500; about 2 min left",
        "shard 0: slice 2 of 2; about 3 min left",
    ]


def _bar(shown: str, what: str) -> str:
    """Return the last line about something."""
    return next(line for line in reversed(re.split(r"[\r\n]", shown)) if line.startswith(what)).rstrip()


def test_a_bar_is_as_full_as_the_work_is_done() -> None:
    """A shard that waits has an empty bar and says so, also one that is to go on late; without colours, too."""
    clock, stream = _Clock(), _Terminal()
    with listening(stream, clock=clock) as listener:
        listener(TrainingStarted(shards=((ShardId(0), 0), (ShardId(1), 4), (ShardId(2), 0)), slices=5))
        clock.now = 30.0
        listener(_epoch(0, 5, 4))
        listener(_epoch(1, 5, 2))
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    full, empty = ("\u2588", "\u00b7") if "\u00b7" in shown else ("#", ".")
    assert _bar(shown, "shard 0").count(full) == 30
    assert _bar(shown, "shard 1").count(full) == 15
    assert _bar(shown, "shard 2").split() == ["shard", "2", empty * 30, "waits"]
    assert "about 30 s left" in _bar(shown, "3 shards")


def test_bars_tell_the_loss() -> None:
    """The loss with which the slice was learned is shown beside the bar."""
    assert "slice 1 learned, loss 0.1235" in _reported(_Terminal(), (_started(1, 1), _learned(0, 1, 0.12345)))
