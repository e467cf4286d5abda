"""What other processes do in the tests of the vault: spawned, so they import the store and no test library."""

from __future__ import annotations

from multiprocessing.synchronize import Barrier

from storage.encryption.store import SealedStore
from storage.objects import object_key

PUTS = 30

_barrier: Barrier | None = None


def start_line(barrier: Barrier) -> None:
    """Give this process the barrier that all wait at."""
    globals()["_barrier"] = barrier


def put_all(store: SealedStore, writer: int) -> None:
    """Put objects into one ring, at the same time as the others."""
    assert _barrier is not None
    _barrier.wait()
    for number in range(PUTS):
        store.put_if_absent(object_key(f"shards/0001/{writer}-{number}"), b"%d %d" % (writer, number))


def put_and_delete_all(store: SealedStore, writer: int) -> None:
    """Put objects into one ring and delete every other one."""
    assert _barrier is not None
    _barrier.wait()
    for number in range(PUTS):
        key = object_key(f"shards/0001/{writer}-{number}")
        store.put_if_absent(key, b"%d %d" % (writer, number))
        if number % 2:
            store.delete(key)
