"""Requests, status and the state as it is stored."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from coordinator.decisions.decide import decide
from coordinator.decisions.events import NothingToErase
from coordinator.engine.codec import FORMAT_VERSION, decode_state, encode_state
from coordinator.requests import RequestState
from coordinator.status import describe_federation
from shards.specification import ShardId
from storage.errors import Corrupt, Invalid
from tests.coordinator.decisions.test_decide import AT, accepted, learn, place, removal, trained
from tests.coordinator.records import configuration, federation, probed, request_of

NOW = datetime(2026, 1, 15, tzinfo=UTC)


def test_states_passed_on_the_way_are_marked() -> None:
    """A request that reaches a later state has been in all before it, and keeps the times it had."""
    request = request_of("er-1").reach(RequestState.QUARANTINED, "t1").reach(RequestState.COMPLETE, "t2")
    assert request.state is RequestState.COMPLETE
    assert request.times == {
        "planned": "t1",
        "quarantined": "t1",
        "retraining": "t2",
        "published": "t2",
        "purged": "t2",
        "complete": "t2",
    }


def test_leaving_the_way_marks_only_the_end() -> None:
    """A refused or failed request has not been retrained."""
    for end in (RequestState.REFUSED, RequestState.FAILED, RequestState.WAITING, RequestState.CANCELLED):
        assert request_of("er-1").reach(end, "t").times == {end.value: "t"}


def test_which_requests_are_open() -> None:
    """Work is owed until a request is complete, refused or cancelled: after a failure and in a pause, too."""
    closed = {state for state in RequestState if not state.is_open}
    assert closed == {RequestState.COMPLETE, RequestState.REFUSED, RequestState.CANCELLED}


def test_the_state_is_stored_as_json_and_read_back() -> None:
    """A federation in the middle of everything comes back equal, and is written to the same JSON again."""
    state = accepted(trained((3, 3), (3, 3)))
    state = learn(decide(state, removal(state, place(0, 1)))[0], 0)
    state = replace(accepted(state, "er-2"), settings={"data": {"scale": [1.0, 2.0]}, "none": None})
    text = json.dumps(encode_state(state), sort_keys=True)
    assert decode_state(json.loads(text)) == state
    assert json.dumps(encode_state(decode_state(json.loads(text))), sort_keys=True) == text


def test_a_probe_is_news_to_older_software() -> None:
    """A state with a probe comes back equal, in a format that older releases refuse; one without says nothing of it."""
    with_probe = replace(federation((1,)), configuration=probed())
    assert encode_state(with_probe)["format_version"] == 3
    assert decode_state(json.loads(json.dumps(encode_state(with_probe)))) == with_probe
    without = replace(with_probe, configuration=configuration())
    assert "probe" not in json.dumps(encode_state(without))
    assert (
        describe_federation(with_probe, "here", NOW).unrecorded,
        describe_federation(without, "here", NOW).unrecorded,
    ) == ((), ("probe",))
    own = replace(with_probe, settings={"model": {"factory": "my_net:build"}})
    assert describe_federation(own, "here", NOW).unrecorded == ("code_manifest",)


def test_a_state_of_a_newer_version_is_refused() -> None:
    """What a newer version wrote is not guessed at."""
    body = encode_state(federation((1,))) | {"format_version": FORMAT_VERSION + 1}
    with pytest.raises(Invalid, match=f"written in format {FORMAT_VERSION + 1}, this version reads up to"):
        decode_state(body)


@pytest.mark.parametrize("body", [{}, {"state": None}, {"format_version": 1, "state": {"name": "x"}}])
def test_a_body_that_is_no_federation_is_corrupt(body: dict[str, object]) -> None:
    """A manifest that holds something else is named as such."""
    with pytest.raises(Corrupt, match="the manifest does not hold a federation"):
        decode_state(body)


def test_status_of_a_trained_federation() -> None:
    """Digests after every slice, points, and who answers."""
    state = trained((3, 2), (0, 0))
    status = describe_federation(state, "here", NOW)
    full, empty = status.constituents
    assert (full.state, full.points, full.serving_slice) == ("trained", 5, 2)
    assert full.slice_digests == tuple(each.digest for each in state.shards[0].chain)
    assert full.digest == full.slice_digests[-1]
    assert (empty.state, empty.points) == ("empty", 0)
    assert (status.points, status.serving, status.shards, status.slices) == (5, 1, 2, 2)
    assert (status.generation, status.floor, status.tombstoned_at_ingest) == (1, 0, 0)


def test_status_while_a_request_is_carried_out() -> None:
    """The affected shard is quarantined and has no digest until it is trained; the request says where it stands."""
    state = accepted(trained((3, 2), (3, 3)))
    state, _ = decide(state, removal(state, place(0, 2)))
    status = describe_federation(state, "here", NOW)
    hit, other = status.constituents
    assert (hit.state, hit.digest, len(hit.slice_digests or ()), hit.serving_slice) == ("quarantined", None, 1, 1)
    assert other.state == "trained"
    (request,) = status.requests
    assert (request.state, request.shards, request.points, request.overdue) == ("quarantined", (0,), 1, False)


def test_status_before_training() -> None:
    """Shards that are not trained and not asked to unlearn are in training."""
    status = describe_federation(federation((3, 2)), "here", NOW, ("training.epochs",))
    assert [each.state for each in status.constituents] == ["training"]
    assert (status.serving, status.differences) == (0, ("training.epochs",))


def test_only_open_requests_are_overdue() -> None:
    """A request past its due date is overdue while work is owed, never afterwards."""
    late = datetime(2026, 3, 1, tzinfo=UTC)
    state = accepted(trained((3, 2)))
    assert [request.overdue for request in describe_federation(state, "here", late).requests] == [True]
    refused = decide(state, NothingToErase(request_id="er-1", reason="none", at=AT))[0]
    assert [request.overdue for request in describe_federation(refused, "here", late).requests] == [False]


def test_lineages_begin_with_the_configuration() -> None:
    """Before training is configured nothing is expected; then one lineage a slice, each naming the one before."""
    state = federation((2, 3))
    assert state.lineages(ShardId(0)) == ()
    lineages = replace(state, configuration=configuration()).lineages(ShardId(0))
    assert [each.parent for each in lineages] == [None, lineages[0].digest()]
    assert [each.points for each in lineages] == [2, 3]
