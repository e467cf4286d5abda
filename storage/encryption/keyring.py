"""Keyrings: the data keys of objects, wrapped so that replacing one small object destroys keys.

    <folder>/<ring>/ring                   compare-and-swap; wrapped data keys, and the name of the key-encryption key
    <folder>/<ring>/kek-<number>-<random>  create-if-absent; 32 random bytes: that key-encryption key

Destroying data keys replaces the ring: a new key-encryption key gets the next number, all other data keys are wrapped
under it, the ring is swapped, and then every other key-encryption key of that number or below is deleted. From then on
no forgotten copy of an earlier ring can be opened.

The number is needed because a ring of number n+1 can only replace one of number n. So once a ring has number n, no ring
can ever name another key-encryption key of number n or below. Those, and only those, may be deleted at any time, even
while other processes work. A ring is never deleted, and under one number entries are only added.

Source: NIST SP 800-88 Rev. 2 (cryptographic erase by sanitising a wrapping key).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, NoReturn

from storage.contents import keys_under
from storage.digests import Sha256, sha256
from storage.encodings import from_hex
from storage.encryption.cipher import KEY_BYTES, WRAPPED_BYTES, fresh_key, unwrap, wrap
from storage.errors import Corrupt, ObjectChanged, ObjectExists, ObjectMissing, OutcomeUnknown, Unavailable
from storage.objects import ObjectKey, ObjectStore, VersionTag, is_object_key, new_name, object_key
from storage.records import decode_record, encode_record
from storage.registers.create_once import create_or_read

RING = "ring"

_ATTEMPTS = 64
"""How often a step is repeated when other writers interfere; each time one of them makes progress."""

_DIGITS = 12
_KEK = re.compile(rf"kek-(\d{{{_DIGITS}}})-[0-9a-f]{{32}}")
_NAMES = frozenset({"ring", "number", "kek", "kek_sha256", "entries"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """A ring, as stored."""

    name: str
    """One segment of a key."""
    number: int
    """1 for the first; rises with every destruction."""
    kek: str
    """Name of the key-encryption key, which is in the same folder."""
    kek_sha256: Sha256
    """Detects a damaged key-encryption key before it is used; reveals nothing about its 256 random bits."""
    entries: Mapping[ObjectKey, bytes]
    """The wrapped data keys."""

    def to_bytes(self) -> bytes:
        """Return the stored form."""
        return encode_record(
            {
                "ring": self.name,
                "number": self.number,
                "kek": self.kek,
                "kek_sha256": self.kek_sha256,
                "entries": {key: wrapped.hex() for key, wrapped in self.entries.items()},
            }
        )


def ring_from_bytes(payload: bytes, key: ObjectKey, name: str) -> Ring:
    """Return the ring ``name`` stored as ``payload`` under ``key``; ``to_bytes`` of it gives ``payload`` again.

    Raises ``Corrupt`` when any byte is not what was written or it is another ring, ``Invalid`` when a newer version
    wrote it.
    """
    fields = decode_record(payload, key, _NAMES)
    number, kek, digest, entries = fields["number"], fields["kek"], fields["kek_sha256"], fields["entries"]
    if fields["ring"] != name or type(number) is not int or not isinstance(kek, str) or kek_number(kek) != number:
        _refuse(key)
    if not isinstance(digest, str) or not isinstance(entries, Mapping):
        _refuse(key)
    return Ring(name=name, number=number, kek=kek, kek_sha256=Sha256(digest), entries=_entries(entries, key))


def _entries(entries: Mapping[str, object], key: ObjectKey) -> dict[ObjectKey, bytes]:
    found = {}
    for name, text in entries.items():
        wrapped = from_hex(text) if isinstance(text, str) else b""
        if len(wrapped) != WRAPPED_BYTES or not is_object_key(name):
            _refuse(key)
        found[ObjectKey(name)] = wrapped
    return found


def kek_number(name: str) -> int | None:
    """Return the number in a key-encryption key's name; None for other names."""
    match = _KEK.fullmatch(name)
    return int(match[1]) if match else None


@dataclass(frozen=True, slots=True)
class _Kek:
    """A key-encryption key with the name it is stored under."""

    name: str
    number: int
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _OpenRing:
    """One version of a ring, with the key that unwraps its entries."""

    ring: Ring
    secret: bytes = field(repr=False)
    tag: VersionTag

    def data_key(self, key: ObjectKey) -> bytes | None:
        wrapped = self.ring.entries.get(key)
        return None if wrapped is None else unwrap(wrapped, self.secret, key)

    def with_entry(self, key: ObjectKey, data_key: bytes) -> Ring:
        return replace(self.ring, entries={**self.ring.entries, key: wrap(data_key, self.secret)})

    def rotated(self, kek: _Kek, without: frozenset[ObjectKey]) -> Ring:
        entries = {
            key: wrap(unwrap(wrapped, self.secret, key), kek.secret)
            for key, wrapped in self.ring.entries.items()
            if key not in without
        }
        return _ring(self.ring.name, kek, entries)


class RingContents(NamedTuple):
    """What a ring holds, and the other objects in its folder."""

    name: str
    entries: frozenset[ObjectKey]
    """The objects whose data keys it has."""
    strays: tuple[ObjectKey, ...]
    """Key-encryption keys that it does not name: from a destruction that was interrupted or is in progress."""


@dataclass(frozen=True, slots=True)
class Keyrings:
    """The rings in ``folder`` of ``store``; safe under any number of writers."""

    store: ObjectStore
    folder: str
    # Both without a lock: they only save reads, entries are replaced as a whole, and the store decides every swap.
    _seen: dict[str, _OpenRing] = field(default_factory=dict, repr=False, compare=False)
    """Rings as this process last saw them. A ring is read again before anything relies on an entry or on its
    absence."""
    _settled: dict[str, VersionTag] = field(default_factory=dict, repr=False, compare=False)
    """The last version of each ring that this process has put or made durable."""

    def find(self, name: str, key: ObjectKey, *, fresh: bool) -> bytes | None:
        """Return the data key of the object ``key``; None when the ring has none. ``fresh`` reads the ring again."""
        known = None if fresh else self._seen.get(name)
        ring = known or self._read(name)
        return None if ring is None else ring.data_key(key)

    def enter(self, name: str, key: ObjectKey, wanted: bytes) -> bytes:
        """Return the data key that the ring durably holds for ``key``: ``wanted``, or the one it held before.

        Raises ``Unavailable`` when other writers change the ring first, 64 times in a row.
        """
        ring, draft = self._seen.get(name), None
        if ring is None or key in ring.ring.entries:
            ring = self._read(name, durable=True)
        for _ in range(_ATTEMPTS):
            if ring is None:
                draft = draft or self._draw(name, 1)
                after, kek = _ring(name, draft, {key: wrap(wanted, draft.secret)}), draft
            else:
                if draft is not None and draft.name != ring.ring.kek:  # another process made the ring
                    self._delete(name, draft.name)
                    draft = None
                if (held := ring.data_key(key)) is not None:
                    return held
                after, kek = ring.with_entry(key, wanted), _Kek(ring.ring.kek, ring.ring.number, ring.secret)
            if self._swap(ring, after, kek):
                return wanted
            ring = self._read(name, durable=True)
        raise _contended(self._key(name, RING))

    def destroy(self, name: str, keys: frozenset[ObjectKey], *, past: int = 0) -> None:
        """Destroy the data keys of ``keys``, and every key-encryption key that no ring can name again.

        A repetition completes an interrupted call. ``past`` is the least number that the ring gets.
        """
        ring = self._read(name, durable=True)
        for _ in range(_ATTEMPTS):
            if ring is None and not past:
                return  # no key of this ring ever protected anything
            if ring is not None and ring.ring.number >= past and keys.isdisjoint(ring.ring.entries):
                self._delete_dead(ring.ring)
                return
            kek = self._draw(name, max(past, 1 if ring is None else ring.ring.number + 1))
            after = _ring(name, kek, {}) if ring is None else ring.rotated(kek, keys)
            ring = self._swap(ring, after, kek) or self._read(name, durable=True)
        raise _contended(self._key(name, RING))

    def settle(self, name: str) -> None:
        """Make the ring durable as it is now, if it exists."""
        self._read(name, durable=True)

    def contents(self) -> Iterator[RingContents]:
        """Yield the contents of every ring, by name, including rings whose creation was interrupted."""
        start = f"{self.folder}/"
        found: dict[str, list[str]] = {}
        for key in keys_under(self.store, start):
            name, _, segment = key.removeprefix(start).partition("/")
            if segment == RING or kek_number(segment) is not None:
                found.setdefault(name, []).append(segment)
        for name, segments in sorted(found.items()):
            ring = self._read(name)
            others = sorted(set(segments) - {RING, "" if ring is None else ring.ring.kek})
            entries = frozenset() if ring is None else frozenset(ring.ring.entries)
            yield RingContents(name, entries, tuple(self._key(name, kek) for kek in others))

    def tidy(self, name: str, orphans: frozenset[ObjectKey]) -> None:
        """Destroy the data keys of ``orphans``, and all stray key-encryption keys.

        A paused writer may still name a stray of a higher number, so the ring is moved past that number first.
        """
        self.destroy(name, orphans, past=max((number for _, number in self._keks(name)), default=0))

    def _read(self, name: str, *, durable: bool = False) -> _OpenRing | None:
        """Return the ring as it is now; None when it does not exist. Raises ``Corrupt``.

        ``durable`` is for callers that rely on an entry, or that delete what the ring no longer names.
        """
        key, before = self._key(name, RING), None
        for _ in range(_ATTEMPTS):
            try:
                stored = self.store.get(key)
                if durable and stored.tag != self._settled.get(name):
                    stored = self.store.get_durable(key)
                    self._settled[name] = stored.tag
            except ObjectMissing:
                self._seen.pop(name, None)
                return None
            if (known := self._seen.get(name)) is not None and known.tag == stored.tag:
                return known  # equal tags mean equal content
            ring = ring_from_bytes(stored.payload, key, name)
            secret = known.secret if known and known.ring.kek == ring.kek else self._secret(ring)
            if secret is not None:
                return self._remember(_OpenRing(ring, secret, stored.tag))
            if stored.tag == before:
                raise _lost(self._key(name, ring.kek))
            before = stored.tag  # it may have been replaced between the two reads
        raise _contended(key)

    def _secret(self, ring: Ring) -> bytes | None:
        key = self._key(ring.name, ring.kek)
        try:
            secret = self.store.get(key).payload
        except ObjectMissing:
            return None
        if sha256(secret) != ring.kek_sha256 or len(secret) != KEY_BYTES:
            raise _lost(key)
        return secret

    def _swap(self, before: _OpenRing | None, after: Ring, kek: _Kek) -> _OpenRing | None:
        """Store the ring ``after`` in place of ``before``, return it; None when only reading shows the outcome."""
        key, payload = self._key(after.name, RING), after.to_bytes()
        try:
            if before is None:
                tag = self.store.put_if_absent(key, payload)
            else:
                tag = self.store.put_if_match(key, payload, before.tag)
        except (ObjectExists, ObjectChanged, ObjectMissing, OutcomeUnknown):
            return None
        self._settled[after.name] = tag
        return self._remember(_OpenRing(after, kek.secret, tag))

    def _remember(self, ring: _OpenRing) -> _OpenRing:
        self._seen[ring.ring.name] = ring
        return ring

    def _draw(self, name: str, number: int) -> _Kek:
        kek = _Kek(f"kek-{number:0{_DIGITS}d}-{new_name()}", number, fresh_key())
        create_or_read(self.store, self._key(name, kek.name), kek.secret)
        return kek

    def _delete_dead(self, ring: Ring) -> None:
        for kek, number in self._keks(ring.name):
            if number <= ring.number and kek != ring.kek:
                self._delete(ring.name, kek)

    def _delete(self, name: str, kek: str) -> None:
        self.store.delete(self._key(name, kek))

    def _keks(self, name: str) -> list[tuple[str, int]]:
        """Return the names and numbers of all key-encryption keys in the ring's folder."""
        start = f"{self.folder}/{name}/"
        names = (info.key.removeprefix(start) for info in self.store.list(start))
        return [(kek, number) for kek in names if (number := kek_number(kek)) is not None]

    def _key(self, name: str, segment: str) -> ObjectKey:
        return object_key(f"{self.folder}/{name}/{segment}")


def _ring(name: str, kek: _Kek, entries: Mapping[ObjectKey, bytes]) -> Ring:
    return Ring(name=name, number=kek.number, kek=kek.name, kek_sha256=sha256(kek.secret), entries=entries)


def _refuse(key: ObjectKey) -> NoReturn:
    raise Corrupt("a stored keyring is not what its key and format say", "Restore it from a copy.", key=key)


def _lost(kek: ObjectKey) -> Corrupt:
    return Corrupt(
        "a key-encryption key is missing or damaged: nothing that it protects can be read",
        "Restore the store's keys from a copy. If there is no copy, delete all objects of this keyring and run 'sisa"
        " train', which rebuilds from the source what they protected.",
        key=kek,
    )


def _contended(ring: ObjectKey) -> Unavailable:
    return Unavailable("other writers keep changing the keyring", "Stop them, or try again.", key=ring)
