"""What a prediction costs: ours on Ray Serve, an empty application there, and a bare FastAPI app with the same model.

All are asked in turn, in blocks, with the same bytes over one open connection each. Processor time is of processes:
client, proxy, the replica itself and all others of the cluster. What they use while nobody asks is taken off.
"""

from __future__ import annotations

import http.client
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
import ray
from fastapi import FastAPI, Request
from ray import serve
from starlette.responses import Response

from cluster.ensemble.loaded import Ensemble
from cluster.serving.intake import ONGOING
from deploy.views.tables import table
from tests.bench.serving.processor_time import cluster_processes, seconds_of

PATH: Final = "/v1/predictions"
BLOCKS: Final = 7
IDLE_SECONDS: Final = 5.0
_EMPTY: Final = "bench-empty"
_PARTS: Final = ("client", "proxy", "replica", "others")


@dataclass(slots=True)
class Side:
    """One of those who answer, and what was measured of it."""

    name: str
    url: str
    token: str
    processes: Mapping[str, tuple[int, ...]]
    """Process ids, by part."""
    seconds: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in (*_PARTS, "wall")})
    """Seconds for one request, as the mean of a block, by part."""
    walls: list[float] = field(default_factory=list)
    """Wall time of each request."""
    idle: dict[str, float] = field(default_factory=dict)
    """Processor time a second while nobody asks, by part."""

    def connect(self) -> http.client.HTTPConnection:
        """Return an open connection."""
        parts = urlsplit(self.url)
        return http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=120)

    def ask(self, connection: http.client.HTTPConnection, body: bytes, media_type: str) -> bytes:
        """Return what it answers."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": media_type, "Accept": media_type}
        connection.request("POST", urlsplit(self.url).path.rstrip("/") + PATH, body, headers)
        answer = connection.getresponse()
        payload = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{self.name}: {answer.status} {payload[:200]!r}")
        return payload

    def processor(self) -> dict[str, float]:
        """Return the processor time used so far, by part."""
        found = {part: sum(map(seconds_of, self.processes.get(part, ()))) for part in _PARTS[1:]}
        return {"client": time.process_time(), **found}

    def block(self, body: bytes, media_type: str, requests: int) -> None:
        """Send so many requests, one after the other."""
        connection = self.connect()
        self.ask(connection, body, media_type)
        before, began = self.processor(), time.perf_counter()
        for _ in range(requests):
            asked = time.perf_counter()
            self.ask(connection, body, media_type)
            self.walls.append(time.perf_counter() - asked)
        wall = time.perf_counter() - began
        connection.close()
        for part, used in self.processor().items():
            rest = 0.0 if part == "client" else self.idle.get(part, 0.0) * wall
            self.seconds[part].append(max(0.0, used - before[part] - rest) / requests)
        self.seconds["wall"].append(wall / requests)

    def rest(self, seconds: float) -> None:
        """Measure what is used while nobody asks."""
        before = self.processor()
        time.sleep(seconds)
        self.idle = {part: (used - before[part]) / seconds for part, used in self.processor().items()}

    def of_server(self) -> list[float]:
        """Return the processor time of a request without the client's, block by block."""
        return [sum(parts) for parts in zip(*(self.seconds[part] for part in _PARTS[1:]), strict=True)]


def report_cost(sides: Sequence[Side], body: bytes, media_type: str, requests: int) -> None:
    """Ask ``ours``, ``empty`` and ``bare`` in turn, and print what a request costs."""
    ours, empty, bare = sides
    for side in sides:
        side.block(body, media_type, requests)
        side.walls.clear()
        side.seconds = {part: [] for part in side.seconds}
        side.rest(IDLE_SECONDS)
    for _ in range(BLOCKS):
        for side in sides:
            side.block(body, media_type, requests)
    lines = [
        (
            side.name,
            *(f"{median(side.seconds[part]) * 1e3:.2f}" for part in _PARTS),
            f"{median(side.of_server()) * 1e3:.2f}",
            f"{median(side.walls) * 1e3:.2f}",
        )
        for side in sides
    ]
    titles = (*(f"{part} ms" for part in _PARTS), "all but client ms", "p50 ms")
    print(table((f"processor time of a request, {media_type}", *titles), lines))
    beyond = [one - other for one, other in zip(ours.of_server(), empty.of_server(), strict=True)]
    to_bare = [one / other for one, other in zip(ours.of_server(), bare.of_server(), strict=True)]
    print(f"beyond the empty application: {_spread(beyond, 1e3)} ms (at most 1.5)")
    print(f"its replica beyond the empty one's: {_spread(_replicas(ours, empty), 1e3)} ms")
    print(f"over the bare application: processor {_spread(to_bare)}, p50 {median(ours.walls) / median(bare.walls):.2f}")
    print(f"empty over bare: processor {median(empty.of_server()) / median(bare.of_server()):.2f}\n")


def report_many(ours: Side, bare: Side, body: bytes, media_type: str, points: int) -> None:
    """Ask both in turn for many data points in one request, and print how many a second they answer."""
    for side in (ours, bare):
        side.block(body, media_type, 1)
        side.walls.clear()
        side.seconds = {part: [] for part in side.seconds}
    for _ in range(BLOCKS):
        for side in (ours, bare):
            side.block(body, media_type, 1)
    lines = [
        (side.name, f"{points / median(side.walls):,.0f}", f"{points / median(side.of_server()):,.0f}")
        for side in (ours, bare)
    ]
    print(table((f"{points:,} points, {media_type}", "points/s", "points a second of the processor"), lines))
    walls = [other / one for one, other in zip(ours.walls, bare.walls, strict=True)]
    processor = [other / one for one, other in zip(ours.of_server(), bare.of_server(), strict=True)]
    print(f"ours over bare: {_spread(walls)} (at least 0.8); of the processor {_spread(processor)}\n")


def _replicas(ours: Side, empty: Side) -> list[float]:
    return [one - other for one, other in zip(ours.seconds["replica"], empty.seconds["replica"], strict=True)]


def _spread(values: Sequence[float], unit: float = 1.0) -> str:
    low, high = min(values) * unit, max(values) * unit
    return f"{median(values) * unit:.2f} ({low:.2f} - {high:.2f})"


def session_of_cluster() -> str:
    """Return the name of the Ray session that this process is part of."""
    node: Any = ray._private.worker._global_node
    return str(node.session_name)


@contextmanager
def empty_application(port: int, answer: bytes, media_type: str) -> Iterator[Side]:
    """Serve an application that reads a body and answers with these bytes, beside the others."""
    api = FastAPI()

    @api.post(PATH)
    async def predict(request: Request) -> Response:
        await request.body()
        return Response(answer, media_type=media_type)

    @serve.deployment(name="replica", max_ongoing_requests=ONGOING, logging_config={"enable_access_log": False})
    @serve.ingress(api)
    class Empty:
        pass

    bound: Any = Empty
    serve.run(bound.bind(), name=_EMPTY, route_prefix="/empty")
    processes = cluster_processes(session_of_cluster(), _EMPTY)
    yield Side("an empty application", f"http://127.0.0.1:{port}/empty", "none", processes)
    serve.delete(_EMPTY)


@contextmanager
def bare_application(folder: Path, ensemble: Ensemble, scale: float) -> Iterator[Side]:
    """Start the bare application with the weights of these constituents."""
    models = [dict(state.model.named_parameters()) for state in ensemble.constituents]
    names = {"first": "0.weight", "first_bias": "0.bias", "second": "2.weight", "second_bias": "2.bias"}
    stacked = {mine: np.stack([each[name].detach().numpy() for each in models]) for mine, name in names.items()}
    arrays = {name: each.swapaxes(1, 2).copy() if each.ndim == 3 else each[:, None] for name, each in stacked.items()}
    np.savez(folder / "weights.npz", allow_pickle=False, scale=np.asarray(scale), **arrays)
    token = secrets.token_hex(32)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.bench.serving.bare_app", str(folder / "weights.npz"), str(port), token]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    _until_open(port)
    yield Side("a bare application", f"http://127.0.0.1:{port}", token, {"replica": (process.pid,)})
    process.kill()
    process.wait()


def _until_open(port: int) -> None:
    for _ in range(1200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("the bare application does not listen")
