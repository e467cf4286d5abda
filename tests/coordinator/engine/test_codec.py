"""States and events as JSON, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

import pytest

from coordinator.decisions.events import (
    AttemptFailed,
    CheckpointLost,
    CheckpointWritten,
    ConstituentRefuted,
    DueExtended,
    EndedKept,
    ErasureAccepted,
    Event,
    HistoryKept,
    HoldoutMeasured,
    Ingested,
    NothingToErase,
    PointsRemoved,
    Purged,
    ReceiptIssued,
    RequestCancelled,
    RequestHeld,
    RequestReleased,
    SubjectsReadmitted,
    TrainingConfigured,
    ValuesKept,
)
from coordinator.effects import HoldoutMeasure
from coordinator.engine.codec import FORMAT_VERSION, decode_ended, decode_event, encode_event
from coordinator.requests import Correction, Cost, InlineDigests, PlacedRows, Readmission, Refutation, Segment, Similar
from shards.lineage import expected_lineages
from shards.routing import SliceId, SubjectDigest
from shards.specification import ShardId, SliceIndex
from shards.tombstones import DigestSet
from storage.digests import sha256
from storage.errors import Corrupt, Invalid
from tests.coordinator.records import DATA, checkpoint_of, configuration, paused, probed, ref, request_of, slice_of

PLACES = [SliceId(ShardId(shard), SliceIndex(slice_)) for shard in (1, 0) for slice_ in (2, 1)]
SLICES = {place: slice_of([number]) for number, place in enumerate(PLACES)}
NAMES = InlineDigests.of(DigestSet.of(subjects=[SubjectDigest(bytes(range(16)))]))
AT = "2026-01-01T00:00:00.000+00:00"

EVENTS: tuple[Event, ...] = (
    Ingested(data=DATA, slices=SLICES, lost=frozenset(PLACES[:2])),
    TrainingConfigured(settings={"training": {"epochs": 3}}, configuration=configuration()),
    ErasureAccepted(request=request_of("er-1")),
    PointsRemoved(
        request_id="er-1",
        removed=dict.fromkeys(PLACES, 2),
        slices=SLICES,
        tombstones=ref(),
        before=ref(),
        expected=Cost(point_epochs=7, seconds=0.5),
        at=AT,
    ),
    NothingToErase(request_id="er-1", reason="nobody", at=AT),
    CheckpointWritten(
        shard=ShardId(1),
        checkpoint=checkpoint_of(expected_lineages(ShardId(1), list(SLICES.values()), configuration())[0]),
        at=AT,
    ),
    CheckpointLost(shard=ShardId(1), slice=SliceIndex(2)),
    Purged(at=AT),
    ReceiptIssued(request_id="er-1", index=4),
    DueExtended(request_id="er-1", due_at=AT, reason="many requests", at=AT),
    RequestHeld(request_id="er-1", reason="legal hold", at=AT),
    RequestReleased(request_id="er-1", at=AT),
    RequestCancelled(request_id="er-1", reason="by mistake", at=AT),
    AttemptFailed(request_ids=("er-1", "er-2"), reason="no space", at=AT),
    SubjectsReadmitted(
        readmission=Readmission(request_id="back-1", body=sha256(b""), subjects=1, reason="a new contract", at=AT),
        tombstones=None,
        segments=(Segment(ref=ref(), digests=3),),
        at=AT,
    ),
    ConstituentRefuted(
        refutation=Refutation(
            shard=ShardId(1),
            slice=SliceIndex(2),
            checkpoint=ref().key,
            lineage=sha256(b"lineage"),
            digest=sha256(b"was"),
            retrained_digest=sha256(b"is"),
            at=AT,
        ),
        at=AT,
    ),
    HistoryKept(through=64),
    EndedKept(request_ids=("er-1", "back-1"), buckets=(ref(), None)),
    HoldoutMeasured(
        measure=HoldoutMeasure(
            generation=2, points=3, metrics={"accuracy": 0.666667}, per_class={"a": 0.5, "b": None}, at=AT
        ),
        margin=0.05,
        at=AT,
    ),
    ValuesKept(
        corrected=(PlacedRows(place=PLACES[0], record=SLICES[PLACES[0]]),),
        drafts={"c-2": (PlacedRows(place=PLACES[0], record=SLICES[PLACES[0]]),), "c-3": ()},
    ),
)
NEWS: tuple[Event, ...] = (
    Ingested(
        data=replace(DATA, by_id=1, respelt=2),
        slices={PLACES[0]: replace(SLICES[PLACES[0]], similar=2)},
        at=AT,
    ),
    TrainingConfigured(settings={}, configuration=configuration(), at=AT),
    TrainingConfigured(settings={}, configuration=probed()),
    CheckpointLost(shard=ShardId(1), slice=SliceIndex(2), at=AT),
    ErasureAccepted(request=replace(request_of("er-1"), include_similar=True, commitment=sha256(b"names"), by="0123")),
    PointsRemoved(
        request_id="er-1",
        removed={},
        slices={},
        tombstones=None,
        segments=(Segment(ref=ref(), digests=3),),
        before=ref(),
        unknown=1,
        missing=NAMES,
        similar=Similar(points=3, subjects=1),
        at=AT,
    ),
    NothingToErase(request_id="er-1", reason="nobody", unknown=2, similar=Similar(points=3, subjects=1), at=AT),
)
"""Events with fields that format 2 does not have."""
LATEST = (
    ErasureAccepted(request=request_of("er-1"), looked=3),
    SubjectsReadmitted(
        readmission=Readmission(request_id="back-1", body=sha256(b""), subjects=1, reason="a new contract", at=AT),
        tombstones=None,
        segments=(),
        looked=3,
        at=AT,
    ),
    EndedKept(request_ids=("er-1",), buckets=(ref(),)),
)
"""Events with fields that format 3 does not have."""
WITH_HOLDOUT: tuple[Event, ...] = (
    EVENTS[-2],
    Ingested(data=DATA, slices={}, holdout=tuple(SLICES.values())),
    PointsRemoved(
        request_id="er-1",
        removed={},
        slices={},
        tombstones=None,
        before=ref(),
        held_out=2,
        holdout=(replace(SLICES[PLACES[0]], similar=2),),
        at=AT,
    ),
)
"""Events with fields that format 5 does not have."""


@pytest.mark.parametrize("event", WITH_HOLDOUT, ids=lambda event: type(event).__name__)
def test_events_with_hold_out_points_have_format_6(event: Event) -> None:
    """They survive JSON, and a release that would lose the hold-out points refuses them."""
    record = encode_event(event)
    assert record["format_version"] == 6
    assert decode_event(json.loads(json.dumps(record))) == event


def test_every_event_is_tried() -> None:
    """No kind of event is left out of the tests below."""
    assert {type(event) for event in EVENTS} == set(get_args(Event))


@pytest.mark.parametrize("event", NEWS, ids=lambda event: type(event).__name__)
def test_older_software_refuses_events_that_it_would_misread(event: Event) -> None:
    """An event with something that format 2 cannot hold is written in format 3."""
    assert encode_event(event)["format_version"] == 3


def test_events_that_format_3_cannot_hold_have_format_4() -> None:
    """The same holds for an event of requests that leave the state, and for one that looked up earlier ones."""
    assert {encode_event(each)["format_version"] for each in LATEST} == {4}
    first = replace(LATEST[0], looked=0)
    assert "looked" not in encode_event(first)
    assert encode_event(first)["format_version"] == 2


def test_a_request_has_format_5_once_it_is_paused() -> None:
    """An older release would not see that it is paused, or why. As it arrives, it has nothing new."""
    first = ErasureAccepted(request=request_of("er-1"))
    assert encode_event(first)["format_version"] == 2
    assert encode_event(ErasureAccepted(request=paused(request_of("er-1"))))["format_version"] == 5


def test_corrections_have_format_5() -> None:
    """A release that knows none would take a correction for an erasure, and let a source bring old values back."""
    correction = Correction(drafts=(PlacedRows(place=PLACES[0], record=SLICES[PLACES[0]]),), read_as=sha256(b"columns"))
    asked = ErasureAccepted(request=replace(request_of("c-1"), correction=correction))
    read = Ingested(data=replace(DATA, outdated=1), slices={})
    for event in (asked, read, EVENTS[-1]):
        record = json.loads(json.dumps(encode_event(event)))
        assert record["format_version"] == 5
        assert decode_event(record) == event


@pytest.mark.parametrize("event", EVENTS[:-6], ids=lambda event: type(event).__name__)
def test_without_news_nothing_changes(event: Event) -> None:
    """A state that format 2 can hold is written in format 2, without any newer field (E16)."""
    record = encode_event(event)
    assert record["format_version"] == 2
    new = (
        "at",
        "segments",
        "missing",
        "similar",
        "by_id",
        "respelt",
        "outdated",
        "correction",
        "corrected",
        "include_similar",
        "commitment",
        '"by"',
        "naming",
        "probe",
        "holdout",
        "held_out",
        "effect",
    )
    allowed = ("at",) if hasattr(event, "at") and event.at else ()
    assert [name for name in new if name not in allowed and f'"{name.strip(chr(34))}":' in json.dumps(record)] == []


@pytest.mark.parametrize("event", [*EVENTS, *NEWS, *LATEST], ids=lambda event: type(event).__name__)
def test_an_event_survives_the_journal(event: Event) -> None:
    """An event and its text survive the round trip through JSON."""
    text = json.dumps(encode_event(event), sort_keys=True)
    again = decode_event(json.loads(text))
    assert again == event
    assert json.dumps(encode_event(again), sort_keys=True) == text


def test_maps_by_placement_are_written_in_order() -> None:
    """Equal events have equal bytes, regardless of the order in which their maps were built."""
    backwards = dict(reversed(SLICES.items()))
    assert encode_event(Ingested(data=DATA, slices=backwards)) == encode_event(Ingested(data=DATA, slices=SLICES))


def _other(**changes: Any) -> Mapping[str, Any]:
    return {**encode_event(CheckpointLost(shard=ShardId(1), slice=SliceIndex(2))), **changes}


@pytest.mark.parametrize(
    "record",
    [
        "checkpoint_lost",
        [],
        {},
        _other(event="checkpoint_found"),
        _other(event=None),
        _other(shard="one"),
        {name: value for name, value in _other().items() if name != "slice"},
    ],
)
def test_a_record_that_is_no_event_is_refused(record: Any) -> None:
    """A record that is not an event of ours is refused."""
    with pytest.raises(Corrupt, match="a journal's record"):
        decode_event(record)


@pytest.mark.parametrize("body", [None, [], {}, {"format_version": 4}, {"format_version": 4, "requests": [[1]]}])
@pytest.mark.parametrize("only", [None, "er-1"])
def test_what_is_no_bucket_is_refused(body: Any, only: str | None) -> None:
    """An object that does not hold ended requests is never taken for an empty bucket."""
    with pytest.raises(Corrupt, match="an object does not hold ended requests"):
        decode_ended(body, only)


def test_a_newer_format_is_refused() -> None:
    """An event of newer software is refused."""
    with pytest.raises(Invalid, match=f"written in format {FORMAT_VERSION + 1}, this version reads up to"):
        decode_event(_other(format_version=FORMAT_VERSION + 1))
    with pytest.raises(Invalid, match=f"written in format {FORMAT_VERSION + 1}, this version reads up to"):
        decode_ended({"format_version": FORMAT_VERSION + 1}, "er-1")
