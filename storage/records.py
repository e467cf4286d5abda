"""Records: canonical JSON with its own digest, so that damage shows.

A record is a JSON object in canonical form. Its field ``sha256`` is the digest of the canonical form of all other
fields, one of which is ``format_version``. This holds for every version of every format, so that an old reader can
tell a damaged record from one of a newer version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NoReturn

from storage.digests import CanonicalJson, Json, canonical_json, canonical_object, sha256
from storage.errors import Corrupt, Invalid, NewerFormat
from storage.objects import ObjectKey

FORMAT_VERSION = 1
"""The newest version that this code reads and writes."""


def encode_record(fields: Mapping[str, Json | CanonicalJson]) -> bytes:
    """Return the stored form of ``fields``, which name neither ``format_version`` nor ``sha256``.

    Raises ``Invalid`` when a value cannot be JSON: a NaN, a name that is not text, bytes.
    """
    encoded = {name: value.text for name, value in fields.items() if isinstance(value, CanonicalJson)}
    record: dict[str, Json] = {name: value for name, value in fields.items() if not isinstance(value, CanonicalJson)}
    record["format_version"] = FORMAT_VERSION
    try:
        parts = encoded | {name: canonical_json(value) for name, value in record.items()}
        payload = canonical_object({**parts, "sha256": canonical_json(sha256(canonical_object(parts)))})
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
    if type(version) is not int or version < FORMAT_VERSION:  # a bool is an int, but not a version
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
    """Return the record without its digest, after checking it. Raises ``Corrupt`` when the digest is wrong."""
    try:
        record: dict[str, Json] = json.loads(payload)
        if not isinstance(record, dict):
            _refuse_damage(key)
        digest = record.pop("sha256", None)
        # Refuses NaN and infinities, too, which Python's reader lets through.
        parts = {name: canonical_json(value) for name, value in record.items()}
        whole = canonical_object({**parts, "sha256": canonical_json(digest)})
        if digest != sha256(canonical_object(parts)) or whole != payload:
            _refuse_damage(key)
    except (ValueError, RecursionError):
        _refuse_damage(key)
    return record


def _is_named_by_text(value: Json) -> bool:
    """Whether all names in ``value`` are text: JSON would turn other names, such as numbers, into text."""
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                return False
        value = tuple(value.values())
    if isinstance(value, (list, tuple)):
        for inner in value:
            # Most values are not containers: a call for each of them would take half of the encoding time.
            if isinstance(inner, (dict, list, tuple)) and not _is_named_by_text(inner):
                return False
    return True


def _refuse_damage(key: ObjectKey) -> NoReturn:
    raise Corrupt(
        "a stored record is not what was written",
        "Keep the object for inspection, and restore it from a copy. It was not used.",
        key=key,
    )
