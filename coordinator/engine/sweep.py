"""The sweep: deletes everything that the committed state does not name, and shows that it is gone (E12)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from threading import RLock
from types import TracebackType
from typing import Final

from coordinator.decisions.events import Event
from coordinator.engine.ledger import Change, Ledger, read_state
from coordinator.state import FederationState
from storage.contents import contents_of
from storage.errors import Corrupt, Fenced, ObjectMissing, SisaError, Unavailable
from storage.objects import NewName, ObjectKey, ObjectStore

SWEPT_PREFIXES: Final = ("shards/", "requests/", "tombstones/", "ended/")
"""Folders of the objects that the state refers to; anything else in them is left over."""

GONE: Final = (Corrupt, ObjectMissing)
"""Errors that a superseded writer may also see, because another writer has purged the object."""

RESERVED_SECONDS: Final = 3600.0
"""How long a name stays reserved for drafts that another process writes."""

_PASSES: Final = 3


class Drafts:
    """Objects that are written before any state names them; only one thread at a time writes them.

    Used as a context: ``with drafts as names`` gives names for the objects. At its end they are committed, or they are
    orphans. If another writer has taken over meanwhile, they are deleted, because that writer's sweep may have run
    before. The context then raises ``Fenced`` in place of any other error: objects that the other writer has purged
    are not damaged.
    """

    def __init__(
        self, new_name: NewName, store: ObjectStore, ledger: Ledger, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._new_name = new_name
        self._store = store
        self._ledger = ledger
        self._monotonic = monotonic
        self._lock = RLock()
        self._drawn: set[str] = set()  # changed under ``_lock``; ``without`` copies it, which is atomic
        self._reserved: dict[str, float] = {}
        """Names of drafts outside the context, and when each was reserved. Changed and copied in one step."""

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
        """Return the keys of objects that are not drafts now."""
        drawn = frozenset(self._drawn).union(self._names())
        return [key for key in keys if not any(name in key for name in drawn)]

    def reserve(self) -> str:
        """Return a name that stays reserved beyond the context, until it is given back or expires."""
        name = self._new_name()
        self._reserved[name] = self._monotonic()
        return name

    def are_reserved(self, keys: Iterable[ObjectKey]) -> bool:
        """Return whether all keys contain reserved names."""
        names = self._names()
        return all(any(name in key for name in names) for key in keys)

    def expire(self) -> bool:
        """End the reservations that have expired, and return whether there were any."""
        reserved, left = tuple(self._reserved), self._names()
        expired = [name for name in reserved if name not in left]
        for name in expired:
            self.give_back(name)
        return bool(expired)

    @property
    def expires_in(self) -> float | None:
        """Seconds until the first reservation expires; None: there is no reservation."""
        reserved = tuple(self._reserved.values())
        return max(0.0, min(reserved) + RESERVED_SECONDS - self._monotonic()) if reserved else None

    def give_back(self, name: str) -> None:
        """End a reservation."""
        self._reserved.pop(name, None)

    def tidy(self) -> None:
        """Delete drafts that are not needed, such as slices that turned out to be unchanged.

        A sweep would delete them too. But if another writer takes over before, it does not know them, and they may hold
        data that it erases.
        """
        with suppress(SisaError):  # the next writer's sweep deletes it
            self._take_back()

    def _names(self) -> list[str]:
        """Return the reserved names that have not expired: the drafts of a client that died must not stay."""
        reserved = tuple(self._reserved.items())
        now = self._monotonic() if reserved else 0.0
        return [name for name, since in reserved if now - since < RESERVED_SECONDS]

    def _draw(self) -> str:
        name = self._new_name()
        self._drawn.add(name)
        return name

    def _give_up(self, error: SisaError) -> None:
        """Delete the drafts and raise ``Fenced`` if another writer has taken over."""
        try:
            self._ledger.refuse_superseded()
        except Fenced as fenced:
            with suppress(SisaError):  # the next writer's sweep deletes it
                self._take_back()
            if not isinstance(error, Fenced):
                raise fenced from error

    def _take_back(self) -> None:
        """Delete the drafts that no committed state names.

        Drafts that were committed but are condemned by now stay: the other writer purges them, because its workers may
        still be reading them.
        """
        state = read_state(self._store)
        keep = state.referenced().union(state.condemned) if state is not None else frozenset()
        own = [key for key in _swept(self._store) if any(name in key for name in self._drawn)]
        self._store.delete_all([key for key in own if key not in keep])


def sweep(store: ObjectStore, ledger: Ledger, drafts: Drafts, events: Callable[[], Sequence[Event]] = tuple) -> Change:
    """Delete everything that is not part of the state, show that nothing is left, and record the ``events`` with that.

    Returns what the events change.
    Must run only while no worker is at work: then every object that is neither named by the state nor a draft is a
    leftover. The journal and older manifests are deleted as well, because they name objects that are gone.
    Raises ``Fenced`` when another writer has taken over, ``Unavailable`` when objects keep appearing.
    """
    # Objects that the state condemns are known without a listing, and usually there is nothing else.
    known = drafts.without(ledger.state.condemned)
    for attempt in range(_PASSES):
        left = _orphans(store, ledger, drafts) if attempt else known
        if (change := _passes(store, ledger, drafts, events, left)) is not None:
            return change
    with drafts:  # with a steady stream of requests there would always be new leftovers, so requests wait this time
        for _ in range(_PASSES):
            left = _orphans(store, ledger, drafts)
            if (change := _passes(store, ledger, drafts, events, left)) is not None:
                return change
    raise Unavailable(
        f"objects keep appearing in the store while it is purged, {len(left_over(store, ledger.state))} are left",
        "Look for another process that writes to this store, then run 'sisa train'.",
        store=store.location,
    )


def left_over(store: ObjectStore, state: FederationState) -> list[ObjectKey]:
    """Return the keys of objects that the state should name but does not. No drafts may be in progress."""
    return not_named(_swept(store), state)


def not_named(keys: Iterable[ObjectKey], state: FederationState) -> list[ObjectKey]:
    """Return those of ``keys`` that the state should name but does not."""
    keep = state.referenced()
    return [key for key in keys if key not in keep and key.startswith(SWEPT_PREFIXES)]


def _passes(
    store: ObjectStore,
    ledger: Ledger,
    drafts: Drafts,
    events: Callable[[], Sequence[Event]],
    left: Sequence[ObjectKey],
) -> Change | None:
    """Delete the leftovers ``left``; record the events, and return what they change, if no others are left."""
    if left:
        # After the listing: a writer that takes over claims its token before it writes anything else, so the listing
        # holds none of its objects (D3). Nor does a state of this writer name them.
        ledger.refuse_superseded()
        store.delete_all(left)
    with drafts:
        return ledger.compact(lambda: _is_clean(store, ledger, drafts), events)


def _orphans(store: ObjectStore, ledger: Ledger, drafts: Drafts) -> list[ObjectKey]:
    # The order matters: a listed object that is no longer a draft is in the state, which is read last, or an orphan.
    settled = drafts.without(list(_swept(store)))
    keep = ledger.state.referenced()
    return [key for key in settled if key not in keep]


def _swept(store: ObjectStore) -> Iterator[ObjectKey]:
    return (info.key for prefix in SWEPT_PREFIXES for info in store.list(prefix))


def _is_clean(store: ObjectStore, ledger: Ledger, drafts: Drafts) -> bool:
    """Remove the leftovers of unfinished writes, and return whether there were none.

    Only reserved drafts may be written now; a put of theirs starts again when its unfinished file is removed.
    """
    found = contents_of(store)
    if found.unfinished:
        ledger.refuse_superseded()
        store.remove_unfinished("")
        found = contents_of(store)
    if found.unfinished:
        return False
    return not drafts.without(not_named(found.sizes, ledger.state))
