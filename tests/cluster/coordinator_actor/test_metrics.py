"""Metrics: what they say follows from the state, and they say it in few series."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from cluster.coordinator_actor import metrics
from cluster.coordinator_actor.log_lines import LogLines
from cluster.coordinator_actor.metrics import METRICS, REPLICA_METRICS, Gauges, ReplicaGauges, tainted
from cluster.coordinator_actor.observer import Observer
from cluster.coordinator_actor.store_size import StoreSize
from cluster.tokens import TokenRegister
from coordinator.decisions import ended
from coordinator.decisions.policy import ruling
from coordinator.interventions import Hold, Intervention, Release
from coordinator.requests import RequestState
from coordinator.settings import ErasureSettings
from coordinator.state import FederationState
from storage.stores.memory import MemoryStore
from tests.cluster.coordinator_actor.observed import POINTS, WHO, Remembered, trained
from tests.doubles.federation import SmallFederation
from tests.doubles.workers.fake_learner import HashState


@pytest.fixture
def federation() -> Iterator[SmallFederation[HashState]]:
    """A trained federation."""
    made = trained()
    yield made
    store = made.store
    assert isinstance(store, MemoryStore)
    store.forget()


@pytest.fixture
def meter() -> Remembered:
    """Where the metrics go."""
    return Remembered()


@pytest.fixture
def gauges(federation: SmallFederation[HashState], meter: Remembered) -> Gauges:
    """The federation's metrics, from before any request on."""
    return Gauges("small", meter, federation.clock)


def _shown(gauges: Gauges, state: FederationState) -> None:
    gauges.show(state, journal_entries=3, troubled=False)


def test_a_trained_federation_shows_what_it_is(
    federation: SmallFederation[HashState], gauges: Gauges, meter: Remembered
) -> None:
    """Points, constituents, generation and journal are shown as they are, and nothing is tainted."""
    _shown(gauges, federation.state)
    assert meter.value(metrics.POINTS) == len(POINTS)
    assert meter.value(metrics.CONSTITUENTS) == meter.value(metrics.SERVING) == 2
    assert meter.value(metrics.TAINTED) == meter.value(metrics.TROUBLED) == 0
    assert meter.value(metrics.GENERATION) == federation.state.generation
    assert meter.value(metrics.JOURNAL) == 3
    assert meter.value(metrics.OLDEST_UNSAFE) == meter.value(metrics.LAST_PURGE) == meter.value(metrics.NEXT_DUE) == 0
    assert meter.measured == {}


def test_a_request_is_seen_at_each_stage(
    federation: SmallFederation[HashState], gauges: Gauges, meter: Remembered
) -> None:
    """Unsafe while accepted, then safe, then complete: counted by state, measured once, with its cost."""
    federation.accept(subjects=[f"{WHO}-1"], request_id="er-1")
    _shown(gauges, federation.state)
    assert meter.value(metrics.REQUESTS, "accepted") == 1
    assert meter.value(metrics.OLDEST_UNSAFE) > 0
    federation.engine.remove_points()
    _shown(gauges, federation.state)
    assert (meter.value(metrics.REQUESTS, "accepted"), meter.value(metrics.REQUESTS, "quarantined")) == (0, 1)
    assert meter.value(metrics.OLDEST_UNSAFE) == 0
    assert meter.value(metrics.NEXT_DUE) > 0
    assert meter.value(metrics.FLOOR) == meter.value(metrics.GENERATION) == federation.state.floor
    federation.engine.settle()
    for _ in range(2):
        _shown(gauges, federation.state)
    done = federation.state.request("er-1")
    assert done is not None
    assert done.state is RequestState.COMPLETE
    assert meter.value(metrics.REQUESTS, "complete") == 1
    assert meter.value(metrics.SPENT_POINT_EPOCHS) == done.spent.point_epochs > 0
    assert meter.value(metrics.EXPECTED_POINT_EPOCHS) == meter.value(metrics.SPENT_POINT_EPOCHS)
    assert meter.value(metrics.LAST_PURGE) > 0
    assert [len(meter.measured[name]) for name in ("sisa_seconds_to_safe", "sisa_seconds_to_complete")] == [1, 1]
    assert 0 < meter.measured["sisa_seconds_to_safe"][0] < meter.measured["sisa_seconds_to_complete"][0]


def test_requests_that_have_left_the_state_are_counted(
    federation: SmallFederation[HashState], gauges: Gauges, meter: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts, costs and the last purge are those of all requests; each was measured when its notice arrived."""
    monkeypatch.setattr(ended, "TOGETHER", 1)
    federation.listener = Observer(gauges, LogLines("small", federation.clock, io.StringIO())).hear
    federation.restart()
    spent, purged = 0, ""
    for number in range(3):
        done = federation.erase(subjects=[f"{WHO}-{number}"], request_id=f"er-{number}")
        spent, purged = spent + done.spent.point_epochs, done.times["purged"]
    federation.accept(subjects=["nobody"], request_id="er-3")
    federation.engine.settle()
    assert [each.request_id for each in federation.state.requests] == ["er-3"]
    _shown(gauges, federation.state)
    assert (meter.value(metrics.REQUESTS, "complete"), meter.value(metrics.REQUESTS, "refused")) == (3, 1)
    assert meter.value(metrics.SPENT_POINT_EPOCHS) == spent > 0
    assert meter.value(metrics.LAST_PURGE) == datetime.fromisoformat(purged).timestamp()
    assert [len(meter.measured[name]) for name in ("sisa_seconds_to_safe", "sisa_seconds_to_complete")] == [3, 3]


def test_another_process_does_not_measure_again(federation: SmallFederation[HashState], meter: Remembered) -> None:
    """What an earlier process saw is not measured by the next one; its gauges are right at once."""
    federation.erase(subjects=[f"{WHO}-1"], request_id="er-1")
    federation.clock.advance_to(federation.clock.now() + timedelta(hours=1))
    _shown(Gauges("small", meter, federation.clock), federation.state)
    assert meter.measured == {}
    assert meter.value(metrics.REQUESTS, "complete") == 1


def _intervene(federation: SmallFederation[HashState], request_id: str, wanted: Intervention) -> None:
    settings, at = ErasureSettings(), federation.engine.now()
    federation.engine.intervene(lambda state: ruling(state, request_id, wanted, settings=settings, at=at))


def test_a_pause_does_not_count(federation: SmallFederation[HashState], gauges: Gauges, meter: Remembered) -> None:
    """A paused request is neither unsafe nor awaited, and its pause does not count in the time to safety."""
    federation.accept(subjects=[f"{WHO}-1"], request_id="er-1")
    _intervene(federation, "er-1", Hold(reason="legal hold"))
    _shown(gauges, federation.state)
    assert meter.value(metrics.REQUESTS, "waiting") == 1
    assert meter.value(metrics.OLDEST_UNSAFE) == meter.value(metrics.NEXT_DUE) == 0
    federation.clock.advance_to(federation.clock.now() + timedelta(days=3))
    _intervene(federation, "er-1", Release())
    federation.engine.remove_points()
    _shown(gauges, federation.state)
    assert meter.measured["sisa_seconds_to_safe"][0] < 3600


def test_a_tainted_constituent_is_seen(
    federation: SmallFederation[HashState], gauges: Gauges, meter: Remembered
) -> None:
    """A checkpoint that has seen other points than its slices hold now is counted, even if the state calls it clean."""
    before = federation.state
    federation.accept(subjects=[f"{WHO}-1"], request_id="er-1")
    federation.engine.remove_points()
    assert tainted(federation.state) == ()
    broken = replace(
        federation.state,
        shards=tuple(
            replace(now, chain=was.chain, serving=was.serving)
            for now, was in zip(federation.state.shards, before.shards, strict=True)
        ),
    )
    assert len(tainted(broken)) == 1
    _shown(gauges, broken)
    assert meter.value(metrics.TAINTED) == 1


def test_the_size_of_the_store_is_reported_once_it_is_known(
    federation: SmallFederation[HashState], gauges: Gauges, meter: Remembered
) -> None:
    """Before the first count there are no series for it, so that the store does not appear to be empty."""
    _shown(gauges, federation.state)
    assert metrics.STORE_BYTES.name not in {name for name, _ in meter.values}
    size = StoreSize(objects=3, payload_bytes=4000)
    gauges.show(federation.state, journal_entries=0, troubled=False, size=size)
    assert (meter.value(metrics.STORE_OBJECTS), meter.value(metrics.STORE_BYTES)) == (3, 4000)


def test_a_replica_tells_when_it_could_answer(federation: SmallFederation[HashState], meter: Remembered) -> None:
    """The moment is 0 until it can answer, then grows, and stands still from when it cannot any more."""
    gauges = ReplicaGauges("small", meter, federation.clock)
    reported = []
    for is_ready in (False, True, True, False):
        gauges.show(is_ready=is_ready, tokens=())
        reported.append(meter.value(metrics.API_READY))
    assert reported[0] == 0
    assert 0 < reported[1] < reported[2] == reported[3]


def test_the_next_token_to_expire_is_reported_by_role(
    federation: SmallFederation[HashState], meter: Remembered
) -> None:
    """For each role, the earliest expiry among valid tokens counts; revoked and expired ones do not."""
    clock = federation.clock
    register, gauges = TokenRegister(federation.store, clock), ReplicaGauges("small", meter, clock)
    kept = register.create("erase", days=90).record
    register.create("erase", days=120)
    register.revoke(register.create("erase", days=30).record.token_id)
    over = register.create("audit", days=1).record
    clock.advance_to(datetime.fromisoformat(over.expires_at))
    gauges.show(is_ready=True, tokens=register.records())
    assert meter.value(metrics.TOKEN_EXPIRES, "erase") == datetime.fromisoformat(kept.expires_at).timestamp()
    assert meter.value(metrics.TOKEN_EXPIRES, "audit") == meter.value(metrics.TOKEN_EXPIRES, "predict") == 0


def test_series_are_few_and_name_nobody(
    federation: SmallFederation[HashState], gauges: Gauges, meter: Remembered
) -> None:
    """However many requests there are, there is one series a metric and state, and none names a request or a person."""
    for number in range(5):
        federation.erase(subjects=[f"{WHO}-{number}"], request_id=f"er-{number}")
        gauges.show(federation.state, journal_entries=3, troubled=False, size=StoreSize())
    assert len(meter.values) == sum(metric.kind == "gauge" for metric in METRICS) - 1 + len(RequestState)
    labels = {label for _, values in meter.values for label in values}
    assert labels == {"small", *(state.value for state in RequestState)}


def test_every_metric_is_well_named() -> None:
    """Names are Prometheus names of our own, each once, with a unit where there is one, and a description."""
    names = [metric.name for metric in (*METRICS, *REPLICA_METRICS)]
    assert len(set(names)) == len(names)
    for metric in (*METRICS, *REPLICA_METRICS):
        assert metric.name.startswith("sisa_")
        assert metric.name.replace("_", "").isalnum()
        assert metric.name == metric.name.lower()
        assert metric.description.endswith(".")
        assert (metric.kind == "histogram") == bool(metric.buckets)
        assert list(metric.buckets) == sorted(set(metric.buckets))
        assert set(metric.labels) <= {"federation", "state", "role"}


def test_ray_takes_every_metric() -> None:
    """Ray's own classes accept each metric's name, labels and values, with a cluster or without one, and no other."""
    from cluster.coordinator_actor.ray_metrics import RayMeter

    everything = (*METRICS, *REPLICA_METRICS)
    meter = RayMeter(everything)
    for metric in everything:
        tell = meter.set if metric.kind == "gauge" else meter.observe
        tell(metric, 1.0, dict.fromkeys(metric.labels, "small"))
        with pytest.raises(ValueError, match="tag key"):
            tell(metric, 1.0, {"stranger": "small"})
