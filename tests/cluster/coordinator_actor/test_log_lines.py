"""Log lines: JSON, with the request's id all the way, and without a word about a person."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.coordinator_actor.log_lines import FIELDS, MOST_REQUESTS, LogLines
from coordinator.ports import Remark, RequestMoved
from coordinator.requests import RequestState
from storage.errors import Corrupt, Fenced, Invalid, InvariantBroken, SisaError, Unavailable
from storage.stores.memory import MemoryStore
from tests.cluster.coordinator_actor.observed import WHO, trained
from tests.coordinator.records import request_of
from tests.doubles.federation import SmallFederation
from tests.doubles.time_and_names import VirtualClock
from tests.doubles.workers.fake_learner import HashState


@pytest.fixture
def stream() -> io.StringIO:
    """Where the lines go."""
    return io.StringIO()


@pytest.fixture
def lines(stream: io.StringIO) -> LogLines:
    """The lines of the federation ``small``."""
    return LogLines("small", VirtualClock(), stream)


@pytest.fixture
def federation(lines: LogLines) -> Iterator[SmallFederation[HashState]]:
    """A trained federation that writes them."""
    made = trained(lines.hear)
    yield made
    store = made.store
    assert isinstance(store, MemoryStore)
    store.forget()


def _read(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_erasure_can_be_followed_by_its_id(federation: SmallFederation[HashState], stream: io.StringIO) -> None:
    """Every state of a request and every slice learned for it carries its id, from acceptance to the receipt."""
    stream.truncate(0)
    stream.seek(0)
    federation.erase(subjects=[f"{WHO}-1"], request_id="ticket-4711")
    found = _read(stream)
    states = [line["state"] for line in found if line["event"] == "request"]
    assert states[0] == "accepted"
    assert states[-1] == "complete"
    assert {line["request_id"] for line in found if line["event"] == "request"} == {"ticket-4711"}
    learned = [line for line in found if line["event"] == "slice_learned"]
    assert learned
    assert all(line["request_ids"] == ["ticket-4711"] for line in learned)
    assert found[-1]["receipt"] == 0
    assert all(line["at"].startswith("2026-01-01T") and line["federation"] == "small" for line in found)


def test_no_line_names_a_person(federation: SmallFederation[HashState], stream: io.StringIO) -> None:
    """No erasure puts a subject, a data point's id or a field that is not on the list into a line."""
    federation.erase(subjects=[f"{WHO}-1", f"{WHO}-unknown"], request_id="er-1")
    federation.erase(ids=[f"{WHO}-point-30"], request_id="er-2")
    federation.erase(subjects=[f"{WHO}-nobody"], request_id="er-3")
    assert WHO not in stream.getvalue()
    assert all(line.keys() <= FIELDS for line in _read(stream))
    assert "refused" in stream.getvalue()


def test_texts_that_may_quote_data_are_left_out(lines: LogLines, stream: io.StringIO) -> None:
    """Of errors that may quote a label or a model's own words, only the kind is logged; such remarks are not logged."""
    for error in (SisaError(WHO), Invalid(WHO), Corrupt(WHO)):
        lines.trouble(error)
    lines.hear(Remark(text=WHO))
    assert [line["kind"] for line in _read(stream)] == ["failed", "invalid", "corrupt"]
    assert WHO not in stream.getvalue()


@pytest.mark.parametrize("error", [Unavailable("the store is away"), Fenced("another writer has taken over")])
def test_what_systems_do_is_reported(error: SisaError, lines: LogLines, stream: io.StringIO) -> None:
    """For errors about stores and clusters, the fact is logged as well."""
    lines.trouble(error)
    assert [(line["kind"], line["fact"]) for line in _read(stream)] == [(error.kind, error.fact)]


def test_a_field_that_is_not_on_the_list_is_refused(lines: LogLines, stream: io.StringIO) -> None:
    """Nobody writes a subject into a log by giving it a new field."""
    with pytest.raises(InvariantBroken, match="not on the list"):
        lines.write("erased", subject=WHO)
    assert stream.getvalue() == ""


def test_a_stream_that_is_lost_stops_nothing(lines: LogLines, stream: io.StringIO) -> None:
    """A log that cannot be written does not keep an erasure from going on."""
    stream.close()
    lines.write("training", shards=[1])


def test_many_requests_make_no_endless_line(lines: LogLines, stream: io.StringIO) -> None:
    """A retrain for many requests names the first of them, and how many more there are."""
    for number in range(MOST_REQUESTS + 5):
        lines.hear(RequestMoved(request=request_of(f"er-{number:02d}").reach(RequestState.QUARANTINED, "2026-01-01")))
    lines.trouble(Unavailable("the store is away"))
    last = _read(stream)[-1]
    assert last["request_ids"] == [f"er-{number:02d}" for number in range(MOST_REQUESTS)]
    assert last["more_requests"] == 5
