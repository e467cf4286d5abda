"""A state that was put back: the receipts' log shows it, as long as the log was not put back with it.

The log states each erasure that was carried out. A state that does not know one of them is older than the log:
restored from a copy, or by somebody who wants to serve whom they erased. The store itself can prove that much.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from coordinator.receipts.bundles import read_statement
from coordinator.requests import RequestState
from coordinator.state import FederationState
from storage.errors import Corrupt
from storage.objects import ObjectStore
from storage.transparency.check import entry_numbers, read_leaf
from storage.transparency.envelope import envelope_payload

_MOST_TOLD = 10


def forgotten_by(store: ObjectStore, current: Callable[[], FederationState | None]) -> tuple[str, ...]:
    """Return the requests whose statements are in the log, and that the state does not know as carried out.

    ``current`` reads the state, after the log's entries are listed here: a statement comes after what it states.
    Entries that cannot be read are for ``sisa log --check`` to tell.
    """
    numbers = entry_numbers(store)
    state = current() if numbers else None
    if state is None:
        return ()
    stated = {each.receipt for each in state.requests} | {each.receipt for each in state.readmissions}
    stated |= {each.receipt for each in state.refuted}
    left = (number for number in numbers if number not in stated and not state.ended.has_receipt(number))
    leaves = (read_leaf(store, number) for number in left)
    ids = (str(_statement(leaf)["predicate"]["request"]["id"]) for leaf in leaves if leaf is not None)
    return tuple(request_id for request_id in ids if not _is_known(state, request_id))


def refuse_forgotten(store: ObjectStore, current: Callable[[], FederationState | None]) -> None:
    """Raise ``Corrupt`` when the log states erasures that the state does not know: it would serve whom they erased.

    ``current`` as in ``forgotten_by``.
    """
    forgotten = forgotten_by(store, current)
    if not forgotten:
        return
    told = ", ".join(forgotten[:_MOST_TOLD])
    more = f" and {len(forgotten) - _MOST_TOLD} more" if len(forgotten) > _MOST_TOLD else ""
    raise Corrupt(
        f"the state was put back to before what the receipts' log states: it does not know {told}{more}",
        "restore the store as a whole, or submit these requests again under their ids (RUNBOOK: Restore from a backup)",
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
