"""The grid of shards and slices: what each constituent has learned, serves, and has to relearn. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from coordinator.decisions.batching import retrain_start
from coordinator.requests import RequestState
from coordinator.settings import ErasureSettings
from coordinator.state import FederationState
from shards.specification import ShardId

CellKind = Literal["serving", "ready", "working", "withdrawn", "untrained", "empty"]
"""The state of a portion of a shard. ``serving``: the checkpoint that answers has seen it. ``ready``: it is learned,
and answers from the next generation on. ``working``: it is the next to be learned. ``withdrawn``: the checkpoints from
here on had seen erased points, were taken out of service and have to be relearned. ``untrained``: it was not
learned yet. ``empty``: there are no points in what the checkpoint has seen, so that it does not answer."""

WORDS: Final[dict[CellKind, str]] = {
    "serving": "serving",
    "ready": "learned, not serving yet",
    "working": "being learned",
    "withdrawn": "withdrawn: had seen erased points",
    "untrained": "not learned yet",
    "empty": "no data points",
}

_TAKEN_OUT: Final = frozenset({RequestState.QUARANTINED, RequestState.RETRAINING})


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardCells:
    """One shard's portions, in runs of one state: erasures and training affect all portions from one on."""

    shard: ShardId
    points: int
    serving: int
    """How many portions the served checkpoint has seen."""
    learned: int
    portions: int
    runs: tuple[tuple[CellKind, int], ...]
    """Kinds and lengths, in the order of the portions."""

    @property
    def is_whole(self) -> bool:
        """Whether all that is to be served is."""
        return self.serving == self.portions or not self.points

    @property
    def in_words(self) -> str:
        """The runs for people who do not see the grid."""
        return ", ".join(f"{length} {WORDS[kind]}" for kind, length in self.runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a training, or the retraining after erasures, has come."""

    requests: int
    """Erasure requests that wait for it; 0: a training for another reason."""
    learned: int
    portions: int
    """Portions that had to be learned for it."""
    shards: int
    starts_at: str
    """Until when it waits for more requests, UTC, ISO 8601; empty: it does not wait."""

    @property
    def share(self) -> float:
        """The learned share, 0 to 1."""
        return self.learned / self.portions if self.portions else 1.0


def shard_cells(state: FederationState) -> tuple[ShardCells, ...]:
    """Return the cells of each shard."""
    starts, is_running = _starts(state), _is_running(state)
    return tuple(_cells(state, ShardId(number), starts, is_running=is_running) for number in range(len(state.shards)))


def progress_of(state: FederationState, erasure: ErasureSettings, now: datetime) -> Progress | None:
    """Return how far the work on the constituents has come; None when there is nothing to learn."""
    untrained = state.untrained()
    if not untrained or state.data is None:
        return None
    starts = _starts(state)
    firsts = {shard: starts.get(shard, 1) for shard in {*untrained, *starts}}
    start = retrain_start(state, erasure)
    return Progress(
        requests=sum(request.state in _TAKEN_OUT for request in state.requests),
        learned=sum(max(0, len(state.shards[shard].chain) - first + 1) for shard, first in firsts.items()),
        portions=sum(state.full_chain(shard) - first + 1 for shard, first in firsts.items()),
        shards=len(untrained),
        starts_at=start.isoformat(timespec="milliseconds") if start is not None and start > now else "",
    )


def _starts(state: FederationState) -> dict[ShardId, int]:
    """Return, for each shard, the first portion whose checkpoints open erasures have taken out of service."""
    found: dict[ShardId, int] = {}
    for request in state.requests:
        if request.state in _TAKEN_OUT:
            for shard, slice_ in request.found.from_slices.items():
                if shard < len(state.shards):
                    found[shard] = min(found.get(shard, slice_), state.portion_of(slice_))
    return found


def _is_running(state: FederationState) -> bool:
    return state.at_once or any(request.state is RequestState.RETRAINING for request in state.requests)


def _cells(state: FederationState, number: ShardId, starts: dict[ShardId, int], *, is_running: bool) -> ShardCells:
    shard = state.shards[number]
    portions, learned = state.full_chain(number), len(shard.chain)
    working = int(is_running and learned < portions)
    runs: tuple[tuple[CellKind, int], ...] = (
        # A checkpoint that has seen no point does not answer: see ``servable``.
        ("serving" if state.seen(number, shard.serving) else "empty", min(shard.serving, learned)),
        ("ready", max(0, learned - shard.serving)),
        ("working", working),
        ("withdrawn" if number in starts else "untrained", portions - learned - working),
    )
    if not shard.points:
        runs = (("empty", portions),)
    return ShardCells(
        shard=number,
        points=shard.points,
        serving=shard.serving,
        learned=learned,
        portions=portions,
        runs=tuple((kind, length) for kind, length in runs if length),
    )
