"""Bad input over HTTP: all errors have one shape and a remedy, and never quote what was sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pytest

from cluster.serving.bodies import JSON
from cluster.tokens import Role
from shards.data.messages import ARROW_STREAM, stream_of
from tests.doubles.user_folder import FEATURES
from tests.serving.world import World, error_of, points, rows

NAMED = "secret-person-017"
ROW = rows(1)[0]
NAMES = [f"x{feature:02d}" for feature in range(FEATURES)]


def arrow(**changes: Any) -> bytes:
    """Return one data point in Arrow form, with columns changed (None: left out)."""
    columns = {"id": [NAMED], **{name: pa.array([1], pa.uint8()) for name in NAMES}} | changes
    return stream_of(pa.table({name: values for name, values in columns.items() if values is not None}))


def compressed() -> bytes:
    """Return the same, compressed."""
    table = pa.table({"id": [NAMED]})
    sink = pa.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema, options=pyarrow.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    payload: bytes = sink.getvalue().to_pybytes()
    return payload


def one(**changes: Any) -> dict[str, Any]:
    """Return a body with one data point, changed."""
    return {"points": [{"id": NAMED, "features": ROW, **changes}]}


BODIES: Mapping[str, tuple[object, int, str]] = {
    "not JSON": (b'{"points": [secret', 400, "not JSON"),
    "not UTF-8": (b'{"points": "\xff\xfe"}', 400, "not JSON"),
    "empty": (b"", 400, "not JSON"),
    "NaN": (b'{"points": [{"features": [NaN]}]}', 400, "not JSON"),
    "infinity": (b'{"points": [{"features": [-Infinity]}]}', 400, "not JSON"),
    "endless digits": (b'{"points": [{"features": [' + b"1" * 5000 + b"]}]}", 400, "not JSON"),
    "deep": (b"[" * 90_000, 400, "not JSON"),
    "points twice": (b'{"points": [], "points": []}', 400, "a key stands twice"),
    "columns twice within": (b'{"columns": {"x00": [1], "secret": [1], "secret": [1]}}', 400, "a key stands twice"),
    "id twice": (b'{"points": [{"id": "secret-1", "id": "secret-2", "features": []}]}', 400, "a key stands twice"),
    "feature twice": (b'{"points": [{"features": {"x00": 1, "x00": 2}}]}', 400, "a key stands twice"),
    "unknown member twice": (b'{"secret": [{"a": {"b": 1, "b": 1}}]}', 400, "a key stands twice"),
    "a list": ([NAMED], 422, "an object with either 'points' or 'columns'"),
    "both forms": (points() | {"columns": {}}, 422, "either 'points' or 'columns'"),
    "unknown member": (points() | {NAMED: 1}, 422, "either 'points' or 'columns'"),
    "points of no kind": ({"points": {}}, 422, "'points' is a list"),
    "point of no kind": ({"points": [NAMED]}, 422, "'points' is a list of objects"),
    "point with more": (one(secret=NAMED), 422, "point=0"),
    "point without features": ({"points": [{"id": NAMED}]}, 422, "point=0"),
    "id of no kind": (one(id=[NAMED]), 422, "point=0"),
    "id true": (one(id=True), 422, "point=0"),
    "too few features": (one(features=ROW[1:]), 422, "has 15 features, expected 16"),
    "a text": (one(features=[NAMED, *ROW[1:]]), 422, "a feature that is not a number"),
    "a number as text": (one(features=["1", *ROW[1:]]), 422, "a feature that is not a number"),
    "null": (one(features=[None, *ROW[1:]]), 422, "a feature that is not a number"),
    "a list within": (one(features=[[1], *ROW[1:]]), 422, "a feature that is not a number"),
    "only lists within": (one(features=[[1]] * FEATURES), 422, "a feature that is not a number"),
    "too large": (one(features=[1e39, *ROW[1:]]), 422, "NaN or infinite"),
    "larger than any": (one(features=[10**400, *ROW[1:]]), 422, "a feature that is not a number"),
    "mixed forms": ({"points": [{"features": ROW}, {"features": {}}]}, 422, "some features are lists"),
    "missing column": (one(features={"x00": 1}), 422, "there is no column 'x01'"),
    "no column": ({"columns": {}}, 422, "there is no column"),
    "columns of no kind": ({"columns": [NAMED]}, 422, "'columns' is an object of lists"),
    "column of no kind": ({"columns": {"x00": NAMED}}, 422, "'columns' is an object of lists"),
    "uneven columns": ({"columns": {name: [1] * (1 + (name == "x00")) for name in NAMES}}, 422, "different lengths"),
    "a text in a column": ({"columns": {name: [NAMED] for name in NAMES}}, 422, "must hold numbers"),
    "mixed column": ({"columns": {name: [1, NAMED] for name in NAMES}}, 422, "not of one kind"),
    "object in a column": ({"columns": {name: [{NAMED: 1}] for name in NAMES}}, 422, "a column holds an object"),
    "null in a column": ({"columns": {name: [None] for name in NAMES}}, 422, "no value"),
    "too many points": ({"points": [{"features": ROW}] * 51}, 413, "more than 50 data points"),
    "too many in columns": ({"columns": {name: [1] * 51 for name in NAMES}}, 413, "more than 50 data points"),
    "a text among others": ({"points": [*one()["points"], {"features": [NAMED * 99, *ROW[1:]]}]}, 422, "point=1"),
    "missing later": (
        {"points": [{"features": dict(zip(NAMES, ROW, strict=True))}, {"features": {"x00": 1}}]},
        422,
        "'x01' in a data point [point=1]",
    ),
    "objects within lists": ({"columns": {name: [[{NAMED: 1}]] for name in NAMES}}, 422, "a column holds an object"),
    "lists within lists": ({"columns": {name: [[[1]]] for name in NAMES}}, 422, "lists within lists"),
    "half a character as a name": (b'{"columns": {"\\ud800": [1]}}', 422, "there is no column"),
    "too many bytes": (b"[" + b" " * 100_001, 413, "more than 100,000 bytes"),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_that_cannot_be_answered(still_world: World, name: str) -> None:
    """A body of JSON that cannot be answered is refused with the place of what is wrong, never with its value."""
    body, status, text = BODIES[name]
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = still_world.headers("predict", Content_Type=JSON)
    answer = still_world.client.post("/v1/predictions", content=payload, headers=headers)
    error = error_of(answer, status, "too_large" if status == 413 else "invalid")
    assert text in error["message"]
    assert "secret" not in answer.text


def renamed(**columns: Any) -> bytes:
    """Return one data point in Arrow form, with 'qqqq' in it replaced by bytes that are not UTF-8."""
    payload = arrow(**columns)
    assert b"qqqq" in payload
    return payload.replace(b"qqqq", b"\xd4\xd4qq")


def nested(**fields: pa.DataType) -> pa.Array:
    """Return one value of a structure with these fields."""
    return pa.nulls(1, pa.struct(fields))


STREAMS: Mapping[str, tuple[bytes, int, str]] = {
    "no stream": (b"secret-person-017", 400, "not a complete Arrow IPC stream"),
    "nothing": (b"", 400, "not a complete Arrow IPC stream"),
    "cut off": (arrow()[:-60], 400, "not a complete Arrow IPC stream"),
    "offsets that lead out": (arrow().replace(b"\0\0\0\0\x11\0\0\0", b"\0\0\0\0\xff\0\0\0"), 400, "not a complete"),
    "a name that is not text": (renamed(qqqq=[1]), 400, "names in UTF-8"),
    "a feature whose name is not text": (renamed(x03=None, qqqq=[1]), 400, "names in UTF-8"),
    "an id that is not text": (renamed(id=["qqqq"]), 400, "not a complete Arrow IPC stream"),
    "an id of several parts": (arrow(id=nested(secret=pa.int8())), 422, "must hold strings or whole numbers"),
    "a feature of several parts": (arrow(x03=nested(secret=pa.int8())), 422, "must hold numbers"),
    "parts whose names are not text": (renamed(x03=nested(qqqq=pa.int8())), 422, "must hold numbers"),
    "a time with a secret": (arrow(x03=pa.nulls(1, pa.timestamp("s", "secret"))), 422, "must hold numbers"),
    "a type of its own": (arrow(x03=pa.nulls(1, pa.opaque(pa.string(), "secret", "secret"))), 422, "must hold numbers"),
    "an id twice": (
        stream_of(pa.table([pa.array([1])] * (FEATURES + 2), names=[*NAMES, "id", "id"])),
        422,
        "two columns have the same name",
    ),
    "compressed": (compressed(), 422, "compressed or dictionary-encoded"),
    "dictionary": (arrow(id=pa.array([NAMED]).dictionary_encode()), 422, "compressed or dictionary-encoded"),
    "views": (arrow(id=pa.array([NAMED], pa.string_view())), 422, "the id column must hold strings or whole numbers"),
    "missing column": (arrow(x03=None), 422, "there is no column 'x03'"),
    "texts": (arrow(x03=[NAMED]), 422, "must hold numbers"),
    "NaN": (arrow(x03=[float("nan")]), 422, "NaN or infinite"),
    "null": (arrow(x03=pa.array([None], pa.uint8())), 422, "no value"),
    "no values at all": (arrow(x03=pa.nulls(1)), 422, "no value"),
    "a column twice": (
        stream_of(pa.table([pa.array([1])] * (FEATURES + 1), names=[*NAMES, "x00"])),
        422,
        "two columns have the same name",
    ),
    "too many": (stream_of(pa.table({name: [1] * 51 for name in NAMES})), 413, "more than 50 data points"),
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams_that_cannot_be_answered(still_world: World, name: str) -> None:
    """The same of Arrow streams: nothing that Arrow itself would read beyond its end, unpack or expand."""
    payload, status, text = STREAMS[name]
    headers = still_world.headers("predict", Content_Type=ARROW_STREAM)
    answer = still_world.client.post("/v1/predictions", content=payload, headers=headers)
    error = error_of(answer, status, "too_large" if status == 413 else "invalid")
    assert text in error["message"]
    assert "secret" not in answer.text


ERASURES: Mapping[str, tuple[object, int, str]] = {
    "not JSON": (b"secret", 400, "not JSON"),
    "subjects twice": (b'{"subjects": ["secret-1"], "subjects": ["secret-2"]}', 400, "a key stands twice"),
    "the same twice": (b'{"ids": ["secret-1"], "ids": ["secret-1"]}', 400, "a key stands twice"),
    "escaped": (b'{"subjects": ["secret-1"], "subj\\u0065cts": ["secret-2"]}', 400, "a key stands twice"),
    "UTF-16": ('{"hold": "", "hold": "x"}'.encode("utf-16"), 400, "a key stands twice"),
    "twice within": (b'{"subjects": [{"secret": 1, "secret": 2}]}', 400, "a key stands twice"),
    "a list": ([NAMED], 422, "an object with 'subjects', 'ids'"),
    "unknown member": ({"subject": NAMED}, 422, "an object with 'subjects', 'ids'"),
    "a text": ({"subjects": NAMED}, 422, "are lists of names"),
    "nothing named": ({}, 422, "no subject and no data point is named"),
    "an empty name": ({"subjects": [""]}, 422, "something that is not a name"),
    "a fraction": ({"subjects": [1.5]}, 422, "something that is not a name"),
    "true": ({"ids": [True]}, 422, "something that is not a name"),
    "hold of no kind": ({"subjects": [NAMED], "hold": 1}, 422, "'hold' is a text"),
    "hold that acts": ({"subjects": [NAMED], "hold": "\x1b[2J"}, 422, "printable characters"),
    "too many": ({"subjects": [NAMED] * 21}, 413, "more than 20"),
    "everyone and somebody": ({"subjects": [NAMED], "everyone": True}, 422, "nothing else may be named"),
    "everyone of no kind": ({"everyone": NAMED}, 422, "'everyone' and 'include_similar' are true or false"),
    "everyone and alike": ({"everyone": True, "include_similar": True}, 422, "nothing else may be named"),
    "alike of no kind": ({"subjects": [NAMED], "include_similar": 1}, 422, "'include_similar' are true or false"),
    "a site": ({"subjects": [NAMED], "site": "north"}, 422, "an object with 'subjects', 'ids'"),
}


@pytest.mark.parametrize("name", ERASURES)
def test_erasures_that_cannot_be_taken(still_world: World, name: str) -> None:
    """A request that names nobody, or in a way that could be misread, is refused as a whole."""
    body, status, text = ERASURES[name]
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = still_world.headers("erase", Content_Type=JSON)
    answer = still_world.client.post("/v1/erasures", content=payload, headers=headers)
    assert text in error_of(answer, status, "too_large" if status == 413 else "invalid")["message"]
    assert "secret" not in answer.text
    assert still_world.resident.state().requests == ()


@pytest.mark.parametrize("key", ["", "a/b", "a b", "-x", "x" * 201, "é"])
def test_request_ids_that_cannot_be_addresses(still_world: World, key: str) -> None:
    """An Idempotency-Key becomes part of an address, and is refused where it cannot."""
    headers = {name.encode(): value.encode("latin-1") for name, value in still_world.headers("erase").items()}
    headers[b"Idempotency-Key"] = key.encode("latin-1")
    answer = still_world.client.post("/v1/erasures", json={"subjects": [NAMED]}, headers=headers)
    assert "Idempotency-Key" in error_of(answer, 422, "invalid")["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/", 404, "missing"),
        ("GET", "/v2/predictions", 404, "missing"),
        ("GET", "/another-federation/v1/status", 404, "missing"),
        ("GET", "/v1/predictions", 405, "invalid"),
        ("DELETE", "/v1/erasures/er-1", 405, "invalid"),
        ("GET", "/v1/erasures/er-1", 404, "missing"),
        ("GET", "/v1/erasures/er-1/receipt", 404, "missing"),
        ("GET", "/v1/erasures/%1b%5b2J", 422, "invalid"),
        ("GET", "/v1/standing?requests=-1", 422, "invalid"),
        ("GET", "/v1/standing?requests=1e3", 422, "invalid"),
        ("GET", "/v1/measure", 403, "withheld"),
        ("GET", "/v1/log/checkpoint?earlier=-1", 422, "invalid"),
        ("GET", "/v1/checkpoints/0/0", 422, "invalid"),
        ("GET", f"/v1/checkpoints/x/{'0' * 64}", 422, "invalid"),
        ("GET", f"/v1/checkpoints/0/{'G' * 64}", 422, "invalid"),
    ],
)
def test_paths_that_lead_nowhere(still_world: World, method: str, path: str, status: int, kind: str) -> None:
    """Paths that do not exist get an error in the common shape, without the path."""
    role: Role = "federate" if path.startswith(("/v1/standing", "/v1/measure", "/v1/checkpoints")) else "audit"
    answer = still_world.client.request(method, path, headers=still_world.headers(role))
    error_of(answer, status, kind)
    assert "another-federation" not in answer.text


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        ({"Content-Type": "text/csv"}, 415, "unsupported_media_type"),
        ({"Content-Type": "application/x-pickle"}, 415, "unsupported_media_type"),
        ({"Content-Type": ""}, 415, "unsupported_media_type"),
        ({"Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
        ({"Accept": "text/html"}, 406, "not_acceptable"),
        ({"Accept": "application/json;q=0, text/*"}, 406, "not_acceptable"),
        ({"Content-Length": "100001"}, 413, "too_large"),
    ],
)
def test_forms_that_are_not_taken(still_world: World, headers: dict[str, str], status: int, kind: str) -> None:
    """Other media types, compressed bodies and answers in other forms are refused before the body is read."""
    answer = still_world.client.post(
        "/v1/predictions",
        content=json.dumps(points()),
        headers=still_world.headers("predict", Content_Type=JSON) | headers,
    )
    error_of(answer, status, kind)


@pytest.mark.parametrize(
    "name", ["Authorization", "Content-Type", "Content-Encoding", "Content-Length", "Idempotency-Key"]
)
@pytest.mark.parametrize("spelled", [str.lower, str.upper])
def test_headers_that_stand_twice(still_world: World, name: str, spelled: Callable[[str], str]) -> None:
    """A header with one value that stands twice is refused, even if both are the same: which one counts is a guess."""
    sent = still_world.headers("erase", Content_Type=JSON, Content_Encoding="identity", Idempotency_Key="secret-1")
    body = json.dumps({"subjects": [NAMED]})
    sent["Content-Length"] = str(len(body))
    for second in (sent[name], "secret-2"):
        headers = [*sent.items(), (spelled(name), second)]
        answer = still_world.client.post("/v1/erasures", content=body, headers=headers)
        assert f"the header {name} twice" in error_of(answer, 400, "invalid")["message"]
        assert "secret" not in answer.text
    assert still_world.resident.state().requests == ()


def test_parameters_that_stand_twice(still_world: World) -> None:
    """A parameter that stands twice in an address is refused for the same reason."""
    answer = still_world.client.get("/v1/standing?requests=0&requests=1", headers=still_world.headers("federate"))
    assert "a parameter twice" in error_of(answer, 400, "invalid")["message"]


def test_a_body_without_a_length_is_stopped(still_world: World) -> None:
    """A body that does not say how long it is is read up to the limit and no further."""
    sent: list[int] = []

    def endless() -> Iterator[bytes]:
        for _ in range(10_000):
            sent.append(1)
            yield b" " * 10_000

    answer = _streamed(still_world, endless())
    assert (answer["status"], json.loads(answer["body"])["error"]["kind"]) == (413, "too_large")
    assert len(sent) == 11  # the limit is 100,000 bytes


def _streamed(world: World, body: Iterator[bytes]) -> dict[str, Any]:
    """Return how a prediction is answered whose body is asked for part by part; the test client reads all before."""
    headers = world.headers("predict", Content_Type=JSON)
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/predictions",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    answer: dict[str, Any] = {"body": b""}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": next(body, b""), "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        answer.update(status=message.get("status", answer.get("status")))
        answer["body"] += message.get("body", b"")

    asyncio.run(world.client.app(scope, receive, send))  # type: ignore[arg-type]
    return answer


def test_strange_columns_that_nobody_asked_for(still_world: World) -> None:
    """What else a stream has is not looked at, as long as it is a stream."""
    payload = renamed(further=nested(qqqq=pa.int8()), empty=pa.nulls(1, pa.struct([])))
    headers = still_world.headers("predict", Content_Type=ARROW_STREAM, Accept=JSON)
    answer = still_world.client.post("/v1/predictions", content=payload, headers=headers)
    assert [line["id"] for line in answer.json()["predictions"]] == [NAMED]


def test_half_characters_come_back_or_are_refused(still_world: World) -> None:
    """An id that no UTF-8 can write comes back as JSON had it, and is refused where it would have to be written."""
    body = b'{"points": [{"id": "\\ud800", "features": ' + json.dumps(ROW).encode() + b"}]}"
    headers = still_world.headers("predict", Content_Type=JSON)
    answer = still_world.client.post("/v1/predictions", content=body, headers=headers)
    assert answer.json()["predictions"][0]["id"] == "\ud800"
    answer = still_world.client.post("/v1/predictions", content=body, headers={**headers, "Accept": ARROW_STREAM})
    error_of(answer, 422, "invalid")
