"""A coordinator that is observed: what monitoring and the log see of an erasure."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

import cluster.training.workers
from cluster.config.specification import read_specification
from cluster.coordinator_actor import resident as resident_module
from cluster.coordinator_actor.log_lines import LogLines
from cluster.coordinator_actor.metrics import FLOOR, JOURNAL, REQUESTS, SHOWN, STORE_OBJECTS, TAINTED, Gauges
from cluster.coordinator_actor.observer import Observer
from cluster.coordinator_actor.resident import Resident
from cluster.runtime.system import SystemClock
from cluster.writer.writer import drafted, writer_setup
from tests.cluster.coordinator_actor.observed import Remembered
from tests.doubles.user_folder import MARKED, UserFolder
from tests.doubles.workers.local_workers import LocalWorkers

PATIENCE_SECONDS = 60.0
"""How long a failing test waits; one that passes does not."""


def test_an_erasure_is_seen_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics have the request complete, the floor raised and nothing tainted; the log has it all the way, unnamed."""
    monkeypatch.setattr(resident_module, "REPORT_SECONDS", 0.01)
    monkeypatch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
    monkeypatch.setattr(cluster.training.workers, "join_ray", lambda _: False)
    specification = read_specification(UserFolder(tmp_path).fill(erasure__batch_window_seconds=0.0).config)
    meter, stream = Remembered(), io.StringIO()
    clock = SystemClock()
    observer = Observer(Gauges("small", meter, clock), LogLines("small", clock, stream))
    resident = Resident(lambda listener: writer_setup(specification, listener=listener), observer)
    resident.train()
    setup = writer_setup(specification, listener=lambda _: None)
    resident.accept(*drafted(setup, subjects=[MARKED], ids=(), request_id="ticket-1", held=""))
    heard = resident.hear(0, 0.0)
    while not heard.idle:
        heard = resident.hear(heard.upto, PATIENCE_SECONDS)
    resident.stop()
    assert meter.value(REQUESTS, "complete") == 1
    assert meter.value(FLOOR) > 0
    assert meter.value(TAINTED) == meter.value(JOURNAL) == 0
    assert meter.value(SHOWN) > 0
    assert meter.value(STORE_OBJECTS) > 0
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    states = [line["state"] for line in lines if line.get("request_id") == "ticket-1"]
    assert states[0] == "accepted"
    assert states[-1] == "complete"
    assert MARKED not in stream.getvalue()
