"""Corrected values: the digests kept of old values, and the drafts of corrections not carried out yet. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from coordinator.decisions.lifecycle import each_request
from coordinator.requests import ErasureRequest, PlacedRows
from coordinator.state import FederationState
from storage.objects import ObjectKey


def with_values(
    state: FederationState, corrected: tuple[PlacedRows, ...], drafts: Mapping[str, tuple[PlacedRows, ...]]
) -> FederationState:
    """Return the state with these digests of old contents, and these drafts of open requests."""

    def redrafted(request: ErasureRequest) -> ErasureRequest:
        if request.correction is None or request.request_id not in drafts:
            return request
        return replace(request, correction=replace(request.correction, drafts=drafts[request.request_id]))

    after = each_request(replace(state, corrected=corrected), redrafted)
    gone = (*objects_gone(state.corrected, after.corrected), *objects_gone(_drafts(state), _drafts(after)))
    return replace(after, condemned=(*after.condemned, *gone))


def objects_gone(before: Iterable[PlacedRows], after: Iterable[PlacedRows]) -> tuple[ObjectKey, ...]:
    """Return the objects of ``before`` that ``after`` does not have."""
    kept = {part.key for rows in after for part in rows.record.parts}
    return tuple(part.key for rows in before for part in rows.record.parts if part.key not in kept)


def _drafts(state: FederationState) -> tuple[PlacedRows, ...]:
    return tuple(rows for request in state.requests for rows in request.drafts)
