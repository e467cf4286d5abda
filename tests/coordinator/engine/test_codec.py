"""States and events as JSON, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

import pytest

from coordinator.decisions.decide import (
    AttemptFailed,
    CheckpointLost,
    CheckpointWritten,
    DueExtended,
    ErasureAccepted,
    Event,
    Ingested,
    NothingToErase,
    PointsRemoved,
    Purged,
    ReceiptIssued,
    RequestCancelled,
    RequestHeld,
    RequestReleased,
    TrainingConfigured,
)
from coordinator.engine.codec import FORMAT_VERSION, decode_event, encode_event
from coordinator.requests import Cost, InlineDigests
from shards.lineage import expected_lineages
from shards.routing import Placement, SubjectDigest
from shards.specification import ShardId, SliceIndex
from shards.tombstones import DigestSet
from storage.errors import Corrupt, Invalid
from tests.coordinator.records import DATA, checkpoint_of, configuration, ref, request_of, slice_of

PLACES = [Placement(ShardId(shard), SliceIndex(slice_)) for shard in (1, 0) for slice_ in (2, 1)]
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
)


def test_every_event_is_tried() -> None:
    """No kind of event is left out of the tests below."""
    assert {type(event) for event in EVENTS} == set(get_args(Event))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_survives_the_journal(event: Event) -> None:
    """Through JSON text and back an event is the same, and its text is."""
    text = json.dumps(encode_event(event), sort_keys=True)
    again = decode_event(json.loads(text))
    assert again == event
    assert json.dumps(encode_event(again), sort_keys=True) == text


def test_maps_by_placement_are_written_in_order() -> None:
    """Equal events have equal bytes, in whatever order their maps were made."""
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
    """What is none of our events is never taken for one."""
    with pytest.raises(Corrupt, match="a journal's record"):
        decode_event(record)


def test_a_newer_format_is_refused() -> None:
    """An event that newer software wrote is not guessed at."""
    with pytest.raises(Invalid, match=f"written in format {FORMAT_VERSION + 1}, this version reads up to"):
        decode_event(_other(format_version=FORMAT_VERSION + 1))
