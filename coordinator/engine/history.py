"""Records of served generations, beyond the last few that are in the state itself.

    history/<number of the first>    up to 64 of them each, written once, never changed; no names in them

A federation that carries out many requests has many generations. A state is always written as a whole, so old
generations leave it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from coordinator.state import FederationState, GenerationRecord
from storage.errors import Corrupt
from storage.objects import ObjectKey, ObjectStore
from storage.records import decode_record, encode_record
from storage.registers.create_once import create_or_read
from storage.registers.numbered import numbered_key

PREFIX: Final = "history/"
TOGETHER: Final = 64
"""Generations in an object; the state keeps fewer than twice as many."""


def keep_old(store: ObjectStore, state: FederationState) -> int | None:
    """Write the state's oldest generations into an object, once there are many.

    Returns the number of the last one written: the state may drop the records up to it. None: there are few.
    A repetition finds the same object, because ended generations do not change.
    """
    if len(state.history) < 2 * TOGETHER:
        return None
    old = state.history[:TOGETHER]
    create_or_read(store, _key(old[0].number), encode_record({"generations": [_encoded(each) for each in old]}))
    return old[-1].number


def generations(store: ObjectStore, state: FederationState) -> Iterator[GenerationRecord]:
    """Yield all recorded generations, the oldest first. Raises ``Corrupt`` when an object is not what was written."""
    first = state.history[0].number if state.history else state.generation + 1
    for info in sorted(store.list(PREFIX), key=lambda info: info.key):
        for each in _decoded(store.get(info.key).payload, info.key):
            if each.number < first:  # a crash may leave an object whose generations the state still has
                yield each
    yield from state.history


def _key(number: int) -> ObjectKey:
    return numbered_key(PREFIX.removesuffix("/"), number)


def _encoded(record: GenerationRecord) -> dict[str, Any]:
    return {"number": record.number, "since": record.since, "until": record.until, "serving": list(record.serving)}


def _decoded(payload: bytes, key: ObjectKey) -> list[GenerationRecord]:
    fields: Any = decode_record(payload, key, frozenset({"generations"}))
    try:
        return [
            GenerationRecord(
                number=int(each["number"]),
                since=str(each["since"]),
                until=str(each["until"]),
                serving=tuple(map(int, each["serving"])),
            )
            for each in fields["generations"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt(
            "a record of generations is not what was written", "Restore the store from a copy.", key=key
        ) from error
