"""The stored form of journal entries, and the chain they make: nothing is trusted unread."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.digests import Json, Sha256, digest_of, sha256
from storage.errors import Corrupt, Invalid
from storage.objects import ObjectStore, object_key
from storage.records import encode_record
from storage.registers.journal import START, Journal, JournalEntry, Position, entry_from_bytes
from storage.stores.memory import MemoryStore
from tests.storage.registers.filled import entry_key, overwrite, written
from tests.volume import spread

RECORDS: tuple[Json, ...] = (
    {"request": "r-1", "digests": ["ab", "cd"], "at": "2026-11-23T10:00:00Z"},
    "Zürich",
    None,
    0.25,
)
ENTRY = JournalEntry(number=1, token=1, nonce="abc", previous=START.digest, records=RECORDS)


@pytest.fixture
def memory() -> Iterator[MemoryStore]:
    """A store in memory with a journal of three entries."""
    held = MemoryStore(secrets.token_hex(8))
    written(held, 3)
    yield held
    held.forget()


def payloads(store: ObjectStore) -> list[bytes]:
    """The stored entries 1, 2 and 3."""
    return [store.get(entry_key(number)).payload for number in (1, 2, 3)]


@given(
    number=st.integers(1, 10**18),
    token=st.integers(1, 10**18),
    nonce=st.text(min_size=1),
    previous=st.binary(max_size=4),
    records=st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=4,
    ),
)
def test_read_then_write_gives_the_same_bytes(
    number: int, token: int, nonce: str, previous: bytes, records: list[Json]
) -> None:
    """The round-trip law: every entry is read as it was and written as it was read."""
    entry = JournalEntry(number=number, token=token, nonce=nonce, previous=sha256(previous), records=tuple(records))
    payload = entry.to_bytes()
    again = entry_from_bytes(payload, entry_key(number))
    assert again == entry
    assert again.to_bytes() == payload


@pytest.mark.volume
def test_every_other_value_of_every_byte_is_detected() -> None:
    """No byte of a stored entry can take another value unnoticed: all 255 others of every byte."""
    payload = ENTRY.to_bytes()
    for position, byte in enumerate(payload):
        for other in spread(range(256), 4, shift=position):
            if other != byte:
                flipped = payload[:position] + bytes([other]) + payload[position + 1 :]
                with pytest.raises(Corrupt, match="not what was written"):
                    entry_from_bytes(flipped, entry_key(1))


def test_every_truncation_swap_and_insertion_is_detected() -> None:
    """An entry cut anywhere, with two neighbours swapped, a byte dropped or doubled, is damage."""
    payload = ENTRY.to_bytes()
    mutants = {payload[:end] for end in range(len(payload))}
    for at in range(len(payload)):
        mutants.add(payload[:at] + payload[at + 1 :])
        mutants.add(payload[:at] + payload[at : at + 1] + payload[at:])
        mutants.add(payload[:at] + payload[at : at + 2][::-1] + payload[at + 2 :])
    for mutant in mutants - {payload}:
        with pytest.raises(Corrupt, match="not what was written"):
            entry_from_bytes(mutant, entry_key(1))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("number", "1"),
        ("number", True),
        ("number", 1.0),
        ("token", None),
        ("nonce", 1),
        ("previous", None),
        ("records", {}),
        ("records", "x"),
    ],
)
def test_a_field_of_another_type_is_detected(field: str, value: object) -> None:
    """A sealed record whose field has the wrong type is not an entry."""
    fields = {"number": 1, "token": 1, "nonce": "n", "previous": START.digest, "records": (), field: value}
    payload = JournalEntry(**fields).to_bytes()  # type: ignore[arg-type]
    with pytest.raises(Corrupt, match=f"not what its key and format say.*journal/0.*field={field}"):
        entry_from_bytes(payload, entry_key(1))


def test_a_newer_form_is_not_damage(store: ObjectStore) -> None:
    """Every reader of an undamaged entry of a later version asks for an upgrade."""
    record = json.loads(ENTRY.to_bytes())
    del record["sha256"]
    record["format_version"] = 2
    newer = json.dumps({**record, "sha256": digest_of(record)}, sort_keys=True, separators=(",", ":")).encode()
    store.put_if_absent(entry_key(1), newer)
    with pytest.raises(Invalid, match=r"written by a newer version.*format_version=2.*Upgrade"):
        Journal(store).read(START)
    with pytest.raises(Invalid, match="written by a newer version"):
        Journal(store).append([], after=START, token=1, nonce="n")


# ---------------------------------------------------------------------------------------------- a journal of 3 entries


@pytest.mark.parametrize("number", [1, 2, 3])
def test_every_flipped_byte_of_a_journal_is_detected(memory: MemoryStore, number: int) -> None:
    """No byte of any entry can change unnoticed: not to a reader, and not to a writer that meets the entry."""
    journal, payload = Journal(memory), payloads(memory)[number - 1]
    before = START if number == 1 else Position(number=number - 1, digest=sha256(payloads(memory)[number - 2]))
    for position in range(len(payload)):
        for mask in (1, 0x20, 0x80):
            flipped = payload[:position] + bytes([payload[position] ^ mask]) + payload[position + 1 :]
            overwrite(memory, entry_key(number), flipped)
            with pytest.raises(Corrupt, match=f"not what was written.*journal/0+{number}.*Keep the object"):
                journal.read(START)
        with pytest.raises(Corrupt, match="not what was written"):
            journal.append([], after=before, token=1, nonce="n")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_every_truncated_entry_of_a_journal_is_detected(memory: MemoryStore, number: int) -> None:
    """An entry that is cut anywhere, or of which more is there than was written, is damage."""
    payload = payloads(memory)[number - 1]
    for cut in (*(payload[:end] for end in range(len(payload))), payload + b"\n", payload + payload):
        overwrite(memory, entry_key(number), cut)
        with pytest.raises(Corrupt, match="not what was written"):
            Journal(memory).read(START)


@pytest.mark.parametrize("order", [order for order in permutations((0, 1, 2)) if order != (0, 1, 2)])
def test_entries_in_another_order_are_detected(memory: MemoryStore, order: tuple[int, int, int]) -> None:
    """Whole entries under each other's numbers are damage: swapped or reordered."""
    held = payloads(memory)
    for number, index in enumerate(order, start=1):
        overwrite(memory, entry_key(number), held[index])
    with pytest.raises(Corrupt, match=r"not what its key and format say.*field=number"):
        Journal(memory).read(START)


@pytest.mark.parametrize(("source", "target"), [(1, 2), (1, 3), (2, 1), (3, 2), (1, 4), (3, 4)])
def test_a_copied_entry_is_detected(memory: MemoryStore, source: int, target: int) -> None:
    """A whole entry under another number, in place of another one or behind the last, is damage."""
    overwrite(memory, entry_key(target), payloads(memory)[source - 1])
    with pytest.raises(Corrupt, match=r"not what its key and format say.*field=number"):
        Journal(memory).read(START)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("changed", ["records", "nonce", "token"])
def test_a_forged_entry_is_detected(memory: MemoryStore, number: int, changed: str) -> None:
    """An entry that somebody replaced by another valid one is detected: by the next entry's digest, or by a reader that
    knows the position after it.
    """
    entries = Journal(memory).read(START)
    behind = Position(number=3, digest=sha256(payloads(memory)[2]))
    entry = entries[number - 1]
    values: dict[str, object] = {"records": ("forged",), "nonce": "forged", "token": 9}
    fields = {name: getattr(entry, name) for name in ("number", "token", "nonce", "previous", "records")}
    forged = JournalEntry(**{**fields, changed: values[changed]})
    overwrite(memory, entry_key(number), forged.to_bytes())
    with pytest.raises(Corrupt, match="does not follow the one before it" if number < 3 else "read up to is gone"):
        Journal(memory).read(START if number < 3 else behind)


@pytest.mark.parametrize("number", [1, 2])
def test_a_gap_is_detected(memory: MemoryStore, number: int) -> None:
    """An entry that is missing while a later one is there is a loss, and it says which."""
    memory.delete(entry_key(number))
    with pytest.raises(
        Corrupt, match=rf"an entry of the journal is missing \[number={number} highest=3\]\. .*restore the journal"
    ):
        Journal(memory).read(START)


def test_a_lost_end_shows_to_who_knows_it(memory: MemoryStore) -> None:
    """Entries gone from the end show to a reader that had read them: the floor does not speak of them."""
    behind = Position(number=3, digest=sha256(payloads(memory)[2]))
    memory.delete(entry_key(3))
    assert len(Journal(memory).read(START)) == 2
    with pytest.raises(Corrupt, match=r"entry that was read up to is gone \[number=3\]"):
        Journal(memory).read(behind)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_place_in_another_journal_is_detected(memory: MemoryStore, number: int) -> None:
    """A place whose digest is not that of this journal's entry is not read on from."""
    with pytest.raises(Corrupt, match=rf"does not follow the one before it.*number={number + 1}"):
        Journal(memory).read(Position(number=number, digest=sha256(b"another journal")))


def test_entries_put_in_by_hand_are_detected(memory: MemoryStore) -> None:
    """An entry behind the last is only one when it names the last one's bytes."""
    for previous in (START.digest, Sha256(""), sha256(payloads(memory)[1])):
        forged = JournalEntry(number=4, token=1, nonce="n", previous=previous, records=())
        overwrite(memory, entry_key(4), forged.to_bytes())
        with pytest.raises(Corrupt, match=r"does not follow the one before it.*number=4"):
            Journal(memory).read(START)


def test_every_flipped_byte_of_the_floor_is_detected(memory: MemoryStore) -> None:
    """Reader, writer and pruner all refuse a damaged floor."""
    journal = Journal(memory)
    journal.prune(1)
    key = object_key("control/journal-floor")
    payload = memory.get(key).payload
    assert payload == encode_record({"floor": 2})
    behind = Position(number=3, digest=sha256(memory.get(entry_key(3)).payload))
    for position in range(len(payload)):
        overwrite(memory, key, payload[:position] + bytes([payload[position] ^ 1]) + payload[position + 1 :])
        with pytest.raises(Corrupt, match=r"not what was written.*control/journal-floor"):
            journal.floor()
        with pytest.raises(Corrupt, match="not what was written"):
            journal.read(behind)
        with pytest.raises(Corrupt, match="not what was written"):
            journal.append([], after=behind, token=1, nonce="n")
        with pytest.raises(Corrupt, match="not what was written"):
            journal.prune(2)
