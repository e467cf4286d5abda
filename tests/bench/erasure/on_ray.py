"""Erasures by a coordinator that runs on Ray, beside the seconds that its workers report of their training."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import ray

from cluster.config.specification import FederationSpecification
from cluster.coordinator_actor.actor import ACTOR_NAME
from cluster.coordinator_actor.launch import launch_coordinator, namespace_of, stop_coordinator
from cluster.federation import Federation
from cluster.training.silence import own_place
from cluster.writer.stores import open_objects
from coordinator.engine.ledger import read_state
from coordinator.state import FederationState
from deploy.views.tables import table
from storage.objects import new_name, object_key
from storage.stores.local import LocalStore

_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Running:
    """A coordinator at work."""

    specification: FederationSpecification
    handle: Any
    process: int

    def state(self) -> FederationState:
        """Return the federation's state."""
        state = read_state(open_objects(self.specification))
        assert state is not None
        return state


@contextmanager
def running(specification: FederationSpecification) -> Iterator[Running]:
    """Launch the federation's coordinator on a Ray of its own, and end both after the block."""
    store = open_objects(specification)
    launch_coordinator(specification)
    try:
        handle: Any = ray.get_actor(ACTOR_NAME, namespace=namespace_of(specification, store))
        place: Any = ray.get(handle.__ray_call__.remote(own_place))
        yield Running(specification, handle, place.process)
    finally:
        stop_coordinator(store)
        ray.shutdown()


def processor_seconds(process: int) -> float:
    """Return the seconds of the processor that a process has had."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def report_running(specification: FederationSpecification, count: int = 8) -> None:
    """Erase one person after another; print where the time goes."""
    with running(specification) as at_work, Federation(specification) as federation:
        federation.train()
        lines = [_erased(at_work, federation, f"person-{number:04d}") for number in range(1, count + 2)][1:]
    window = specification.erasure.batch_window_seconds
    put = _put_seconds(specification)
    header = (
        "to quarantine ms",
        "window, to the first slice ms",
        "training, as workers say ms",
        "all slices ms",
        "purge and receipt ms",
        "coordinator's processor ms",
        "puts of a slice",
        "a put ms",
    )
    columns = list(zip(*lines, strict=True))
    print(
        f"\none erasure by a running coordinator, window of {window:g} s, medians of {count};"
        " a put: of 400 bytes, nothing else being written"
    )
    print(table(header, [(*(f"{median(column) * 1000:.0f}" for column in columns), 3, f"{put * 1000:.1f}")]))


def _erased(at_work: Running, federation: Federation, person: str) -> tuple[float, ...]:
    before, processor = at_work.state(), processor_seconds(at_work.process)
    began = time.time()
    request_id = federation.erase(subjects=[person]).request_id
    state = at_work.state()
    request = state.request(request_id)
    assert request is not None
    times = {name: datetime.fromisoformat(value).timestamp() - began for name, value in request.times.items()}
    chains = zip(before.shards, state.shards, strict=True)
    new = [each for was, now in chains for each in now.chain if each.key not in {old.key for old in was.chain}]
    training = sum(each.seconds for each in new)
    quarantined = times["quarantined"]
    first = times["retraining"]
    return (
        quarantined,
        first - quarantined,
        training,
        times["published"] - first,
        times["complete"] - times["published"],
        processor_seconds(at_work.process) - processor,
    )


def _put_seconds(specification: FederationSpecification, count: int = 50) -> float:
    store = LocalStore(open_objects(specification).location)
    began = time.perf_counter()
    for _ in range(count):
        store.put_if_absent(object_key(f"bench/{new_name()}"), b"x" * 400)
    return (time.perf_counter() - began) / count
