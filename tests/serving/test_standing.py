"""What a replica knows of the store, where what was withdrawn stays so, and reports of its health."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from cluster.coordinator_actor.log_lines import LogLines
from cluster.coordinator_actor.metrics import API_READY, TOKEN_EXPIRES, ReplicaGauges
from cluster.runtime.system import SystemClock
from cluster.serving.app import build_app
from cluster.serving.deployment import check_replica
from cluster.serving.service import open_service
from coordinator.state import FederationState
from storage.errors import InvariantBroken, SisaError, Unavailable
from storage.stores.local import LocalStore
from tests.cluster.coordinator_actor.observed import Remembered
from tests.multinode.patience import until
from tests.serving.world import ROLES, World, points


class _SetBack:
    """Follows a store that names an earlier state, as one does that was set back unnoticed."""

    position = 1

    def __init__(self, state: FederationState) -> None:
        self._state = state

    def look(self) -> FederationState:
        """Return the state."""
        return self._state


def test_a_floor_that_was_read_never_falls(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No generation is loaded or held that was below a floor which was read, also if the store says so later (E10)."""
    before = world.resident.state()
    standing = world.service.standing
    standing.load()
    world.erase("secret-person-001", key="er-1")
    while standing.floor < 2:
        standing.current()
    monkeypatch.setattr(standing, "_follower", _SetBack(replace(before, floor=0)))
    standing.current()
    assert standing.floor == 2
    assert standing.ensemble is None or standing.ensemble.generation >= 2
    with pytest.raises(Unavailable, match="names a generation that was withdrawn before"):
        standing.load()


@pytest.fixture
def meter() -> Remembered:
    """Where the replica reports."""
    return Remembered()


@pytest.fixture
def gauges(meter: Remembered) -> ReplicaGauges:
    """What the replica tells."""
    return ReplicaGauges("small", meter, SystemClock())


def test_a_replica_that_answers_says_so(world: World, gauges: ReplicaGauges, meter: Remembered) -> None:
    """Once it has loaded a generation it reports the moment, and when the tokens of each role expire."""
    until(
        lambda: _reported(world, gauges, meter) and all(meter.value(TOKEN_EXPIRES, role) for role in ROLES),
        "the tokens of all roles",
    )
    assert all(meter.value(TOKEN_EXPIRES, role) > meter.value(API_READY) for role in ROLES)


def test_a_replica_that_cannot_answer_now_lives_on(
    world: World, gauges: ReplicaGauges, meter: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the store is away the moment stands still, and Serve sees no fault: another one would miss it too."""
    until(lambda: _reported(world, gauges, meter), "a loaded generation")
    before = meter.value(API_READY)
    monkeypatch.setattr(type(world.service), "check", _raise(Unavailable("the store is away", "wait")))
    check_replica(world.service, gauges)
    assert meter.value(API_READY) == before


def test_a_broken_replica_is_for_serve_to_replace(
    world: World, gauges: ReplicaGauges, meter: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only a new replica cures is raised, and nothing is reported."""
    monkeypatch.setattr(type(world.service), "check", _raise(InvariantBroken("a thread of this replica has ended")))
    with pytest.raises(InvariantBroken, match="a thread of this replica has ended"):
        check_replica(world.service, gauges)
    assert meter.values == {}


def test_a_replica_only_reads(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers predictions, the status, a receipt and a lookup from a store that it may read and nothing else."""
    world.erase("secret-person-001", key="er-1")
    heard = world.resident.hear(0, 0.0)
    while not heard.idle:
        heard = world.resident.hear(heard.upto, 60.0)
    world.resident.stop()
    for name in ("put_if_absent", "put_if_match", "delete", "delete_all", "remove_unfinished", "exclusive"):
        monkeypatch.setattr(LocalStore, name, _refuse)
    service = open_service(world.service.specification, lambda: None)
    client = TestClient(build_app(service, LogLines("small", service.clock, io.StringIO())))
    try:
        until(lambda: client.get("/healthz").status_code == 200, "a loaded generation")
        answers = (
            client.post("/v1/predictions", json=points(), headers=world.headers("predict")),
            client.get("/v1/status", headers=world.headers("audit")),
            client.get("/v1/erasures/er-1/receipt", headers=world.headers("audit")),
            client.post("/v1/subjects:lookup", json={"subjects": ["a"]}, headers=world.headers("officer")),
        )
    finally:
        service.close()
    assert [answer.status_code for answer in answers] == [200] * 4


def _refuse(*_: object, **__: object) -> None:
    raise AssertionError("a replica writes to the store")


def _reported(world: World, gauges: ReplicaGauges, meter: Remembered) -> float:
    check_replica(world.service, gauges)
    return meter.value(API_READY)


def _raise(error: SisaError) -> object:
    def check(_: object) -> None:
        raise error

    return check
