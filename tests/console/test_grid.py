"""The grid: what it says of a shard's portions while an erasure is carried out, and before the first training ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from cluster.serving.console.grid import progress_of, shard_cells
from coordinator.requests import ErasureRequest, Found, RequestState
from coordinator.settings import ErasureSettings
from coordinator.state import FederationState
from shards.specification import ShardId, SliceIndex
from tests.coordinator.records import request_of
from tests.serving.world import World

LONG_AFTER = datetime(2040, 1, 1, tzinfo=UTC)


def _state(world: World, learned: int, serving: int, stage: RequestState | None = None) -> FederationState:
    """Return a state whose first shard of two slices has this many checkpoints; with ``stage``, an erasure is open.

    The erasure is one from the second slice on.
    """
    state = world.resident.state()
    assert state is not None
    first = replace(state.shards[0], chain=state.shards[0].chain[:learned], serving=serving)
    asked: tuple[ErasureRequest, ...] = ()
    if stage is not None:
        found = Found(from_slices={ShardId(0): SliceIndex(2)}, points=1)
        asked = (replace(request_of("er-1"), state=stage, found=found),)
    return replace(state, shards=(first, *state.shards[1:]), requests=asked)


@pytest.mark.parametrize(
    ("learned", "serving", "stage", "runs"),
    [
        (2, 2, None, (("serving", 2),)),
        (2, 2, RequestState.ACCEPTED, (("serving", 2),)),
        (1, 1, RequestState.QUARANTINED, (("serving", 1), ("withdrawn", 1))),
        (1, 1, RequestState.RETRAINING, (("serving", 1), ("working", 1))),
        (2, 1, RequestState.RETRAINING, (("serving", 1), ("ready", 1))),
        (0, 0, RequestState.QUARANTINED, (("withdrawn", 2),)),
        (1, 1, None, (("serving", 1), ("untrained", 1))),
    ],
)
def test_portions_are_what_an_erasure_has_made_of_them(
    still_world: World, learned: int, serving: int, stage: RequestState | None, runs: object
) -> None:
    """Portions serve, are withdrawn from the first erased one on, are learned again, and wait to serve."""
    cells = shard_cells(_state(still_world, learned, serving, stage))[0]
    assert cells.runs == runs
    assert cells.is_whole == (runs == (("serving", 2),))


def test_a_checkpoint_without_points_does_not_serve(still_world: World) -> None:
    """A constituent whose served checkpoint has seen no point abstains, and the grid does not say that it serves."""
    state = _state(still_world, 1, 1, RequestState.QUARANTINED)
    bare = replace(state.shards[0], slices=(replace(state.shards[0].slices[0], points=0), state.shards[0].slices[1]))
    cells = shard_cells(replace(state, shards=(bare, *state.shards[1:])))[0]
    assert cells.runs == (("empty", 1), ("withdrawn", 1))
    assert not cells.is_whole


def test_progress_counts_what_has_to_be_learned(still_world: World) -> None:
    """Progress is that of the portions from the first erased one on; with nothing to learn there is none."""
    settings = ErasureSettings()
    assert progress_of(_state(still_world, 2, 2), settings, LONG_AFTER) is None
    progress = progress_of(_state(still_world, 1, 1, RequestState.RETRAINING), settings, LONG_AFTER)
    assert progress is not None
    assert (progress.requests, progress.learned, progress.portions, progress.shards) == (1, 0, 1, 1)
    assert progress.starts_at == ""
