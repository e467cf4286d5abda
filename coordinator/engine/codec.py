"""Encodes the state as the body of a manifest, events as records of the journal, and ended requests as objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from types import GenericAlias
from typing import Any, Final, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from coordinator.decisions.events import (
    CheckpointLost,
    CheckpointWritten,
    ConstituentRefuted,
    EndedKept,
    ErasureAccepted,
    Event,
    HistoryKept,
    HoldoutMeasured,
    Ingested,
    NothingToErase,
    PointsRemoved,
    SubjectsReadmitted,
    TrainingConfigured,
    ValuesKept,
)
from coordinator.effects import ErasureEffect
from coordinator.engine.earlier_formats import grouped
from coordinator.requests import NOTHING_FOUND, ErasureRequest, Found, Readmission
from coordinator.state import (
    NONE_ENDED,
    DataState,
    EndedRequests,
    FederationState,
    GenerationRecord,
    ShardState,
)
from shards.lineage import CheckpointRecord, Configuration, NumericsProfile
from shards.routing import SliceId
from shards.slices.files import SliceRecord
from storage.digests import Json
from storage.errors import Corrupt, InvariantBroken, NewerFormat

FORMAT_VERSION: Final = 6
"""Incremented when older software would misread a state, or when ``decide`` derives another state from an event.

A state or event without newer features is written in the oldest format that can hold it. So a store of release 0.1
stays one until it holds something new (E16).
"""
_FORMAT_WITHOUT_NEWS: Final = 2
_FORMAT_OF_GROUPS: Final = 5

_SINCE_3: Final[Mapping[type, Mapping[str, Any]]] = {
    FederationState: {
        "naming": {"form": "exact", "by_skeleton": False},
        "segments": [],
        "readmissions": [],
        "refuted": [],
        "history": [],
    },
    ErasureRequest: {
        "include_similar": False,
        "commitment": None,
        "by": None,
    },
    DataState: {"by_id": 0, "respelt": 0},
    SliceRecord: {"similar": 0},
    Configuration: {"code_manifest": None},
    Ingested: {"at": ""},
    TrainingConfigured: {"at": ""},
    NumericsProfile: {"probe": None},
    CheckpointLost: {"at": ""},
    PointsRemoved: {"segments": None, "missing": None, "similar": {"points": 0, "subjects": 0}},
    NothingToErase: {"unknown": 0, "similar": {"points": 0, "subjects": 0}},
}
"""Fields that format 2 does not have, and their values when they are left out."""

_SINCE_4: Final[Mapping[type, Mapping[str, Any]]] = {
    FederationState: {"ended": TypeAdapter(EndedRequests).dump_python(NONE_ENDED, mode="json")},
    ErasureAccepted: {"looked": 0},
    SubjectsReadmitted: {"looked": 0},
}
"""The same for format 3."""

_SINCE_5: Final[Mapping[type, Mapping[str, Any]]] = {
    FederationState: {"corrected": []},
    Configuration: {"learner": None},
    ShardState: {"base": None},
    ErasureRequest: {
        "pause": None,
        "extension": None,
        "failure": None,
        "found": TypeAdapter(Found).dump_python(NOTHING_FOUND, mode="json"),
        "reason": None,
        "correction": None,
    },
    DataState: {"outdated": 0},
}
"""The same for format 4, whose requests have differently named fields instead
(``coordinator.engine.earlier_formats``)."""

_SINCE_6: Final[Mapping[type, Mapping[str, Any]]] = {
    FederationState: {"holdout": [], "measure": None, "is_measured": False},
    Configuration: {"guarantee": None},
    CheckpointRecord: {"accounted": None},
    ErasureRequest: {"effect": None},
    ErasureEffect: {"unmeasured": ""},
    Found: {"held_out": 0},
    Ingested: {"holdout": []},
    PointsRemoved: {"held_out": 0, "holdout": None},
    NumericsProfile: {"library": None},
}
"""The same for format 5."""

_NEWS: Final = ((3, _SINCE_3), (4, _SINCE_4), (5, _SINCE_5), (6, _SINCE_6))

_FIRST_FORMAT: Final[Mapping[type, int]] = {
    SubjectsReadmitted: 3,
    ConstituentRefuted: 3,
    HistoryKept: 3,
    EndedKept: 4,
    ValuesKept: 5,
    HoldoutMeasured: 6,
}
"""Events that format 2 does not have, and the first format that has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedBucket:
    """Ended requests, each with its number among all accepted requests, and ended readmissions."""

    requests: tuple[tuple[int, ErasureRequest], ...]
    readmissions: tuple[Readmission, ...]


EMPTY_BUCKET: Final = EndedBucket(requests=(), readmissions=())

_ADAPTER: Final = TypeAdapter(FederationState)
_BUCKET: Final = TypeAdapter(EndedBucket)
_KINDS: Final[Mapping[str, type[Event]]] = {
    re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower(): kind for kind in get_args(Event)
}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


def encode_state(state: FederationState) -> dict[str, Any]:
    """Return the state as JSON values."""
    version, values = encode_frame(state)
    for name in ELEMENTS:
        elements = [encode_element(name, each) for each in getattr(state, name)]
        if elements:
            version = max(version, first_format(name), *(needed for needed, _ in elements))
            values[name] = [element for _, element in elements]
    return {"format_version": version, "state": values}


def encode_frame(state: FederationState) -> tuple[int, dict[str, Any]]:
    """Return everything but the elements as JSON values, and the oldest format that can hold it."""
    values = _ADAPTER.dump_python(replace(state, history=(), requests=(), shards=()), mode="json")
    parts: list[tuple[type, dict[str, Any]]] = [(FederationState, values)]
    parts += [(DataState, values["data"])] if values["data"] else []
    parts += [(SliceRecord, record) for record in values["holdout"]]
    parts += _conditions(values)
    return _version(parts), values


def encode_element(field: str, element: Any) -> tuple[int, dict[str, Any]]:
    """Return an element of this field as JSON values, and the oldest format that can hold it."""
    kind = ELEMENTS[field]
    values: dict[str, Any] = kind.adapter.dump_python(element, mode="json")
    return _version(kind.parts(values)), values


def first_format(field: str) -> int:
    """Return the oldest format whose states can have elements of this field."""
    return next((version for version, news in _NEWS if field in news.get(FederationState, {})), _FORMAT_WITHOUT_NEWS)


def decode_state(body: Mapping[str, Any]) -> FederationState:
    """Return the state that ``encode_state`` wrote.

    Raises ``Invalid`` when a newer version of this software wrote it, ``Corrupt`` when no version of it did.
    """
    is_earlier = _is_earlier(body.get("format_version"))
    try:
        values = body.get("state")
        if is_earlier and isinstance(values, Mapping):
            values = {**values, "requests": [grouped(each) for each in values.get("requests", ())]}
        return _ADAPTER.validate_python(values)
    except ValidationError as error:
        raise Corrupt(f"the manifest does not hold a federation: {error.error_count()} problems") from error
    except (LookupError, TypeError, ValueError) as error:
        raise Corrupt("the manifest does not hold a federation: one of its requests cannot be read") from error


def encode_ended(bucket: EndedBucket) -> dict[str, Any]:
    """Return a bucket of ended requests as JSON values."""
    values = _BUCKET.dump_python(bucket, mode="json")
    version = _version([part for _, request in values["requests"] for part in _of_request(request)])
    return {"format_version": max(version, _FORMAT_OF_GROUPS), **values}


def decode_ended(body: Any, only: str | None = None) -> EndedBucket:
    """Return the bucket that ``encode_ended`` wrote; if ``only`` is given, just the request or readmission of that id.

    Raises as ``decode_state`` does.
    """
    if not isinstance(body, Mapping):
        raise Corrupt("an object does not hold ended requests")
    is_earlier = _is_earlier(body.get("format_version"))
    try:
        requests, readmissions = body["requests"], body["readmissions"]
        if only is not None:
            requests = [pair for pair in requests if pair[1]["request_id"] == only]
            readmissions = [each for each in readmissions if each["request_id"] == only]
        if is_earlier:
            requests = [(number, grouped(request)) for number, request in requests]
        return _BUCKET.validate_python({"requests": requests, "readmissions": readmissions})
    except ValidationError as error:
        raise Corrupt(f"an object does not hold ended requests: {error.error_count()} problems") from error
    except (LookupError, TypeError, ValueError) as error:
        raise Corrupt("an object does not hold ended requests") from error


def encode_event(event: Event) -> dict[str, Json]:
    """Return the event as JSON values."""
    name = _NAMES[type(event)]
    values = {each.name: each.dump(getattr(event, each.name)) for each in _fields(name)}
    parts: list[tuple[type, dict[str, Any]]] = [(type(event), values)]
    match event:
        case ErasureAccepted():
            parts += _of_request(values["request"])
        case Ingested():
            parts.append((DataState, values["data"]))
            parts += [(SliceRecord, record) for _, record in values["slices"]]
            parts += [(SliceRecord, record) for record in values["holdout"]]
        case TrainingConfigured():
            parts += _conditions(values)
        case CheckpointWritten():
            parts.append((CheckpointRecord, values["checkpoint"]))
        case PointsRemoved():
            parts += [(SliceRecord, record) for _, record in values["slices"]]
            parts += [(SliceRecord, record) for record in values["holdout"] or ()]
        case _:
            pass
    return {"format_version": _version(parts), "event": name, **values}


def decode_event(record: Json) -> Event:
    """Return the event that ``encode_event`` wrote.

    Raises ``Invalid`` when a newer version of this software wrote it, ``Corrupt`` when no version of it did.
    """
    if not isinstance(record, Mapping):
        raise Corrupt("a journal's record is not an object")
    values: dict[str, Any] = dict(record)
    is_earlier = _is_earlier(record.get("format_version"))
    name = record.get("event")
    if not isinstance(name, str) or name not in _KINDS:
        raise Corrupt("a journal's record is not an event of a federation")
    try:
        if is_earlier and name == _NAMES[ErasureAccepted]:
            values["request"] = grouped(values["request"])
        loaded = {each.name: each.load(values[each.name]) for each in _fields(name) if each.name in values}
        return _KINDS[name](**loaded)
    except (LookupError, TypeError, ValueError) as error:
        raise Corrupt("a journal's record does not hold the event that it names", event=name) from error


def _of_request(request: dict[str, Any]) -> tuple[tuple[type, dict[str, Any]], ...]:
    """Return the parts of a request, the whole first."""
    effect = ((ErasureEffect, request["effect"]),) if request["effect"] else ()
    return (ErasureRequest, request), (Found, request["found"]), *effect


def _of_shard(shard: dict[str, Any]) -> list[tuple[type, dict[str, Any]]]:
    """Return the parts of a shard, the whole first."""
    checkpoints = [*shard["chain"], *([shard["base"]["checkpoint"]] if shard["base"] else [])]
    parts: list[tuple[type, dict[str, Any]]] = [(ShardState, shard)]
    parts += [(SliceRecord, record) for record in shard["slices"]]
    parts += [(CheckpointRecord, each) for each in checkpoints]
    return parts


@dataclass(frozen=True, slots=True)
class _Elements:
    """How the elements of one field of a state are encoded."""

    adapter: TypeAdapter[Any]
    parts: Callable[[dict[str, Any]], Sequence[tuple[type, dict[str, Any]]]]


ELEMENTS: Final[Mapping[str, _Elements]] = {
    "history": _Elements(TypeAdapter(GenerationRecord), lambda _: ()),
    "requests": _Elements(TypeAdapter(ErasureRequest), _of_request),
    "shards": _Elements(TypeAdapter(ShardState), _of_shard),
}
"""Fields of a state with as many elements as there are shards or requests; each element can be encoded by itself."""


def _conditions(values: Mapping[str, Any]) -> list[tuple[type, dict[str, Any]]]:
    """Return the parts of the configuration in a state or an event."""
    found = values["configuration"]
    return [(Configuration, found), (NumericsProfile, found["profile"])] if found else []


def _version(parts: Sequence[tuple[type, dict[str, Any]]]) -> int:
    """Return the oldest format that can hold the parts, and remove fields at their defaults from them.

    A field that is left out means the behaviour of the release that wrote the store (E16).
    """
    needed = {_FORMAT_WITHOUT_NEWS, *(_FIRST_FORMAT[type_] for type_, _ in parts if type_ in _FIRST_FORMAT)}
    for type_, values in parts:
        for version, news in _NEWS:
            for name, default in news.get(type_, {}).items():
                if values[name] == default:
                    del values[name]
                else:
                    needed.add(version)
    return max(needed)


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]


@cache
def _fields(event: str) -> tuple[_Field, ...]:
    kind = _KINDS[event]
    hints = get_type_hints(kind)
    return tuple(_field(each.name, hints[each.name]) for each in fields(kind))


def _field(name: str, hint: Any) -> _Field:
    """Return how a field is written: JSON has neither maps by slice id nor sets, so these become sorted lists."""
    arguments = get_args(hint)
    if get_origin(hint) is Mapping and arguments[0] is SliceId:
        pairs = _tuple_of(GenericAlias(tuple, (SliceId, arguments[1])))
        return _Field(name, lambda value: _json(pairs, sorted(value.items(), key=_first)), _loader(pairs, dict))
    if get_origin(hint) is frozenset:
        members = _tuple_of(arguments[0])
        return _Field(name, lambda value: _json(members, sorted(value)), _loader(members, frozenset))
    plain: TypeAdapter[Any] = TypeAdapter(hint)
    return _Field(name, lambda value: _json(plain, value), plain.validate_python)


def _tuple_of(kind: Any) -> TypeAdapter[Any]:
    many: Any = GenericAlias(tuple, (kind, ...))
    return TypeAdapter(many)


def _loader(adapter: TypeAdapter[Any], collect: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: collect(adapter.validate_python(value))


def _json(adapter: TypeAdapter[Any], value: Any) -> Any:
    return adapter.dump_python(tuple(value) if isinstance(value, list) else value, mode="json")


def _first(pair: tuple[SliceId, Any]) -> SliceId:
    return pair[0]


def _is_earlier(version: object) -> bool:
    """Return whether requests of this format have to be brought into the current form. Raises ``NewerFormat``."""
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise NewerFormat(
            f"the federation was written in format {version}, this version reads up to {FORMAT_VERSION}",
            "Upgrade sisa-ray here: see docs/upgrades.md. Nothing in the store was changed.",
        )
    return isinstance(version, int) and version < _FORMAT_OF_GROUPS


if len(_NAMES) != len(get_args(Event)):
    raise InvariantBroken("two events have one name in the journal")
