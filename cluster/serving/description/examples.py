"""An example of every call for the API's description: what is sent, and what comes back. The people are invented.

Answers are made of the classes that describe them, so that an example cannot lack a field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from cluster.results.federation import ErasureAnswer, ReadmissionAnswer, SubjectFound, SubjectsFound
from cluster.results.sites import SitesStatus, SiteStatus
from cluster.results.traces import SubjectTrace, SubjectTraces, TracedCheckpoint, TracedGeneration, TracedSlice
from coordinator.effects import HoldoutMeasure
from coordinator.requests import Cost, Similar
from coordinator.sites import SiteStanding, TookPart
from coordinator.status import ConstituentStatus, FederationStatus, RequestStatus
from shards.data.sources import glob_like
from shards.encoders import (
    CategoryEncoder,
    DateEncoder,
    Encoder,
    HashEncoder,
    ImageEncoder,
    TokensEncoder,
    TruthEncoder,
    WordsEncoder,
)
from shards.learner_kinds.guarantees import EXACT
from shards.specification import DataSettings, ShardId
from shards.targets import Class, Cluster, MultiLabel, Recommend
from storage.digests import Sha256
from storage.transparency.check import LogGrowth

_JSON: Final = "application/json"
_RECEIVED: Final = "2026-03-02T09:15:00.000+00:00"
_DUE: Final = "2026-04-01T09:15:00.000+00:00"
_DIGEST: Final = Sha256("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")
_REQUEST: Final = "er-6a2b1fbd4c0e"
_SITE: Final = "north"
_MEMBERS: Final = {"generation": 12, "constituents": 5, "shards": 5, "guarantee": str(EXACT)}
_PLACEHOLDER_IMAGE: Final = "iVBORw0KGgo="


def examples_of(data: DataSettings, *, sites: bool) -> dict[str, dict[str, Any]]:
    """Return, by method and path such as ``POST /v1/erasures``, examples of the call.

    ``request`` holds bodies by name, ``answer`` the body of the answer by media type. ``sites``: of a federation of
    sites.
    """
    at = {"site": _SITE} if sites else {}
    people = {**at, "subjects": ["maria.lopez@example.org", "j.smith@example.org"]}
    reason = {"reason": "legal hold, case 2026-014"}
    return {
        "POST /v1/predictions": {"request": _asked(data), "answer": {_JSON: _predictions(data, sites=sites)}},
        "POST /v1/erasures": {
            "request": {
                "people": people,
                "single data points": {**at, "ids": [1042, 1043]},
                "paused from the start": {**people, "hold": reason["reason"]},
            },
            "answer": {_JSON: {**at, **asdict(_accepted())}},
        },
        "GET /v1/erasures/{request_id}": {"answer": {_JSON: {**at, **asdict(_complete())}}},
        "GET /v1/erasures/{request_id}/receipt": {"answer": {_JSON: _RECEIPT}},
        "POST /v1/erasures/{request_id}/hold": {"request": {"reason": reason}, "answer": {_JSON: asdict(_held())}},
        "POST /v1/erasures/{request_id}/release": {"request": {"nothing": {}}, "answer": {_JSON: asdict(_open())}},
        "POST /v1/erasures/{request_id}/extend": {
            "request": {"30 days": {"days": 30, "reason": "many requests at once"}},
            "answer": {_JSON: asdict(_open())},
        },
        "POST /v1/erasures/{request_id}/cancel": {
            "request": {"reason": {"reason": "withdrawn by the person who asked"}},
            "answer": {_JSON: asdict(_cancelled())},
        },
        "POST /v1/subjects:lookup": {
            "request": {"people": {"subjects": ["maria.lopez@example.org", "nobody@example.org"]}},
            "answer": {_JSON: asdict(_FOUND)},
        },
        "POST /v1/subjects:trace": {
            "request": {"people": {"subjects": ["maria.lopez@example.org"]}},
            "answer": {_JSON: asdict(_TRACES)},
        },
        "POST /v1/subjects:readmit": {
            "request": {
                "people": {"subjects": ["maria.lopez@example.org"], "reason": "customer again since 2026-05-02"}
            },
            "answer": {_JSON: asdict(_READMITTED)},
        },
        "GET /v1/status": {"answer": {_JSON: asdict(_sites_status() if sites else _status())}},
        "GET /v1/standing": {"answer": {_JSON: asdict(_STANDING)}},
        "GET /v1/measure": {"answer": {_JSON: asdict(_MEASURE)}},
        "GET /v1/checkpoints/{shard}/{sha256}": {"answer": {}},
        "GET /v1/log/checkpoint": {"answer": {_JSON: asdict(_GROWTH)}},
        "GET /v1/keys": {"answer": {"text/plain": _KEY}},
        "GET /healthz": {"answer": {_JSON: {"status": "ok"}}},
    }


def with_examples(operation: dict[str, Any], example: Mapping[str, Any]) -> None:
    """Put a call's examples into its part of the OpenAPI document."""
    body = operation.get("requestBody", {}).get("content", {}).get(_JSON)
    if body is not None:
        body["examples"] = {name: {"summary": name, "value": value} for name, value in example["request"].items()}
    for status in ("200", "202"):
        contents = operation["responses"].get(status, {}).get("content", {})
        for media_type, value in example["answer"].items():
            if media_type in contents:
                contents[media_type]["example"] = value


def _asked(data: DataSettings) -> dict[str, Any]:
    """Return bodies that ask for predictions: of this federation's columns where they are named one by one."""
    if any(glob_like(name) for name in data.features):
        rows: list[Any] = [[0.5, 0.25, 1.0], [0.0, 0.75, 0.5]]
        return {"points": {"points": [{"id": number, "features": row} for number, row in enumerate(rows, 1)]}}
    row = {name: _cell(data.encoders.of(name)) for name in data.features}
    return {
        "points": {"points": [{"id": 1, "features": row}]},
        "columns": {"columns": {data.id: [1, 2], **{name: [value, value] for name, value in row.items()}}},
    }


def _cell(encoder: Encoder | None) -> Any:
    """Return a value that a column takes."""
    match encoder:
        case CategoryEncoder():
            return encoder.categories[0]
        case TruthEncoder():
            return encoder.true[0]
        case DateEncoder():
            return "2026-01-31" if encoder.format is None else encoder.since
        case WordsEncoder() | TokensEncoder() | HashEncoder():
            return "some words"
        case ImageEncoder():
            return _PLACEHOLDER_IMAGE
        case _:
            return 0.5


def _predictions(data: DataSettings, *, sites: bool) -> dict[str, Any]:
    facts: dict[str, Any] = dict(_MEMBERS)
    if sites:
        facts |= {"sites": [asdict(TookPart(site=_SITE, generation=12, constituents=5, shards=5))]}
        facts |= {"absent": {"south": "it does not answer"}}
    labels = (data.label,) if isinstance(data.label, str) else (data.label or ())
    answer: dict[str, Any] = {"prediction": 12.5, "spread": 0.25}
    match data.target:
        case Class.kind:
            first, *others = data.classes
            facts["classes"] = list(data.classes)
            rest = round(0.1 / len(others), 4)
            answer = {"prediction": first, "probabilities": [0.9, *(rest for _ in others)]}
        case MultiLabel.kind:
            answer = {"labels": list(labels[:1]), "probabilities": dict.fromkeys(labels, 0.9)}
        case Cluster.kind:
            answer = {"prediction": 2, "distance": 0.31}
        case Recommend.kind:
            answer = {"items": [{"item": data.features[0], "score": 0.82}]}
        case _ if len(labels) > 1:
            answer = {"prediction": dict.fromkeys(labels, 12.5), "spread": dict.fromkeys(labels, 0.25)}
    return {**facts, "predictions": [{"id": 1, **answer}]}


def _request(state: str, **more: Any) -> dict[str, Any]:
    return {
        "request_id": _REQUEST,
        "state": state,
        "stage": state,
        "subjects": 2,
        "ids": 0,
        "points": 0,
        "unknown": 0,
        "shards": (),
        "received_at": _RECEIVED,
        "due_at": _DUE,
        "overdue": False,
        "reason": "",
        "times": {"accepted": _RECEIVED},
        "held": "",
        "held_at": "",
        "holds": (),
        "extensions": (),
        "failed_at": "",
        "expected": None,
        "spent": Cost(),
        **more,
    }


def _accepted() -> ErasureAnswer:
    return ErasureAnswer(**_request("accepted", salt="c2FsdCBvZiB0aGUgcmVxdWVzdA=="))


def _open() -> RequestStatus:
    return RequestStatus(**_request("accepted"))


def _held() -> RequestStatus:
    return RequestStatus(
        **_request(
            "waiting", stage="accepted", held="legal hold, case 2026-014", held_at="2026-03-03T10:00:00.000+00:00"
        )
    )


def _cancelled() -> RequestStatus:
    return RequestStatus(**_request("cancelled", reason="withdrawn by the person who asked"))


def _complete() -> RequestStatus:
    stages = ("accepted", "planned", "quarantined", "retraining", "published", "purged", "complete")
    cost = Cost(point_epochs=5_555, seconds=0.984)
    return RequestStatus(
        **_request(
            "complete",
            points=23,
            unknown=1,
            shards=(ShardId(0), ShardId(3)),
            times={stage: f"2026-03-02T09:15:0{second}.000+00:00" for second, stage in enumerate(stages)},
            expected=cost,
            spent=cost,
        )
    )


def _status() -> FederationStatus:
    constituent = ConstituentStatus(
        shard=ShardId(0),
        slices=2,
        points=288,
        digest=_DIGEST,
        slice_digests=(_DIGEST, _DIGEST),
        state="trained",
        serving_slice=2,
    )
    return FederationStatus(
        name="credit",
        store="s3://models/credit",
        shards=1,
        slices=2,
        points=288,
        generation=12,
        floor=11,
        serving=1,
        tombstoned_at_ingest=0,
        constituents=(constituent,),
        requests=(_complete(),),
        batch=None,
        full_point_epochs=11_520,
    )


def _sites_status() -> SitesStatus:
    site = SiteStatus(
        site=_SITE,
        membership="member",
        leaves="predictions",
        joined_at=_RECEIVED,
        withdrawn_at="",
        purged_at="",
        reason="",
        status=_status(),
    )
    return SitesStatus(name="hospitals", store="s3://models/hospitals", sites=(site,))


_FOUND: Final = SubjectsFound(
    subjects=(
        SubjectFound(points=23, similar=Similar(points=4, subjects=1), erased=False),
        SubjectFound(points=0, similar=Similar(), erased=False),
    )
)
_TRACES: Final = SubjectTraces(
    subjects=(
        SubjectTrace(
            points=23,
            slices=(TracedSlice(shard=0, slice=1, points=23),),
            checkpoints=(TracedCheckpoint(shard=0, slice=2, sha256=_DIGEST, digest=_DIGEST, serving=True),),
            generations=(TracedGeneration(number=12, since=_RECEIVED, until="", shards=(0,)),),
        ),
    )
)
_READMITTED: Final = ReadmissionAnswer(
    request_id="re-51f0c2ab77d9",
    body=_DIGEST,
    subjects=1,
    reason="customer again since 2026-05-02",
    at="2026-05-02T08:00:00.000+00:00",
)
_MEASURE: Final = HoldoutMeasure(
    generation=12, points=359, metrics={"accuracy": 0.9443}, per_class={"0": 0.963, "1": 0.8571}, at=_RECEIVED
)
_STANDING: Final = SiteStanding(
    identity=_DIGEST,
    position=84,
    generation=12,
    floor=11,
    requests=7,
    history=_DIGEST,
    history_then=_DIGEST,
    shards=1,
    features=("age", "income"),
    width=2,
    model_code=_DIGEST,
    checkpoints=((0, _DIGEST),),
)
_GROWTH: Final = LogGrowth(
    checkpoint="sisa-ray/credit\n8\nn4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=\n\n— sisa-ray/credit 1+2a...\n",
    size=8,
    consistency=(_DIGEST,),
)
_KEY: Final = "purpose: receipts\nkey-id: 9f86...\n-----BEGIN PUBLIC KEY-----\n...\n-----END PUBLIC KEY-----\n"
_RECEIPT: Final = {
    "format_version": 1,
    "envelope": {
        "payload": "eyJfdHlwZSI6...",
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"keyid": _DIGEST, "sig": "c2lnbmF0dXJl..."}],
    },
    "log": {"index": 7, "proof": [_DIGEST], "checkpoint": _GROWTH.checkpoint},
    "keys": [_KEY, _KEY],
}
