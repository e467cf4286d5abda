"""Signing keys: made once, published, rotated, and never shown."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from hypothesis import given
from hypothesis import strategies as st

from storage.digests import sha256
from storage.errors import Corrupt, Invalid, InvariantBroken, OutcomeUnknown, SisaError, Unavailable
from storage.objects import ObjectStore, object_key
from storage.records import decode_record
from storage.stores.memory import MemoryStore
from storage.transparency.keys import KeyFolder, PublicKey, SigningKey, fresh_seed, public_key_from_text
from tests.doubles.seeds import CountingSeeds
from tests.doubles.stores.faulty_store import WRITES, Crash, Fault, FaultyStore

SEED = bytes(range(32))
PRIVATE = object_key("control/signing/tests/00000000000000000001")
NAMES = frozenset({"purpose", "number", "key_id", "pkcs8"})


@pytest.fixture
def memory() -> Iterator[MemoryStore]:
    """An empty store."""
    store = MemoryStore("signing")
    store.forget()
    yield store
    store.forget()


def folder(store: ObjectStore, private: ObjectStore | None = None) -> KeyFolder:
    """The keys of a store, from known seeds."""
    return KeyFolder(store, private or store, CountingSeeds())


def replace(store: ObjectStore, key: str, payload: bytes) -> None:
    """Put other bytes in an object's place, as someone with access to the store could."""
    store.delete(object_key(key))
    store.put_if_absent(object_key(key), payload)


def test_rfc_8032_vector() -> None:
    """The key and signature of RFC 8032 section 7.1, test 2, come out as they stand there."""
    key = SigningKey("tests", bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    assert key.public.raw.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    signature = (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert key.sign(b"\x72").hex() == signature
    assert key.public.verifies(b"\x72", bytes.fromhex(signature))


def test_a_signature_is_for_one_message_and_one_key() -> None:
    """No flipped bit of message or signature, no other length and no other key is accepted."""
    key, other = SigningKey("tests", SEED), SigningKey("tests", SEED[::-1])
    signature = key.sign(b"message")
    assert key.public.verifies(b"message", signature)
    for place in range(64 * 8):
        flipped = bytearray(signature)
        flipped[place // 8] ^= 1 << place % 8
        assert not key.public.verifies(b"message", bytes(flipped))
    for wrong in (b"", signature[:-1], signature + b"\0", other.sign(b"message")):
        assert not key.public.verifies(b"message", wrong)
    assert not key.public.verifies(b"massage", signature)
    assert not other.public.verifies(b"message", signature)


def test_the_key_is_made_once(memory: MemoryStore) -> None:
    """Every call of every process returns the same key, and it is published under its id."""
    first = folder(memory).current("tests")
    again = KeyFolder(memory, memory).current("tests")
    assert first.public == again.public
    assert folder(memory).published("tests") == (first.public,)
    key = object_key(f"log/keys/tests/{sha256(first.public.raw)}")
    assert memory.get(key).payload.decode() == first.public.to_text()


def test_purposes_have_keys_of_their_own(memory: MemoryStore) -> None:
    """A key of one purpose is not found under another."""
    keys = folder(memory)
    assert keys.current("tests").public != keys.current("others").public
    assert [key.purpose for key in keys.published("others")] == ["others"]


def test_private_keys_are_stored_where_the_caller_says(memory: MemoryStore) -> None:
    """With a place of their own nothing private is in the store, and without it only in its control objects."""
    elsewhere = MemoryStore("signing-elsewhere")
    elsewhere.forget()
    folder(memory, elsewhere).current("tests")
    assert all(info.key.startswith("log/keys/tests/") for info in memory.list(""))
    assert [info.key for info in elsewhere.list("")] == [PRIVATE]
    elsewhere.forget()


def test_a_lost_private_key_is_not_replaced_unasked(memory: MemoryStore) -> None:
    """Where public keys are known and the private one is not in its place, nothing is signed until someone rotates."""
    keys = folder(memory)
    old = keys.current("tests").public
    memory.delete(PRIVATE)
    with pytest.raises(Unavailable, match=r"the private signing key is not in its place .*Name the folder"):
        keys.current("tests")
    new = keys.rotate("tests").public
    assert keys.current("tests").public == new
    assert set(keys.published("tests")) == {old, new}


def test_rotation(memory: MemoryStore) -> None:
    """A new key signs, old ones stay verifiable, and of their private halves nothing is left."""
    keys = folder(memory)
    publics = [keys.current("tests").public]
    signature = keys.current("tests").sign(b"then")
    publics += [keys.rotate("tests").public for _ in range(3)]
    assert len(set(publics)) == 4
    assert keys.current("tests").public == publics[-1]
    assert set(keys.published("tests")) == set(publics)
    assert [info.key[-2:] for info in memory.list("control/signing/tests/")] == ["04"]
    assert any(key.verifies(b"then", signature) for key in keys.published("tests"))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [Crash, OutcomeUnknown])
@pytest.mark.parametrize("nth", range(1, 10))
def test_crashes_at_every_write(memory: MemoryStore, when: str, error: type[BaseException], nth: int) -> None:
    """Any write may fail or end the process while keys are made and rotated: the next attempt has one good key."""
    store = FaultyStore(memory, (Fault(when=when, operation="write", nth=nth, error=error),))  # type: ignore[arg-type]
    keys = folder(store)
    for step in (keys.current, keys.rotate, keys.rotate):
        try:
            step("tests")
        except (Crash, OutcomeUnknown):
            break
    after = KeyFolder(memory, memory, CountingSeeds("after"))
    key = after.current("tests")
    assert key.public in after.published("tests")
    assert after.current("tests").public == key.public
    assert after.rotate("tests").public != key.public
    assert len(list(memory.list("control/signing/tests/"))) == 1


def test_all_writes_were_crash_points(memory: MemoryStore) -> None:
    """The crash test above reaches every write of a creation and two rotations."""
    store = FaultyStore(memory)
    keys = folder(store)
    keys.current("tests")
    keys.rotate("tests")
    keys.rotate("tests")
    assert sum(operation in WRITES for operation, _ in store.calls) == 9


def test_the_private_key_is_never_shown(memory: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    """Neither repr, text, format nor log shows it, and it does not pickle."""
    caplog.set_level(logging.DEBUG)
    keys = folder(memory)
    key = keys.current("tests")
    seed = CountingSeeds()()
    pem = str(decode_record(memory.get(PRIVATE).payload, PRIVATE, NAMES)["pkcs8"])
    shown = f"{key} {key!r} {keys!r} {[key]} {caplog.text}"
    for secret in (seed.hex(), repr(seed), pem.splitlines()[1]):
        assert secret not in shown
    with pytest.raises(InvariantBroken, match="a private key does not leave its process"):
        pickle.dumps(key)
    assert not hasattr(key, "__dict__")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def test_errors_do_not_carry_the_private_key(memory: MemoryStore) -> None:
    """Every one-byte damage of the private object is found, and no error on the way holds what was in it."""
    folder(memory).current("tests")
    whole = memory.get(PRIVATE).payload
    secret = str(decode_record(whole, PRIVATE, NAMES)["pkcs8"]).splitlines()[1][:40]
    for place in range(len(whole)):
        replace(memory, PRIVATE, whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(Corrupt, match="a private signing key is damaged") as caught:
            folder(memory).current("tests")
        held = [f"{vars(each)} {each!r} {each}" for each in _chain(caught.value)]
        assert len(held) == 1
        assert secret not in "".join([*held, *traceback.format_exception(caught.value)])


def test_a_private_key_under_another_name_is_refused(memory: MemoryStore) -> None:
    """A private key copied to another number or purpose is not used there."""
    keys = folder(memory)
    keys.current("tests")
    payload = memory.get(PRIVATE).payload
    replace(memory, "control/signing/tests/00000000000000000002", payload)
    with pytest.raises(Corrupt, match="a private signing key is damaged"):
        keys.current("tests")
    replace(memory, "control/signing/others/00000000000000000001", payload)
    with pytest.raises(Corrupt, match="a private signing key is damaged"):
        keys.current("others")


def test_damaged_public_keys_are_found(memory: MemoryStore) -> None:
    """Every one-byte damage of a published key is found; so is a key under another's name."""
    keys = folder(memory)
    public = keys.current("tests").public
    name = f"log/keys/tests/{public.key_id}"
    whole = memory.get(object_key(name)).payload
    for place in range(len(whole)):
        replace(memory, name, whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(Corrupt, match="a published key is not the one that its name says"):
            keys.published("tests")
    replace(memory, name, SigningKey("tests", SEED).public.to_text().encode())
    with pytest.raises(Corrupt, match="a published key is not the one that its name says"):
        keys.published("tests")


def test_other_tools_read_our_keys(memory: MemoryStore) -> None:
    """The published text and the private record hold plain PEM."""
    public = folder(memory).current("tests").public
    assert load_pem_public_key(public.to_text().encode()).public_bytes_raw() == public.raw  # type: ignore[union-attr]
    pem = str(decode_record(memory.get(PRIVATE).payload, PRIVATE, NAMES)["pkcs8"])
    private = load_pem_private_key(pem.encode(), None)
    assert private.public_key().public_bytes_raw() == public.raw  # type: ignore[union-attr]


@given(st.text(max_size=300))
def test_any_other_text_is_no_key(text: str) -> None:
    """Any text that is not a published key is refused with the same error."""
    for each in (text, f"purpose: tests\n{text}", f"purpose: tests\nkey-id: 0\n-----BEGIN PUBLIC KEY-----\n{text}"):
        with pytest.raises(Invalid, match="this is not a public key of ours"):
            public_key_from_text(each)


def test_another_kind_of_key_is_refused() -> None:
    """A PEM key of another algorithm is refused."""
    x25519 = "MCowBQYDK2VuAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw="
    pem = f"-----BEGIN PUBLIC KEY-----\n{x25519}\n-----END PUBLIC KEY-----\n"
    with pytest.raises(Invalid, match="this is not a public key of ours"):
        public_key_from_text(f"purpose: tests\nkey-id: 0\n{pem}")


def test_bad_keys_are_refused() -> None:
    """A public key has 32 bytes and a purpose that is one key segment."""
    with pytest.raises(Invalid, match="a public key has 32 bytes"):
        PublicKey(purpose="tests", raw=b"short")
    with pytest.raises(SisaError, match="has to be one segment"):
        PublicKey(purpose="a/b", raw=SEED)
    with pytest.raises(InvariantBroken, match="a signing key is made from 32 bytes"):
        SigningKey("tests", b"short")


def test_fresh_seeds_differ() -> None:
    """No two seeds are the same."""
    assert len({fresh_seed() for _ in range(100)}) == 100
    assert {len(fresh_seed())} == {32}
