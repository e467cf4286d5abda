"""What a receipt states, and what it must not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.decisions.decide import decide
from coordinator.decisions.events import TrainingConfigured
from coordinator.receipts.evidence import (
    STANDING_EXCEPTIONS,
    KeyringEvidence,
    ObjectEvidence,
    collect_evidence,
    statement,
)
from coordinator.requests import ObjectRef, RequestState
from coordinator.state import ShardState
from shards.routing import PartitionKey, SliceId, point_digest, subject_digest
from shards.specification import ShardId, SliceIndex
from shards.tombstones import DigestSet
from storage.digests import canonical_json, sha256
from storage.errors import Invalid
from storage.objects import object_key
from tests.coordinator.receipts.facts import (
    SCAN,
    STORE,
    accepted,
    evidence_of,
    purged,
    quarantined,
    trained,
    two_erasures,
)
from tests.coordinator.records import SETTINGS, configuration, federation

AT = "2026-01-05T00:00:00.000+00:00"
MANIFESTS = {"purged": 45}


def stated(**changes: Any) -> dict[str, Any]:
    """The statement about the first erasure, with changes to its evidence."""
    found: dict[str, Any] = json.loads(statement(replace(evidence_of(), **changes), AT))
    return found


def test_the_statement_is_in_toto() -> None:
    """The outer shape is in-toto's, the subject is the request's digest, and the bytes are canonical."""
    found = stated()
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "urn:sisa-ray:erasure-receipt:v1"
    assert found["subject"] == [{"name": "erasure-request", "digest": {"sha256": sha256(b"first")}}]
    payload = statement(evidence_of(), AT)
    assert canonical_json(json.loads(payload)) == payload


def test_the_request_is_reported() -> None:
    """Counts, due date and the time of every state are in the receipt."""
    request = stated()["predicate"]["request"]
    assert (request["id"], request["subjects"], request["ids"], request["unknown"]) == ("first", 1, 0, 0)
    assert request["due_at"] == "2026-01-31T00:00:00+00:00"
    assert list(request["times"]) == sorted(["accepted", "planned", "quarantined", "retraining", "published", "purged"])


def test_only_the_requests_shards_are_reported() -> None:
    """Shards of other requests are not in it, and the affected one has slices, counts and lineages of both sides."""
    before, after = two_erasures()
    found = collect_evidence("first", before, after, manifests=MANIFESTS, scan=SCAN, store=STORE)
    (shard,) = found.shards
    assert (shard.shard, shard.slices, shard.points_before, shard.points_after) == (1, (2,), 12, 10)
    assert shard.lineages_before == tuple(each.digest() for each in before.lineages(ShardId(1))[1:])
    assert shard.lineages_after == tuple(each.digest() for each in after.lineages(ShardId(1))[1:])
    assert not set(shard.lineages_before) & set(shard.lineages_after)
    assert [each.slice for each in shard.superseded] == [2, 3]
    assert [each.sha256 for each in shard.superseded] == [each.sha256 for each in before.shards[1].chain[1:]]
    assert shard.constituent == after.shards[1].chain[-1].digest
    assert (found.generation, found.floor, found.shared_with, found.points) == (after.generation, after.floor, 1, 2)
    assert (found.generation, found.floor) == (4, 3)


def test_every_object_that_is_gone_is_named() -> None:
    """What only the state before referred to is listed with its digest, by the request whose shard or names it held."""
    before, after = two_erasures()
    extra = ObjectEvidence(key=object_key("shards/left-over"), sha256=sha256(b"x"), what="slice")
    first, second = (
        collect_evidence(each, before, after, manifests=MANIFESTS, scan=SCAN, store=STORE, further_purged=[extra] * 2)
        for each in ("first", "second")
    )
    keys, others = ({each.key for each in found.purged} for found in (first, second))
    assert keys | others == (before.referenced() - after.referenced()) | {extra.key}
    assert keys & others == {extra.key}
    own = {part.key for record in before.shards[1].slices for part in record.parts}
    own |= {checkpoint.key for checkpoint in before.shards[1].chain}
    asked = before.request("first")
    assert asked is not None
    assert isinstance(asked.names, ObjectRef)
    assert keys == (own - after.referenced()) | {asked.names.key, extra.key}
    assert sorted(each.what for each in first.purged) == ["checkpoint"] * 2 + ["names"] + ["slice"] * 2
    assert [each.key for each in first.purged] == sorted(keys)


def test_what_a_receipt_needs_does_not_grow_with_its_batch() -> None:
    """The evidence is the same where the state before has nothing but the shards of the request."""
    before, after = two_erasures()
    only = tuple(shard if number == 1 else ShardState(slices=()) for number, shard in enumerate(before.shards))
    reduced = replace(before, shards=only, history=())
    assert collect_evidence("first", reduced, after, manifests=MANIFESTS, scan=SCAN, store=STORE) == collect_evidence(
        "first", before, after, manifests=MANIFESTS, scan=SCAN, store=STORE
    )


def test_keyrings_and_exceptions_are_reported() -> None:
    """Destroyed keys, and what the erasure does not reach, are in the receipt; the standing limits always are."""
    before, after = two_erasures()
    found = collect_evidence(
        "first",
        before,
        after,
        manifests=MANIFESTS,
        scan=SCAN,
        store=replace(STORE, exceptions=("The bucket is replicated.",)),
        keyrings=[KeyringEvidence(shard=ShardId(1), destroyed=4, current=5)],
    )
    predicate = json.loads(statement(found, AT))["predicate"]
    assert predicate["keyrings"] == [{"shard": 1, "destroyed": 4, "current": 5}]
    assert predicate["exceptions"] == [*STANDING_EXCEPTIONS, "The bucket is replicated."]
    assert "does not prove that no copy exists elsewhere" in predicate["does_not_prove"]
    assert "The operator stated these facts" in predicate["proves"]


def test_conditions_are_reported() -> None:
    """Numerics profile, manifests, scan, store, generation and floor are in the receipt."""
    predicate = stated()["predicate"]
    assert predicate["numerics_profile"]["torch"] == "2"
    assert "probe" not in predicate["numerics_profile"]
    assert predicate["manifests"] == {"quarantined": 41, "published": 44, "purged": 45}
    assert predicate["scan"] == {"objects": 17, "bytes": 12345, "findings": 0}
    assert predicate["store"] == {"kind": "folder", "properties": {"encrypted": True, "versioned": False}}
    assert (predicate["generation"], predicate["erasure_floor"]) == (4, 3)
    assert predicate["issued_at"] == AT


def test_the_same_evidence_gives_the_same_bytes() -> None:
    """A statement depends on its evidence and its time alone."""
    evidence = evidence_of()
    assert statement(evidence, AT) == statement(evidence, AT)
    assert statement(evidence, AT) != statement(evidence, "2026-01-06T00:00:00.000+00:00")


@pytest.mark.parametrize("state", [each for each in RequestState if each.value not in ("purged", "complete")])
def test_no_receipt_before_the_purge(state: RequestState) -> None:
    """Only an erasure that was carried out has evidence."""
    with pytest.raises(Invalid, match=r"a receipt is for an erasure that was carried out \[request=first state="):
        replace(evidence_of(), state=state)


def test_an_unknown_request_has_no_evidence() -> None:
    """A request that the federation does not have is named."""
    before, after = two_erasures()
    with pytest.raises(Invalid, match=r"the federation has no such request \[request=third\]"):
        collect_evidence("third", before, after, manifests=MANIFESTS, scan=SCAN, store=STORE)
    with pytest.raises(Invalid, match="a receipt is for an erasure that was carried out"):
        collect_evidence("first", before, before, manifests=MANIFESTS, scan=SCAN, store=STORE)


def test_evidence_is_plain() -> None:
    """Evidence that JSON cannot hold is refused, and the error does not show it."""
    with pytest.raises(
        Invalid, match=r"^a receipt's evidence holds a value that JSON cannot hold\. Use text"
    ) as caught:
        stated(manifests={"purged": float("nan")})
    assert "nan" not in str(caught.value)
    with pytest.raises(Invalid, match="a value that JSON cannot hold"):
        stated(manifests={"purged": b"secret"})


@given(st.lists(st.text(min_size=1).map(lambda text: f"<{text}>"), min_size=1, max_size=5))
def test_no_person_is_in_a_receipt(people: list[str]) -> None:
    """Neither ids nor subjects, nor their keyed digests, nor the partition key are in a receipt for their erasure."""
    key = PartitionKey(bytes(range(32)))
    subjects = [subject_digest(key, person) for person in people]
    points = [point_digest(key, person) for person in people]
    body = DigestSet.of(subjects=subjects, points=points).digest()
    text = statement(replace(evidence_of(), request_digest=body), AT).decode()
    for secret in (*people, *(each.hex() for each in (*subjects, *points)), key.hex()):
        assert secret not in text
    assert body in text


def test_a_second_erasure_before_the_training_lists_the_base_that_was_destroyed() -> None:
    """What a learner takes points out of has seen those of both requests: both receipts name it."""
    directly = replace(configuration(), learner="ridge")
    asked = decide(federation((3, 3)), TrainingConfigured(settings=SETTINGS, configuration=directly))[0]
    before = trained(asked)
    (wrong,) = before.shards[0].chain
    files = {part.key for record in before.shards[0].slices for part in record.parts}
    first, second = SliceId(ShardId(0), SliceIndex(1)), SliceId(ShardId(0), SliceIndex(2))
    between = quarantined(accepted(before, "er-1"), "er-1", first, (0,))
    assert between.shards[0].base is not None
    after = trained(quarantined(accepted(between, "er-2"), "er-2", second, (3,)))
    assert after.shards[0].base is None
    done = purged(after)
    for request_id, earlier, own in (("er-1", before, files), ("er-2", between, files)):
        evidence = collect_evidence(request_id, earlier, done, manifests={}, scan=SCAN, store=STORE)
        gone = {each.key: each.what for each in evidence.purged}
        assert gone[wrong.key] == "checkpoint"
        assert own <= gone.keys()
        (shard,) = evidence.shards
        assert [each.sha256 for each in shard.superseded] == [wrong.sha256]
