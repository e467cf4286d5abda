"""Memory: a body takes a limited multiple of its own size, regardless of its content."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from cluster.config.serve import ServeSettings
from cluster.coordinator_actor.log_lines import LogLines
from cluster.serving.app import build_app
from cluster.serving.bodies import JSON
from tests.doubles.user_folder import FEATURES
from tests.serving.world import World, rows

MOST_TIMES = 40
"""Bytes of memory for a byte of a body: thirty for a list in it, and what is made of it."""
MOST_BYTES = 8 << 20
"""Bytes of memory on top of those."""

ROW = rows(1)[0]
NAMES = [f"x{feature:02d}" for feature in range(FEATURES)]
MANY = {f"{number:x}": 0 for number in range(4000)}


def points(*features: object) -> bytes:
    """Return a body with a data point for each of these features."""
    return json.dumps({"points": [{"features": each} for each in features]}, separators=(",", ":")).encode()


BODIES: Mapping[str, bytes] = {
    "many names in the first of many": points(MANY, *[{}] * 4000),
    "all names, and many more, in the first": points(dict.fromkeys(NAMES, 0) | MANY, *[{}] * 4000),
    "many names in each": points(*[dict(list(MANY.items())[:2000])] * 20),
    "a long text among numbers": points(*[ROW] * 1000, ["a" * 20_000, *ROW[1:]]),
    "many columns": json.dumps({"columns": {name: [] for name in MANY}}).encode(),
    "many columns of many": json.dumps({"columns": {name: [0] * 20 for name in MANY}}).encode(),
    "objects in lists": json.dumps({"columns": {"x00": [[MANY], *[[{}]] * 4000]}}).encode(),
    "objects as ids": json.dumps({"columns": {"id": [MANY, *[{}] * 4000]}}).encode(),
    "lists that are not data points": b'{"points":[' + b"[]," * 600_000 + b"[]]}",
    "objects that are not data points": b'{"points":[' + b"{}," * 600_000 + b"{}]}",
}


@pytest.fixture(scope="module")
def client(still_world: World) -> Iterator[TestClient]:
    """The API with the limits that it has where nobody sets any."""
    service = still_world.service
    roomy = replace(service, specification=replace(service.specification, serve=ServeSettings()))
    app = build_app(roomy, LogLines("roomy", service.clock, still_world.log))
    with TestClient(app, raise_server_exceptions=False) as made:
        yield made


@pytest.mark.parametrize("name", BODIES)
def test_a_body_takes_a_multiple_of_its_size(still_world: World, client: TestClient, name: str) -> None:
    """A body that is refused has taken some megabytes, not gigabytes."""
    headers, before = still_world.headers("predict", Content_Type=JSON), pa.default_memory_pool()
    watched = pa.proxy_memory_pool(before)
    pa.set_memory_pool(watched)
    tracemalloc.start()
    try:
        answer = client.post("/v1/predictions", content=BODIES[name], headers=headers)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
    assert answer.status_code in {413, 422}
    assert peak_bytes + watched.max_memory() < MOST_TIMES * len(BODIES[name]) + MOST_BYTES
