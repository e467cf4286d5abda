"""What a receipt states about a request, gathered from the store."""

from __future__ import annotations

import json

from coordinator.engine.codec import decode_state
from coordinator.engine.ledger import Ledger
from coordinator.engine.lookup import load_object
from coordinator.engine.sweep import Drafts, left_over
from coordinator.receipts.evidence import ErasureEvidence, ScanEvidence, StoreEvidence, collect_evidence
from coordinator.state import FederationState
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
    found = list(store.list(""))
    findings = len(drafts.without(left_over(store, state))) + sum(1 for _ in store.unfinished(""))
    return ScanEvidence(objects=len(found), bytes=sum(info.payload_bytes for info in found), findings=findings)
