"""The process that writes to a federation."""

from __future__ import annotations

import re

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
