"""All that a store holds, objects and leftovers, in as few passes over it as the store can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from storage.objects import ObjectKey, ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What a store holds."""

    sizes: Mapping[ObjectKey, int]
    """Key and ``payload_bytes`` of each object that ``list`` yields."""
    unfinished: tuple[str, ...]
    """The names that ``ObjectStore.unfinished`` yields."""


@runtime_checkable
class ContentsLister(Protocol):
    """A store that lists objects and leftovers together, for less than both cost apart."""

    def contents(self, prefix: str) -> Holdings:
        """Return what the store holds under ``prefix``: the empty one, or a folder of keys with its ``/``."""
        ...


def contents_of(store: ObjectStore, prefix: str = "") -> Holdings:
    """Return everything that ``store`` holds under ``prefix``; objects put during the call may or may not be included.

    ``prefix`` is the empty one, or a folder of keys with its ``/``.

    A put that began before the call appears as a leftover or as an object, because leftovers are listed first, or
    together with the objects. Raises what ``list`` and ``unfinished`` raise.
    """
    if isinstance(store, ContentsLister):
        return store.contents(prefix)
    unfinished = tuple(store.unfinished(prefix))
    return Holdings(sizes={info.key: info.payload_bytes for info in store.list(prefix)}, unfinished=unfinished)


def keys_under(store: ObjectStore, prefix: str) -> Iterable[ObjectKey]:
    """Return the keys that ``store.list(prefix)`` yields; ``prefix`` is as for ``contents_of``."""
    if isinstance(store, ContentsLister):
        return store.contents(prefix).sizes
    return (info.key for info in store.list(prefix))
