"""Detects a state that was set back to an earlier moment, by comparing it with the receipts' log.

The log states each erasure that was carried out. A state that does not know one of them is older than the log: it was
restored from a copy, perhaps by somebody who wants to use erased data again. If the log was set back as well, only a
witness can show it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from coordinator.receipts.bundles import read_statement
from coordinator.requests import RequestState
from coordinator.state import FederationState, Spans, is_within, joined, others
from storage.errors import Conflict, Corrupt, ObjectMissing
from storage.objects import ObjectStore, object_key
from storage.transparency.check import has_entry, read_leaf
from storage.transparency.envelope import envelope_payload

_MOST_LISTED = 10

RESTORING_KEY: Final = object_key("control/restoring")
"""Exists while the store is being restored or moved here; holds the source."""


def refuse_restoring(store: ObjectStore) -> None:
    """Raise ``Conflict`` while the store is being restored: erasures newer than the backup may still be missing."""
    try:
        store.get(RESTORING_KEY)
    except ObjectMissing:
        return
    raise Conflict(
        "this store is being restored, or moved here, or that was interrupted: nothing is answered and nothing written",
        "Run the same 'sisa restore' or 'sisa move' again: it continues where it stopped.",
        store=store.location,
    )


def forgotten_by(store: ObjectStore, current: Callable[[], FederationState | None]) -> tuple[str, ...]:
    """Return the requests that the log states as carried out but that the state does not know as such.

    ``current`` reads the state. It is called again after entries that the first state does not know, because a request
    is carried out before its statement is made. Only such entries are read, and the number after them, so that the time
    does not grow with the log. Missing and unreadable entries are left to ``sisa log --check``.
    """
    state = current()
    if state is None:
        return ()
    found = dict(_unknown(store, state))
    if not found:
        return ()
    state = current()
    if state is None:
        return ()
    stated = _stated(state)
    left = (request_id for number, request_id in found.items() if not is_within(stated, number))
    return tuple(request_id for request_id in left if not _is_known(state, request_id))


def _unknown(store: ObjectStore, state: FederationState) -> Iterator[tuple[int, str]]:
    """Yield the log's entries that the state does not know, with the ids of their requests."""
    stated = _stated(state)
    last = stated[-1][1] if stated else -1
    for number in others(stated):
        if number > last and not has_entry(store, number):
            return
        leaf = read_leaf(store, number)
        if leaf is not None:
            yield number, str(_statement(leaf)["predicate"]["request"]["id"])


def _stated(state: FederationState) -> Spans:
    """Return the indexes of all statements that the state knows."""
    indexes = [each.receipt for each in state.requests]
    indexes += [*(each.receipt for each in state.readmissions), *(each.receipt for each in state.refuted)]
    return joined(state.ended.receipts, (index for index in indexes if index is not None))


def refuse_forgotten(store: ObjectStore, current: Callable[[], FederationState | None]) -> None:
    """Raise ``Corrupt`` when the log states erasures that the state does not know: it would use erased data.

    Raises ``Conflict`` while a restore is not finished.

    ``current`` as in ``forgotten_by``.
    """
    refuse_restoring(store)
    forgotten = forgotten_by(store, current)
    if not forgotten:
        return
    listed = ", ".join(forgotten[:_MOST_LISTED])
    more = f" and {len(forgotten) - _MOST_LISTED} more" if len(forgotten) > _MOST_LISTED else ""
    raise Corrupt(
        f"the state was put back to before what the receipts' log states: it does not know {listed}{more}",
        "Restore the store as a whole, or submit these requests again under their ids (docs/backup.md: Restore from"
        " a backup).",
        store=store.location,
    )


def _statement(leaf: bytes) -> dict[str, Any]:
    return read_statement(envelope_payload(leaf))


def _is_known(state: FederationState, request_id: str) -> bool:
    """Return whether the state knows what the statement is about, even if a crash kept it from recording that."""
    if state.readmission(request_id) is not None or state.refutation(request_id) is not None:
        return True
    request = state.request(request_id)
    return request is not None and request.state in {RequestState.PURGED, RequestState.REFUSED, RequestState.COMPLETE}
