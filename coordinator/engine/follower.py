"""Follows the state that other processes write. Without news this costs one missing object and one small read.

For processes that may use the state only while it is current, such as a replica that answers (E10).
"""

from __future__ import annotations

from threading import Lock

from coordinator.engine.ledger import Current, continued, read_ledger
from coordinator.state import FederationState
from storage.errors import JournalTruncated, Unavailable
from storage.objects import ObjectStore
from storage.registers.journal import Journal, Position
from storage.registers.numbered import Numbers


class StateReader:
    """Reads the state again and again, and of the journal only what is new. May be used from any thread."""

    def __init__(self, store: ObjectStore) -> None:
        """Prepare; nothing is read yet."""
        self._store = store
        self._known: Current | None = None  # replaced as a whole

    def __call__(self) -> FederationState | None:
        """Return the state; None when nothing was ever committed. Raises as ``ledger.read_ledger`` does."""
        self._known = known = read_ledger(self._store, self._known)
        return known.state


class Follower:
    """What one process knows about a federation's state. May be used from any thread."""

    def __init__(self, store: ObjectStore) -> None:
        """Prepare; nothing is read yet."""
        self._store = store
        self._journal = Journal(store)
        self._entries = Numbers(store, "journal")
        self._lock = Lock()
        self._current: Current | None = (
            None  # changed under ``_lock``; ``position`` reads it without, as it is replaced as a whole
        )
        self._floor = 0  # under ``_lock``

    @property
    def position(self) -> int:
        """Number of the journal's last entry at the last read; 0 before the first read."""
        return self._current.position.number if self._current is not None else 0

    def look(self) -> FederationState | None:
        """Return the state at some moment during the call; None when nothing was ever committed.

        Raises as ``coordinator.engine.ledger.read_ledger`` does, and ``Unavailable`` when the store no longer holds
        what it held before: an empty mount point does not mean that nothing was committed.
        """
        with self._lock:
            known = self._current
            if known is None or known.state is None:
                known = read_ledger(self._store)
                self._refuse_set_back()
            elif self._has_moved(known.position):
                known = self._advanced(known)
            self._current = known
            return known.state

    def _has_moved(self, position: Position) -> bool:
        """Return whether anything was committed after ``position``, at the moment of step 1.

        1. Read the entry that would follow.
        2. If it does not exist, read the journal's floor: before an entry is pruned, the floor is raised above it.
        """
        following = position.number + 1
        return self._entries.payload(following) is not None or self._refuse_set_back() > following

    def _advanced(self, known: Current) -> Current:
        """Return what is current, from the new entries if they were not pruned."""
        try:
            entries = self._journal.read(known.position)
        except JournalTruncated:
            found = read_ledger(self._store)
            self._refuse_set_back()
            return found
        return continued(known, entries)

    def _refuse_set_back(self) -> int:
        """Return the journal's floor, which never falls in an intact store."""
        floor = self._journal.floor()
        if floor < self._floor:
            raise Unavailable(
                "the store does not hold what it held before: it is away, or was set back to an earlier moment",
                "Bring the store back. If it was restored on purpose, restart this process.",
                store=self._store.location,
                floor=floor,
                was=self._floor,
            )
        self._floor = floor
        return floor
