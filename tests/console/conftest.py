"""A federation whose console is opened in this process: the fixtures of the API's tests, and people who use it."""

from __future__ import annotations

import pytest

from tests.console.people import Person, person
from tests.serving.conftest import _trained_folder, home, resident, still_world, url, world
from tests.serving.world import World

__all__ = ["_trained_folder", "home", "resident", "still_world", "url", "world"]


@pytest.fixture
def officer(world: World) -> Person:
    """Somebody who is signed in with a token of the role officer."""
    return person(world)
