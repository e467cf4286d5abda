"""A store in which another process does something in the middle of this one's work."""

from __future__ import annotations

from collections.abc import Callable

from storage.objects import ObjectKey, ObjectStore, StoredObject, VersionTag
from tests.doubles.stores.faulty_store import FaultyStore


class InterruptedStore(FaultyStore):
    """Before its nth operation on an object, ``others`` is called, once."""

    def __init__(self, inner: ObjectStore, others: Callable[[], None], nth: int) -> None:
        super().__init__(inner)
        self.others, self.nth = others, nth

    def get(self, key: ObjectKey) -> StoredObject:
        """Read, after the others if it is time."""
        self._let_others()
        return super().get(key)

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Create, after the others if it is time."""
        self._let_others()
        return super().put_if_absent(key, payload)

    def put_if_match(self, key: ObjectKey, payload: bytes, expected: VersionTag) -> VersionTag:
        """Replace, after the others if it is time."""
        self._let_others()
        return super().put_if_match(key, payload, expected)

    def delete(self, key: ObjectKey) -> None:
        """Delete, after the others if it is time."""
        self._let_others()
        super().delete(key)

    def _let_others(self) -> None:
        self.nth -= 1
        if self.nth == 0:
            self.others()
