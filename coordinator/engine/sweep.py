"""The sweep: what the committed state does not name is deleted, and shown to be gone (E12)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from threading import RLock
from types import TracebackType
from typing import Final

from coordinator.engine.ledger import Ledger, read_state
from coordinator.state import FederationState
from storage.errors import Corrupt, Fenced, ObjectMissing, SisaError, Unavailable
from storage.objects import NewName, ObjectKey, ObjectStore

SWEPT_PREFIXES: Final = ("shards/", "requests/", "tombstones/", "ended/")
"""Where objects live that the state refers to; anything else found there is left over."""

GONE: Final = (Corrupt, ObjectMissing)
"""Errors that a superseded writer may also see: another writer has purged what it wanted to read."""

_PASSES: Final = 3


class Drafts:
    """Objects that are written before any state names them; one thread at a time writes such.

    Used as a context: ``with drafts as names`` gives names for the objects. At its end they are committed, or
    orphans. If another writer has taken over meanwhile they are deleted again, because its sweep may have run before;
    and the context ends with ``Fenced`` in place of any other error: what the other one has purged is not damaged.
    """

    def __init__(self, new_name: NewName, store: ObjectStore, ledger: Ledger) -> None:
        self._new_name = new_name
        self._store = store
        self._ledger = ledger
        self._lock = RLock()
        self._drawn: set[str] = set()  # changed under ``_lock``; ``without`` copies it, which is atomic

    def __enter__(self) -> NewName:
        self._lock.acquire()
        return self._draw

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, (Fenced, *GONE)):
                self._give_up(error)
        finally:
            self._drawn.clear()
            self._lock.release()

    def without(self, keys: Iterable[ObjectKey]) -> list[ObjectKey]:
        """Return the keys of objects that are not drafts of the moment."""
        drawn = frozenset(self._drawn)
        return [key for key in keys if not any(name in key for name in drawn)]

    def tidy(self) -> None:
        """Delete what was drafted and has come to nothing, such as slices that turned out to be as they were.

        A sweep would do it, unless another writer takes over before: that one does not know them, and they may hold
        what it erases.
        """
        with suppress(SisaError):  # the next writer sweeps it up
            self._take_back()

    def _draw(self) -> str:
        name = self._new_name()
        self._drawn.add(name)
        return name

    def _give_up(self, error: SisaError) -> None:
        """Delete what was drafted if another writer has taken over. Raises ``Fenced`` then."""
        try:
            self._ledger.refuse_superseded()
        except Fenced as fenced:
            with suppress(SisaError):  # the next writer sweeps it up
                self._take_back()
            if not isinstance(error, Fenced):
                raise fenced from error

    def _take_back(self) -> None:
        """Delete drafts that became orphans: their entry was refused, or it landed and others have seen it.

        What landed and is condemned by now is for the other writer to purge: its workers may still be reading it.
        """
        state = read_state(self._store)
        keep = state.referenced().union(state.condemned) if state is not None else frozenset()
        own = [key for key in _swept(self._store) if any(name in key for name in self._drawn)]
        self._store.delete_all([key for key in own if key not in keep])


def sweep(store: ObjectStore, ledger: Ledger, drafts: Drafts) -> None:
    """Delete everything that is not part of the state, and show that nothing is left.

    Only while no worker is at work: then what is neither referred to nor being drafted is left over from some writer.
    The journal and older manifests go as well: they name what is gone.
    Raises ``Fenced`` when another writer has taken over, ``Unavailable`` when objects keep appearing.
    """
    for _ in range(_PASSES):
        if _passes(store, ledger, drafts):
            return
    with drafts:  # requests that keep coming always leave something new: for once they wait
        for _ in range(_PASSES):
            if _passes(store, ledger, drafts):
                return
    raise Unavailable(
        f"objects keep appearing in the store while it is purged, {len(left_over(store, ledger.state))} are left",
        "Look for another process that writes to this store, then run 'sisa train'.",
        store=store.location,
    )


def left_over(store: ObjectStore, state: FederationState) -> list[ObjectKey]:
    """Return the keys of objects that the state should name and does not; nobody may be drafting any."""
    keep = state.referenced()
    return [key for key in _swept(store) if key not in keep]


def _passes(store: ObjectStore, ledger: Ledger, drafts: Drafts) -> bool:
    """Delete what is left over, and return whether nothing was by then."""
    if left := _orphans(store, ledger, drafts):
        # After the listing: a writer that takes over claims its token before it writes anything else, so that
        # nothing listed above is its own (D3).
        ledger.refuse_superseded()
        store.delete_all(left)
    with drafts:
        return ledger.compact(lambda: _is_clean(store, ledger))


def _orphans(store: ObjectStore, ledger: Ledger, drafts: Drafts) -> list[ObjectKey]:
    # In this order: what was listed and is no longer a draft is in the state that is read last, or an orphan.
    settled = drafts.without(list(_swept(store)))
    keep = ledger.state.referenced()
    return [key for key in settled if key not in keep]


def _swept(store: ObjectStore) -> Iterator[ObjectKey]:
    return (info.key for prefix in SWEPT_PREFIXES for info in store.list(prefix))


def _is_clean(store: ObjectStore, ledger: Ledger) -> bool:
    """Remove what unfinished writes left, and return whether nothing is left over. Nobody may be writing now."""
    if any(store.unfinished("")):
        ledger.refuse_superseded()
        store.remove_unfinished("")
    return not left_over(store, ledger.state) and not any(store.unfinished(""))
