"""Serving on Ray Serve, on this machine: ``python -m tests.bench.serving [asked] [megabytes]``.

Twenty small constituents against one model, one point a request; what a request costs beyond an empty application on
Ray Serve, and over a bare FastAPI app; ten thousand points in one Arrow request against that app and against the bare
stacked model in a loop; how soon a generation is answered with, and whether anything fails meanwhile; how soon a
replica with so many megabytes of constituents can answer, and the memory that it takes.
"""

from __future__ import annotations

import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import TypeVar
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.func import functional_call, stack_module_state

import cluster
from cluster.client import Client
from cluster.config.specification import ClusterSettings, FederationSpecification, read_specification
from cluster.coordinator_actor.actor import ACTOR_NAME
from cluster.coordinator_actor.launch import namespace_of
from cluster.coordinator_actor.record import RECORD_KEY
from cluster.ensemble.loaded import Ensemble
from cluster.runtime.session import join_ray, leave_ray
from cluster.runtime.system import SystemClock
from cluster.serving.bodies import JSON
from cluster.serving.deployment import serve_federation, stop_serving
from cluster.tokens import TokenRegister
from cluster.writer.stores import open_objects
from coordinator.engine.follower import Follower
from deploy.demo_data import DemoData, write_digits
from deploy.views.tables import table
from shards.data.messages import ARROW_STREAM, stream_of
from shards.points import scaled
from storage.errors import Unavailable
from tests.bench.serving.cost import (
    Side,
    bare_application,
    empty_application,
    report_cost,
    report_many,
    session_of_cluster,
)
from tests.bench.serving.processor_time import cluster_processes
from tests.bench.serving.start import report_start
from tests.doubles.demo_specification import demo_specification

_Result = TypeVar("_Result")

SHARDS = 20
MANY = 10_000
ERASURES = 3
_STARTS = 10
_PAUSE_SECONDS = 5.0
CALLERS = 2


@dataclass(frozen=True, slots=True)
class Bench:
    """A federation that is served, and a client for each role."""

    specification: FederationSpecification
    url: str
    tokens: dict[str, str]

    def client(self, role: str = "predict") -> Client:
        """Return a client that asks once: what fails is to be seen."""
        return Client(self.url, self.tokens[role], pause=_never)


def _never(_: float) -> None:
    raise TimeoutError("a request was refused for now")


def main() -> None:
    """Measure, and print tables."""
    asked = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    _patiently(lambda: join_ray(ClusterSettings()))
    with tempfile.TemporaryDirectory() as folder:
        data = write_digits(Path(folder) / "data")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with _served(Path(folder), data, SHARDS, port) as twenty:
            with _served(Path(folder), data, 1, port) as one:
                _report_small(one, twenty, asked)
            _report_against_others(twenty, Path(folder), data, asked // 4)
            _report_many(twenty, data)
            _report_switches(twenty)
    leave_ray()
    report_start(int(sys.argv[2]) if len(sys.argv) > 2 else 1_000)


def _patiently(act: Callable[[], _Result]) -> _Result:
    """Call ``act`` again when Ray or Serve did not start in time, as on a busy machine; the last error is raised."""
    for left in reversed(range(_STARTS)):
        try:
            return act()
        except Unavailable as error:
            if not left:
                raise
            print(f"once more: {error.message}", file=sys.stderr)
            time.sleep(_PAUSE_SECONDS)
    raise AssertionError


@contextmanager
def _served(folder: Path, data: DemoData, shards: int, port: int) -> Iterator[Bench]:
    """Train and serve a federation of so many shards, on the port that all share."""
    import ray  # after ``cluster``, which chooses how processes prove to Ray who they are

    file = folder / f"{shards}.toml"
    serve = f'[serve]\nport = {port}\nprefix = "/{shards}"\nrequests_per_minute = 1000000000\n'
    text = demo_specification(
        scale=data.scale,
        epochs=6,
        shards=shards,
        slices=2,
        name=f"bench-{shards}",
        store=f"./federation-{shards}",
        further=f"[erasure]\nbatch_window_seconds = 0.0\n{serve}",
    )
    file.write_text(text, encoding="utf-8")
    specification = read_specification(file)
    with _patiently(lambda: cluster.connect(specification)) as federation:
        federation.train()
    serving = _patiently(lambda: serve_federation(specification))
    store = open_objects(specification)
    register = TokenRegister(store, SystemClock())
    yield Bench(specification, serving.url, {role: register.create(role, days=1).text for role in ("predict", "erase")})
    stop_serving(specification)
    ray.kill(ray.get_actor(ACTOR_NAME, namespace=namespace_of(specification, store)), no_restart=True)
    store.delete(RECORD_KEY)


def _report_small(one: Bench, twenty: Bench, asked: int) -> None:
    """Ask both in turn for one data point, over connections that stay open."""
    point = [{"id": 1, "features": [8] * 64}]
    times: dict[int, list[float]] = {1: [], SHARDS: []}
    with one.client() as first, twenty.client() as second:
        for number in range(asked):
            for shards, client in ((1, first), (SHARDS, second)):
                began = time.perf_counter()
                client.predict(point)
                if number >= asked // 10:
                    times[shards].append((time.perf_counter() - began) * 1e3)
    lines = [
        (str(shards), f"{median(found):.2f}", f"{quantiles(found, n=100)[98]:.2f}") for shards, found in times.items()
    ]
    print(table(("constituents", "p50 ms", "p99 ms"), lines))
    print(f"p50 of {SHARDS} over one: {median(times[SHARDS]) / median(times[1]):.2f} (at most 1.2)\n")


def _report_against_others(bench: Bench, folder: Path, data: DemoData, requests: int) -> None:
    """Compare with an empty application on the same Ray Serve, and with a bare one."""
    address, processes = urlsplit(bench.url), cluster_processes(session_of_cluster(), namespace_of_bench(bench))
    ours = Side("twenty constituents", bench.url, bench.tokens["predict"], processes)
    body = json.dumps({"points": [{"id": 1, "features": [8] * 64}]}).encode()
    connection = ours.connect()
    answer = ours.ask(connection, body, JSON)
    connection.close()
    ensemble = _ensemble(bench)
    with (
        empty_application(address.port or 80, answer, JSON) as empty,
        bare_application(folder, ensemble, data.scale) as bare,
    ):
        report_cost((ours, empty, bare), body, JSON, requests)
        report_many(ours, bare, stream_of(_many(data), {}), ARROW_STREAM, MANY)


def namespace_of_bench(bench: Bench) -> str:
    """Return the name of the application that is served."""
    return namespace_of(bench.specification, open_objects(bench.specification))


def _many(data: DemoData) -> pa.Table:
    source = pq.read_table(data.train)
    features = [name for name in source.column_names if name.startswith("x")]
    return source.select(["id", *features]).take(np.arange(MANY) % source.num_rows).combine_chunks()


def _report_many(bench: Bench, data: DemoData) -> None:
    """Answer ten thousand points: over HTTP, and with the bare stacked model on the same number of threads."""
    asked = _many(data)
    features = asked.column_names[1:]
    raw_NF = np.stack([asked.column(name).to_numpy() for name in features], axis=1)
    features_NF = scaled(np.ascontiguousarray(raw_NF, np.float32), data.scale)
    ours, bare = list[float](), list[float]()
    models = [state.model for state in _ensemble(bench).constituents]
    with bench.client() as client:
        for _ in range(12):
            began = time.perf_counter()
            client.predict(asked)
            ours.append(time.perf_counter() - began)
            bare.append(_stacked_seconds(models, features_NF))
    rates = [MANY / median(ours[2:]), MANY / median(bare[2:])]
    lines = [("one Arrow request", f"{rates[0]:,.0f}"), ("bare stacked model", f"{rates[1]:,.0f}")]
    print(table((f"{MANY:,} points", "points/s"), lines))
    print(f"ours over bare: {rates[0] / rates[1]:.2f} (at least 0.5)\n")


def _stacked_seconds(models: list[torch.nn.Module], features_NF: npt.NDArray[np.float32]) -> float:
    """Return how long the stacked model takes for all points, to mean probabilities."""
    parameters, buffers = stack_module_state(models)
    base = models[0]

    def one(parameters: dict[str, torch.Tensor], buffers: dict[str, torch.Tensor], chunk: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = functional_call(base, (parameters, buffers), (chunk,))
        return found

    began = time.perf_counter()
    with torch.inference_mode():
        for start in range(0, len(features_NF), 1024):
            chunk = torch.from_numpy(features_NF[start : start + 1024])
            logits_SNC = torch.vmap(one, in_dims=(0, 0, None))(parameters, buffers, chunk)
            logits_SNC.softmax(dim=2).mean(dim=0).argmax(dim=1)
    return time.perf_counter() - began


@dataclass(slots=True)
class _Watch:
    """When each generation was committed, and when it was first answered with."""

    committed: dict[int, float] = field(default_factory=dict)
    answered: dict[int, float] = field(default_factory=dict)
    answers: int = 0
    failures: list[BaseException] = field(default_factory=list)
    is_over: bool = False

    def follow(self, bench: Bench) -> None:
        """Poll the store until the run is over."""
        follower = Follower(open_objects(bench.specification))
        while not self.is_over:
            state = follower.look()
            if state is not None:
                self.committed.setdefault(state.generation, time.perf_counter())
            time.sleep(0.001)

    def ask(self, bench: Bench) -> None:
        """Send requests until the run is over."""
        with bench.client() as client:
            while not self.is_over:
                try:
                    generation = client.predict([{"features": [8] * 64}]).generation
                except Exception as error:  # noqa: BLE001  what fails is counted
                    self.failures.append(error)
                    continue
                self.answers += 1
                self.answered.setdefault(generation, time.perf_counter())


def _report_switches(bench: Bench) -> None:
    """Erase people while callers ask without a pause; take the time from a commit to the first answer with it."""
    watch = _Watch()
    threads = [threading.Thread(target=watch.follow, args=(bench,))]
    threads += [threading.Thread(target=watch.ask, args=(bench,)) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    with bench.client("erase") as eraser:
        for number in range(ERASURES):
            request = eraser.erase(subjects=[f"person-{number:04d}"]).request_id
            while eraser.request(request).state != "complete":
                time.sleep(0.1)
    time.sleep(2)
    watch.is_over = True
    for thread in threads:
        thread.join()
    lines = [
        (str(generation), "withdrawn and replaced" if number % 2 == 0 else "retrained", f"{(at - began) * 1e3:.0f}")
        for number, (generation, began) in enumerate(sorted(watch.committed.items())[1:])
        if (at := watch.answered.get(generation)) is not None
    ]
    print(table(("generation", "how it came", "ms from its commit to the first answer"), lines))
    print(f"{watch.answers:,} answers meanwhile, {len(watch.failures)} failed (none may)")


def _ensemble(bench: Bench) -> Ensemble:
    store = open_objects(bench.specification)
    state = Follower(store).look()
    assert state is not None
    return Ensemble.load(store, state, bench.specification)


if __name__ == "__main__":
    main()
