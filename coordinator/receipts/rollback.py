"""A state that was put back: the receipts' log shows it, as long as the log was not put back with it.

The log states each erasure that was carried out. A state that does not know one of them is older than the log:
restored from a copy, or by somebody who wants to serve whom they erased. The store itself can prove that much.
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
"""There while the store is being restored or moved here: from where."""


def refuse_restoring(store: ObjectStore) -> None:
    """Raise ``Conflict`` while the store is being restored: erasures newer than the backup may still be missing."""
    try:
        store.get(RESTORING_KEY)
    except ObjectMissing:
        return
    raise Conflict(
        "this store is being restored, or moved here, or that was interrupted: nothing is answered and nothing written",
        "Run the same 'sisa restore' or 'sisa move' again: it goes on where it stopped.",
        store=store.location,
    )


def forgotten_by(store: ObjectStore, current: Callable[[], FederationState | None]) -> tuple[str, ...]:
    """Return the requests whose statements are in the log, and that the state does not know as carried out.

    ``current`` reads the state, and reads it again after entries were read that it does not know: a statement comes
    after what it states. Only such entries are read, and the place where the next one would be, so that this does not
    take longer as the log grows. Entries that are missing or cannot be read are for ``sisa log --check`` to tell.
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
        leaf = read_leaf(store, number)
        if leaf is not None:
            yield number, str(_statement(leaf)["predicate"]["request"]["id"])
        elif number > last and not has_entry(store, number):
            return


def _stated(state: FederationState) -> Spans:
    """Return the indexes of all statements that the state knows."""
    indexes = [each.receipt for each in state.requests]
    indexes += [*(each.receipt for each in state.readmissions), *(each.receipt for each in state.refuted)]
    return joined(state.ended.receipts, (index for index in indexes if index is not None))


def refuse_forgotten(store: ObjectStore, current: Callable[[], FederationState | None]) -> None:
    """Raise ``Corrupt`` when the log states erasures that the state does not know: it would serve whom they erased.

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
    """Return whether the state has what the statement is about; a crash may have come before it noted the statement."""
    if state.readmission(request_id) is not None or state.refutation(request_id) is not None:
        return True
    request = state.request(request_id)
    return request is not None and request.state in {RequestState.PURGED, RequestState.REFUSED, RequestState.COMPLETE}
