"""What a replica knows of the store: what was withdrawn once is withdrawn for good."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.state import FederationState
from storage.errors import Unavailable
from tests.serving.world import World


class _SetBack:
    """Follows a store that names an earlier state, as one does that was set back unnoticed."""

    position = 1

    def __init__(self, state: FederationState) -> None:
        self._state = state

    def look(self) -> FederationState:
        """Return the state."""
        return self._state


def test_a_floor_that_was_read_never_falls(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the store says later, no generation is loaded or held that was below a floor which was read (E10)."""
    before = world.resident.state()
    standing = world.service.standing
    standing.load()
    world.erase("secret-person-001", key="er-1")
    while standing.floor < 2:
        standing.current()
    monkeypatch.setattr(standing, "_follower", _SetBack(replace(before, floor=0)))
    standing.current()
    assert standing.floor == 2
    assert standing.ensemble is None or standing.ensemble.generation >= 2
    with pytest.raises(Unavailable, match="names a generation that was withdrawn before"):
        standing.load()
