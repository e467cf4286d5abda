"""Sealed records prove themselves whole, and tell damage from news."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.digests import Json, canonical_json, digest_of
from storage.errors import Corrupt, Invalid
from storage.objects import object_key
from storage.records import FORMAT_VERSION, decode_record, encode_record

KEY = object_key("some/record")
NAMES = frozenset({"value"})

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def forged(**fields: Json) -> bytes:
    """A record with a correct digest and any fields."""
    return canonical_json({**fields, "sha256": digest_of(fields)})


@given(value=JSON)
def test_what_was_sealed_is_returned(value: Json) -> None:
    """Every JSON value comes back, and sealing it again gives the same bytes."""
    payload = encode_record({"value": value})
    fields = decode_record(payload, KEY, NAMES)
    assert fields == {"value": value}
    assert encode_record(fields) == payload


def test_tuples_read_back_as_lists() -> None:
    """A tuple is sealed as the list it reads back as."""
    assert decode_record(encode_record({"value": (1, (2,))}), KEY, NAMES) == {"value": [1, [2]]}


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, {1: "x"}, {None: 1}, {"a": {2: 3}}, b"bytes", {1, 2}, object(), [math.nan]]
)
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    """A value that would not come back as itself is refused before anything is written."""
    with pytest.raises(Invalid, match=r"record (holds a value that JSON cannot hold|would read back with other names)"):
        encode_record({"value": value})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"1",
        b"\xff\xfe",
        b'{"value":1}',
        b'{"value":NaN}',
        b"[" * 100_000,
        b"1" * 5_000,
        b'{"a":1,"a":1}',
        encode_record({"value": 1}) + b" ",
        b" " + encode_record({"value": 1}),
        encode_record({"value": 1}).replace(b":1,", b": 1,"),
        encode_record({"value": 1}) * 2,
        encode_record({"other": 1}),
        forged(value=1),
        forged(format_version=True, value=1),
        forged(format_version="2", value=1),
        forged(format_version=0, value=1),
        forged(format_version=1),
    ],
)
def test_damage_is_corrupt(payload: bytes) -> None:
    """Bytes that no version of ours writes are refused as damage, with the key and what to do."""
    with pytest.raises(Corrupt, match=r"not what was written \[key=some/record\]\. Keep the object for inspection"):
        decode_record(payload, KEY, NAMES)


@pytest.mark.parametrize(
    "payload",
    [
        forged(format_version=FORMAT_VERSION + 1, value=1),
        forged(format_version=FORMAT_VERSION + 1, something_else=1),
        forged(format_version=FORMAT_VERSION, value=1, extra=2),
    ],
)
def test_a_newer_version_is_news(payload: bytes) -> None:
    """An undamaged record of a newer version is not reported as damage: the error asks for an upgrade."""
    with pytest.raises(Invalid, match=r"written by a newer version.*some/record.*Upgrade"):
        decode_record(payload, KEY, NAMES)


def test_damage_to_a_newer_version_is_damage() -> None:
    """Bytes flipped in a newer version's record are damage, not news."""
    payload = forged(format_version=FORMAT_VERSION + 1, value=1)
    with pytest.raises(Corrupt, match="not what was written"):
        decode_record(payload.replace(b'"value":1', b'"value":2'), KEY, NAMES)
