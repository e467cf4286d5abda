"""What other processes do in the tests of the local store. Run as ``python -m tests.storage.stores.local_process``.

Kept apart from the tests: a spawned process imports this module and the store, and no test library.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.synchronize import Barrier

from storage.errors import ObjectChanged, ObjectExists, StoreFull
from storage.objects import VersionTag, object_key
from storage.stores.local import LocalStore
from tests.doubles.stores.system_calls import struck

PAYLOAD = bytes(range(256)) * 400
KEY = object_key("folder/object")
OLD = b"old content"

_barrier: Barrier | None = None


def start_line(barrier: Barrier) -> None:
    """Give this process the barrier that all racers wait at."""
    globals()["_barrier"] = barrier


def create_all(store: LocalStore, writer: int, keys: int) -> list[int]:
    """Try to create each of ``keys`` keys at the same moment as the others; return the numbers won."""
    assert _barrier is not None
    won = []
    for number in range(keys):
        _barrier.wait()
        with suppress(ObjectExists):
            store.put_if_absent(object_key(f"race/{number}"), b"%d " % writer + PAYLOAD)
            won.append(number)
    return won


def increment(store: LocalStore, times: int) -> None:
    """Count up the object ``counter``, ``times`` times."""
    done = 0
    while done < times:
        found = store.get(object_key("counter"))
        with suppress(ObjectChanged):
            store.put_if_match(object_key("counter"), b"%d" % (int(found.payload) + 1), found.tag)
            done += 1


def operate(store: LocalStore, operation: str, tag: VersionTag) -> None:
    """Do the one operation that is to be interrupted."""
    if operation == "put_if_absent":
        store.put_if_absent(KEY, PAYLOAD)
    elif operation == "put_if_match":
        store.put_if_match(KEY, PAYLOAD, tag)
    else:
        store.delete(KEY)


def die(_: str) -> None:
    """End this process as ``kill -9`` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def crash(root: str, operation: str, tag: str, at: str) -> None:
    """Do the operation and die in place of system call number ``at``, if there are so many."""
    with struck(int(at), die):
        operate(LocalStore(root), operation, VersionTag(tag))
    print("survived")  # noqa: T201  this process's answer


def hold(root: str, children: str) -> None:
    """Hold the right to write until stdin ends; with children that outlive this process."""
    with LocalStore(root).exclusive("writer", holder="sisa train, process 123"):
        if children == "forked":
            _fork_and_outlive()
        if children == "executed":
            subprocess.Popen(["cat"], stdout=subprocess.DEVNULL, close_fds=False)
        print("held", flush=True)  # noqa: T201  this process's answer
        sys.stdin.read()


def swap(root: str) -> None:
    """Hold until stdin ends the lock that others hold while they compare and rename."""
    with LocalStore(root)._swapping():
        print("held", flush=True)  # noqa: T201  this process's answer
        sys.stdin.read()


def _fork_and_outlive() -> None:
    """Fork a child that lives until stdin ends; return in the parent once the child runs, its first act done."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, b"x")
        sys.stdin.read()
        os._exit(0)
    os.read(reader, 1)


def overflow(root: str) -> None:
    """Meet a real limit of the operating system: no file over 100,000 bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    store = LocalStore(root)
    try:
        store.put_if_absent(KEY, PAYLOAD)
    except StoreFull as error:
        print(error)  # noqa: T201  this process's answer
    store.put_if_absent(object_key("folder/small"), OLD)


if __name__ == "__main__":
    ACTIONS: dict[str, Callable[..., None]] = {"crash": crash, "hold": hold, "overflow": overflow, "swap": swap}
    ACTIONS[sys.argv[1]](*sys.argv[2:])
