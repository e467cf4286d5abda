"""The sweep: what the committed state does not name is deleted, and shown to be gone (E12)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from threading import RLock
from types import TracebackType
from typing import Final

from coordinator.ledger import Ledger
from coordinator.ports import Names
from coordinator.state import FederationState
from storage.errors import Unavailable
from storage.objects import ObjectKey, ObjectStore

SWEPT_PREFIXES: Final = ("shards/", "requests/", "tombstones/")
"""Where objects live that the state refers to; anything else found there is left over."""

_PASSES: Final = 5


class Drafts:
    """Objects that are written before any state names them; one thread at a time writes such.

    Used as a context: ``with drafts as names`` gives names for the objects. At its end they are committed, or nobody's.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._lock = RLock()
        self._drawn: set[str] = set()

    def __enter__(self) -> Names:
        self._lock.acquire()
        return self._draw

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drawn.clear()
        self._lock.release()

    def without(self, keys: Iterable[ObjectKey]) -> list[ObjectKey]:
        """Return the keys that are no object being drafted right now."""
        drawn = frozenset(self._drawn)
        return [key for key in keys if not any(name in key for name in drawn)]

    def _draw(self) -> str:
        name = self._names()
        self._drawn.add(name)
        return name


def sweep(store: ObjectStore, ledger: Ledger, drafts: Drafts) -> None:
    """Delete everything that is not part of the state, and show that nothing is left.

    Only while no worker is at work: then what is neither referred to nor being drafted is left over, whoever wrote it.
    The journal and older manifests go as well: they name what is gone.
    Raises ``Fenced`` when another writer has taken over, ``Unavailable`` when objects keep appearing.
    """
    for _ in range(_PASSES):
        if left := _nobodys(store, ledger, drafts):
            # After the listing: a writer that takes over claims its token before it writes anything else, so that
            # nothing listed above is its own (D3).
            ledger.refuse_superseded()
            store.delete_all(left)
        with drafts:
            if ledger.compact(lambda: _is_clean(store, ledger)):
                return
    raise Unavailable(
        f"objects keep appearing in the store while it is purged, {len(left_over(store, ledger.state))} are left",
        "look for another process that writes to this store, then run 'sisa train'",
        store=store.location,
    )


def left_over(store: ObjectStore, state: FederationState) -> list[ObjectKey]:
    """Return the keys of objects that the state should name and does not; nobody may be drafting any."""
    keep = state.referenced()
    return [key for key in _swept(store) if key not in keep]


def _nobodys(store: ObjectStore, ledger: Ledger, drafts: Drafts) -> list[ObjectKey]:
    # In this order: what was listed and is no draft any more is in the state that is read last, or nobody's.
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
