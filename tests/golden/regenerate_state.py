"""Regenerates the golden files of states, events and tombstones: ``python -m tests.golden.regenerate_state``.

If a file differs afterwards, a stored format has changed: raise ``format_version`` and keep reading the old one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from coordinator.decisions.events import (
    EndedKept,
    ErasureAccepted,
    HistoryKept,
    HoldoutMeasured,
    Ingested,
    PointsRemoved,
    SubjectsReadmitted,
    ValuesKept,
)
from coordinator.delays import EndedPause, Extension, FailedAttempt, Pause
from coordinator.effects import ErasureEffect, HoldoutMeasure
from coordinator.engine.codec import EndedBucket, encode_ended, encode_event, encode_state
from coordinator.engine.history import keep_old
from coordinator.requests import (
    Correction,
    Cost,
    ErasureRequest,
    Found,
    InlineDigests,
    ObjectRef,
    PlacedRows,
    Readmission,
    RequestState,
    Segment,
    Similar,
)
from coordinator.state import DataState, EndedRequests, FederationState, GenerationRecord, ShardState
from shards.lineage import Base, CheckpointRecord, Configuration, NumericsProfile
from shards.routing import Naming, PointDigest, SliceId, SubjectDigest
from shards.slices.files import EMPTY_SLICE, PartRecord, SliceRecord
from shards.slices.ingest import FeatureLayout
from shards.specification import ShardId, SliceIndex
from shards.tombstones import DigestSet
from storage.digests import Sha256, canonical_json, sha256
from storage.objects import object_key
from storage.stores.memory import MemoryStore

FOLDER = Path(__file__).parent / "states"
AT = "2026-01-01T00:00:00.000+00:00"
LATER = "2026-01-03T00:00:00.000+00:00"
DUE = "2026-02-01T00:00:00.000+00:00"


def digest(text: str) -> Sha256:
    """A digest that says what it stands for only here."""
    return sha256(text.encode())


TOMBSTONES = DigestSet.of(
    subjects=[SubjectDigest(bytes(range(16, 32))), SubjectDigest(bytes(range(16)))],
    points=[PointDigest(bytes(range(240, 256)))],
)

_SEGMENT = Segment(ref=ObjectRef(key=object_key("tombstones/0001.digests"), sha256=digest("segment")), digests=3)
_SLICE = SliceRecord(
    parts=(
        PartRecord(
            key=object_key("shards/0000/slices/0001/0001.parquet"), sha256=digest("part"), points=6, payload_bytes=512
        ),
    ),
    points=6,
    points_digest=digest("points"),
    content_digest=digest("content"),
    similar=2,
)
_HELD_OUT = replace(
    _SLICE, parts=(replace(_SLICE.parts[0], key=object_key("shards/0001/slices/0001/0002.parquet")),), similar=0
)
_READMISSION = Readmission(
    request_id="back-1", body=digest("back"), subjects=2, without_ids=1, reason="they asked", at=AT, receipt=1
)
_MISSING = InlineDigests.of(DigestSet.of(subjects=[SubjectDigest(bytes(range(32, 48)))]))

STATE = FederationState(
    name="fashion",
    settings={"training": {"epochs": 2}},
    key_digest=digest("key"),
    shards=(ShardState(slices=(_SLICE, EMPTY_SLICE), serving=0),),
    data=DataState(
        layout=FeatureLayout(width=2, dtype="float32", features=("x0", "x1")),
        inventory=(),
        taken={"label": "label", "features": ["x*"], "classes": ["a", "b"]},
        refused=3,
        by_id=1,
        respelt=2,
    ),
    generation=2,
    naming=Naming(form="email", by_skeleton=True),
    segments=(_SEGMENT,),
    readmissions=(_READMISSION,),
    history=(
        GenerationRecord(number=1, since=AT, until="2026-01-02T00:00:00.000+00:00", serving=(2,)),
        GenerationRecord(number=2, since="2026-01-02T00:00:00.000+00:00", until="", serving=(0,)),
    ),
    requests=(
        ErasureRequest(
            request_id="er-1",
            body=digest("names"),
            include_similar=True,
            commitment=digest("commitment"),
            names=None,
            by="token-1",
            subjects=2,
            ids=1,
            found=Found(unknown=1, missing=_MISSING, similar=Similar(points=4, subjects=2)),
            received_at=AT,
            due_at=AT,
            state=RequestState.QUARANTINED,
            times={"accepted": AT, "planned": AT, "quarantined": AT},
        ),
    ),
)

REMOVED = PointsRemoved(
    request_id="er-1",
    removed={SliceId(ShardId(0), SliceIndex(1)): 2},
    slices={SliceId(ShardId(0), SliceIndex(1)): _SLICE},
    tombstones=None,
    segments=(_SEGMENT,),
    before=ObjectRef(key=object_key("requests/0001.before"), sha256=digest("before")),
    unknown=1,
    missing=_MISSING,
    similar=Similar(points=4, subjects=2),
    at=AT,
)
LET_BACK = SubjectsReadmitted(readmission=_READMISSION, tombstones=None, segments=(_SEGMENT,), at=AT)
KEPT = HistoryKept(through=64)

_BUCKET_REF = ObjectRef(key=object_key("ended/0001.json"), sha256=digest("bucket"))
ENDED_STATE = replace(
    STATE,
    ended=EndedRequests(
        complete=2,
        refused=1,
        cancelled=1,
        readmissions=1,
        expected=Cost(point_epochs=40, seconds=2.5),
        spent=Cost(point_epochs=48, seconds=3.5),
        purged_at=AT,
        numbers=((0, 2), (4, 4)),
        receipts=((0, 3),),
        missing=(object_key("requests/0002.digests"),),
        buckets=(_BUCKET_REF, None),
    ),
)
ENDED_KEPT = EndedKept(request_ids=("er-0", "back-0"), buckets=(_BUCKET_REF, None))
BUCKET = EndedBucket(
    requests=((3, replace(STATE.requests[0], state=RequestState.COMPLETE, receipt=2)),), readmissions=(_READMISSION,)
)


def _request(number: int, **fields: Any) -> ErasureRequest:
    return ErasureRequest(
        request_id=f"er-{number}",
        body=digest(f"names {number}"),
        names=None,
        subjects=2,
        ids=1,
        received_at=AT,
        due_at=DUE,
        **fields,
    )


REQUESTS_STATE = replace(
    ENDED_STATE,
    requests=(
        _request(
            1,
            commitment=digest("commitment"),
            by="token-1",
            pause=Pause(reason="court", held_at=LATER),
            times={"accepted": AT},
        ),
        _request(
            2,
            state=RequestState.RETRAINING,
            times={"accepted": AT},
            failure=FailedAttempt(reason="no room: make some", at=LATER),
            holds=(EndedPause(reason="court", held_at=AT, released_at=LATER, previous_due_at=DUE),),
            extension=Extension(at=LATER, reason="many requests", previous_due_at=DUE),
            before=ObjectRef(key=object_key("requests/0001.before"), sha256=digest("before")),
            found=Found(
                from_slices={ShardId(2): SliceIndex(2), ShardId(11): SliceIndex(1)},
                points=7,
                unknown=1,
                missing=_MISSING,
                similar=Similar(points=4, subjects=2),
                expected=Cost(point_epochs=40, seconds=2.5),
            ),
            spent=Cost(point_epochs=8, seconds=0.5),
        ),
        _request(
            3,
            state=RequestState.REFUSED,
            reason="nobody",
            commitment=digest("commitment"),
            receipt=3,
            found=Found(unknown=3, similar=Similar(points=2, subjects=1)),
            times={"accepted": AT, "refused": LATER},
        ),
        _request(4, state=RequestState.CANCELLED, reason="by mistake", times={"accepted": AT, "cancelled": LATER}),
        _request(
            5,
            state=RequestState.COMPLETE,
            receipt=0,
            found=Found(from_slices={ShardId(0): SliceIndex(1)}, points=1),
            times={"accepted": AT, "complete": LATER},
        ),
    ),
)
ARRIVED_PAUSED = ErasureAccepted(
    request=_request(6, commitment=digest("commitment"), pause=Pause(reason="court", held_at=AT))
)

_ROWS = PlacedRows(place=SliceId(ShardId(0), SliceIndex(1)), record=_SLICE)
_PROPOSED = _request(7, correction=Correction(drafts=(_ROWS,), read_as=digest("columns")), times={"accepted": AT})
PROPOSED = ErasureAccepted(request=_PROPOSED)
CORRECTED_STATE = replace(
    STATE,
    data=DataState(
        layout=FeatureLayout(width=2, dtype="float32", features=("x0", "x1")),
        inventory=(),
        taken={"label": "label", "features": ["x*"], "classes": ["a", "b"]},
        refused=0,
        outdated=2,
    ),
    corrected=(_ROWS,),
    requests=(
        _PROPOSED,
        _request(
            8,
            correction=Correction(),
            state=RequestState.COMPLETE,
            receipt=0,
            found=Found(from_slices={ShardId(0): SliceIndex(1)}, points=1),
            times={"accepted": AT, "complete": LATER},
        ),
    ),
)
_PROFILE = NumericsProfile(torch="", threads=1, device="any", dtype="int64", deterministic=True, packing="none")
_FOREST = Configuration(
    settings=digest("settings"), model_code=digest("code"), seed=7, profile=_PROFILE, learner="forest"
)
_LEARNED = CheckpointRecord(
    slice=SliceIndex(1),
    key=object_key("shards/0000/checkpoints/0001/c1.safetensors"),
    sha256=digest("checkpoint"),
    digest=digest("forest"),
    lineage=digest("lineage"),
    payload_bytes=9,
    steps=3,
    seconds=0.5,
)
LEARNER_STATE = replace(
    STATE,
    configuration=_FOREST,
    shards=(ShardState(slices=(_SLICE, EMPTY_SLICE), base=Base(slices=(_SLICE, _SLICE), checkpoint=_LEARNED)),),
)
VALUES_KEPT = ValuesKept(corrected=(_ROWS,), drafts={"er-7": (_ROWS,)})
HOLDOUT_STATE = replace(
    STATE,
    holdout=(_HELD_OUT, EMPTY_SLICE),
    requests=(
        _request(7, state=RequestState.COMPLETE, receipt=4, found=Found(points=3, held_out=3), times={"accepted": AT}),
    ),
)
HOLDOUT_REMOVED = replace(REMOVED, removed={}, slices={}, held_out=3, holdout=(_HELD_OUT, EMPTY_SLICE))
assert STATE.data is not None
_MEASURE = HoldoutMeasure(
    generation=2, points=3, metrics={"accuracy": 0.666667}, per_class={"a": 0.5, "b": None}, at=AT
)
MEASURED_STATE = replace(
    HOLDOUT_STATE,
    measure=replace(_MEASURE, generation=3),
    is_measured=True,
    requests=(
        replace(
            HOLDOUT_STATE.requests[0],
            effect=ErasureEffect(before=_MEASURE, after=replace(_MEASURE, generation=3), margin=0.05),
        ),
    ),
)
MEASURED = HoldoutMeasured(measure=_MEASURE, margin=0.05, at=AT)
HOLDOUT_INGESTED = Ingested(data=STATE.data, slices={}, holdout=(_HELD_OUT, EMPTY_SLICE), at=AT)

EARLIER = ("state-v3.json", "state-v4.json", "bucket-v4.json", "requests-v4.json", "arrived-paused-v3.json")
"""Files with requests as they were written until format 4; this version only reads them."""


def _history() -> bytes:
    """Return the object that the oldest of very many generations are written to."""
    store = MemoryStore("golden-history")
    store.forget()
    many = tuple(GenerationRecord(number=n, since=AT, until=AT, serving=(n % 3, 2)) for n in range(1, 129))
    keep_old(store, FederationState(name="f", settings={}, key_digest=digest("key"), shards=(), history=many))
    (info,) = store.list("")
    payload = store.get(info.key).payload
    store.forget()
    return payload


def golden() -> dict[str, bytes]:
    """Return the golden files that this version writes, by name."""
    return {
        "points-removed-v3.json": canonical_json(encode_event(REMOVED)),
        "subjects-readmitted-v3.json": canonical_json(encode_event(LET_BACK)),
        "history-kept-v3.json": canonical_json(encode_event(KEPT)),
        "ended-kept-v4.json": canonical_json(encode_event(ENDED_KEPT)),
        "state-v5.json": canonical_json(encode_state(REQUESTS_STATE)),
        "arrived-paused-v5.json": canonical_json(encode_event(ARRIVED_PAUSED)),
        "bucket-v5.json": canonical_json(encode_ended(BUCKET)),
        "corrected-v5.json": canonical_json(encode_state(CORRECTED_STATE)),
        "learner-v5.json": canonical_json(encode_state(LEARNER_STATE)),
        "proposed-v5.json": canonical_json(encode_event(PROPOSED)),
        "values-kept-v5.json": canonical_json(encode_event(VALUES_KEPT)),
        "state-v6.json": canonical_json(encode_state(HOLDOUT_STATE)),
        "points-removed-v6.json": canonical_json(encode_event(HOLDOUT_REMOVED)),
        "measured-state-v6.json": canonical_json(encode_state(MEASURED_STATE)),
        "holdout-measured-v6.json": canonical_json(encode_event(MEASURED)),
        "ingested-v6.json": canonical_json(encode_event(HOLDOUT_INGESTED)),
        "history-v1.json": _history(),
        "tombstones-v1.digests": TOMBSTONES.to_bytes(),
    }


def regenerate() -> None:
    """Write every golden file but the earlier ones."""
    FOLDER.mkdir(exist_ok=True)
    for name, payload in golden().items():
        (FOLDER / name).write_bytes(payload)


if __name__ == "__main__":
    regenerate()
