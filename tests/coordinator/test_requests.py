"""Erasure requests as values: what they show, what they carry in themselves, how they are written."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.decisions.decide import decide
from coordinator.decisions.events import ErasureAccepted, NothingToErase
from coordinator.delays import EndedPause, Extension, FailedAttempt, Pause
from coordinator.engine.codec import decode_event, decode_state, encode_event, encode_state
from coordinator.engine.lookup import load_digests
from coordinator.receipts.evidence import collect_evidence
from coordinator.requests import (
    MOST_INLINE,
    Cost,
    ErasureRequest,
    Found,
    InlineDigests,
    ObjectRef,
    RequestState,
)
from coordinator.state import FederationState
from shards.routing import PartitionKey, PointDigest, SubjectDigest, point_digest, slice_of, subject_digest
from shards.specification import ShardId, SliceIndex
from shards.tombstones import NOTHING, DigestSet
from storage.digests import sha256
from storage.errors import Corrupt
from storage.objects import object_key
from storage.stores.memory import MemoryStore
from tests.coordinator.decisions.test_decide import AT, configured
from tests.coordinator.receipts.facts import SCAN, STORE, purged, quarantined, trained
from tests.coordinator.records import federation, ref, request_of

KEY = PartitionKey(b"k" * 32)
PAUSE = Pause(reason="court again", held_at=AT)
FAILURE = FailedAttempt(reason="no room: make some", at=AT)
FULL = replace(
    request_of("er-1"),
    state=RequestState.RETRAINING,
    found=Found(
        from_slices={ShardId(2): SliceIndex(1), ShardId(11): SliceIndex(3)}, expected=Cost(point_epochs=7, seconds=0.1)
    ),
    before=ref(),
    pause=PAUSE,
    holds=(EndedPause(reason="court", held_at="t1", released_at="t2", previous_due_at="t3"),),
    extension=Extension(at="t4", reason="many requests", previous_due_at="t5"),
    failure=FAILURE,
    spent=Cost(point_epochs=3, seconds=0.25),
)
digests = st.binary(min_size=16, max_size=16)


def small() -> DigestSet:
    """Names of two subjects and one data point."""
    return DigestSet.of(
        subjects=[subject_digest(KEY, "ann"), subject_digest(KEY, "bob")], points=[point_digest(KEY, "p-1")]
    )


def holding(request: ErasureRequest) -> FederationState:
    """A federation with this one request, at any stage."""
    return replace(federation((3, 3)), requests=(request,))


def read_back(state: FederationState) -> FederationState:
    """The state as it comes back from JSON text."""
    return decode_state(json.loads(json.dumps(encode_state(state))))


@given(
    subjects=st.lists(digests.map(SubjectDigest), max_size=MOST_INLINE // 2),
    points=st.lists(digests.map(PointDigest), max_size=MOST_INLINE // 2),
)
def test_names_in_the_request_itself_come_back(subjects: list[SubjectDigest], points: list[PointDigest]) -> None:
    """Digests that stand in the state are the ones put there, after JSON as well, and no object is read for them."""
    names = DigestSet.of(subjects=subjects, points=points)
    inline = InlineDigests.of(names)
    assert inline.digests() == names
    state = read_back(holding(replace(request_of("er-1"), names=inline)))
    assert state.requests[0].names == inline
    assert load_digests(MemoryStore(name="names"), state.requests[0].names) == names


def test_both_kinds_of_names_are_distinguished() -> None:
    """A request's names come back as what they were: in the state, in an object, or gone; in events, too."""
    kinds = (InlineDigests.of(small()), ref(), None)
    for names in kinds:
        request = replace(request_of("er-1"), names=names)
        assert read_back(holding(request)).requests == (request,)
        event = ErasureAccepted(request=request)
        assert decode_event(json.loads(json.dumps(encode_event(event)))) == event


@pytest.mark.parametrize("payload", ["", "AAAA", "not base64", InlineDigests.of(small()).payload[:-4]])
def test_damaged_names_are_not_used(payload: str) -> None:
    """Text that is not a valid digest set is refused, not read as fewer names."""
    with pytest.raises(Corrupt, match="base64|tombstones cannot be read"):
        load_digests(MemoryStore(name="names"), InlineDigests(payload=payload))


def test_names_are_loaded_from_wherever_they_are() -> None:
    """An object's bytes are checked against their digest; without names there are no digests."""
    store, payload = MemoryStore(name="names"), small().to_bytes()
    key = object_key("requests/names")
    store.put_if_absent(key, payload)
    assert load_digests(store, ObjectRef(key=key, sha256=sha256(payload))) == small()
    assert load_digests(store, InlineDigests.of(small())) == small()
    assert load_digests(store, None) == NOTHING
    with pytest.raises(Corrupt, match="an object of the federation's state is damaged"):
        load_digests(store, ObjectRef(key=key, sha256=sha256(b"other")))


def test_names_in_the_request_are_no_object() -> None:
    """They are neither referred to nor condemned when the request is closed, and no receipt names an object of them."""
    request = replace(request_of("first"), names=InlineDigests.of(small()))
    state = decide(trained(configured(federation((3, 3)))), ErasureAccepted(request=request))[0]
    assert state.referenced() == replace(state, requests=()).referenced()
    refused = decide(state, NothingToErase(request_id="first", reason="none", at=AT))[0]
    assert (refused.requests[0].names, refused.condemned) == (None, ())
    after = purged(trained(quarantined(state, "first", slice_of(subject_digest(KEY, "ann"), 1, 2), (900, 901))))
    evidence = collect_evidence("first", state, after, manifests={"purged": 1}, scan=SCAN, store=STORE)
    assert {each.what for each in evidence.purged} == {"slice", "checkpoint"}


def test_a_request_is_written_whole() -> None:
    """Pauses, extensions, failures and costs come back equal; shards stay numbers."""
    assert read_back(holding(FULL)).requests == (FULL,)


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, RequestState.ACCEPTED),
        ({"pause": PAUSE}, RequestState.WAITING),
        ({"failure": FAILURE}, RequestState.FAILED),
        ({"pause": PAUSE, "failure": FAILURE}, RequestState.WAITING),
        ({"failure": FAILURE, "state": RequestState.RETRAINING}, RequestState.FAILED),
        ({"failure": FAILURE, "state": RequestState.COMPLETE}, RequestState.COMPLETE),
        ({"pause": PAUSE, "state": RequestState.CANCELLED}, RequestState.CANCELLED),
        ({"failure": FAILURE, "state": RequestState.REFUSED}, RequestState.REFUSED),
    ],
)
def test_what_is_shown(changes: dict[str, object], shown: RequestState) -> None:
    """A pause comes before a failure, both before the stage; and an end is an end."""
    assert replace(request_of("er-1"), **changes).shown is shown  # type: ignore[arg-type]


def test_costs_add_up() -> None:
    """Point-epochs and seconds are added; seconds keep no digits that nobody measured."""
    tenth, fifth = Cost(point_epochs=1, seconds=0.1), Cost(point_epochs=2, seconds=0.2)
    assert tenth + fifth == Cost(point_epochs=3, seconds=0.3)
