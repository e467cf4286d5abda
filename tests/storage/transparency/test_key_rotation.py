"""Rotation: new keys take over once, through any crash and repetition."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from storage.errors import Corrupt, Fenced, OutcomeUnknown
from storage.objects import ObjectStore, object_key
from storage.records import encode_record
from storage.stores.memory import MemoryStore
from storage.transparency.envelope import sign_envelope
from storage.transparency.key_rotation import ENDORSEMENT_TYPE, KeyState, rotate, statements, trusted_through
from storage.transparency.keys import KeyFolder, SigningKey
from tests.doubles.seeds import CountingSeeds
from tests.doubles.stores.faulty_store import WRITES, Crash, Fault, FaultyStore

PURPOSES = ("receipts", "checkpoints")
AT, LATER = "2026-01-02T00:00:00+00:00", "2026-02-03T00:00:00+00:00"
ROTATION_WRITES = 10  # begun, two private and two public keys, two signed, two destroyed, ended


@pytest.fixture
def memory() -> Iterator[MemoryStore]:
    """A store whose first keys have been used."""
    store = MemoryStore("rotation")
    store.forget()
    for purpose in PURPOSES:
        folder(store, "first").current(purpose)
    yield store
    store.forget()


def folder(store: ObjectStore, seeds: str = "new") -> KeyFolder:
    """The keys of a store, from known seeds."""
    return KeyFolder(store, store, CountingSeeds(seeds))


def states(store: ObjectStore) -> list[tuple[str, KeyState, str | None]]:
    """What is known of the keys, without their ids."""
    return [(each.key.purpose, each.state, each.since) for each in statements(folder(store), PURPOSES)]


def privates(store: ObjectStore) -> list[str]:
    """The private keys that are there."""
    return [info.key for info in store.list("control/signing/")]


def test_new_keys_take_over(memory: MemoryStore) -> None:
    """All purposes have new keys, known since the rotation began; the old ones verify, and can sign no more."""
    before = {purpose: folder(memory).current(purpose).public for purpose in PURPOSES}
    publics = rotate(folder(memory), PURPOSES, AT)
    assert [each.purpose for each in publics] == list(PURPOSES)
    for public in publics:
        assert folder(memory).current(public.purpose).public == public
        assert set(folder(memory).published(public.purpose)) == {before[public.purpose], public}
    assert states(memory) == [
        ("checkpoints", KeyState.SIGNS, AT),
        ("receipts", KeyState.SIGNS, AT),
        ("checkpoints", KeyState.RETIRED, None),
        ("receipts", KeyState.RETIRED, None),
    ]
    assert len(privates(memory)) == 2


def test_every_rotation_makes_new_keys(memory: MemoryStore) -> None:
    """One rotation after another leaves one private key of each purpose, and every public one."""
    for at in (AT, LATER):
        rotate(folder(memory, at), PURPOSES, at)
    assert [(state, since) for purpose, state, since in states(memory) if purpose == "receipts"] == [
        (KeyState.SIGNS, LATER),
        (KeyState.RETIRED, None),
        (KeyState.RETIRED, AT),
    ]
    assert len(privates(memory)) == 2


def test_old_keys_sign_the_new_ones(memory: MemoryStore) -> None:
    """A verifier that trusts the first keys can trust those of every later rotation, each for its own purpose only."""
    first = {purpose: folder(memory).current(purpose).public for purpose in PURPOSES}
    for at in (AT, LATER):
        rotate(folder(memory, at), PURPOSES, at)
    found = statements(folder(memory), PURPOSES)
    assert [each.endorsement is None for each in found] == [each.since is None for each in found]
    envelopes = [each.endorsement for each in found if each.endorsement is not None]
    assert trusted_through(first.values(), envelopes) == {each.key for each in found}
    assert trusted_through([], envelopes) == frozenset()
    of_receipts = {each.key for each in found if each.key.purpose == "receipts"}
    assert trusted_through([first["receipts"]], envelopes) == of_receipts
    assert trusted_through(first.values(), [b"", b"{}", envelopes[0][:-1]]) == frozenset(first.values())


def test_a_key_of_another_purpose_signs_no_successor(memory: MemoryStore) -> None:
    """A key that may sign checkpoints cannot make anybody trust a key for receipts."""
    checkpoints = folder(memory).current("checkpoints")
    stranger = SigningKey("receipts", bytes(32)).public
    envelope = sign_envelope(stranger.to_text().encode(), ENDORSEMENT_TYPE, checkpoints)
    assert stranger not in trusted_through([checkpoints.public], [envelope])
    other_type = sign_envelope(stranger.to_text().encode(), "application/other", folder(memory).current("receipts"))
    assert stranger not in trusted_through([folder(memory).current("receipts").public], [other_type])


def test_lost_and_damaged_keys_are_replaced_unsigned(memory: MemoryStore) -> None:
    """Where an old private key is gone or damaged a rotation still makes a new one, which no key has signed."""
    lost, damaged = (object_key(f"control/signing/{purpose}/{1:020d}") for purpose in PURPOSES)
    memory.delete(lost)
    _replace(memory, damaged, b"{}")
    rotate(folder(memory), PURPOSES, AT)
    assert [each.endorsement for each in statements(folder(memory), PURPOSES) if each.since] == [None, None]


def test_a_damaged_signature_of_a_key_is_named(memory: MemoryStore) -> None:
    """What stands where an old key signed a new one, and is not that, is refused."""
    rotate(folder(memory), PURPOSES, AT)
    key = object_key(f"log/rotations/{1:020d}/signed-receipts")
    whole = memory.get(key).payload
    for place in range(0, len(whole), 5):
        _replace(memory, key, whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(Corrupt, match="the record of a key rotation is another rotation's"):
            statements(folder(memory), PURPOSES)


def test_keys_that_were_never_used_are_made(memory: MemoryStore) -> None:
    """Rotation in a store without keys makes the first ones."""
    memory.forget()
    assert states(memory) == []
    rotate(folder(memory), PURPOSES, AT)
    assert [state for _, state, _ in states(memory)] == [KeyState.SIGNS, KeyState.SIGNS]


def test_all_writes_were_crash_points(memory: MemoryStore) -> None:
    """The crash tests below reach every write of a rotation."""
    store = FaultyStore(memory)
    rotate(folder(store), PURPOSES, AT)
    assert sum(operation in WRITES for operation, _ in store.calls) == ROTATION_WRITES


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [Crash, OutcomeUnknown, Fenced])
@pytest.mark.parametrize("nth", range(1, ROTATION_WRITES + 1))
def test_crashes_at_every_write(memory: MemoryStore, when: str, error: type[BaseException], nth: int) -> None:
    """Any write may fail or end the process: repeating the rotation leaves one new key per purpose and no older one."""
    store = FaultyStore(memory, (Fault(when=when, operation="write", nth=nth, error=error),))  # type: ignore[arg-type]
    try:
        rotate(folder(store), PURPOSES, AT)
        done = True
    except (Crash, OutcomeUnknown, Fenced):
        done = False
    for purpose in PURPOSES:  # a process that signs meanwhile has a key
        assert folder(memory, "other").current(purpose).public in folder(memory).published(purpose)
    if not done:
        rotate(folder(memory, "again"), PURPOSES, LATER)
    began = LATER if (nth, when) == (1, "before") and not done else AT
    late = (
        not done and nth == ROTATION_WRITES and when == "after"
    )  # done but not acknowledged: repeating is another rotation
    if not late:
        assert [state for _, state, _ in states(memory)].count(KeyState.SIGNS) == 2
        assert [since for _, _, since in states(memory)] == [began, began, None, None]
        assert all(each.endorsement for each in statements(folder(memory), PURPOSES) if each.since)
    assert len(privates(memory)) == 2


def test_an_interrupted_rotation_shows(memory: MemoryStore) -> None:
    """Private keys that should be gone are reported until the rotation is completed."""
    store = FaultyStore(memory, (Fault(when="before", operation="delete", error=Crash),))
    with pytest.raises(Crash, match="^$"):
        rotate(folder(store), PURPOSES, AT)
    assert [state for _, state, _ in states(memory)].count(KeyState.REPLACED) == 2
    rotate(folder(memory), PURPOSES, LATER)
    assert [state for _, state, _ in states(memory)].count(KeyState.REPLACED) == 0


@pytest.mark.parametrize("nth", range(1, 41))
def test_a_rotation_that_comes_between(memory: MemoryStore, nth: int) -> None:
    """Two rotations at once, one whole one at any step of the other, leave keys that sign and none that should not."""
    store = _Interrupted(memory, nth)
    rotate(folder(store, "slow"), PURPOSES, AT)  # type: ignore[arg-type]
    for purpose in PURPOSES:
        current = folder(memory).current(purpose).public
        assert current in folder(memory).published(purpose)
    assert [state for _, state, _ in states(memory)].count(KeyState.SIGNS) == 2
    assert KeyState.REPLACED not in [state for _, state, _ in states(memory)]
    assert len(privates(memory)) == 2


class _Interrupted:
    """A store in which another process rotates the keys just before the ``nth`` operation."""

    def __init__(self, inner: ObjectStore, nth: int) -> None:
        self._inner = inner
        self._left = nth

    def __getattr__(self, name: str) -> object:
        self._left -= 1
        if self._left == 0:
            rotate(folder(self._inner, "quick"), PURPOSES, LATER)
        return getattr(self._inner, name)


def test_keys_kept_elsewhere_are_named_as_such(memory: MemoryStore) -> None:
    """Without private keys nobody here can say which key signs."""
    for key in privates(memory):
        memory.delete(object_key(key))
    assert {state for _, state, _ in states(memory)} == {KeyState.AWAY}


@pytest.mark.parametrize("part", ["begun", "ended"])
def test_every_flipped_byte_of_a_record_is_found(part: str, memory: MemoryStore) -> None:
    """A damaged record of a rotation is refused, not guessed at; so is one under another number."""
    if part == "begun":
        store = FaultyStore(memory, (Fault(when="after", operation="put_if_absent", error=Crash),))
        with pytest.raises(Crash, match="^$"):
            rotate(folder(store), PURPOSES, AT)
    else:
        rotate(folder(memory), PURPOSES, AT)
    key = object_key(f"log/rotations/00000000000000000001/{part}")
    whole = memory.get(key).payload
    for place in range(len(whole)):
        _replace(memory, key, whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(Corrupt, match="a stored record is not what was written"):
            rotate(folder(memory), PURPOSES, LATER)
    if part == "begun":
        _replace(memory, key, encode_record({"number": 2, "at": AT, "last": {"receipts": 1, "checkpoints": 1}}))
        with pytest.raises(Corrupt, match="the record of a key rotation is another rotation's"):
            rotate(folder(memory), PURPOSES, LATER)


@pytest.mark.parametrize("last", [True, -1, 1.0, "1", None])
def test_a_count_that_is_no_whole_number_destroys_nothing(last: object, memory: MemoryStore) -> None:
    """A record that is whole but counts private keys in anything but whole numbers is refused, and no key is lost."""
    before = privates(memory)
    counts: dict[str, Any] = {"receipts": 1, "checkpoints": last}
    key = object_key("log/rotations/00000000000000000001/begun")
    memory.put_if_absent(key, encode_record({"number": 1, "at": AT, "last": counts}))
    with pytest.raises(Corrupt, match="the record of a key rotation is another rotation's"):
        rotate(folder(memory), PURPOSES, LATER)
    assert privates(memory) == before


@pytest.mark.parametrize("keys", [["a key's id"], "an id", None])
def test_a_list_of_keys_that_is_no_object_is_refused(keys: Any, memory: MemoryStore) -> None:
    """A record of a finished rotation that does not name each purpose's key is refused."""
    key = object_key("log/rotations/00000000000000000001/ended")
    memory.put_if_absent(key, encode_record({"number": 1, "at": AT, "keys": keys}))
    with pytest.raises(Corrupt, match="the record of a key rotation is another rotation's"):
        statements(folder(memory), PURPOSES)


def _replace(store: MemoryStore, key: str, payload: bytes) -> None:
    store.delete(object_key(key))
    store.put_if_absent(object_key(key), payload)
