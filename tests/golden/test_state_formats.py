"""States, events and tombstones as they are stored, byte for byte."""

from __future__ import annotations

import json
import struct

import pytest

from coordinator.decisions.events import Event
from coordinator.engine.codec import FORMAT_VERSION, decode_ended, decode_event, decode_state
from coordinator.engine.history import generations
from coordinator.state import FederationState
from shards.tombstones import DigestSet
from storage.objects import object_key
from storage.stores.memory import MemoryStore
from tests.golden.regenerate_state import (
    ARRIVED_PAUSED,
    AT,
    BUCKET,
    CORRECTED_STATE,
    EARLIER,
    ENDED_KEPT,
    ENDED_STATE,
    FOLDER,
    HOLDOUT_INGESTED,
    HOLDOUT_REMOVED,
    HOLDOUT_STATE,
    KEPT,
    LEARNER_STATE,
    LET_BACK,
    MEASURED,
    MEASURED_STATE,
    PROPOSED,
    REMOVED,
    REQUESTS_STATE,
    STATE,
    TOMBSTONES,
    VALUES_KEPT,
    digest,
    golden,
)

GOLDEN = golden()


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_what_is_written_is_the_golden_file(name: str) -> None:
    """What this version writes is what the first one of its format wrote."""
    assert (FOLDER / name).read_bytes() == GOLDEN[name]


def test_every_golden_file_is_checked() -> None:
    """A test reads every golden file."""
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted([*GOLDEN, *EARLIER])


def test_the_golden_state_is_read() -> None:
    """The state is read as it was meant."""
    record = json.loads((FOLDER / "state-v3.json").read_bytes())
    assert record["format_version"] == 3
    assert decode_state(record) == STATE


def test_the_golden_state_with_ended_requests_is_read() -> None:
    """A state that requests have left, the event by which they did and a bucket with them are read as they were meant.

    Their format is newer than that of what has no such requests: an older command refuses them.
    """
    names = ("state-v4.json", "ended-kept-v4.json", "bucket-v4.json")
    state, event, bucket = (json.loads((FOLDER / name).read_bytes()) for name in names)
    assert {each["format_version"] for each in (state, event, bucket)} == {4}
    assert (decode_state(state), decode_event(event), decode_ended(bucket)) == (ENDED_STATE, ENDED_KEPT, BUCKET)


@pytest.mark.parametrize("name", ["requests-v4.json", "state-v5.json"])
def test_the_golden_requests_are_read(name: str) -> None:
    """Requests at every stage, paused, extended, failed, are read alike from the last format and from this one."""
    record = json.loads((FOLDER / name).read_bytes())
    assert f"v{record['format_version']}." in name
    assert decode_state(record) == REQUESTS_STATE


@pytest.mark.parametrize("version", [3, 5])
def test_a_golden_request_that_arrived_paused_is_read(version: int) -> None:
    """Until format 4 it did not say when its pause began: when it was received."""
    record = json.loads((FOLDER / f"arrived-paused-v{version}.json").read_bytes())
    assert record["format_version"] == version
    assert decode_event(record) == ARRIVED_PAUSED


def test_the_golden_bucket_is_read() -> None:
    """Ended requests are read alike from the last format and from this one."""
    record = json.loads((FOLDER / "bucket-v5.json").read_bytes())
    assert record["format_version"] == 5
    assert decode_ended(record) == BUCKET


def test_the_golden_state_of_another_learner_is_read() -> None:
    """A state whose learner is not torch, in the middle of an erasure, needs the newest format."""
    record = json.loads((FOLDER / "learner-v5.json").read_bytes())
    assert record["format_version"] == 5
    assert decode_state(record) == LEARNER_STATE


def test_the_golden_corrections_are_read() -> None:
    """A state that has corrected values, and the events of corrections, are read as they were meant."""
    state, proposed, kept = (
        json.loads((FOLDER / f"{name}-v5.json").read_bytes()) for name in ("corrected", "proposed", "values-kept")
    )
    assert {each["format_version"] for each in (state, proposed, kept)} == {5}
    assert decode_state(state) == CORRECTED_STATE
    assert (decode_event(proposed), decode_event(kept)) == (PROPOSED, VALUES_KEPT)


def test_the_golden_hold_out_points_are_read() -> None:
    """A state with hold-out points, their ingest and their erasure need the newest format, and are read as meant."""
    names = ("state-v6.json", "points-removed-v6.json", "ingested-v6.json")
    state, removed, ingested = (json.loads((FOLDER / name).read_bytes()) for name in names)
    assert {each["format_version"] for each in (state, removed, ingested)} == {FORMAT_VERSION} == {6}
    assert (decode_state(state), decode_event(removed)) == (HOLDOUT_STATE, HOLDOUT_REMOVED)
    assert decode_event(ingested) == HOLDOUT_INGESTED


def test_the_golden_measures_are_read() -> None:
    """Measures of a generation, and before and after a request, are read as they were meant."""
    state, event = (
        json.loads((FOLDER / name).read_bytes()) for name in ("measured-state-v6.json", "holdout-measured-v6.json")
    )
    assert state["format_version"] == event["format_version"] == 6
    assert (decode_state(state), decode_event(event)) == (MEASURED_STATE, MEASURED)


@pytest.mark.parametrize(
    ("name", "event"), [("points-removed", REMOVED), ("subjects-readmitted", LET_BACK), ("history-kept", KEPT)]
)
def test_the_golden_events_are_read(name: str, event: Event) -> None:
    """Each event is read as it was meant."""
    record = json.loads((FOLDER / f"{name}-v3.json").read_bytes())
    assert (record["format_version"], record["event"]) == (3, name.replace("-", "_"))
    assert decode_event(record) == event


def test_the_golden_history_is_read() -> None:
    """Old generations are listed before those that the state still holds."""
    store = MemoryStore("golden-history-read")
    store.forget()
    store.put_if_absent(object_key(f"history/{1:020d}"), (FOLDER / "history-v1.json").read_bytes())
    state = FederationState(name="f", settings={}, key_digest=digest("key"), shards=(), generation=64)
    reported = list(generations(store, state))
    assert [each.number for each in reported] == list(range(1, 65))
    assert (reported[4].serving, reported[4].since, reported[4].until) == ((2, 2), AT, AT)
    store.forget()


def test_golden_tombstones_can_be_read_without_us() -> None:
    """A segment is a header of three fields and the digests, subjects first, each kind rising."""
    payload = (FOLDER / "tombstones-v1.digests").read_bytes()
    assert struct.unpack(">8sQQ", payload[:24]) == (b"SISATMB1", 2, 1)
    assert payload[24:] == bytes(range(32)) + bytes(range(240, 256))
    assert DigestSet.from_bytes(payload) == TOMBSTONES
