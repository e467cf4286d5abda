"""Signing keys: Ed25519 pairs whose private half is never shown or sent (RFC 8032).

A key serves one purpose. Its id is the SHA-256 of the raw public key, so that no key can take another's id.
Private keys are in a store of their own if one is named. Public keys are kept for ever in the store of what they
verify, so that everything a retired key signed stays verifiable.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from storage.digests import Sha256, sha256
from storage.errors import Corrupt, Invalid, InvariantBroken, ObjectExists, ObjectMissing, OutcomeUnknown, Unavailable
from storage.objects import ObjectKey, ObjectStore, key_segment, object_key
from storage.records import decode_record, encode_record
from storage.registers.create_once import create_or_read
from storage.registers.numbered import numbered_key, numbers_in

SEED_BYTES = 32

_ATTEMPTS = 64
_PEM_START = "-----BEGIN"
_PRIVATE_NAMES = frozenset({"purpose", "number", "key_id", "pkcs8"})

SIGNING: Final = "control/signing/"
"""Where private keys are."""

_PUBLIC: Final = "log/keys/"


def fresh_seed() -> bytes:
    """Return 32 random bytes for a key."""
    return secrets.token_bytes(SEED_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """The public half of a key pair, which verifies."""

    purpose: str
    """What it may sign, as one key segment: a signature for another purpose is invalid."""
    raw: bytes
    """32 bytes."""

    def __post_init__(self) -> None:
        key_segment(self.purpose)
        if len(self.raw) != SEED_BYTES:
            raise Invalid("a public key has 32 bytes", "Copy the key again.", got=len(self.raw))

    @property
    def key_id(self) -> Sha256:
        """SHA-256 of the raw key."""
        return sha256(self.raw)

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Return whether the private half signed exactly ``message``."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def to_text(self) -> str:
        """Return the key as it is published: two lines of explanation, then PEM, which other tools can read."""
        pem = Ed25519PublicKey.from_public_bytes(self.raw).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return f"purpose: {self.purpose}\nkey-id: {self.key_id}\n{pem.decode('ascii')}"


def public_key_from_text(text: str) -> PublicKey:
    """Return the key that ``to_text`` wrote as ``text``. Raises ``Invalid`` for anything else."""
    head, start, body = text.partition(_PEM_START)
    purpose = head.partition("\n")[0].removeprefix("purpose: ")
    try:
        loaded = load_pem_public_key((start + body).encode("ascii"))
        key = PublicKey(purpose=purpose, raw=_raw(loaded)) if isinstance(loaded, Ed25519PublicKey) else None
    except (ValueError, UnsupportedAlgorithm):  # Invalid among them; the exact cause helps no one
        key = None
    if key is None or key.to_text() != text:
        raise Invalid("this is not a public key of ours", "Use the file as it was published, unchanged.")
    return key


def public_keys_from_text(text: str) -> tuple[PublicKey, ...]:
    """Return the keys in a text of one or more that ``to_text`` wrote; lines that begin with ``#`` are comments.

    Raises ``Invalid`` for anything else, and when there is no key.
    """
    blocks: list[str] = []
    for line in text.split("\n"):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("purpose: ") or not blocks:
            blocks.append("")
        blocks[-1] += f"{line}\n"
    return tuple(public_key_from_text(block) for block in blocks or [""])


class SigningKey:
    """The private half of a key pair, which signs. It is never printed, pickled or put into an error."""

    __slots__ = ("_private", "public")

    def __init__(self, purpose: str, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise InvariantBroken("a signing key is made from 32 bytes")
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = PublicKey(purpose=purpose, raw=_raw(self._private.public_key()))

    def sign(self, message: bytes) -> bytes:
        """Return the signature, 64 bytes; equal messages get equal signatures."""
        return self._private.sign(message)

    def private_record(self, number: int) -> bytes:
        """Return the stored form of the private key, only for the object that keeps it."""
        pem = self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        public = self.public
        return encode_record(
            {"purpose": public.purpose, "number": number, "key_id": public.key_id, "pkcs8": pem.decode("ascii")}
        )

    def __repr__(self) -> str:
        return f"SigningKey(purpose={self.public.purpose!r}, key_id={self.public.key_id!r})"

    def __reduce__(self) -> NoReturn:
        raise InvariantBroken("a private key does not leave its process", "Send the public key.")


@dataclass(frozen=True, slots=True)
class KeyFolder:
    """The key pairs of a store: created when first needed, replaced by rotation."""

    public: ObjectStore
    """Where public keys are published, at ``log/keys/<purpose>/<key id>``."""
    private: ObjectStore
    """Where private keys are kept, at ``control/signing/<purpose>/<number>``: the same store, or better another one."""
    seeds: Callable[[], bytes] = fresh_seed

    def current(self, purpose: str) -> SigningKey:
        """Return the published key to sign with; it is created now if there has never been one.

        Raises:
            Unavailable: public keys exist, but their private keys do not: they are kept elsewhere, or lost.
            Corrupt: the private key is damaged.
        """
        for _ in range(_ATTEMPTS):
            known = self.published(purpose)  # before the listing: a private key exists before its public one
            numbers = self.numbers(purpose)
            if not numbers and known:
                raise Unavailable(
                    "the private signing key is not in its place",
                    "Name the folder that keeps it. If the key is lost, rotate to a new one.",
                    purpose=purpose,
                    place=self.private.location,
                )
            if not numbers:
                self.create(purpose, 1)
                continue
            try:
                key = self._read(purpose, numbers[-1])
            except ObjectMissing:
                continue  # replaced after the listing
            if key.public not in known:
                self.private.get_durable(_private_key(purpose, numbers[-1]))  # before the first signature with it
                self._publish(key.public)
            return key
        raise Unavailable("signing keys are replaced faster than they can be read", "Try again.", purpose=purpose)

    def rotate(self, purpose: str) -> SigningKey:
        """Make a new key, destroy the private halves of all older ones, and return the new key.

        Each call makes one key; ``storage.transparency.key_rotation`` continues interrupted calls. A process that still
        holds an older key may sign with it: such signatures stay valid, because the key was published.
        Raises as ``current`` does, and ``OutcomeUnknown`` when an older private half may still exist: rotate again.
        """
        last = max(self.numbers(purpose), default=0)
        self.create(purpose, last + 1)
        key = self.current(purpose)
        self.destroy(purpose, self.numbers(purpose)[-1] - 1)
        return key

    def published(self, purpose: str) -> tuple[PublicKey, ...]:
        """Return every public key of this purpose, retired ones included, in the order of their ids.

        Raises ``Corrupt`` when an object there is not the key that its name says.
        """
        return published_keys(self.public, purpose)

    def numbers(self, purpose: str) -> tuple[int, ...]:
        """Return the numbers of the private keys that are there, rising; the last one is that of the key that signs."""
        folder = _private_folder(purpose)
        return numbers_in(self.private.list(f"{folder}/"), folder)

    def private_ids(self, purpose: str) -> tuple[Sha256, ...]:
        """Return the ids of the keys whose private halves are here, in the order of their numbers."""
        return tuple(self._read(purpose, number).public.key_id for number in self.numbers(purpose))

    def numbered(self, purpose: str, number: int) -> SigningKey | None:
        """Return the private key of this number; None when it is missing or damaged."""
        try:
            return self._read(purpose, number)
        except (Corrupt, ObjectMissing):
            return None

    def create(self, purpose: str, number: int) -> None:
        """Make the private key of this number, unless it exists."""
        payload = SigningKey(purpose, self.seeds()).private_record(number)
        try:
            self.private.put_if_absent(_private_key(purpose, number), payload)
        except (ObjectExists, OutcomeUnknown):
            return  # the caller then reads the key that is there

    def destroy(self, purpose: str, last: int) -> None:
        """Delete the private keys up to number ``last``, once their public halves are durable.

        Raises ``OutcomeUnknown`` when one of them may still exist.
        """
        for public in self.published(purpose):
            self.public.get_durable(_public_key(public))
        for number in range(1, last + 1):  # even keys that a listing does not show: a power cut may bring them back
            self.private.delete(_private_key(purpose, number))

    def _read(self, purpose: str, number: int) -> SigningKey:
        key = _private_key(purpose, number)
        payload = self.private.get(key).payload
        found = _opened(payload, key, purpose)
        if found is None or found.private_record(number) != payload:
            raise Corrupt(
                "a private signing key is damaged", "Restore it from a copy, or rotate to a new one.", key=key
            )
        return found

    def _publish(self, public: PublicKey) -> None:
        key = _public_key(public)
        text = public.to_text().encode("ascii")
        if create_or_read(self.public, key, text) != text:
            raise _other_key(key)


def published_keys(store: ObjectStore, purpose: str) -> tuple[PublicKey, ...]:
    """Return every public key published in ``store`` for this purpose, retired ones included, in order of their ids.

    Raises ``Corrupt`` when an object there is not the key that its name says.
    """
    keys = sorted(info.key for info in store.list(f"{_PUBLIC}{key_segment(purpose)}/"))
    return tuple(_published(store, key, purpose) for key in keys)


def _published(store: ObjectStore, key: ObjectKey, purpose: str) -> PublicKey:
    try:
        public = public_key_from_text(store.get(key).payload.decode("ascii"))
    except ValueError as error:  # the decoder's error, or Invalid
        raise _other_key(key) from error
    if public.purpose != purpose or _public_key(public) != key:
        raise _other_key(key)
    return public


def _opened(payload: bytes, key: ObjectKey, purpose: str) -> SigningKey | None:
    """Return the private key in ``payload``; None when ``payload`` does not hold one.

    This does not raise, because the traceback of an error would hold the private key.
    """
    try:
        pem = str(decode_record(payload, key, _PRIVATE_NAMES)["pkcs8"]).encode("ascii")
        loaded = load_pem_private_key(pem, None)
    except (Corrupt, TypeError, ValueError, UnsupportedAlgorithm):
        return None
    return SigningKey(purpose, loaded.private_bytes_raw()) if isinstance(loaded, Ed25519PrivateKey) else None


def _raw(public: Ed25519PublicKey) -> bytes:
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _private_key(purpose: str, number: int) -> ObjectKey:
    return numbered_key(_private_folder(purpose), number)


def _private_folder(purpose: str) -> str:
    return f"{SIGNING}{key_segment(purpose)}"


def _public_key(public: PublicKey) -> ObjectKey:
    return object_key(f"{_PUBLIC}{public.purpose}/{public.key_id}")


def _other_key(key: ObjectKey) -> Corrupt:
    return Corrupt("a published key is not the one that its name says", "Restore it from a copy of the store.", key=key)
