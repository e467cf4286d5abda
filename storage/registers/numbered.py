"""Numbered objects, the common base of manifests, fencing tokens and journal entries.

    <folder>/<n>   created once; n in 20 digits, so that the order of names is the order of numbers
    <floor>        compare-and-swap; raised before any number below it is deleted, never lowered, never deleted

The floor is needed because create-if-absent does not remember deleted objects: a writer that was paused while number n
was deleted could create n again and believe that it committed. So the floor is raised before a deletion and read after
every create (SlateDB's boundary object).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeVar

from storage.digests import Json
from storage.errors import Corrupt, ObjectMissing, Unavailable
from storage.objects import ObjectInfo, ObjectKey, ObjectStore, object_key
from storage.records import decode_record
from storage.registers.record import RecordRegister

ATTEMPTS = 64
"""How often a step is repeated when other writers interfere; each time one of them makes progress."""

_DIGITS = 20

_FLOOR_FIELDS: Final = frozenset({"floor"})

_Scalar = TypeVar("_Scalar", int, str)


def numbered_key(folder: str, number: int) -> ObjectKey:
    """Return the key of object ``number`` in a folder."""
    return object_key(f"{folder}/{number:0{_DIGITS}d}")


def number_of(segment: str) -> int | None:
    """Return the number that a segment of a key is; None for any other segment."""
    return int(segment) if len(segment) == _DIGITS and segment.isdecimal() else None


def numbers_in(listed: Iterable[ObjectInfo], folder: str) -> tuple[int, ...]:
    """Return the numbers of the listed objects of ``folder``, rising; other names are passed over."""
    numbers = (number_of(info.key.removeprefix(f"{folder}/")) for info in listed)
    return tuple(sorted(number for number in numbers if number is not None))


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbered objects of one folder. Holds no state: every call reads the store."""

    store: ObjectStore
    folder: str

    def key(self, number: int) -> ObjectKey:
        """Return the key of object ``number``."""
        return numbered_key(self.folder, number)

    def present(self) -> tuple[int, ...]:
        """Return the numbers that a listing shows, rising; other names in the folder are skipped.

        Numbers that are created or deleted meanwhile may or may not be among them.
        """
        return numbers_in(self.store.list(f"{self.folder}/"), self.folder)

    def payload(self, number: int) -> bytes | None:
        """Return the bytes of object ``number``; None when it does not exist."""
        try:
            return self.store.get(self.key(number)).payload
        except ObjectMissing:
            return None

    def durable(self, number: int) -> bytes | None:
        """Return the bytes of object ``number`` after making it durable; None when it does not exist."""
        try:
            return self.store.get_durable(self.key(number)).payload
        except ObjectMissing:
            return None

    def delete(self, numbers: Iterable[int]) -> int:
        """Delete the objects, durably and in the order given; return how many numbers there were."""
        keys = tuple(self.key(number) for number in numbers)
        self.store.delete_all(keys)
        return len(keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The number below which objects may be gone. Holds no state: every call reads the store."""

    store: ObjectStore
    key: ObjectKey
    under: str
    """Name of the objects above the floor in error messages."""

    def read(self) -> int:
        """Return the floor; 0 before it was first raised. Raises ``Corrupt``."""
        try:
            payload = self.store.get(self.key).payload
        except ObjectMissing:
            return 0
        return _floor_in(payload, self.key)

    def raise_to(self, wanted: int) -> int:
        """Raise the floor to at least ``wanted``, durably, and return it.

        Raises ``Unavailable`` when other writers prevent that.
        """
        if wanted <= 0 and not self.read():
            return 0  # nothing was deleted yet, so there is nothing to put
        busy = Unavailable(f"the floor under the {self.under} could not be raised", "Try again.", floor=wanted)
        after = self._record.change(lambda fields: {"floor": max(wanted, self._number(fields))}, busy)
        return self._number(after)

    @property
    def _record(self) -> RecordRegister:
        return RecordRegister(store=self.store, key=self.key, field_names=_FLOOR_FIELDS)

    def _number(self, fields: Mapping[str, Json] | None) -> int:
        return 0 if fields is None else scalar(fields, "floor", int, self.key)


@lru_cache(maxsize=64)
def _floor_in(payload: bytes, key: ObjectKey) -> int:
    """Return the floor that a record holds. Every answer of a replica reads one, which is most often the same bytes."""
    return scalar(decode_record(payload, key, _FLOOR_FIELDS), "floor", int, key)


def scalar(fields: Mapping[str, Json], name: str, kind: type[_Scalar], key: ObjectKey) -> _Scalar:
    """Return the field ``name`` of a record. Raises ``Corrupt`` when it is not a ``kind``."""
    value = fields[name]
    if isinstance(value, bool) or not isinstance(value, kind):  # a bool is an int, but not one of ours
        raise misshapen(key, name)
    return value


def misshapen(key: ObjectKey, name: str) -> Corrupt:
    """Return the error for a record that is undamaged but does not belong under ``key``."""
    return Corrupt("a field of a stored record is not what its key and format say", key=key, field=name)
