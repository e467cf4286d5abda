"""Regenerates the golden files of receipts and their log: ``python -m tests.golden.regenerate_receipts``.

If a file differs afterwards, a format that people keep for years has changed: raise ``format_version`` and keep reading
the old one. Keys, times and names are fixed, and Ed25519 signatures are deterministic.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from coordinator.receipts.evidence import (
    ErasureEvidence,
    KeyringEvidence,
    ObjectEvidence,
    ScanEvidence,
    ShardEvidence,
    StoreEvidence,
    SupersededCheckpoint,
)
from coordinator.receipts.issuer import Registrar
from coordinator.receipts.openings import commitment
from coordinator.receipts.statements import NothingFound, Readmitted
from coordinator.requests import ErasureRequest, Found, Readmission, RequestState, Similar
from shards.lineage import NumericsProfile
from shards.specification import ShardId, SliceIndex
from storage.digests import Sha256, sha256
from storage.objects import object_key
from storage.stores.memory import MemoryStore
from tests.doubles.seeds import CountingSeeds
from tests.doubles.time_and_names import CountingNames, VirtualClock

FOLDER = Path(__file__).parent / "receipts"


def digest(text: str) -> Sha256:
    """A digest that says what it stands for only here."""
    return sha256(text.encode())


EVIDENCE = ErasureEvidence(
    federation="fashion",
    request_id="erase-0001",
    request_digest=digest("keyed digests"),
    subjects=2,
    ids=1,
    points=7,
    unknown=1,
    state=RequestState.PURGED,
    due_at="2026-01-31T00:00:00+00:00",
    times={
        "accepted": "2026-01-01T00:00:00+00:00",
        "planned": "2026-01-01T00:00:02+00:00",
        "quarantined": "2026-01-01T00:00:02+00:00",
        "retraining": "2026-01-01T00:00:05+00:00",
        "published": "2026-01-01T00:01:00+00:00",
        "purged": "2026-01-01T00:01:01+00:00",
    },
    shared_with=0,
    shards=(
        ShardEvidence(
            shard=ShardId(3),
            slices=(SliceIndex(2),),
            points_before=600,
            points_after=593,
            lineages_before=(digest("lineage 2 before"), digest("lineage 3 before")),
            lineages_after=(digest("lineage 2 after"), digest("lineage 3 after")),
            superseded=(
                SupersededCheckpoint(slice=SliceIndex(2), sha256=digest("object 2"), digest=digest("parameters 2")),
                SupersededCheckpoint(slice=SliceIndex(3), sha256=digest("object 3"), digest=digest("parameters 3")),
            ),
            constituent=digest("parameters 3 after"),
        ),
    ),
    purged=(
        ObjectEvidence(key=object_key("requests/0001.digests"), sha256=digest("names"), what="names"),
        ObjectEvidence(key=object_key("shards/0003/checkpoint-2"), sha256=digest("object 2"), what="checkpoint"),
        ObjectEvidence(key=object_key("shards/0003/checkpoint-3"), sha256=digest("object 3"), what="checkpoint"),
        ObjectEvidence(key=object_key("shards/0003/slice-2"), sha256=digest("slice 2"), what="slice"),
    ),
    keyrings=(KeyringEvidence(shard=ShardId(3), destroyed=4, current=5),),
    generation=9,
    floor=8,
    profile=NumericsProfile(
        torch="2.13.0+cpu", threads=1, device="cpu/x86_64/avx2", dtype="float32", deterministic=True, packing="none"
    ),
    manifests={"quarantined": 41, "published": 44, "purged": 45},
    scan=ScanEvidence(objects=58, bytes=1234567, findings=0),
    store=StoreEvidence(kind="folder", properties={"encrypted": True, "versioned": False}),
)

RECTIFIED = replace(EVIDENCE, request_id="rectify-0001", is_rectification=True, subjects=0, ids=8)

SALT = "00112233445566778899aabbccddeeff"

NOTHING_FOUND = NothingFound(
    federation="fashion",
    request=ErasureRequest(
        request_id="erase-0002",
        body=digest("other keyed digests"),
        commitment=commitment(SALT, subjects=["ann", " Zürich 数"], ids=["17"]),
        names=None,
        subjects=2,
        ids=1,
        found=Found(unknown=3, similar=Similar(points=4, subjects=2)),
        received_at="2026-01-01T00:00:00+00:00",
        due_at="2026-01-31T00:00:00+00:00",
        state=RequestState.REFUSED,
        times={"accepted": "2026-01-01T00:00:00+00:00", "refused": "2026-01-01T00:00:02+00:00"},
    ),
    points=6000,
    generation=9,
    form="trimmed",
    store=StoreEvidence(kind="folder", properties={"encrypted": True, "versioned": False}),
)

READMITTED = Readmitted(
    federation="fashion",
    readmission=Readmission(
        request_id="back-0001",
        body=digest("readmission"),
        subjects=2,
        without_ids=1,
        reason="they asked for it",
        at="2026-02-01T00:00:00+00:00",
    ),
)


def golden() -> dict[str, bytes]:
    """The golden files by name: what a registrar with fixed keys, names and times writes."""
    store = MemoryStore("golden-receipts")
    store.forget()
    registrar = Registrar(store, VirtualClock(), CountingNames("golden"))
    object.__setattr__(registrar.keys, "seeds", CountingSeeds("golden"))
    bundle = registrar.issue(EVIDENCE)
    nothing_found, readmitted, rectified = (registrar.issue(each) for each in (NOTHING_FOUND, READMITTED, RECTIFIED))
    kept = {
        "bundle-v1.json": bundle.to_bytes(),
        "nothing-found-v1.json": nothing_found.to_bytes(),
        "readmission-v1.json": readmitted.to_bytes(),
        "rectification-v1.json": rectified.to_bytes(),
        "statement-v1.json": store.get(object_key(f"receipts/envelopes/{digest('erase-0001')}")).payload,
        "entry-v1.json": store.get(object_key(f"log/entries/{0:020d}")).payload,
        "checkpoint-v1.txt": store.get(object_key(f"log/checkpoint/{1:020d}")).payload,
        "origin-v1.json": store.get(object_key("log/origin")).payload,
        "public-key-v1.pem": bundle.keys[0].to_text().encode(),
        "private-key-v1.json": store.get(object_key(f"control/signing/receipts/{1:020d}")).payload,
    }
    store.forget()
    return kept


def regenerate() -> None:
    """Write every golden file."""
    FOLDER.mkdir(exist_ok=True)
    for name, payload in golden().items():
        (FOLDER / name).write_bytes(payload)


if __name__ == "__main__":
    regenerate()
