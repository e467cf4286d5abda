"""Under load: erasures, publications and a store that comes and goes, while several callers ask without a pause."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from cluster.config.specification import read_specification
from cluster.ensemble.loaded import Ensemble
from coordinator.requests import RequestState
from coordinator.state import FederationState
from shards.points import scaled
from storage.errors import Unavailable
from storage.objects import ObjectStore
from tests.serving.world import PATIENCE_SECONDS, World, coordinator_of, error_of, open_world, rows

CALLERS = 3
LEAST_ANSWERS = 1000
FEATURES_NF = scaled(np.array(rows(3), np.float32), 255.0)


class Counts:
    """How often each caller has been answered. Raises what any of them has met."""

    def __init__(self, callers: int) -> None:
        self.each = [0] * callers
        self.failures: list[BaseException] = []

    def total(self) -> int:
        """Return how often all of them have."""
        if self.failures:
            raise self.failures[0]
        return sum(self.each)


@contextmanager
def asked_without_pause(ask: Callable[[], None], callers: int = CALLERS) -> Iterator[Counts]:
    """Have several callers ask again and again. Raises what any of them met."""
    stop, counts = threading.Event(), Counts(callers)

    def go_on(caller: int) -> None:
        try:
            while not stop.is_set():
                ask()
                counts.each[caller] += 1
        except BaseException as error:  # noqa: BLE001  it is raised where it is asked for
            counts.failures.append(error)

    threads = [threading.Thread(target=go_on, args=(caller,)) for caller in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    counts.total()


def test_no_answer_fails_and_none_is_tainted(world: World) -> None:
    """While several people are erased, every one of thousands of answers arrives, and none is from below the floor.

    The floor is read before the question: constituents in quarantine by then must not be in the answer.
    """
    generations = set[int]()

    def ask() -> None:
        floor = world.resident.state().floor
        answer = world.service.answering.ask(FEATURES_NF).result(PATIENCE_SECONDS)
        assert answer.generation >= floor
        generations.add(answer.generation)

    with asked_without_pause(ask) as counts:
        for number in range(4):
            world.erase(f"secret-person-{number:03d}", key=f"er-{number}")
            while world.resident.request(f"er-{number}").state is not RequestState.COMPLETE:
                world.resident.hear(10**9, 0.05)
        while counts.total() < LEAST_ANSWERS or max(generations) < world.resident.state().generation:
            pass
    assert len(generations) > 4
    assert world.resident.verify(None).holds


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_generation_that_is_withdrawn_while_it_is_read_is_read_anew(
    world: World, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """If an erasure arrives while a replica reads a generation, the replica reads the current one instead.

    The same holds if the erasure is complete before the replica reads the first constituent, purged by then.
    """
    assert world.predict().status_code == 200
    standing, load, erased = world.service.standing, Ensemble.load, list[str]()

    def erase() -> None:
        erased.append("secret-person-001")
        world.erase(*erased, key="er-1")
        while world.resident.request("er-1").state is not RequestState.COMPLETE:
            world.resident.hear(10**9, 0.05)
        standing.current()

    def slowly(store: ObjectStore, state: FederationState, specification: Any, loaded: Ensemble | None) -> Ensemble:
        if erased:
            return load(store, state, specification, loaded)
        if moment == "before":
            erase()
            return load(store, state, specification)  # with nothing in memory that it shares
        found = load(store, state, specification, loaded)
        erase()
        return found

    monkeypatch.setattr(Ensemble, "load", slowly)
    assert standing.load().generation >= standing.floor > 1
    assert world.predict().status_code == 200


def test_a_replica_that_starts_in_the_middle_is_as_current(world: World) -> None:
    """A replica begun while people are being erased answers at or above the floor from its first answer on."""
    world.erase("secret-person-001", key="er-1")
    while world.resident.state().floor < 2:
        world.resident.hear(10**9, 0.05)
    other = open_world(world.home, world.resident)
    assert other.predict().json()["generation"] >= 2
    other.service.close()


def test_nothing_is_answered_from_memory_alone(world: World) -> None:
    """With the store away the API answers 503 and says when to come back; with the store back, it answers."""
    assert world.predict().status_code == 200
    away = world.home.folder / "away"
    world.home.store.rename(away)
    answer = world.predict()
    assert "Retry-After" in answer.headers
    error_of(answer, 503, "unavailable")
    error_of(world.client.get("/healthz"), 503, "unavailable")
    away.rename(world.home.store)
    while world.predict().status_code != 200:
        pass


def test_a_federation_that_is_not_trained_yet(world: World) -> None:
    """A replica may be there before anything is trained: it says so, and answers once something is."""
    world.service.close()
    world.resident.stop()
    for path in sorted(world.home.store.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    other = open_world(world.home, world.resident)
    assert "cannot answer now" in error_of(other.predict(), 503, "unavailable")["message"]
    error_of(other.erase("secret-person-001"), 503, "unavailable")
    resident = coordinator_of(read_specification(world.home.config))
    while other.predict().status_code != 200:
        pass
    other.service.close()
    resident.stop()


def test_a_federation_trained_under_other_settings(world: World) -> None:
    """If the federation was retrained under another specification, this replica refuses to answer and says why."""
    assert world.predict().status_code == 200
    world.resident.stop()
    world.home.specify(erasure__batch_window_seconds=0.0, training__learning_rate=0.2)
    resident = coordinator_of(read_specification(world.home.config))
    while (answer := world.predict()).status_code == 200:
        assert answer.json()["generation"] == 1
    assert "settings differ" in error_of(answer, 503, "unavailable")["message"]
    with pytest.raises(Unavailable, match="settings differ"):
        world.service.check()
    resident.stop()
