"""Records: canonical JSON with its own digest, so that damage shows.

Every format of every version keeps this law, so that an old reader can tell damage from news: a record is a JSON
object in canonical form whose ``sha256`` is the digest of the canonical form of all its other fields, one of which is
``format_version``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NoReturn

from storage.digests import Json, canonical_json, digest_of
from storage.errors import Corrupt, Invalid, NewerFormat
from storage.objects import ObjectKey

FORMAT_VERSION = 1
"""The newest version that this code reads and writes."""


def encode_record(fields: Mapping[str, Json]) -> bytes:
    """Return the stored form of ``fields``, which name neither ``format_version`` nor ``sha256``.

    Raises ``Invalid`` when a value cannot be JSON: a NaN, a name that is not text, bytes.
    """
    record: dict[str, Json] = {**fields, "format_version": FORMAT_VERSION}
    try:
        record["sha256"] = digest_of(record)
        payload = canonical_json(record)
    except (TypeError, ValueError) as error:
        raise Invalid("a record holds a value that JSON cannot hold", "Use text, numbers, lists and names.") from error
    if not _is_named_by_text(record):
        raise Invalid("a record would read back with other names", "Use text as names.")
    return payload


def decode_record(payload: bytes, key: ObjectKey, field_names: frozenset[str]) -> dict[str, Json]:
    """Return the fields that ``encode_record`` was given; ``field_names`` are theirs.

    Raises:
        Corrupt: any byte differs from what was written, or a field is missing.
        NewerFormat: the record is whole and of a newer version.
    """
    record = _parsed(payload, key)
    version = record.pop("format_version", None)
    if type(version) is not int or version < FORMAT_VERSION:  # a bool is an int, and no version
        _refuse_damage(key)
    if version > FORMAT_VERSION or field_names < record.keys():
        raise NewerFormat(
            "the record was written by a newer version of this system",
            "Upgrade sisa-ray on this machine.",
            key=key,
            format_version=version,
        )
    if record.keys() != field_names:
        _refuse_damage(key)
    return record


def _parsed(payload: bytes, key: ObjectKey) -> dict[str, Json]:
    """Return the record without its digest, which is that of all the rest. Raises ``Corrupt``."""
    try:
        record: dict[str, Json] = json.loads(payload)
        if not isinstance(record, dict):
            _refuse_damage(key)
        digest = record.pop("sha256", None)
        # Refuses NaN and infinities, too, which Python's reader lets through.
        if digest != digest_of(record) or canonical_json({**record, "sha256": digest}) != payload:
            _refuse_damage(key)
    except (ValueError, RecursionError):
        _refuse_damage(key)
    return record


def _is_named_by_text(value: Json) -> bool:
    """Whether all names in ``value`` are text: others, such as numbers, would become text."""
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                return False
        value = tuple(value.values())
    if isinstance(value, (list, tuple)):
        for inner in value:
            # Most are not containers: to call this for each would take half of the time that encoding does.
            if isinstance(inner, (dict, list, tuple)) and not _is_named_by_text(inner):
                return False
    return True


def _refuse_damage(key: ObjectKey) -> NoReturn:
    raise Corrupt(
        "a stored record is not what was written",
        "Keep the object for inspection, and restore it from a copy. It was not used.",
        key=key,
    )
