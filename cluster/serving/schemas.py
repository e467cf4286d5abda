"""The shapes of bodies for the OpenAPI document. They only describe; ``messages`` and ``app`` check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from cluster.results.federation import ErasureAnswer
from cluster.serving.bodies import JSON
from cluster.serving.description.errors import ERRORS
from coordinator.sites import SiteStanding
from coordinator.status import FederationStatus, RequestStatus
from shards.data.messages import ARROW_STREAM
from shards.data.sources import glob_like
from shards.encoders import (
    CategoryEncoder,
    DateEncoder,
    Encoder,
    ImageEncoder,
    NumberEncoder,
    TokensEncoder,
    TruthEncoder,
    WordsEncoder,
)
from shards.specification import DataSettings

Name = str | int
"""The name of a subject or a data point. Whole numbers are treated as in the data."""


MOST_LOOKED_UP: Final = 100
"""Most names in one look-up, even if [serve] max_names is higher: each one takes the search of a slice."""


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Point(_Shape):
    """A data point to be answered."""

    id: Name | None = Field(default=None, description="Comes back with the answer, and has no other meaning.")
    features: list[float] | dict[str, float] = Field(description="In the federation's order, or by column.")


class Points(_Shape):
    """Data points one by one."""

    points: list[Point]


class Columns(_Shape):
    """Data points column by column, named as in the training data; the id column comes back."""

    columns: dict[str, list[Any]]


class Recommended(_Shape):
    """An item that is recommended."""

    item: str
    score: float = Field(description="The sum of its similarities with the items of the basket.")


class Prediction(_Shape):
    """One answer."""

    id: Name | None = None
    prediction: str | int | float | dict[str, float] | None = Field(
        default=None,
        description="The class; the number, or one for each label column; or the number of the nearest cluster, from 0."
        " Absent with the targets multi_label and recommend.",
    )
    spread: float | dict[str, float] | None = Field(
        default=None,
        description="Numbers only: the constituents' standard deviation from their mean, and with intervals that of"
        " the number that is predicted.",
    )
    low: float | list[float] | dict[str, float] | None = Field(
        default=None,
        description="The lower end of the interval of a number, or of each class's probability, if the learner gives"
        " intervals.",
    )
    high: float | list[float] | dict[str, float] | None = Field(default=None, description="Its upper end.")
    distance: float | None = Field(default=None, description="Clusters only: the distance from the nearest centroid.")
    items: list[Recommended] | None = Field(default=None, description="Target recommend only: the best item first.")
    labels: list[str] | None = Field(default=None, description="Target multi_label only: the labels that are given.")
    probabilities: list[float] | dict[str, float] | None = Field(
        default=None,
        description="Mean probability, or share of votes: in the order of 'classes', or by label. Absent with numbers,"
        " clusters and items.",
    )


class Predictions(_Shape):
    """Answers, in the order asked."""

    generation: int = Field(description="The ensemble that answered: at or above the erasure floor when it did.")
    constituents: int = Field(description="How many constituents answered, of 'shards'.")
    shards: int
    guarantee: str = Field(
        description="What the learner promises about erased data points: exact, or certified(epsilon=…, delta=…)."
    )
    classes: list[str] | None = Field(default=None, description="With the target class.")
    predictions: list[Prediction]


class Site(_Shape):
    """A site whose constituents are in an answer."""

    site: str
    generation: int
    constituents: int = Field(description="How many of them answered, of 'shards'.")
    shards: int
    guarantee: str = Field(description="What its learner promises about erased data points.")


class SitesPredictions(Predictions):
    """Answers of several sites together; 'generation' is the highest of theirs, which each site counts by itself."""

    sites: list[Site]
    absent: dict[str, str] = Field(description="Why each of the other members has no part in the answer, by site.")


class Erasure(_Shape):
    """An erasure request: the people or the single data points to erase."""

    subjects: list[Name] = Field(default=[], description="All data points of these people.")
    ids: list[Name] = Field(default=[], description="Single data points.")
    hold: str = Field(default="", max_length=500, description="Accept it paused, for this reason, until released.")
    include_similar: bool = Field(
        default=False, description="Also those whose names differ from the subjects' in spelling alone."
    )
    everyone: bool = Field(default=False, description="All subjects, without any other name; only the role federate.")


class SiteErasure(_Shape):
    """An erasure request for one site: names are looked for only there."""

    site: str
    subjects: list[Name] = Field(default=[], description="All data points of these people.")
    ids: list[Name] = Field(default=[], description="Single data points.")
    hold: str = Field(default="", max_length=500, description="Accept it paused, for this reason, until released.")
    include_similar: bool = Field(
        default=False, description="Also those whose names differ from the subjects' in spelling alone."
    )


class Subjects(_Shape):
    """People to be looked up."""

    subjects: list[Name] = Field(min_length=1, max_length=MOST_LOOKED_UP)


class Reason(_Shape):
    """The reason for a change of an erasure request.

    It is kept with the request and shown, so it must not hold personal data.
    """

    reason: str = Field(min_length=1, max_length=500, description="Printable characters, not only spaces.")


class Returning(Reason):
    """Erased people who come back."""

    subjects: list[Name] = Field(min_length=1)


class MoreTime(Reason):
    """By how much an erasure request's due date moves, and why."""

    days: int = Field(ge=1, description="At most [erasure] extension_days.")


class Nothing(_Shape):
    """An object with nothing in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRequestShape(RequestStatus):
    """One erasure request, and where it is."""

    site: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteErasureShape(ErasureAnswer):
    """The answer to the request's submitter, with the site."""

    site: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingShape(SiteStanding):
    """A site's standing, with the shard's number and the checkpoint's digest of each constituent that answers."""

    checkpoints: tuple[list[int | str], ...]  # type: ignore[assignment]  # pairs, which OpenAPI's lists cannot say


class Health(_Shape):
    """Whether this replica can answer."""

    status: str


class Error(_Shape):
    """What is wrong, and what to do."""

    kind: str
    message: str
    remedy: str


class Errors(_Shape):
    """The body of every error."""

    error: Error


def responses(*statuses: int, **further: Any) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of the errors that an endpoint may answer with, and of its ``further`` answers."""
    own: dict[int | str, dict[str, Any]] = {int(name.removeprefix("of_")): value for name, value in further.items()}
    return own | {
        status: {
            "model": Errors,
            "description": ERRORS[status].meaning,
            "content": {JSON: {"examples": ERRORS[status].named}},
        }
        for status in statuses
    }


ASKED: Final = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {
                "schema": {
                    "oneOf": [
                        {"$ref": "#/components/schemas/Points"},
                        {"$ref": "#/components/schemas/Columns"},
                    ]
                }
            },
            ARROW_STREAM: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


def described_features(data: DataSettings) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schemas of one data point's features, and of columns of them, where [data.encode] encodes some."""
    cells = {name: _cell(data.encoders.of(name)) for name in data.features if not glob_like(name)}
    shared = {
        "type": "object",
        "additionalProperties": True,
        "description": "By column, as in the training data: [data.encode] encodes the values.",
    }
    point = {**shared, "properties": cells, "required": list(cells)}
    lists = {name: {"type": "array", "items": cell} for name, cell in cells.items()}
    return point, {**shared, "properties": lists, "required": list(lists)}


def _cell(encoder: Encoder | None) -> dict[str, Any]:
    """Return the schema of one value of a column."""
    if encoder is None:
        return {"type": "number"}
    texts = ["string", "number", "boolean"]
    described: dict[str, Any] = {"type": texts}
    if isinstance(encoder, NumberEncoder):
        described = {"type": ["number", "string"] if encoder.wants_text else ["number"]}
    if isinstance(encoder, DateEncoder):
        described = {"type": ["string"], "description": f"A date: {encoder.format or 'ISO 8601, UTC unless it says'}."}
    if isinstance(encoder, WordsEncoder | TokensEncoder):
        described = {"type": ["string"]}
    if isinstance(encoder, ImageEncoder):
        height, width = encoder.image[1:]
        described = {
            "type": ["string"],
            "contentEncoding": "base64",
            "description": f"Image, {height} x {width} pixels.",
        }
    if isinstance(encoder, CategoryEncoder):
        described = {"type": texts, "description": f"One of {', '.join(encoder.categories)}."}
    if isinstance(encoder, TruthEncoder):
        described = {"type": texts, "description": f"One of {', '.join((*encoder.true, *encoder.false))}."}
    missing = getattr(encoder, "missing", None)  # 0.0 is a feature, where False means that none is taken
    takes_none = (missing is not None and missing is not False) or getattr(encoder, "other", False)
    return described | {"type": [*described["type"], "null"]} if takes_none else described


def body_of(shape: type) -> dict[str, Any]:
    """Return the documentation of a JSON body, whose shape is one of ``SHAPES``."""
    content = {JSON: {"schema": {"$ref": f"#/components/schemas/{shape.__name__}"}}}
    return {"requestBody": {"required": True, "content": content}}


ERASED: Final = body_of(Erasure)
ERASED_AT: Final = body_of(SiteErasure)
AT: Final = {
    "name": "site",
    "in": "query",
    "required": False,
    "schema": {"type": "string"},
    "description": "Where to look for it; default: at all sites, in their order.",
}
BY: Final = {
    "name": "by",
    "in": "query",
    "required": False,
    "schema": {"type": "string", "enum": ["site", "federation"], "default": "site"},
    "description": "Whose receipt: the site's own, or the federation's, which refers to the site's.",
}
KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._:-]{0,199}$"},
    "description": "The request's id: the same one with the same names is the same request. Drawn where it is missing.",
}
HEARD_OF: Final = {
    "name": "requests",
    "in": "query",
    "required": False,
    "schema": {"type": "integer", "minimum": 0, "maximum": 10**12 - 1, "default": 0},
    "description": "How many of the site's erasure requests the caller knows.",
}
EARLIER: Final = {**HEARD_OF, "name": "earlier", "description": "Size of a checkpoint to prove the growth from."}
KEYS_TEXT: Final = {
    "description": "A file of keys, as 'sisa keys --export' writes it.",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}
BYTES: Final = {
    "description": "The checkpoint's bytes; their SHA-256 is the digest asked for.",
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}
SHAPES: Final = (Points, Columns, Erasure, SiteErasure, Subjects, Returning, Reason, MoreTime, Nothing)
"""Bodies of requests. FastAPI does not find them by itself, because it does not read these bodies."""

RequestShape = RequestStatus
ErasureShape = ErasureAnswer
StatusShape = FederationStatus
