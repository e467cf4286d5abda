"""The stored form of manifests and floor: nothing is trusted unread."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.digests import Json
from storage.errors import Corrupt
from storage.objects import ObjectKey, ObjectStore, VersionTag, object_key
from storage.registers.manifest import Manifest, manifest_from_bytes
from tests.storage.registers.filled import filled, number_key
from tests.volume import spread

BODY: dict[str, Json] = {
    "generation": 3,
    "shards": [{"digest": "ab", "slices": 5}],
    "ratio": 0.25,
    "name": "Zürich",
    "none": None,
}


def put(store: ObjectStore, key: ObjectKey, payload: bytes) -> VersionTag:
    """Write without a condition, as damage does."""
    store.delete(key)
    return store.put_if_absent(key, payload)


@given(
    number=st.integers(1, 10**18),
    token=st.integers(1, 10**18),
    nonce=st.text(min_size=1),
    body=st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.booleans()), max_size=5),
)
def test_read_then_write_gives_the_same_bytes(
    number: int, token: int, nonce: str, body: dict[str, int | str | list[bool] | None]
) -> None:
    """The round-trip law: every manifest is read as it was and written as it was read."""
    manifest = Manifest(number=number, token=token, nonce=nonce, body=body)
    payload = manifest.to_bytes()
    again = manifest_from_bytes(payload, number_key(number))
    assert again == manifest
    assert again.to_bytes() == payload


@pytest.mark.volume
def test_every_other_value_of_every_byte_is_detected() -> None:
    """No byte of a stored manifest can take another value unnoticed: all 255 others of every byte."""
    payload = Manifest(number=1, token=1, nonce="abc", body=BODY).to_bytes()
    for position, byte in enumerate(payload):
        for other in spread(range(256), 4, shift=position):
            if other != byte:
                flipped = payload[:position] + bytes([other]) + payload[position + 1 :]
                with pytest.raises(Corrupt, match="not what was written"):
                    manifest_from_bytes(flipped, number_key(1))


def test_every_flip_is_refused_by_every_reader(store: ObjectStore) -> None:
    """A register whose latest manifest has a flipped byte reads nothing, commits nothing and claims nothing."""
    register = filled(store, 1)
    payload = store.get(number_key(1)).payload
    for position in range(0, len(payload), 17):
        put(store, number_key(1), payload[:position] + bytes([payload[position] ^ 1]) + payload[position + 1 :])
        with pytest.raises(Corrupt, match="manifest/00000000000000000001"):
            register.latest()
        with pytest.raises(Corrupt, match="not what was written"):
            register.commit({}, after=1, token=1, nonce="n")
        with pytest.raises(Corrupt, match="not what was written"):
            register.claim_token()
    assert len(list(store.list(""))) == 1


def test_every_truncation_swap_and_insertion_is_detected() -> None:
    """A manifest cut anywhere, with two neighbours swapped, a byte dropped or doubled, is damage."""
    payload = Manifest(number=1, token=1, nonce="abc", body=BODY).to_bytes()
    mutants = {payload[:end] for end in range(len(payload))}
    for at in range(len(payload)):
        mutants.add(payload[:at] + payload[at + 1 :])
        mutants.add(payload[:at] + payload[at : at + 1] + payload[at:])
        mutants.add(payload[:at] + payload[at : at + 2][::-1] + payload[at + 2 :])
    for mutant in mutants - {payload}:
        with pytest.raises(Corrupt, match="not what was written"):
            manifest_from_bytes(mutant, number_key(1))


def test_every_flipped_byte_of_the_floor_is_detected(store: ObjectStore) -> None:
    """Every reader of a damaged floor refuses it."""
    register = filled(store, 3)
    register.prune(2)
    key = object_key("control/floor")
    payload = store.get(key).payload
    for position in range(len(payload)):
        put(store, key, payload[:position] + bytes([payload[position] ^ 1]) + payload[position + 1 :])
        for attempt in (register.floor, register.latest):
            with pytest.raises(Corrupt, match=r"not what was written.*control/floor"):
                attempt()


def test_a_manifest_under_another_number_is_detected(store: ObjectStore) -> None:
    """A whole manifest under a number that is not its own is damage: copied, renamed or restored wrongly."""
    register = filled(store, 2)
    put(store, number_key(3), store.get(number_key(1)).payload)
    with pytest.raises(Corrupt, match=r"not what its key and format say.*field=number"):
        register.latest()


@pytest.mark.parametrize(
    ("field", "value"),
    [("number", "1"), ("number", True), ("number", 1.0), ("token", None), ("nonce", 1), ("body", []), ("body", "x")],
)
def test_a_field_of_another_type_is_detected(field: str, value: object) -> None:
    """A sealed record whose field has the wrong type is not a manifest."""
    fields = {"number": 1, "token": 1, "nonce": "n", "body": {}, field: value}
    payload = Manifest(**fields).to_bytes()  # type: ignore[arg-type]
    with pytest.raises(Corrupt, match=f"not what its key and format say.*field={field}"):
        manifest_from_bytes(payload, number_key(1))
