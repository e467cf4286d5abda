"""Data points over HTTP, unencoded: by name, with texts, dates and values that are missing."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import cluster.training.workers
from cluster.client import _as_text
from cluster.config.specification import read_specification
from cluster.federation import connect
from cluster.serving.bodies import JSON, Asked, BodyReader
from shards.data import messages
from shards.data.messages import ARROW_STREAM, TooManyPoints, stream_of, table_of_encoded
from shards.specification import DataSettings
from storage.errors import Invalid
from tests.doubles.user_folder import Columns, UserFolder
from tests.doubles.workers.local_workers import LocalWorkers
from tests.serving.world import World, coordinator_of, error_of, open_world
from tests.shards.people import settings

ENCODE: dict[str, dict[str, Any]] = {
    "age": {"missing": 0.0, "shift": 40.0, "scale": 10.0},
    "plan": {"categories": ["free", "pro"], "other": True},
    "joined": {"date": "days", "since": "2024-01-01", "missing": -1.0},
    "active": {"true": ["Yes"], "false": ["No"]},
    "note": {"words": 8, "missing": True},
}
FEATURES = ("age", "plan", "joined", "active", "note", "visits")
WIDTH = 1 + 3 + 1 + 1 + 8 + 1
POINT: dict[str, Any] = {
    "age": 50,
    "plan": "pro",
    "joined": "2024-01-03",
    "active": "Yes",
    "note": None,
    "visits": 3,
}
FIRST = [1, 0, 1, 0, 2, 1, *[0] * 8, 3]


def data(**changes: object) -> DataSettings:
    """Return the settings of customers."""
    return settings(**{"features": FEATURES, "encode": ENCODE, **changes})


def reader(**changes: object) -> BodyReader:
    """Return the reader of customers' bodies."""
    return BodyReader(data=data(**changes), width=WIDTH, most_points=1000)


def read(body: object) -> Asked:
    """Return what a body in JSON asks."""
    return reader().read(json.dumps(body).encode(), JSON)


def test_points_and_columns_are_encoded_alike() -> None:
    """A data point has the same features as an object, as columns and in an Arrow stream."""
    one = read({"points": [{"id": 7, "features": POINT}]})
    other = read({"columns": {name: [value] for name, value in POINT.items()}})
    typed = {**POINT, "joined": dt.date(2024, 1, 3), "visits": np.float32(3)}
    table = pa.table({name: [value] for name, value in typed.items()})
    stream = reader().read(stream_of(table), ARROW_STREAM)
    assert one.features_NF.tolist() == [FIRST]
    assert one.ids == [7]
    assert other.features_NF.tobytes() == one.features_NF.tobytes() == stream.features_NF.tobytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plan": None}, ""),
        ({"active": None}, r"has no value \(null\).*column=active row=1"),
        ({"active": "Perhaps"}, r"declared neither true nor false.*column=active row=1"),
        ({"age": "old"}, r"a text that is not a number.*column=age row=1"),
        ({"joined": "soon"}, r"not a date in ISO 8601.*column=joined row=1"),
        ({"visits": None}, r"has no value \(null\).*column=visits row=1"),
        ({"visits": "three"}, r"a feature column must hold numbers"),
        ({"note": [1, 2]}, r"a column has a type that its encoder does not take.*column=note"),
    ],
)
def test_cells_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    """The error names column and row of the request, and never the value."""
    body = {"points": [{"features": {**POINT, **changes}}]}
    if not message:
        assert read(body).features_NF[0, 1:4].tolist() == [0, 0, 1]
        return
    with pytest.raises(Invalid, match=message) as caught:
        read(body)
    assert not any(str(value) in str(caught.value) for value in changes.values() if isinstance(value, str))


def test_lists_of_features_are_refused() -> None:
    """Without names nobody knows whether a number is a value or a feature."""
    with pytest.raises(Invalid, match=r"given as lists, and \[data\.encode\] encodes them by name"):
        read({"points": [{"features": [1, 2]}]})


def test_a_short_body_does_not_become_endless_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request may have as many data points as their features fit into a fixed amount of memory."""
    monkeypatch.setattr(messages, "_MOST_ENCODED_BYTES", 4 * WIDTH * 3)
    columns = {name: [value] * 4 for name, value in POINT.items()}
    with pytest.raises(TooManyPoints, match=r"more than 3 data points, each encoded as 15 features"):
        read({"columns": columns})


def test_a_federation_of_sites_sends_encoded_features() -> None:
    """What a federation has encoded is not encoded again, and refused by a site that encodes otherwise."""
    asked = read({"points": [{"features": POINT}]})
    body = stream_of(table_of_encoded(asked.features_NF, data()))
    assert reader().read(body, ARROW_STREAM).features_NF.tobytes() == asked.features_NF.tobytes()
    other = {**ENCODE, "age": {"missing": 0.0, "shift": 41.0}}
    with pytest.raises(Invalid, match=r"encoded otherwise than this federation's"):
        reader(encode=other).read(body, ARROW_STREAM)


def customers(count: int = 60) -> Columns:
    """Return the columns of a file of customers, in which the label follows the plan."""
    plans = [("free", "pro", "gold")[number % 3] for number in range(count)]
    return {
        "id": list(range(count)),
        "user_id": [f"person-{number // 2}" for number in range(count)],
        "label": ["b" if plan == "pro" else "a" for plan in plans],
        "age": [None if number % 5 == 0 else 20 + number for number in range(count)],
        "plan": plans,
        "joined": ["" if number % 4 == 0 else f"2024-01-{1 + number % 28:02d}" for number in range(count)],
        "active": ["Yes" if number % 2 else "No" for number in range(count)],
        "note": [f"note {number % 3}" for number in range(count)],
        "visits": [number % 7 for number in range(count)],
    }


@pytest.fixture
def encoded_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UserFolder:
    """A folder with a CSV file of customers, whose federation trains in this process."""
    monkeypatch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
    monkeypatch.setattr(cluster.training.workers, "join_ray", lambda _: False)
    home = UserFolder(tmp_path)
    home.write("train.csv", customers())
    home.specify(
        data__train="train.csv",
        data__features=list(FEATURES),
        data__classes=["a", "b"],
        data__scale=None,
        training__epochs=30,
        serve__refresh_seconds=0.05,
        **{f"data.encode__{name}": options for name, options in ENCODE.items()},
    )
    return home


@pytest.fixture
def encoded_world(encoded_home: UserFolder) -> Iterator[World]:
    """Its coordinator and one replica, with tokens."""
    resident = coordinator_of(read_specification(encoded_home.config))
    made = open_world(encoded_home, resident)
    yield made
    made.service.close()
    resident.stop()


def test_a_served_federation_answers_named_values(encoded_world: World) -> None:
    """The API gives the same answers for JSON as the command line's Python does for the file, and its document says
    what each column takes.
    """
    rows = [dict(zip(customers(), values, strict=True)) for values in zip(*customers(6).values(), strict=True)]
    points = [
        {"id": row["id"], "features": {name: row[name] or None if name == "joined" else row[name] for name in FEATURES}}
        for row in rows
    ]
    answer = encoded_world.predict({"points": points})
    assert answer.status_code == 200, answer.text
    over_http = [each["probabilities"] for each in answer.json()["predictions"]]
    own = connect(encoded_world.home.config)
    table = own.predict([{"id": each["id"], **each["features"]} for each in points]).table()
    assert table.column("probability_a").to_pylist() == [pair[0] for pair in over_http]
    six = encoded_world.home.folder / "six.csv"  # as many as over HTTP: a matrix product's bits depend on its shape
    lines = (encoded_world.home.folder / "train.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    six.write_text("".join(lines[:7]), encoding="utf-8")
    assert own.predict(six).table().column("probability_a").to_pylist() == [pair[0] for pair in over_http]
    error = error_of(encoded_world.predict({"points": [{"features": {**POINT, "plan": [1]}}]}), 422, "invalid")
    assert "its encoder does not take" in error["message"]


def test_the_document_says_what_columns_take(encoded_world: World) -> None:
    """The OpenAPI document has a schema for each column, as it is declared."""
    document = encoded_world.client.get("/openapi.json").json()
    features = document["components"]["schemas"]["Point"]["properties"]["features"]
    assert features["required"] == list(FEATURES)
    assert features["properties"]["visits"] == {"type": "number"}
    assert features["properties"]["age"] == {"type": ["number", "null"]}
    assert features["properties"]["note"] == {"type": ["string", "null"]}
    assert features["properties"]["plan"]["description"] == "One of free, pro."
    columns = document["components"]["schemas"]["Columns"]["properties"]["columns"]
    assert columns["properties"]["visits"] == {"type": "array", "items": {"type": "number"}}


def test_the_client_sends_dates() -> None:
    """A data point in Python may hold dates and images; a value that JSON cannot hold is refused."""
    assert _as_text(dt.date(2024, 1, 3)) == "2024-01-03"
    assert _as_text(b"ab") == "YWI="
    with pytest.raises(Invalid, match="a value that JSON cannot hold"):
        _as_text({1, 2})
