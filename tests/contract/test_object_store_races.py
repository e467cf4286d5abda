"""The contract of ``ObjectStore`` under many threads: every test runs on every store."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial

import pytest

from storage.errors import (
    Invalid,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    SisaError,
    WriterBusy,
)
from storage.objects import ObjectKey, ObjectStore, VersionTag, object_key
from tests.contract.conftest import Traits
from tests.volume import examples

pytestmark = pytest.mark.volume

WRITERS = 8
KEY = object_key("folder/name-1")
OTHER = object_key("folder/name-2")


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    """The keys under ``prefix``, sorted: a store promises no order."""
    return sorted(info.key for info in store.list(prefix))


def race(attempt: Callable[[int], object], refusal: type[SisaError]) -> list[int]:
    """Run ``attempt`` in 8 threads at once; return the numbers of those that were not refused."""
    start = threading.Barrier(WRITERS)

    def run(writer: int) -> bool:
        start.wait()
        try:
            attempt(writer)
        except refusal:
            return False
        return True

    with ThreadPoolExecutor(WRITERS) as pool:
        return [writer for writer, won in enumerate(pool.map(run, range(WRITERS))) if won]


def create(store: ObjectStore, key: ObjectKey, writer: int) -> None:
    """Create ``key`` with a content that names the writer."""
    store.put_if_absent(key, b"writer %d" % writer)


def replace(store: ObjectStore, tag: VersionTag, writer: int) -> None:
    """Replace ``KEY`` by a content that names the writer and the tag it saw."""
    store.put_if_match(KEY, b"%d after %s" % (writer, tag.encode()), tag)


def acquire(store: ObjectStore, rights: ExitStack, name: str, writer: int) -> None:
    """Take the right called ``name`` and keep it until ``rights`` ends."""
    rights.enter_context(store.exclusive(name, holder=str(writer)))


def replace_unless_gone(store: ObjectStore, key: ObjectKey, tag: VersionTag, start: threading.Barrier) -> None:
    """Replace ``key`` once all have started; a deletion may be first."""
    start.wait()
    with suppress(ObjectMissing):
        store.put_if_match(key, b"after", tag)


# --------------------------------------------------------------------------------------------------------- races


def test_one_of_eight_creators_wins(store: ObjectStore, traits: Traits) -> None:
    """When 8 threads create one key, one wins and its content stays; repeated with many keys."""
    for number in range(traits.rounds):
        key = object_key(f"race/{number}")
        winners = race(partial(create, store, key), ObjectExists)
        assert len(winners) == 1
        assert store.get(key).payload == b"writer %d" % winners[0]
    assert list(store.unfinished("")) == []


def test_one_of_eight_replacers_wins(store: ObjectStore, traits: Traits) -> None:
    """When 8 threads replace one object under one tag, one wins and its content stays; repeated many times."""
    tag = store.put_if_absent(KEY, b"before")
    for _ in range(traits.rounds):
        winners = race(partial(replace, store, tag), ObjectChanged)
        assert len(winners) == 1
        found = store.get(KEY)
        assert found.payload == b"%d after %s" % (winners[0], tag.encode())
        tag = found.tag
    assert list(store.unfinished("")) == []


def test_no_increment_is_lost(store: ObjectStore, traits: Traits) -> None:
    """8 threads that count with compare-and-swap lose nothing."""
    store.put_if_absent(KEY, b"0")

    def count(_: int) -> None:
        done = 0
        while done < traits.steps:
            found = store.get(KEY)
            try:
                store.put_if_match(KEY, b"%d" % (int(found.payload) + 1), found.tag)
            except ObjectChanged:
                continue
            done += 1

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(count, range(WRITERS)))
    assert store.get(KEY).payload == b"%d" % (WRITERS * traits.steps)


def test_a_deletion_is_not_undone_by_a_replacement(store: ObjectStore, traits: Traits) -> None:
    """Whichever of a deletion and a replacement comes first, the object is gone after both: many times."""
    for number in range(traits.deletions):
        key = object_key(f"race/{number}")
        tag = store.put_if_absent(key, b"before")
        start = threading.Barrier(2)

        with ThreadPoolExecutor(1) as pool:
            replacement = pool.submit(replace_unless_gone, store, key, tag, start)
            start.wait()
            store.delete(key)
            replacement.result()
        assert keys(store, key) == []


def test_readers_see_whole_objects(store: ObjectStore) -> None:
    """A reader beside a writer sees one of the contents that were put, never a mixture."""
    size = 200_000
    tag = store.put_if_absent(KEY, b"\0" * size)
    done = threading.Event()

    def read() -> set[tuple[int, bytes]]:
        seen = set()
        while not done.is_set():
            payload = store.get(KEY).payload
            seen.add((len(payload), bytes(set(payload))))
        return seen

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for number in range(1, examples(30, few=12)):
            tag = store.put_if_match(KEY, bytes([number]) * size, tag)
        done.set()
        seen = readers[0].result() | readers[1].result()
    assert all(length == size and len(values) == 1 for length, values in seen)


# ------------------------------------------------------------------------------------------------- exclusive right


def test_the_right_to_write_has_one_holder(store: ObjectStore) -> None:
    """While one writer holds the right, another is refused with the name of the holder."""
    with (
        store.exclusive("writer", holder="sisa train, process 123"),
        pytest.raises(WriterBusy, match=r"sisa train, process 123.*writer.*Wait until it ends"),
        store.exclusive("writer", holder="sisa erase"),
    ):
        pass


def test_the_right_is_free_after_the_block(store: ObjectStore) -> None:
    """The right is free again after the block, also when an error ends it."""
    for _ in range(2):
        with pytest.raises(KeyError, match="stop"), store.exclusive("writer", holder="first"):
            raise KeyError("stop")
    with (
        store.exclusive("writer", holder="second"),
        pytest.raises(WriterBusy, match="second"),
        store.exclusive("writer", holder="third"),
    ):
        pass


def test_rights_of_different_names_are_independent(store: ObjectStore) -> None:
    """Two names are two rights, and neither shows as an object or as foreign."""
    with store.exclusive("writer", holder="a"), store.exclusive("swap", holder="b"):
        tag = store.put_if_absent(KEY, b"x")
        store.put_if_match(KEY, b"y", tag)
        store.delete(KEY)
        assert keys(store) == []
        assert list(store.foreign()) == []


def test_one_of_eight_threads_gets_the_right(store: ObjectStore, traits: Traits) -> None:
    """When 8 threads ask for a right that its winner keeps, one gets it; repeated many times."""
    for number in range(traits.rounds):
        with ExitStack() as rights:
            winners = race(partial(acquire, store, rights, f"right-{number}"), WriterBusy)
            assert len(winners) == 1


@pytest.mark.parametrize("name", ["", "a/b", "..", ".swap", "Upper"])
def test_a_right_is_named_like_a_segment(store: ObjectStore, name: str) -> None:
    """A right whose name is not a valid segment of a key is refused."""
    with pytest.raises(Invalid, match="one segment of an object key"), store.exclusive(name, holder="x"):
        pass
