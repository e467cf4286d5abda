"""The encrypted store: each object is encrypted under a key of its own, which can be destroyed.

Deleting an object destroys its key before its bytes. So every forgotten copy of the bytes (an older version, a replica,
a backup, a block that the file system freed) becomes unreadable at the same moment.

    shards/<ring>/...     encrypted (``cipher``); data keys in the ring of that name (``keyring``)
    keyrings/...          the rings, unless they are kept in a store of their own
    keyrings/identity     only with a separate store of keys: which rings there are this store's
    anything else         stored as it is: keyed digests, counts and settings, no personal data

Two limits: a process that has read a key keeps it in memory until it ends; and a copy of the whole store, keys
included, that was made before the destruction can still be read. To avoid the second, keep the keys in another store.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import partial

from storage.contents import Holdings, contents_of
from storage.digests import sha256
from storage.encryption.cipher import (
    ALGORITHM,
    OVERHEAD_BYTES,
    WRAPPING,
    decrypt,
    decrypted_pieces,
    encrypt,
    fresh_key,
    fresh_nonce,
    is_encrypted,
)
from storage.encryption.keyring import Keyrings, RingContents
from storage.encryption.keyring_location import KEYRINGS, find_keyrings, make_keyrings, settle_place
from storage.errors import Corrupt, ObjectChanged, ObjectMissing, OutcomeUnknown, SisaError, Unavailable
from storage.objects import ObjectInfo, ObjectKey, ObjectStore, StoredObject, VersionTag, object_key

_ATTEMPTS = 64
"""How often a step is repeated when other writers interfere; each time one of them makes progress."""


class KeyDestroyed(Corrupt):
    """The object's bytes exist but its key does not: a deletion is in progress or was interrupted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultFacts:
    """How a store's objects are encrypted, for receipts and for people."""

    encrypted: str
    """The prefix of the objects' keys."""
    algorithm: str
    wrapping: str
    keys: str
    """Location of the keys."""
    apart: bool
    """Whether they are in another store than the objects."""


@dataclass(frozen=True, slots=True)
class SealedStore:
    """An ``ObjectStore`` that encrypts the objects under ``prefix`` in ``inner``; callers see plain payloads.

    ``list`` yields the sizes of payloads, and includes the keyrings, which are objects of the store like any other.
    Tags are digests of the payload. The choice of ``keys`` for a store is permanent.
    """

    inner: ObjectStore
    keys: ObjectStore | None = None
    """Another store for the keyrings; None: they are kept in ``inner``. Several stores may share one."""
    prefix: str = "shards/"
    """The key segment that follows the prefix names the object's ring."""
    _opened: list[Keyrings] = field(default_factory=list, init=False, repr=False, compare=False)
    """The keyrings, once their place is known."""
    _made: list[Keyrings] = field(default_factory=list, init=False, repr=False, compare=False)
    """The same, once their place is durable."""

    @property
    def location(self) -> str:
        """Where the inner store is."""
        return self.inner.location

    def facts(self) -> VaultFacts:
        """Return how objects are encrypted and where the keys are kept."""
        return VaultFacts(
            encrypted=self.prefix,
            algorithm=ALGORITHM,
            wrapping=WRAPPING,
            keys=(self.keys or self.inner).location,
            apart=self.keys is not None,
        )

    # --------------------------------------------------------------------------------------------- put and get

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Create the object: its data key enters the ring first."""
        name = self._ring(key)
        if name is None:
            return self.inner.put_if_absent(key, payload)
        return self._put(name, key, payload, partial(self.inner.put_if_absent, key))

    def put_if_match(self, key: ObjectKey, payload: bytes, expected: VersionTag) -> VersionTag:
        """Replace the object: same data key, fresh nonce. An object whose key was destroyed counts as missing.

        Raises ``Corrupt`` when the current object cannot be decrypted.
        """
        name = self._ring(key)
        if name is None:
            return self.inner.put_if_match(key, payload, expected)
        for _ in range(_ATTEMPTS):
            try:
                present, stored = self._get(name, key)
            except KeyDestroyed as error:
                raise ObjectMissing("the store has no such object: its key was destroyed", key=key) from error
            if present.tag != expected:
                raise ObjectChanged("the object changed since it was read", "Read it again.", key=key)
            try:
                return self._put(name, key, payload, partial(self.inner.put_if_match, key, expected=stored.tag))
            except ObjectChanged:
                continue  # the same payload under another nonce, or another payload: the tag shows which
        raise Unavailable("other writers keep replacing the object", "Stop them, or try again.", key=key)

    def get(self, key: ObjectKey) -> StoredObject:
        """Return the object, decrypted.

        Raises ``KeyDestroyed`` when its deletion was interrupted or is in progress, ``Corrupt`` when any byte differs
        from what was written under this key.
        """
        name = self._ring(key)
        return self.inner.get(key) if name is None else self._get(name, key)[0]

    def pieces(self, key: ObjectKey) -> Iterator[memoryview]:
        """Yield the payload in pieces, decrypted one by one. Implements ``storage.objects.ReadsPieces``."""
        name = self._ring(key)
        stored = self.inner.get(key).payload
        if name is None:
            yield memoryview(stored)
            return
        data_key = self._data_key(name, key, fresh=False) or self._data_key(name, key, fresh=True)
        if data_key is None:
            raise _destroyed(key)
        yield from decrypted_pieces(stored, key, data_key)

    def get_durable(self, key: ObjectKey) -> StoredObject:
        """Return the object, decrypted, after making its ring and its bytes durable. Raises as ``get`` does."""
        name = self._ring(key)
        if name is None:
            return self.inner.get_durable(key)
        found = self.get(key)
        self._made_keyrings().settle(name)
        self.inner.get_durable(key)
        return found

    def _put(self, name: str, key: ObjectKey, payload: bytes, put: Callable[[bytes], object]) -> VersionTag:
        keyrings = self._made_keyrings()
        data_key = keyrings.enter(name, key, fresh_key())
        put(encrypt(payload, key, data_key, fresh_nonce()))
        try:
            # A purge that saw the data key but not yet the object may have destroyed the key meanwhile: enter it again.
            held = keyrings.enter(name, key, data_key)
        except SisaError as error:
            raise _unconfirmed(key) from error
        if held != data_key:
            raise _unconfirmed(key)
        return _tag(payload)

    def _get(self, name: str, key: ObjectKey) -> tuple[StoredObject, StoredObject]:
        """Return the object, and the inner store's encrypted one."""
        before = None
        for _ in range(_ATTEMPTS):
            found = self.inner.get(key)
            try:
                payload = self._decrypted(name, key, found.payload)
            except Corrupt:
                if found == before:
                    raise
                before = found  # object and ring are read one after the other, and both may have changed in between
            else:
                return StoredObject(payload=payload), found
        raise Unavailable("the object is replaced faster than it can be read", "Try again.", key=key)

    def _decrypted(self, name: str, key: ObjectKey, stored: bytes) -> bytes:
        """Return the payload. A data key that this process remembers is tried first; then the ring is read again."""
        if not is_encrypted(stored):
            raise Corrupt(
                "an object of the store's encrypted part is not encrypted as a whole",
                "Restore it from a copy of the store, or run 'sisa train' to rebuild it. It was not used.",
                key=key,
            )
        if (known := self._data_key(name, key, fresh=False)) is not None:
            with suppress(Corrupt):
                return decrypt(stored, key, known)
        if (current := self._data_key(name, key, fresh=True)) is None:
            raise _destroyed(key)
        return decrypt(stored, key, current)

    def _data_key(self, name: str, key: ObjectKey, *, fresh: bool) -> bytes | None:
        keyrings = self._keyrings()
        return None if keyrings is None else keyrings.find(name, key, fresh=fresh)

    # -------------------------------------------------------------------------------------- list, delete, tidy up

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the inner store's objects, the keyrings among them, with the sizes of payloads."""
        return map(self._plain, self.inner.list(prefix))

    def contents(self, prefix: str) -> Holdings:
        """Return what ``list`` and ``unfinished`` yield, from one pass over the inner store. See ``ContentsLister``."""
        keyrings = self._keyrings()
        # As in ``_leftovers``: the objects are listed after all rings are read.
        rings = () if keyrings is None else tuple(keyrings.contents())
        inner = contents_of(self.inner, prefix)
        unfinished = list(inner.unfinished)
        for store, within in self._elsewhere(prefix):
            unfinished += store.unfinished(within)
        for ring in _without_objects(rings, inner.sizes, prefix):
            unfinished += _in_words(ring)
        sealed, rings_in = self.prefix, f"{KEYRINGS}/"  # as ``_ring_of``, without a call for each object
        sizes = {
            key: max(0, size - OVERHEAD_BYTES) if key.startswith(sealed) and not key.startswith(rings_in) else size
            for key, size in inner.sizes.items()
        }
        return Holdings(sizes=sizes, unfinished=tuple(unfinished))

    def _plain(self, info: ObjectInfo) -> ObjectInfo:
        """Return an object of the inner store with the size of its payload."""
        if self._ring_of(info.key) is None:
            return info
        return ObjectInfo(key=info.key, payload_bytes=max(0, info.payload_bytes - OVERHEAD_BYTES))

    def delete(self, key: ObjectKey) -> None:
        """Destroy the object's data key, then its bytes."""
        self.delete_all((key,))

    def delete_all(self, keys: Iterable[ObjectKey]) -> None:
        """Destroy the objects' data keys, replacing each ring only once, then their bytes."""
        wanted = tuple(keys)
        rings: dict[str, set[ObjectKey]] = {}
        for key in wanted:
            if (name := self._ring(key)) is not None:
                rings.setdefault(name, set()).add(key)
        keyrings = self._keyrings() if rings else None
        if keyrings is not None:
            for name, own in sorted(rings.items()):
                keyrings.destroy(name, frozenset(own))
        self.inner.delete_all(wanted)

    def unfinished(self, prefix: str) -> Iterator[str]:
        """Yield the inner store's leftovers, data keys without an object, and key-encryption keys that no ring names.

        If other writers are at work, these may be steps of theirs in progress.
        """
        yield from self.inner.unfinished(prefix)
        for store, within in self._elsewhere(prefix):
            yield from store.unfinished(within)
        for ring in self._leftovers(prefix):
            yield from _in_words(ring)

    def remove_unfinished(self, prefix: str) -> int:
        """Remove everything that ``unfinished`` yields; harmless to other writers' keys, even while they work."""
        count = self.inner.remove_unfinished(prefix)
        count += sum(store.remove_unfinished(within) for store, within in self._elsewhere(prefix))
        for ring in self._leftovers(prefix):
            self._made_keyrings().tidy(ring.name, ring.entries)
            count += len(ring.entries) + len(ring.strays)
        return count

    def foreign(self) -> Iterator[str]:
        """Yield the inner store's foreign names."""
        return self.inner.foreign()

    def exclusive(self, name: str, holder: str) -> AbstractContextManager[None]:
        """Hold the inner store's right."""
        return self.inner.exclusive(name, holder)

    def _leftovers(self, prefix: str) -> Iterator[RingContents]:
        """Yield the leftovers of each ring under ``prefix``: data keys without an object, and stray keys."""
        keyrings = self._keyrings()
        rings = () if keyrings is None else tuple(keyrings.contents())
        # The objects are listed once, after all rings are read: a data key is entered before its object is put.
        named = [ring.name for ring in rings if any(key.startswith(prefix) for key in ring.entries)]
        start = f"{self.prefix}{named[0]}/" if len(named) == 1 else self.prefix
        present = {info.key for info in self.inner.list(start)} if named else set()
        yield from _without_objects(rings, present, prefix)

    def _elsewhere(self, prefix: str) -> Iterator[tuple[ObjectStore, str]]:
        """Yield the separate store of keys, if there is one, with the part of ``prefix`` that is this store's."""
        keyrings = self._keyrings() if self.keys is not None else None
        if keyrings is not None:
            own = f"{keyrings.folder}/"
            if own.startswith(prefix) or prefix.startswith(own):
                yield keyrings.store, max(own, prefix, key=len)

    # ------------------------------------------------------------------------------------------------ keyrings

    def _ring(self, key: ObjectKey) -> str | None:
        """Return the name of the ring that holds the object's data key; None when the object is not encrypted."""
        return self._ring_of(object_key(key))

    def _ring_of(self, key: ObjectKey) -> str | None:
        if not key.startswith(self.prefix) or key.startswith(f"{KEYRINGS}/"):
            return None
        return key.removeprefix(self.prefix).split("/", 1)[0]

    def _keyrings(self) -> Keyrings | None:
        """Return the keyrings; None when none exist yet."""
        if not self._opened and (found := find_keyrings(self.inner, self.keys)) is not None:
            self._opened.append(found)
        return self._opened[0] if self._opened else None

    def _made_keyrings(self) -> Keyrings:
        """Return the keyrings, whose place is durable, for a caller that is about to add keys."""
        if not self._made:
            made = self._opened[0] if self._opened else make_keyrings(self.inner, self.keys)
            settle_place(self.inner, self.keys, made)
            self._opened[:] = self._made[:] = [made]
        return self._made[0]

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.inner, self.keys, self.prefix)


def _destroyed(key: ObjectKey) -> KeyDestroyed:
    return KeyDestroyed(
        "the key of this object was destroyed: it can no longer be read",
        "The object's purge was interrupted, or the store's keys were lost. Run 'sisa train' to continue.",
        key=key,
    )


def _without_objects(
    rings: Iterable[RingContents], present: Collection[ObjectKey], prefix: str
) -> Iterator[RingContents]:
    """Yield the leftovers of each ring under ``prefix``: data keys of objects that are not present, stray keys."""
    for ring in rings:
        orphans = frozenset(key for key in ring.entries.difference(present) if key.startswith(prefix))
        strays = tuple(key for key in ring.strays if key.startswith(prefix))
        if orphans or strays:
            yield RingContents(ring.name, orphans, strays)


def _in_words(ring: RingContents) -> Iterator[str]:
    """Yield the names of a ring's leftovers."""
    yield from (f"{key} (its key, without the object)" for key in sorted(ring.entries))
    yield from ring.strays


def _tag(payload: bytes) -> VersionTag:
    return VersionTag(sha256(payload))


def _unconfirmed(key: ObjectKey) -> OutcomeUnknown:
    return OutcomeUnknown(
        "the object was put, but it is not known whether its key still exists", "Read the object, then decide.", key=key
    )
