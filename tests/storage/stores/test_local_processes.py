"""The local store under several processes, and under processes that are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from storage.errors import ObjectExists, Unavailable, WriterBusy
from storage.objects import object_key
from storage.stores import local
from storage.stores.local import LocalStore
from tests.storage.stores.local_process import KEY, OLD, PAYLOAD, create_all, increment, start_line
from tests.storage.stores.test_local import NEW_CONTENT, OLD_CONTENT, OPERATIONS, content, prepared

PROCESSES = 4
KEYS = 50
PROJECT = Path(__file__).parents[3]


@contextmanager
def pool() -> Iterator[ProcessPoolExecutor]:
    """Processes that are spawned, not forked, and wait for each other at one barrier."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(PROCESSES)
    with ProcessPoolExecutor(PROCESSES, mp_context=context, initializer=start_line, initargs=(barrier,)) as processes:
        yield processes


def other_process(*arguments: str) -> subprocess.Popen[str]:
    """Start another process that does what ``local_process`` offers."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.storage.stores.local_process", *arguments],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_one_of_four_processes_creates_each_key(tmp_path: Path) -> None:
    """4 processes × 50 keys: each key has one winner, and the winner's content."""
    store = LocalStore(str(tmp_path / "store"))
    with pool() as processes:
        futures = [processes.submit(create_all, store, writer, KEYS) for writer in range(PROCESSES)]
        won = [future.result() for future in futures]
    assert sorted(number for numbers in won for number in numbers) == list(range(KEYS))
    for writer, numbers in enumerate(won):
        for number in numbers:
            assert store.get(object_key(f"race/{number}")).payload == b"%d " % writer + PAYLOAD
    assert list(store.unfinished("")) == []
    assert list(store.foreign()) == []


def test_four_processes_count_without_loss(tmp_path: Path) -> None:
    """4 processes × 50 increments by compare-and-swap: 200."""
    store = LocalStore(str(tmp_path))
    store.put_if_absent(object_key("counter"), b"0")
    with pool() as processes:
        for future in [processes.submit(increment, store, KEYS) for _ in range(PROCESSES)]:
            future.result()
    assert store.get(object_key("counter")).payload == b"%d" % (PROCESSES * KEYS)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_writer_killed_at_any_system_call_tears_nothing(tmp_path: Path, operation: str) -> None:
    """Kill -9 before each system call of an operation, in the middle of the write too: the object is the old or the
    new one, whole; what is left is found as unfinished and can be removed; the operation can be done again.
    """
    leftovers = 0
    found: bytes | None = None
    for at in range(1, 100):
        store, tag = prepared(tmp_path / str(at), operation)
        process = other_process("crash", store.root, operation, tag or "-", str(at))
        answer, _ = process.communicate()
        found = content(store)
        if answer:
            break
        assert process.returncode == -9
        assert found in {OLD_CONTENT[operation], NEW_CONTENT[operation]}
        assert list(store.foreign()) == []
        left = list(store.unfinished("folder/"))
        leftovers += len(left)
        assert store.remove_unfinished("") == len(left)
        assert content(store) == found
        files = {path.name for path in Path(store.root).rglob("*") if path.is_file()}
        assert files <= {"object", ".swap.lock"}
        _do_again(store, found)
    assert found == NEW_CONTENT[operation]
    assert at > 5
    assert (leftovers > 2) == (operation != "delete")


def _do_again(store: LocalStore, found: bytes | None) -> None:
    if found is None:
        store.put_if_absent(KEY, OLD)
    else:
        with pytest.raises(ObjectExists, match="exists"):
            store.put_if_absent(KEY, OLD)
        store.put_if_match(KEY, OLD, store.get(KEY).tag)
    assert store.get(KEY).payload == OLD
    store.delete(KEY)


@pytest.mark.parametrize("children", ["none", "forked", "executed"])
def test_a_killed_holder_frees_the_right_at_once(tmp_path: Path, children: str) -> None:
    """While another process holds the right it is named; killed with -9 the right is free at once, even while its
    child processes live on.
    """
    store = LocalStore(str(tmp_path))
    with other_process("hold", store.root, children) as process:  # its end ends stdin, and with it the children
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(WriterBusy, match=r"another command holds.*sisa train, process 123"),
            store.exclusive("writer", holder="x"),
        ):
            pass
        process.kill()
        assert process.wait() == -9
        with store.exclusive("writer", holder="x"):
            assert list(store.foreign()) == []


@contextmanager
def stopped(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds what it was started for, and is stopped."""
    with other_process(*arguments) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        yield process
        process.kill()


def test_a_stopped_holder_of_the_stores_lock_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process was stopped (SIGSTOP) between comparing and renaming: a process that waits for it gets an error that
    says so and what to do, and nothing is changed. The lock is free once the stopped process continues or is killed.
    """
    monkeypatch.setattr(local, "SWAP_PATIENCE_SECONDS", 0.1)
    store = LocalStore(str(tmp_path))
    tag = store.put_if_absent(KEY, OLD)
    with stopped("swap", store.root) as process:
        reported = (
            f"process {process.pid}, which is stopped .SIGSTOP., has held the store's lock for 0.1 seconds"
            rf".*'kill -CONT {process.pid}'.*'kill -9 {process.pid}'"
        )
        for act in (partial(store.put_if_match, KEY, PAYLOAD, tag), partial(store.delete, KEY)):
            with pytest.raises(Unavailable, match=reported):
                act()
        assert store.get(KEY).payload == OLD
        assert list(store.unfinished("")) == []
        process.send_signal(signal.SIGCONT)
        with pytest.raises(Unavailable, match=f"process {process.pid} has held the store's lock.*If it was only slow"):
            store.delete(KEY)
    store.put_if_match(KEY, PAYLOAD, tag)


def test_a_lock_that_is_freed_is_waited_for(tmp_path: Path) -> None:
    """A lock that another process gives back in time is taken."""
    store = LocalStore(str(tmp_path))
    tag = store.put_if_absent(KEY, OLD)
    with other_process("swap", store.root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with ThreadPoolExecutor(1) as threads:
            put = threads.submit(store.put_if_match, KEY, PAYLOAD, tag)
            process.communicate("")
            put.result()
    assert store.get(KEY).payload == PAYLOAD


def test_a_stopped_writer_is_reported(tmp_path: Path) -> None:
    """A stopped command would be waited for without end: the next writer gets an error that says how to continue it."""
    store = LocalStore(str(tmp_path))
    with stopped("hold", store.root, "none") as process:
        reported = rf"process 123; it is stopped .SIGSTOP.*'kill -CONT {process.pid}'"
        with pytest.raises(WriterBusy, match=reported), store.exclusive("writer", holder="x"):
            pass


def test_a_real_limit_of_the_operating_system_is_a_full_store(tmp_path: Path) -> None:
    """A file size limit that the operating system enforces in the middle of a write publishes nothing, and what is
    small enough still goes in.
    """
    store = LocalStore(str(tmp_path))
    answer, _ = other_process("overflow", store.root).communicate()
    assert "no room for the object; nothing was published" in answer
    assert "cause=EFBIG" in answer
    assert [info.key for info in store.list("")] == ["folder/small"]
    assert list(store.unfinished("")) == []
