"""Restoring a backup: first all objects that are written once, the state last; then later erasures are repeated.

control/restoring     exists from before the first object until the end; until then nothing is answered or written

An interrupted restore continues when it is repeated. The result is a separate federation with a new id, at any place:
nothing in it refers to the original's coordinator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from shutil import disk_usage
from typing import Any, Final

from cluster.backups.contents import LEFT_OUT, is_secret, refuse_others
from cluster.coordinator_actor.ownership import Adoption, record_adoption
from cluster.runtime.system import holder, many_at_once
from cluster.writer.identity import KEY_OBJECT
from cluster.writer.keys_owner import has_foreign_keys, own_keys
from cluster.writer.place import take_place
from coordinator.receipts.rollback import RESTORING_KEY
from storage.backups.repository import Backups, Blob
from storage.backups.sources import Readable
from storage.digests import Json, digest_of
from storage.each import in_turn
from storage.encryption.keyring_location import IDENTITY, KEYRINGS, identity_in
from storage.encryption.store import SealedStore
from storage.errors import Conflict, Invalid, InvariantBroken, StoreFull
from storage.location import is_on_s3
from storage.objects import ObjectKey, ObjectStore, new_name
from storage.registers.create_once import create_or_read
from storage.registers.record import RecordRegister
from storage.stores.local import LocalStore
from storage.stores.probe import probe_store

_LAST: Final = ("control/", "journal/", "manifest/")
"""Objects by which a federation is recognised come last, in this order."""

_TOGETHER: Final = 64

_MARK: Final = frozenset({"digest", "place", "keys_survived", "is_whole", "at", "id"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What is to be restored: a backup, or a copy of a store that another tool made."""

    place: str
    number: int | None
    """The backup's number; None: it is a plain copy, which may not be of a single moment."""
    about: Mapping[str, Any]
    sizes: Mapping[ObjectKey, int]
    read: Callable[[ObjectKey], bytes]
    digest: str
    """Identifies the contents."""

    @property
    def at(self) -> str:
        """The moment that it shows; empty: unknown."""
        return str(self.about.get("at", ""))


def open_contents(source: Readable, kind: str, number: int | None = None) -> Contents:
    """Return the contents of ``source``: backup ``number`` (None: the last one), or else the plain copy of a store.

    Raises ``Invalid`` when it is empty or has contents of another kind.
    """
    backups = Backups(source)
    numbers = backups.numbers()
    if numbers or number is not None:
        index = backups.index(numbers[-1] if number is None else number)
        if index.about.get("kind") != kind:
            raise Invalid(
                f"this place has a backup of {index.about.get('kind')}, not of {kind}",
                "Name the place of the backup first, and that of its keys after --keys.",
                place=source.location,
            )
        blobs: Mapping[ObjectKey, Blob] = index.objects
        return Contents(
            place=source.location,
            number=index.number,
            about=index.about,
            sizes={key: blob.payload_bytes for key, blob in blobs.items()},
            read=lambda key: backups.get(blobs[key]),
            digest=digest_of({key: blob.sha256 for key, blob in blobs.items()}),
        )
    sizes = {info.key: info.payload_bytes for info in source.list("") if info.key not in LEFT_OUT}
    if not any(key.startswith(("control/", f"{KEYRINGS}/")) for key in sizes):
        raise Invalid(
            "there is no backup here, and no copy of a store",
            "Name the place that 'sisa backup' was given, or the copy of a store.",
            place=source.location,
        )
    return Contents(
        place=source.location,
        number=None,
        about={},
        sizes=sizes,
        read=lambda key: source.get(key).payload,
        digest=digest_of([[key, size] for key, size in sorted(sizes.items())]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """The circumstances of a restore."""

    now: datetime
    progress: Callable[[int, int], None]
    """Called with how many of how many objects are there."""
    take_keys: bool = False
    """Whether keys that have survived in another place may be taken over, because their store is lost."""
    has_partition_key: bool = False
    """Whether the specification gives the partition key."""


def restore_objects(store: SealedStore, objects: Contents, keys: Contents | None, given: Circumstances) -> None:
    """Put everything into ``store``, and the keys into the place that its specification names; the state comes last.

    A repeated call continues where it stopped. Keys that have survived in another place stay as they are.

    Raises ``Conflict`` when something else is there, ``Invalid`` when keys are missing, ``StoreFull`` when there is no
    room, ``Corrupt`` when the backup is damaged.
    """
    with store.exclusive("writer", holder("restore", given.now)):
        mark = _begin(store, objects, given.now)
        if mark["is_whole"]:
            return  # the restored objects may have changed already
        have_survived = bool(mark["keys_survived"])
        is_given = given.has_partition_key
        wanted = list(_wanted(store, objects, keys, have_survived=have_survived, has_partition_key=is_given))
        require_room(store.inner, sum(each.payload_bytes for each in wanted))
        if store.keys is not None:
            _put(_Wanted(store.inner, IDENTITY, objects.read, 0))
            if has_foreign_keys(store) and not given.take_keys:
                raise Conflict(
                    "the keys belong to a store at another place: an erasure here would destroy them there",
                    "If that store is lost, run the same command with --take-keys; for a drill, name another 'keys'.",
                    keys=store.keys.location,
                )
        wanted.sort(key=lambda each: (_rank(each.key), each.key))
        for start in range(0, len(wanted), _TOGETHER):
            given.progress(start, len(wanted))
            batch = wanted[start : start + _TOGETHER]
            (many_at_once if _rank(batch[-1].key) == 0 else in_turn)(_put, batch)
        given.progress(len(wanted), len(wanted))
        _mark(store).change(lambda _: {**mark, "is_whole": True})


def adopt_restored(store: SealedStore, reason: str, now: datetime) -> Adoption:
    """Make the restored store a separate federation, with the id that was drawn when the restore began."""
    mark = _mark(store).read()
    if mark is None:
        raise InvariantBroken("there is no restore to end", store=store.location)
    adoption = Adoption(id=str(mark["id"]), at=str(mark["at"]), reason=reason, original="")
    with store.exclusive("writer", holder("restore", now)):
        own_keys(store, take=True)
        record_adoption(store, adoption)
        take_place(store, adoption.id)
    return adoption


def end_restore(store: ObjectStore) -> None:
    """Allow reading and writing: everything is restored, and later erasures are repeated."""
    store.delete(RESTORING_KEY)


def _mark(store: SealedStore) -> RecordRegister:
    return RecordRegister(store=store.inner, key=RESTORING_KEY, field_names=_MARK)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An object that is to be put."""

    store: ObjectStore
    key: ObjectKey
    read: Callable[[ObjectKey], bytes]
    payload_bytes: int


def _wanted(
    store: SealedStore, objects: Contents, keys: Contents | None, *, have_survived: bool, has_partition_key: bool
) -> Iterator[_Wanted]:
    """Yield all objects to put. Raises ``Invalid`` when keys are missing, or belong in another place."""
    is_apart = IDENTITY in objects.sizes
    if is_apart != (store.keys is not None):
        raise Invalid(
            f"the keys of what is to be restored were in {'a place of their own' if is_apart else 'the store itself'}",
            "Name a place for 'keys' in the specification." if is_apart else "Leave 'keys' out of the specification.",
            backup=objects.place,
        )
    secrets = keys or objects
    rings = f"{KEYRINGS}/{identity_in(objects.read(IDENTITY))}/" if is_apart else f"{KEYRINGS}/"
    if not have_survived and not any(key.startswith(rings) for key in secrets.sizes):
        raise _without(objects, "its keys", "or the surviving 'keys' in the specification")
    if KEY_OBJECT not in secrets.sizes and not has_partition_key:
        raise _without(objects, "the federation's partition key", "or give the key in the specification")
    for key, size in objects.sizes.items():
        if not is_secret(key):
            yield _Wanted(store.inner, key, objects.read, size)
    for key, size in secrets.sizes.items():
        if key.startswith(f"{KEYRINGS}/") and key != IDENTITY:
            if not have_survived and key.startswith(rings):
                yield _Wanted(store.keys or store.inner, key, secrets.read, size)
        elif is_secret(key):
            yield _Wanted(store.inner, key, secrets.read, size)


def _begin(store: SealedStore, objects: Contents, now: datetime) -> Mapping[str, Json]:
    """Record that a restore is under way, and return the record. Raises ``Conflict``."""
    record = _mark(store)
    found = record.read()
    if found is None:
        refuse_others(store.inner, lambda _: False, "restore that was begun")
        if is_on_s3(store.location):
            probe_store(store.inner)
        made: Mapping[str, Json] = {
            "digest": objects.digest,
            "place": objects.place,
            "keys_survived": _have_survived(store, objects),
            "is_whole": False,
            "at": now.isoformat(timespec="seconds"),
            "id": new_name(),
        }
        found = record.change(lambda _: made)
    if found["digest"] != objects.digest:
        raise Conflict(
            f"the restore that was begun here is of another backup, from {found['place']}",
            "Repeat that one (--number), or name an empty place in the specification.",
            store=store.location,
        )
    return found


def _have_survived(store: SealedStore, objects: Contents) -> bool:
    """Return whether the keys are in another place and still there: they are then newer than any backup."""
    if store.keys is None or IDENTITY not in objects.sizes:
        return False
    folder = f"{KEYRINGS}/{identity_in(objects.read(IDENTITY))}/"
    return next(iter(store.keys.list(folder)), None) is not None


def require_room(store: ObjectStore, wanted_bytes: int) -> None:
    """Raise ``StoreFull`` when a folder's disk does not have so much room."""
    if isinstance(store, LocalStore):
        free = disk_usage(
            next(folder for folder in (Path(store.root), *Path(store.root).parents) if folder.exists())
        ).free
        if free < wanted_bytes:
            raise StoreFull(
                f"the disk has {free:,} bytes free, and {wanted_bytes:,} are to be restored",
                "Make room, or name another place in the specification.",
                store=store.location,
            )


def _put(wanted: _Wanted) -> None:
    """Put one object, durably, unless it is there already. Raises ``Conflict`` when a different one is there."""
    payload = wanted.read(wanted.key)
    if create_or_read(wanted.store, wanted.key, payload) != payload:
        raise Conflict(
            "another object has the name of one that is to be restored",
            "Name an empty place in the specification.",
            store=wanted.store.location,
            key=wanted.key,
        )


def _rank(key: ObjectKey) -> int:
    """Return the object's place in the order: objects that show that a federation is here come last."""
    return next((number for number, prefix in enumerate(_LAST, start=1) if key.startswith(prefix)), 0)


def _without(objects: Contents, what: str, otherwise: str) -> Invalid:
    return Invalid(
        f"what is to be restored is of no use without {what}, and that is not there",
        f"Name the place where the keys are backed up with --keys, {otherwise}.",
        backup=objects.place,
    )
