"""What a receipt states about a request, gathered from the store."""

from __future__ import annotations

import json

from coordinator.engine.codec import decode_state
from coordinator.engine.ledger import Ledger
from coordinator.engine.lookup import load_object
from coordinator.engine.sweep import Drafts, not_named
from coordinator.receipts.evidence import ErasureEvidence, ScanEvidence, StoreEvidence, collect_evidence
from coordinator.state import FederationState
from storage.contents import contents_of
from storage.objects import ObjectStore


def evidence_of(
    store: ObjectStore, ledger: Ledger, request_id: str, scan: ScanEvidence, described: StoreEvidence
) -> ErasureEvidence:
    """Return what was done for a request whose purge is over."""
    request = ledger.state.request(request_id)
    assert request is not None
    assert request.before is not None
    return collect_evidence(
        request_id,
        decode_state(json.loads(load_object(store, request.before))),
        ledger.state,
        manifests={"purged": ledger.manifest},
        scan=scan,
        store=described,
    )


def scan_store(store: ObjectStore, state: FederationState, drafts: Drafts) -> ScanEvidence:
    """Return the findings of a listing of the whole store; ``sisa verify`` also reads every object."""
    found = contents_of(store)
    left = drafts.without(not_named((info.key for info in found.objects), state))
    return ScanEvidence(
        objects=len(found.objects),
        bytes=sum(info.payload_bytes for info in found.objects),
        findings=len(left) + len(found.unfinished),
    )
