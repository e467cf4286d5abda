"""All that a store holds, objects and leftovers, in as few passes over it as the store can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from storage.objects import ObjectInfo, ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What a store holds."""

    objects: tuple[ObjectInfo, ...]
    """As ``list("")`` yields them, but in any order."""
    unfinished: tuple[str, ...]
    """As ``unfinished("")`` yields them."""


@runtime_checkable
class ContentsLister(Protocol):
    """A store that lists objects and leftovers together, for less than both cost apart."""

    def contents(self) -> Holdings:
        """Return everything that the store holds."""
        ...


def contents_of(store: ObjectStore) -> Holdings:
    """Return everything that ``store`` holds; of what is put meanwhile, any part or nothing.

    A put that began before is a leftover or an object: leftovers are looked for first, or in the same reading of a
    folder. Raises what ``list`` and ``unfinished`` raise.
    """
    if isinstance(store, ContentsLister):
        return store.contents()
    unfinished = tuple(store.unfinished(""))
    return Holdings(objects=tuple(store.list("")), unfinished=unfinished)
