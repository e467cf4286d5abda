"""What receipts state about requests, gathered from the store."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field

from coordinator.engine.codec import decode_state
from coordinator.engine.lookup import load_object
from coordinator.engine.sweep import Drafts, not_named
from coordinator.receipts.evidence import ErasureEvidence, ScanEvidence, StoreEvidence, collect_evidence
from coordinator.requests import ObjectRef
from coordinator.state import FederationState
from storage.contents import contents_of
from storage.objects import ObjectStore


@dataclass(slots=True)
class EvidenceOfBatch:
    """Gathers what was done for requests whose purge is over.

    Data that several of them share is read and computed once.
    """

    store: ObjectStore
    state: FederationState
    manifest: int
    """Number of the manifest written with the purge."""
    scan: ScanEvidence
    described: StoreEvidence
    _kept: Collection[str] = field(init=False)
    _before: tuple[ObjectRef, FederationState] | None = None
    """The state that was read last. Requests whose points were removed together follow one another, and share it."""

    def __post_init__(self) -> None:
        self._kept = self.state.referenced()

    def of(self, request_id: str) -> ErasureEvidence:
        """Return what was done for this request. Raises ``Corrupt`` when the state kept for it is damaged."""
        request = self.state.request(request_id)
        assert request is not None
        assert request.before is not None
        return collect_evidence(
            request_id,
            self._state_before(request.before),
            self.state,
            manifests={"purged": self.manifest},
            scan=self.scan,
            store=self.described,
            kept=self._kept,
        )

    def _state_before(self, ref: ObjectRef) -> FederationState:
        if self._before is None or self._before[0] != ref:
            self._before = (ref, decode_state(json.loads(load_object(self.store, ref))))
        return self._before[1]


def scan_store(store: ObjectStore, state: FederationState, drafts: Drafts) -> ScanEvidence:
    """Return the findings of a listing of the whole store; ``sisa verify`` also reads every object."""
    found = contents_of(store)
    left = drafts.without(not_named(found.sizes, state))
    return ScanEvidence(
        objects=len(found.sizes),
        bytes=sum(found.sizes.values()),
        findings=len(left) + len(found.unfinished),
    )
