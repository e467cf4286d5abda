"""The encrypted store: objects are encrypted from their first byte and destroyed with their keys; no other is lost."""

from __future__ import annotations

import pickle
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage import objects
from storage.digests import Sha256, sha256
from storage.encryption import cipher
from storage.encryption.cipher import OVERHEAD_BYTES
from storage.encryption.keyring_location import IDENTITY
from storage.encryption.store import KeyDestroyed, SealedStore
from storage.errors import Conflict, Corrupt, Invalid, ObjectExists, ObjectMissing, SisaError
from storage.objects import ObjectKey, object_key
from storage.stores.local import LocalStore
from storage.stores.memory import MemoryStore
from tests.doubles.stores.recording_store import RecordingStore, opened, stolen

MARKER = b"ERASE-ME-PLEASE!"
A = object_key("shards/0001/slices/0001/a.parquet")
B = object_key("shards/0001/slices/0002/b.parquet")
C = object_key("shards/0001/checkpoints/0001/c.safetensors")
OTHER = object_key("shards/0002/slices/0001/a.parquet")
PLAIN = object_key("requests/names.digests")
RING = object_key("keyrings/0001/ring")


@pytest.fixture
def memory() -> Iterator[RecordingStore]:
    """An empty store that remembers everything."""
    store = RecordingStore(secrets.token_hex(8))
    yield store
    store.forget()


@pytest.fixture
def apart() -> Iterator[RecordingStore]:
    """A second one, for keys."""
    store = RecordingStore(secrets.token_hex(8))
    yield store
    store.forget()


def filled(inner: MemoryStore | LocalStore, keys: MemoryStore | None = None) -> SealedStore:
    """Return a store with three objects in one ring, one in another, and one that is not encrypted."""
    store = SealedStore(inner, keys)
    for key in (A, B, C, OTHER, PLAIN):
        store.put_if_absent(key, payload_of(key))
    return store


def payload_of(key: ObjectKey) -> bytes:
    """Return what ``filled`` puts under ``key``."""
    return MARKER + key.encode()


def keks(store: MemoryStore, ring: str = "0001") -> list[ObjectKey]:
    """Return the key-encryption keys of a ring."""
    return [info.key for info in store.list(f"keyrings/{ring}/") if "/kek-" in info.key]


def alter(store: MemoryStore, key: ObjectKey, payload: bytes) -> None:
    """Change an object behind the vault's back."""
    store.put_if_match(key, payload, store.get(key).tag)


# ------------------------------------------------------------------------------------------------ confidentiality


@pytest.mark.parametrize(
    "payload", [MARKER, MARKER * 10_000, b"\0" * 5_000 + MARKER, secrets.token_bytes(999) + MARKER]
)
def test_no_byte_of_a_payload_is_stored_plain(tmp_path: Path, payload: bytes) -> None:
    """For any payload, compressible or not: no 8 bytes of it that mean anything are in any file of the store."""
    store = SealedStore(LocalStore(str(tmp_path)))
    store.put_if_match(A, payload, store.put_if_absent(A, payload))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert store.get(A).payload == payload
    assert len(files) >= 3
    for path in files:
        assert MARKER[:8] not in path.read_bytes(), path.name
        assert b"\0" * 32 not in path.read_bytes(), path.name


def test_equal_payloads_look_unlike(memory: RecordingStore) -> None:
    """Two objects of one content, and one object put twice, have no ciphertext, data key or nonce in common."""
    store, payload = SealedStore(memory), MARKER * 100
    tag = store.put_if_absent(A, payload)
    store.put_if_absent(B, payload)
    for _ in range(20):
        tag = store.put_if_match(A, payload, tag)
    stored = [stored for key, stored in memory.history if key in {A, B}]
    assert len({entry[14:26] for entry in stored}) == 22
    assert len({entry[start : start + 16] for entry in stored for start in range(26, len(entry) - 16, 16)}) == 22 * 100
    assert len({len(entry) - len(payload) for entry in stored}) == 1


def test_what_is_outside_the_prefix_is_stored_as_it_is(memory: RecordingStore) -> None:
    """Keyed digests, manifests and the probe's objects are not encrypted and have no data key."""
    store = SealedStore(memory)
    tag = store.put_if_absent(PLAIN, b"digests")
    assert memory.get(PLAIN).payload == b"digests"
    store.put_if_match(PLAIN, b"other", tag)
    store.delete(PLAIN)
    assert list(store.list("")) == []
    assert [key for key, _ in memory.history] == [PLAIN, PLAIN]


def test_sizes_are_those_of_payloads(memory: RecordingStore) -> None:
    """A listing shows the sizes of payloads, and includes the keyrings."""
    store = SealedStore(memory)
    store.put_if_absent(A, b"12345")
    listed = {info.key: info.payload_bytes for info in store.list("")}
    assert listed.pop(A) == 5
    assert listed.keys() == {RING, *keks(memory)}
    assert memory.get(A).payload[OVERHEAD_BYTES - 16 :] != b"12345"


def test_facts_say_where_keys_are(memory: RecordingStore, apart: RecordingStore) -> None:
    """The store can say how its objects are encrypted and where the keys are kept."""
    beside, elsewhere = SealedStore(memory).facts(), SealedStore(memory, apart).facts()
    assert (beside.encrypted, beside.keys, beside.apart) == ("shards/", memory.location, False)
    assert (elsewhere.keys, elsewhere.apart) == (apart.location, True)
    assert "AES-256-GCM" in beside.algorithm
    assert "RFC 3394" in beside.wrapping


# ------------------------------------------------------------------------------------------------- destruction


@pytest.mark.parametrize("is_apart", [False, True])
def test_copies_of_what_was_deleted_do_not_open(is_apart: bool, memory: RecordingStore, apart: RecordingStore) -> None:
    """With every byte that the store ever held, old rings and old ciphertexts included, but without the keys destroyed,
    no deleted object opens; all others do.
    """
    keys = apart if is_apart else None
    store = filled(memory, keys)
    assert opened(stolen(memory, apart)) == {key: {payload_of(key)} for key in (A, B, C, OTHER)}
    store.delete_all([A, C, PLAIN])
    assert opened(stolen(memory, apart)) == {key: {payload_of(key)} for key in (B, OTHER)}
    store.delete(OTHER)
    store.delete(B)
    assert opened(stolen(memory, apart)) == {}


def test_the_thief_would_find_a_key_left_behind(memory: RecordingStore) -> None:
    """The test above can fail: with the destroyed key-encryption key the deleted object opens."""
    store = filled(memory)
    (kek,) = keks(memory)
    copy = memory.get(kek).payload
    store.delete(A)
    loot = {**stolen(memory), kek: [copy]}
    assert opened(loot)[A] == {payload_of(A)}


def test_survivors_of_a_deletion_open(memory: RecordingStore) -> None:
    """Others of the ring keep their payloads through any number of deletions, for other processes too."""
    store, witness = filled(memory), SealedStore(memory)
    assert witness.get(B).payload == payload_of(B)
    for number in range(5):
        key = object_key(f"shards/0001/x{number}")
        store.put_if_absent(key, b"x")
        store.delete(key)
    for reader in (store, witness, SealedStore(memory)):
        assert {key: reader.get(key).payload for key in (B, C)} == {key: payload_of(key) for key in (B, C)}
    assert len(keks(memory)) == 1


def test_many_deletions_take_one_new_ring(memory: RecordingStore) -> None:
    """Deleting many objects makes one new key-encryption key for each ring that held a key of theirs."""
    store = filled(memory)
    memory.history.clear()
    store.delete_all([A, B, OTHER, object_key("shards/0003/never")])
    drawn = [key for key, _ in memory.history if "/kek-" in key]
    assert sorted(key.split("/")[1] for key in drawn) == ["0001", "0002"]
    assert store.get(C).payload == payload_of(C)


def test_a_deleted_key_is_a_new_object(memory: RecordingStore) -> None:
    """A key used again after its deletion has another data key, also for a process that remembers the first."""
    store, witness = filled(memory), SealedStore(memory)
    assert witness.get(A).payload == payload_of(A)
    store.delete(A)
    store.put_if_absent(A, b"new")
    assert witness.get(A).payload == b"new"
    with pytest.raises(ObjectExists, match="exists"):
        witness.put_if_absent(A, b"other")
    assert opened(stolen(memory))[A] == {b"new"}


def test_an_object_whose_key_is_destroyed_says_so(memory: RecordingStore) -> None:
    """Bytes put back without their key are refused by name, cannot be replaced, and can be deleted."""
    store = filled(memory)
    copy = memory.get(A).payload
    store.delete(A)
    memory.put_if_absent(A, copy)
    with pytest.raises(KeyDestroyed, match=rf"the key of this object was destroyed.*{A}"):
        store.get(A)
    with pytest.raises(ObjectMissing, match="its key was destroyed"):
        store.put_if_match(A, b"x", store.get(B).tag)
    store.delete(A)
    with pytest.raises(ObjectMissing, match="no such object"):
        store.get(A)


# --------------------------------------------------------------------------------------------------- integrity


@pytest.mark.parametrize("which", ["object", "ring", "kek"])
def test_every_flipped_byte_is_detected(which: str, memory: RecordingStore) -> None:
    """No byte of an object, of its ring or of the key-encryption key can be changed, dropped or added unseen."""
    filled(memory)
    key = {"object": A, "ring": RING, "kek": keks(memory)[0]}[which]
    payload = memory.get(key).payload
    changed = [
        payload[:n] + bytes([payload[n] ^ bit]) + payload[n + 1 :] for n in range(len(payload)) for bit in (1, 128)
    ]
    for damaged in (*changed, payload[:-1], payload[1:], payload + b"\0", b""):
        alter(memory, key, damaged)
        with pytest.raises(Corrupt, match=f"key={key}"):
            SealedStore(memory).get(A)
    alter(memory, key, payload)
    assert SealedStore(memory).get(A).payload == payload_of(A)


def test_pieces_are_the_payload(memory: RecordingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Together they are what ``get`` returns; each is in the memory of the one before, and nobody can write there."""
    monkeypatch.setattr(cipher, "_PIECE_BYTES", 7)
    store = filled(memory)
    empty = object_key("shards/0001/slices/0009/empty.parquet")
    store.put_if_absent(empty, b"")
    for key in (A, PLAIN, empty):
        assert b"".join(map(bytes, store.pieces(key))) == store.get(key).payload
    pieces = list(store.pieces(A))
    assert len(pieces) == -(-len(payload_of(A)) // 7)
    assert {each.readonly for each in pieces} == {True}
    assert len({bytes(each) for each in pieces[:-1]}) == 1


def test_pieces_of_a_damaged_object_end_with_the_error(memory: RecordingStore) -> None:
    """A flipped byte, other bytes, no encryption, a key that is gone: a reader of all pieces gets the error."""
    store = filled(memory)
    sealed = memory.get(A).payload
    for wrong in (sealed[:-1] + bytes([sealed[-1] ^ 1]), memory.get(B).payload, MARKER):
        alter(memory, A, wrong)
        with pytest.raises(Corrupt, match="not what was written"):
            list(SealedStore(memory).pieces(A))
    for info in list(memory.list("keyrings/")):
        memory.delete(info.key)
    with pytest.raises(KeyDestroyed, match="was destroyed"):
        list(SealedStore(memory).pieces(B))
    with pytest.raises(ObjectMissing, match="no such object"):
        list(store.pieces(object_key("shards/0001/none")))


def test_nothing_is_put_under_a_damaged_key(memory: RecordingStore) -> None:
    """A ring that does not open takes no further object, and deletes none: nothing changes until it is restored."""
    filled(memory)
    (kek,) = keks(memory)
    alter(memory, kek, bytes(32))
    before = {info.key: memory.get(info.key).payload for info in memory.list("")}
    store = SealedStore(memory)
    with pytest.raises(Corrupt, match="a key-encryption key is missing or damaged"):
        store.put_if_absent(object_key("shards/0001/new"), b"x")
    with pytest.raises(Corrupt, match="a key-encryption key is missing or damaged"):
        store.delete(A)
    memory.delete(kek)
    with pytest.raises(Corrupt, match="a key-encryption key is missing or damaged"):
        SealedStore(memory).get(A)
    memory.put_if_absent(kek, before[kek])
    assert {info.key: memory.get(info.key).payload for info in memory.list("")} == before


def test_swapped_objects_are_detected(memory: RecordingStore) -> None:
    """Two ciphertexts that change places do not open, even where both had one data key: the name is part of it."""
    store = filled(memory)
    first, second = memory.get(A).payload, memory.get(B).payload
    alter(memory, A, second)
    alter(memory, B, first)
    for key in (A, B):
        with pytest.raises(Corrupt, match=f"not what was written.*{key}"):
            store.get(key)


def test_an_older_content_of_an_object_opens(memory: RecordingStore) -> None:
    """A known limit: an older content of the same object that is put back while its key exists is not recognised."""
    store = SealedStore(memory)
    tag = store.put_if_absent(A, b"first")
    older = memory.get(A).payload
    store.put_if_match(A, b"second", tag)
    alter(memory, A, older)
    assert store.get(A).payload == b"first"


def test_swapped_rings_are_detected(memory: RecordingStore) -> None:
    """A ring in the place of another is refused."""
    store = filled(memory)
    alter(memory, RING, memory.get(object_key("keyrings/0002/ring")).payload)
    with pytest.raises(Corrupt, match=r"not what its key and format say.*keyrings/0001/ring"):
        SealedStore(memory).get(A)
    assert store.get(OTHER).payload == payload_of(OTHER)


def test_a_plain_object_among_encrypted_ones_is_refused(memory: RecordingStore) -> None:
    """An unencrypted object in the encrypted part is refused: this system did not write it."""
    store = filled(memory)
    key = object_key("shards/0001/plain")
    memory.put_if_absent(key, b"plain")
    with pytest.raises(Corrupt, match=r"not encrypted as a whole.*shards/0001/plain"):
        store.get(key)
    store.delete(key)
    assert key not in {info.key for info in store.list("")}


# -------------------------------------------------------------------------------------------------- leftovers


def test_leftovers_are_found_and_removed(memory: RecordingStore) -> None:
    """A data key without an object and stray key-encryption keys, older and newer than the ring's, are found by name,
    counted and removed; what is current stays.
    """
    store = filled(memory)
    memory.delete(A)
    older, newer = (object_key(f"keyrings/0001/kek-{n:012d}-{'0' * 32}") for n in (1, 9))
    lone = object_key(f"keyrings/0007/kek-{1:012d}-{'0' * 32}")
    for key in (older, newer, lone):
        memory.put_if_absent(key, bytes(32))
    found = [f"{A} (its key, without the object)", older, newer, lone]
    assert sorted(store.unfinished("")) == sorted(found)
    assert list(store.unfinished("shards/")) == found[:1]
    assert list(store.unfinished("requests/")) == []
    assert store.remove_unfinished("requests/") == 0
    assert store.remove_unfinished("") == 4
    assert list(store.unfinished("")) == []
    assert len(keks(memory)) == len(keks(memory, "0007")) == 1
    for key in (B, C, OTHER):
        assert SealedStore(memory).get(key).payload == payload_of(key)


# ----------------------------------------------------------------------------------------------- keys elsewhere


def test_two_stores_may_share_one_for_keys(memory: RecordingStore, apart: RecordingStore) -> None:
    """Two stores with their keys in one place open, delete and tidy up without touching each other's."""
    other = MemoryStore(secrets.token_hex(8))
    first, second = filled(memory, apart), filled(other, apart)
    first.delete(A)
    assert first.remove_unfinished("") == second.remove_unfinished("") == 0
    second.delete(B)
    for store, kept in ((first, (B, C, OTHER)), (second, (A, C, OTHER))):
        again = SealedStore(store.inner, apart)
        assert {key: again.get(key).payload for key in kept} == {key: payload_of(key) for key in kept}
        assert list(again.unfinished("")) == []
    assert [info.key for info in memory.list("keyrings/")] == [IDENTITY]
    other.forget()


def test_the_store_alone_opens_nothing(memory: RecordingStore, apart: RecordingStore) -> None:
    """With the keys in another store, a copy of the whole store reveals nothing."""
    filled(memory, apart)
    assert opened(stolen(memory)) == {}
    assert len(opened(stolen(memory, apart))) == 4


def test_a_wrong_place_for_keys_is_refused(memory: RecordingStore, apart: RecordingStore) -> None:
    """A store opened with its keys in the wrong place is refused, and not taken for one whose keys are destroyed."""
    filled(memory, apart)
    other, beside = MemoryStore(secrets.token_hex(8)), MemoryStore(secrets.token_hex(8))
    filled(beside)
    wrong = (SealedStore(memory), SealedStore(memory, other), SealedStore(beside, apart))
    for store in wrong:
        for attempt in (lambda: store.get(A), lambda: store.put_if_absent(A, b"x"), lambda: store.delete(A)):  # noqa: B023
            with pytest.raises(Conflict, match="this is not where the store's keys are.*Set 'keys'"):
                attempt()
    other.forget()
    beside.forget()


def test_a_damaged_identity_is_refused(memory: RecordingStore, apart: RecordingStore) -> None:
    """Every flipped byte of the identity that leads to the keys is detected."""
    filled(memory, apart)
    payload = memory.get(IDENTITY).payload
    for position in range(len(payload)):
        alter(memory, IDENTITY, payload[:position] + bytes([payload[position] ^ 1]) + payload[position + 1 :])
        with pytest.raises(Corrupt, match=f"key={IDENTITY}"):
            SealedStore(memory, apart).get(A)


# ------------------------------------------------------------------------------------------------- the store itself


def test_a_pickled_store_carries_no_key() -> None:
    """A store that goes to another process takes its places along and no key."""
    first, second, third = (MemoryStore(secrets.token_hex(8)) for _ in range(3))
    for store in (filled(first, second), filled(third)):
        secret_keys = [ring.secret for ring in store._opened[0]._seen.values()]
        data_keys = [store._opened[0].find("0001", key, fresh=False) for key in (A, B, C)]
        payload = pickle.dumps(store)
        again = pickle.loads(payload)
        assert again == store
        assert again.get(A).payload == payload_of(A)
        assert not any(secret in payload for secret in (*secret_keys, *(key or b"" for key in data_keys)))
        assert repr(secret_keys[0])[2:-1] not in repr(store) + repr(store._opened)
    for memory in (first, second, third):
        memory.forget()


def test_a_refused_creation_keeps_the_winner(memory: RecordingStore) -> None:
    """A creation of a taken key, by a process that never saw it, changes neither the object nor its key."""
    filled(memory)
    ring = memory.get(RING).payload
    with pytest.raises(ObjectExists, match=f"exists.*{A}"):
        SealedStore(memory).put_if_absent(A, b"second")
    assert memory.get(RING).payload == ring
    assert SealedStore(memory).get(A).payload == payload_of(A)


def test_keys_outside_the_grammar_make_no_ring(memory: RecordingStore) -> None:
    """A name that is not a valid key reaches neither the ring nor the store."""
    store = SealedStore(memory)
    for text in ("shards/", "shards//a", "shards/0001/Über", "shards/../a"):
        with pytest.raises(Invalid, match="an object key has segments"):
            store.put_if_absent(ObjectKey(text), b"x")
        with pytest.raises(Invalid, match="an object key has segments"):
            store.delete_all([A, ObjectKey(text)])
    assert memory.history == []


def test_threads_of_one_ring_lose_nothing(memory: RecordingStore) -> None:
    """8 threads that put and delete in one ring at once: what was kept opens, what was deleted is gone with its key."""
    store = filled(memory)

    def work(thread: int) -> None:
        for number in range(6):
            key = object_key(f"shards/0001/{thread}-{number}")
            store.put_if_absent(key, b"%d %d" % (thread, number))
            if number % 2:
                store.delete(key)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    kept = {object_key(f"shards/0001/{t}-{n}"): b"%d %d" % (t, n) for t in range(8) for n in (0, 2, 4)}
    assert {key: SealedStore(memory).get(key).payload for key in kept} == kept
    assert opened(stolen(memory)).keys() == {A, B, C, OTHER, *kept}
    assert list(store.unfinished("")) == []


def test_damage_survives_no_error_path(memory: RecordingStore) -> None:
    """An error names keys of objects and of the ring, and never a byte of a key or payload."""
    store = filled(memory)
    secret_key = store._opened[0]._seen["0001"].secret
    alter(memory, A, memory.get(B).payload)
    with pytest.raises(SisaError, match="not what was written") as caught:
        store.get(A)
    assert secret_key.hex() not in repr(caught.value)
    assert "ERASE" not in repr(caught.value)


def test_reading_digests_nothing_that_nobody_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large object is read and decrypted without a digest of either form; its tag is computed for those who ask."""
    store = filled(LocalStore(str(tmp_path)))
    tag = store.get(A).tag
    digested: list[bytes] = []

    def remembered(payload: bytes) -> Sha256:
        digested.append(payload)
        return sha256(payload)

    monkeypatch.setattr(objects, "sha256", remembered)
    found = store.get(A)
    assert found.payload == payload_of(A)
    assert len(digested) == 0
    assert (found.tag, found.tag) == (tag, tag)
    assert digested == [payload_of(A)]
    assert found == store.get(A)
    assert found != store.get(B)
