"""Making a backup: bytes to one place, keys to another, both as of one moment, while the federation is at work.

Each backup replaces the last one in its place, so that erased data is gone from there, too.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cluster.backups.contents import Placed, is_content, is_secret, refuse_others, refuse_overlap
from cluster.runtime.system import holder, many_at_once
from cluster.writer.keys_owner import check_owner
from cluster.writer.place import settle_identity
from coordinator.engine.ledger import read_ledger
from coordinator.receipts.archive import INDEX
from coordinator.receipts.checking import CHECKED
from coordinator.receipts.packing import ORIGIN
from coordinator.receipts.rollback import refuse_restoring
from storage.backups.cut import Part, cut
from storage.backups.repository import FOLDERS, Index, Repository
from storage.encryption.keyring_location import find_keyrings
from storage.encryption.store import SealedStore
from storage.errors import Conflict, Invalid
from storage.location import is_on_s3
from storage.objects import ObjectKey, ObjectStore
from storage.stores.probe import probe_store

OBJECTS: Final = "objects"
KEYS: Final = "keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupMade:
    """A backup."""

    number: int
    """Counted in its place; the place of the keys has its own numbers."""
    at: str
    """The time whose state it holds, in UTC: everything accepted before then is in it."""
    federation: str
    """The federation's id."""
    place: str
    objects: int
    bytes: int
    keys: str | None
    """Where the keys are backed up; None: they are not."""
    removed: int
    """Objects of earlier backups that were deleted, because they were purged from the store or replaced."""


def back_up(
    store: SealedStore,
    name: str,
    place: ObjectStore,
    keys: ObjectStore | None,
    *,
    now: Callable[[], datetime],
    progress: Callable[[int, int], None],
    keep: int = 1,
) -> BackupMade:
    """Copy the federation ``name`` into ``place``, and its keys into ``keys`` if that place is given.

    May be repeated after an interruption: existing objects are not copied again, and the last backup stays complete
    until the new one is. ``progress`` is called with the number of objects copied so far and the number of all objects.

    Raises ``Invalid`` when there is no federation or places overlap, ``Conflict`` when the store is a copy or something
    else is in a place, ``Unavailable`` when the store changes too fast.
    """
    if keep < 1:
        raise Invalid("at least one backup is kept", "Give a number from 1 on, or leave it out.", keep=keep)
    own = [Placed(store, "the store"), *([Placed(store.keys, "'keys'")] if store.keys else [])]
    given = [Placed(place, "the place of the backup"), *([Placed(keys, "the place of its keys")] if keys else [])]
    refuse_overlap(*own, *given)
    if next((info for info in store.inner.list("") if is_content(info.key)), None) is None:
        raise Invalid("there is no federation here", "Check 'store' in the specification.", store=store.location)
    refuse_restoring(store)
    check_owner(store)
    identity = settle_identity(store)
    ids = {identity.id, *identity.earlier}
    with ExitStack() as held:
        for each in given:
            _check_place(each.store, ids, KEYS if each.store is keys else OBJECTS, place.location)
            held.enter_context(each.store.exclusive("backup", holder("backup", now())))
        repository, replaced = Repository(place), (INDEX, CHECKED, ORIGIN)
        objects_part = Part(store=store.inner, takes=is_content, repository=repository, replaced=replaced)
        key_parts = _key_parts(store, keys)
        for part in (objects_part, *key_parts):
            if (last := part.repository.newest()) is not None:
                part.remember(last.objects)
        at = _text(now())  # before the copy begins: what is accepted from here on may be missing in it
        objects, *secrets = cut((objects_part, *key_parts), lambda: _position(store), many_at_once, progress)
        about: dict[str, Any] = {"federation": identity.id, "name": name, "at": at, "kind": OBJECTS}
        kept_keys = _add_keys(
            keys, {**about, "kind": KEYS, "of": place.location}, secrets, is_apart=store.keys is not None
        )
        repository = Repository(place)
        made = repository.add({**about, "keys": kept_keys.number if kept_keys else None}, objects)
        removed = _forget(repository, Repository(keys) if keys else None, keep)
    return BackupMade(
        number=made.number,
        at=about["at"],
        federation=identity.id,
        place=place.location,
        objects=len(objects),
        bytes=made.payload_bytes,
        keys=keys.location if keys else None,
        removed=removed,
    )


def _check_place(place: ObjectStore, ids: set[str], kind: str, objects_at: str) -> None:
    """Raise ``Conflict`` unless the place is empty, or holds this federation's backups of this kind."""
    refuse_others(place, lambda key: key.startswith(FOLDERS), "backup of this system")
    last = Repository(place).newest()
    if last is None:
        if is_on_s3(place.location):
            probe_store(place)
        return
    if last.about.get("kind") != kind or last.about.get("federation") not in ids:
        raise Conflict(
            f"this place has backups of something else: {last.about.get('kind')} of the federation"
            f" {last.about.get('name')!r}",
            "Name another place: each federation has its own, and its keys have theirs.",
            place=place.location,
        )
    if kind == KEYS and last.about.get("of") != objects_at:
        raise Conflict(
            "this place has the keys of the backups in another place, and would lose them",
            "Name a place of keys for each place of backups.",
            place=place.location,
            backups=str(last.about.get("of")),
        )


def _key_parts(store: SealedStore, keys: ObjectStore | None) -> list[Part]:
    """Return the parts that go to the place of the keys: from the store, and from the place of its keyrings."""
    if keys is None:
        return []
    parts = [Part(store=store.inner, takes=is_secret, repository=Repository(keys))]
    keyrings = find_keyrings(store.inner, store.keys)
    if store.keys is not None and keyrings is not None:
        own = f"{keyrings.folder}/"
        parts.append(Part(store=store.keys, takes=lambda key: key.startswith(own), repository=Repository(keys)))
    return parts


def _add_keys(
    keys: ObjectStore | None, about: dict[str, Any], secrets: list[dict[ObjectKey, Any]], *, is_apart: bool
) -> Index | None:
    if keys is None:
        return None
    together = {key: blob for each in secrets for key, blob in each.items()}
    return Repository(keys).add({**about, "apart": is_apart}, together)


def _forget(repository: Repository, keys: Repository | None, keep: int) -> int:
    """Remove earlier backups, keys first: without them the rest cannot be read."""
    kept = repository.numbers()[-keep:]
    removed = 0
    if keys is not None:
        removed += keys.forget({repository.index(number).about["keys"] for number in kept})
    return removed + repository.forget(kept)


def _position(store: SealedStore) -> object:
    current = read_ledger(store)
    return current.manifest, current.position


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
