"""Bodies of predictions: reads data points from JSON or Arrow, and writes answers as either.

Shape legend: N points, F features, S scores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from cluster.config.specification import FederationSpecification
from cluster.serving.http_errors import HttpProblem, Refused, too_large, unreadable
from coordinator.state import DataState
from shards.data.messages import (
    ARROW_STREAM,
    TooManyPoints,
    ids_of,
    points_of_lists,
    points_of_table,
    stream_of,
    table_of_columns,
    table_of_stream,
)
from shards.data.prediction_files import PredictionBatch, predictions_table
from shards.specification import DataSettings
from shards.targets import Target
from storage.errors import Invalid

JSON: Final = "application/json"
FORMATS: Final = (JSON, ARROW_STREAM)

_COMPACT: Final = json.JSONEncoder(separators=(",", ":"))

_LEAST_PARTS: Final = 100_000
_PARTS_OF_A_THING: Final = 4
"""A data point is an object with another object or a list for its features; its id may hold a bracket, too."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """Data points to be answered, in the caller's order."""

    features_NF: npt.NDArray[np.float32]
    """Scaled."""
    ids: Any
    """Their ids: a list, a ``pyarrow.Array``, or None if they have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyReader:
    """Reads bodies for one federation."""

    data: DataSettings
    """With the feature columns' names, as found at ingest."""
    width: int
    most_points: int
    _features: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_features", frozenset(self.data.features))

    @classmethod
    def of(cls, specification: FederationSpecification, ingested: DataState) -> BodyReader:
        """Return the reader for the data as they were ingested."""
        layout = ingested.layout
        data = replace(specification.data, features=layout.features)
        return cls(data=data, width=layout.width, most_points=specification.serve.max_points)

    def read(self, payload: bytes, media_type: str) -> Asked:
        """Return the request in a body of this type. Raises ``Refused``, ``Invalid``, ``TooManyPoints``."""
        if media_type == ARROW_STREAM:
            return self._of_table(table_of_stream(payload, self.most_points))
        body = parsed_body(payload, self.most_points)
        if not isinstance(body, dict) or len(body.keys() & {"points", "columns"}) != 1 or len(body) != 1:
            raise Invalid("the body is an object with either 'points' or 'columns'", "See /docs.")
        if "columns" in body:
            return self._of_columns(body["columns"])
        return self._of_points(body["points"])

    def _of_table(self, table: Any, ids: Sequence[Any] | None = None) -> Asked:
        batches = list(points_of_table(table, self.data, self.width))
        parts = [batch.features_NF for batch in batches] or [np.empty((0, self.width), np.float32)]
        if ids is None and self.data.id in table.column_names:
            ids = table.column(self.data.id).combine_chunks()
        return Asked(features_NF=parts[0] if len(parts) == 1 else np.concatenate(parts), ids=ids)

    def _of_columns(self, columns: object) -> Asked:
        if not isinstance(columns, dict) or not all(isinstance(values, list) for values in columns.values()):
            raise Invalid("'columns' is an object of lists", "See /docs.")
        # Only the columns that are needed: there may be any number of others, each of which would take memory.
        known = {name: columns[name] for name in (self.data.id, *self.data.features) if name in columns}
        return self._of_table(table_of_columns(known, self.most_points))

    def _of_points(self, points: object) -> Asked:
        if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
            raise Invalid("'points' is a list of objects", "See /docs.")
        if len(points) > self.most_points:
            raise TooManyPoints(f"the request has more than {self.most_points:,} data points", "Send several requests.")
        for number, point in enumerate(points):
            if not _is_point(point):
                raise _bad_point(number)
        ids = [point.get("id") for point in points] if any("id" in point for point in points) else None
        given = [point["features"] for point in points]
        if self.data.encode and any(isinstance(each, list) for each in given):
            raise Invalid(
                "features are given as lists, and [data.encode] encodes them by name", "Send objects by name."
            )
        if all(isinstance(each, list) for each in given):
            return Asked(features_NF=points_of_lists(given, self.data, self.width), ids=ids)
        if not all(isinstance(each, dict) for each in given):
            raise Invalid("some features are lists and some are objects", "Give all data points in one form.")
        for number, point in enumerate(given):
            # Checked before any column is made: names times data points may far exceed the body's size.
            if not self._features <= point.keys():
                raise _without_feature(next(name for name in self.data.features if name not in point), number)
        columns = {name: [each[name] for each in given] for name in self.data.features}
        return self._of_table(table_of_columns(columns, self.most_points), ids)


def parsed_body(payload: bytes, most_things: int) -> Any:
    """Return the value of a JSON body with at most ``most_things`` data points or names.

    A list or an object takes two or three bytes of the body, and thirty times as much memory: raises ``Refused`` with
    413 for more of them than ``most_things`` need. Raises it with 400 for anything that is not JSON, NaN and infinities
    included, and for an object that has a key twice: JSON readers differ in which of the two values they take, so that
    one of them would be lost silently.
    """
    if payload.count(b"[") + payload.count(b"{") > _LEAST_PARTS + _PARTS_OF_A_THING * most_things:
        raise Refused(
            too_large(
                f"the body has more lists and objects than {most_things:,} data points or names have",
                "Send several requests.",
            )
        )
    try:
        # As ``json.loads`` does, which makes a decoder for each call.
        return _STRICT.decode(payload.decode(json.detect_encoding(payload), "surrogatepass"))
    except (ValueError, RecursionError):
        # Not chained: the cause holds the body.
        raise unreadable("the body is not JSON", "Send one JSON object, UTF-8, with finite numbers.") from None


def answer_body(
    facts: Mapping[str, Any],
    scores_NS: npt.NDArray[np.float64],
    asked: Asked,
    target: Target,
    id_column: str,
    media_type: str,
) -> bytes:
    """Return an answer's body; ``facts`` are JSON values that name the generation, or the sites, that gave it."""
    if media_type == ARROW_STREAM:
        ids = ids_of(asked.ids) if isinstance(asked.ids, list) else asked.ids
        batch = PredictionBatch(ids=ids, scores_NS=scores_NS)
        texts = {name: _COMPACT.encode(value) for name, value in facts.items()}
        return stream_of(predictions_table([batch], target, id_column), texts)
    lines = list(target.objects(scores_NS))
    if asked.ids is not None:
        ids = asked.ids if isinstance(asked.ids, list) else asked.ids.to_pylist()
        lines = [{"id": id_, **line} for id_, line in zip(ids, lines, strict=True)]
    return _COMPACT.encode({**facts, **target.facts(), "predictions": lines}).encode()


def media_type_of(headers: Mapping[str, str], known: Sequence[str] = FORMATS) -> str:
    """Return the body's declared media type, one of ``known``. Raises ``Refused`` with 415 for any other."""
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise _unsupported("bodies are not taken compressed", "Send it as it is, without Content-Encoding.")
    found = headers.get("content-type", "").partition(";")[0].strip().lower()
    if found not in known:
        raise _unsupported("this media type is not taken", f"Send the body as {' or '.join(known)}.")
    return found


def answer_type_of(headers: Mapping[str, str], asked: str) -> str:
    """Return the media type of the answer: the request's own, if the caller accepts it. Raises ``Refused`` with 406."""
    ranges = [_range(text) for text in headers.get("accept", "*/*").split(",")]
    accepted = {name for name, is_wanted in ranges if is_wanted}
    for media_type in sorted(FORMATS, key=lambda each: each != asked):
        if accepted & {media_type, "application/*", "*/*"}:
            return media_type
    raise Refused(
        HttpProblem(
            status=406,
            kind="not_acceptable",
            message="no format that this request accepts can be written",
            remedy=f"Accept {' or '.join(FORMATS)}.",
        )
    )


def _range(text: str) -> tuple[str, bool]:
    """Return a media range and whether it is wanted at all.

    >>> _range(" Application/JSON;q=0.0"), _range("*/*")
    (('application/json', False), ('*/*', True))
    """
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    return name, not any(each.replace(" ", "").rstrip("0.") == "q=" for each in parameters)


def _is_point(point: Mapping[str, Any]) -> bool:
    id_ = point.get("id")
    is_named = id_ is None or (isinstance(id_, str | int) and not isinstance(id_, bool))
    return is_named and isinstance(point.get("features"), list | dict) and point.keys() <= {"id", "features"}


def _without_feature(name: str, number: int) -> Invalid:
    return Invalid(
        f"there is no column {name!r} in a data point",
        "Send all features, named as in the training data.",
        point=number,
    )


def _bad_point(number: int) -> Invalid:
    return Invalid(
        "a data point is an object with 'features', a list or an object, and perhaps 'id', a text or a whole number",
        "Correct it or leave the data point out.",
        point=number,
    )


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. An error does not quote a repeated key, because keys may be data."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise unreadable(
            "a key stands twice in one object of the body, so that one of its two values would be lost",
            "Write each key once; several subjects or ids go into one list.",
        )
    return found


_STRICT: Final = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_object)


def _unsupported(message: str, remedy: str) -> Refused:
    return Refused(HttpProblem(status=415, kind="unsupported_media_type", message=message, remedy=remedy))
