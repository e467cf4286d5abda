"""The process that writes to a federation."""

from __future__ import annotations

import re

from cluster.coordinator_actor.launch import find_coordinator
from tests.doubles.user_folder import UserFolder


def writer_of(home: UserFolder) -> int:
    """Return the process that holds the right to write in the home's store."""
    said = (home.store / ".locks" / "writer.lock").read_text(encoding="utf-8")
    found = re.search(r"process (\d+)", said)
    assert found
    return int(found[1])


def take_lock_away(home: UserFolder) -> None:
    """Let the right to write be free, though a process holds it, as a lease that ran out is."""
    (home.store / ".locks" / "writer.lock").unlink()


def is_idle(home: UserFolder) -> bool:
    """Return whether the coordinator has done all that may be done now."""
    coordinator = find_coordinator(home.objects, lambda _: None, print)
    assert coordinator is not None
    return coordinator._hear(None, 0.0).idle
