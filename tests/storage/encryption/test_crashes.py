"""The encrypted store under crashes at every step, with paused writers, and with two processes at once."""

from __future__ import annotations

import multiprocessing
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from storage.encryption.cipher import fresh_key
from storage.encryption.keyring import Keyrings
from storage.encryption.store import KeyDestroyed, SealedStore
from storage.errors import ObjectChanged, ObjectMissing, OutcomeUnknown, StoreFull, Unavailable
from storage.objects import ObjectKey, StoredObject, VersionTag, object_key
from storage.stores.local import LocalStore
from storage.stores.memory import MemoryStore
from tests.doubles.stores.faulty_store import Crash, Fault, FaultyStore
from tests.doubles.stores.recording_store import RecordingStore, opened, stolen
from tests.storage.encryption.vault_process import PUTS, put_all, put_and_delete_all, start_line

ONE, TWO, THREE = (object_key(f"shards/0001/{name}") for name in ("one", "two", "three"))
OTHER = object_key("shards/0002/one")
NEW = object_key("shards/0001/new")
FIRST = object_key("shards/0003/first")
LOST = object_key("shards/0001/lost")
STRAY = object_key(f"keyrings/0001/kek-{2:012d}-{'5' * 32}")

Layout = Literal["beside", "apart", "keys"]
"""Where the keys are, and where it fails: in the one store; in the objects' store, keys apart; in the keys' own."""
LAYOUTS: tuple[Layout, ...] = ("beside", "apart", "keys")


@dataclass(slots=True)
class World:
    """A vault with objects in it, over a store that fails by plan."""

    layout: Layout
    objects: RecordingStore = field(default_factory=lambda: RecordingStore(secrets.token_hex(8)))
    keys: RecordingStore = field(default_factory=lambda: RecordingStore(secrets.token_hex(8)))
    faulty: FaultyStore = field(init=False)

    def __post_init__(self) -> None:
        self.faulty = FaultyStore(self.keys if self.layout == "keys" else self.objects)

    def process(self) -> SealedStore:
        """Return the vault as a new process has it."""
        if self.layout == "beside":
            return SealedStore(self.faulty)
        if self.layout == "apart":
            return SealedStore(self.faulty, self.keys)
        return SealedStore(self.objects, self.faulty)

    def fill(self) -> SealedStore:
        """Put four objects, whose payload is their key."""
        store = self.process()
        for key in (ONE, TWO, THREE, OTHER):
            store.put_if_absent(key, key.encode())
        return store

    def loot(self) -> dict[ObjectKey, set[bytes]]:
        """Return what a thief with everything but destroyed keys opens."""
        return opened(stolen(self.objects, self.keys))

    def forget(self) -> None:
        """Free the memory."""
        self.objects.forget()
        self.keys.forget()


def _put(store: SealedStore) -> None:
    store.put_if_absent(NEW, b"new")


def _put_first(store: SealedStore) -> None:
    store.put_if_absent(FIRST, b"first")


def _replace(store: SealedStore) -> None:
    store.put_if_match(ONE, b"new", store.get(ONE).tag)


def _delete(store: SealedStore) -> None:
    store.delete(ONE)


def _delete_all(store: SealedStore) -> None:
    store.delete_all([ONE, TWO, OTHER])


def _tidy(store: SealedStore) -> None:
    store.remove_unfinished("")


OPERATIONS: dict[str, tuple[Callable[[SealedStore], None], frozenset[ObjectKey]]] = {
    "put": (_put, frozenset()),
    "put in a new ring": (_put_first, frozenset()),
    "replace": (_replace, frozenset()),
    "delete": (_delete, frozenset({ONE})),
    "delete many": (_delete_all, frozenset({ONE, TWO, OTHER})),
    "tidy up": (_tidy, frozenset()),
}
"""What is interrupted, and what is to be gone after it."""

WRITTEN = {
    "put": (NEW, b"new", None),
    "put in a new ring": (FIRST, b"first", None),
    "replace": (ONE, b"new", ONE.encode()),
}
"""What an operation writes: key, payload, payload before."""


def _litter(world: World) -> None:
    """Leave a data key without object and a stray key-encryption key behind."""
    world.process().put_if_absent(LOST, b"lost")
    world.objects.delete(LOST)
    keyrings = world.process()._keyrings()
    assert keyrings is not None
    keyrings.store.put_if_absent(object_key(STRAY.replace("keyrings", keyrings.folder, 1)), bytes(32))


def _prepared(layout: Layout, name: str) -> tuple[World, SealedStore]:
    world = World(layout)
    if name == "put in a new ring":  # the very first object: where the keys are is not decided either
        return world, world.process()
    world.fill()
    if name == "tidy up":
        _litter(world)
    store = world.process()
    assert store.get(THREE).payload == THREE.encode()  # a process that knows the ring
    return world, store


def _survivors(world: World, name: str) -> dict[ObjectKey, bytes]:
    if name == "put in a new ring":
        return {}
    gone = OPERATIONS[name][1] | ({ONE} if name == "replace" else set())
    return {key: key.encode() for key in (ONE, TWO, THREE, OTHER) if key not in gone}


def _check_kept(world: World, name: str) -> None:
    expected = _survivors(world, name)
    again = world.process()
    assert {key: again.get(key).payload for key in expected} == expected


def _check_written(world: World, name: str) -> None:
    """An object that was being written is complete, or as before."""
    if name not in WRITTEN:
        return
    key, after, before = WRITTEN[name]
    try:
        found: bytes | None = world.process().get(key).payload
    except ObjectMissing:
        found = None
    assert found in (after, before)


def _check_half_deleted(world: World, keys: frozenset[ObjectKey]) -> None:
    """An object that was being deleted is complete, gone, or unreadable; never anything else."""
    again = world.process()
    for key in keys:
        with suppress(ObjectMissing, KeyDestroyed):
            assert again.get(key).payload == key.encode()


def _finish(world: World, name: str) -> None:
    """Do it again in a new process, tidy up, and look at everything."""
    operation, gone = OPERATIONS[name]
    again = world.process()
    with suppress(ObjectChanged):
        if name not in WRITTEN or name == "replace" or not any(info.key == WRITTEN[name][0] for info in again.list("")):
            operation(again)
    for key in gone:
        with pytest.raises(ObjectMissing, match="no such object"):
            again.get(key)
    again.remove_unfinished("")
    assert list(again.unfinished("")) == []
    expected = _survivors(world, name) | ({WRITTEN[name][0]: WRITTEN[name][1]} if name in WRITTEN else {})
    assert {key: world.process().get(key).payload for key in expected} == expected
    loot = world.loot()
    assert loot.keys() == expected.keys()
    assert all(payload in loot[key] for key, payload in expected.items())
    rings = {
        info.key.rpartition("/")[0] for info in (*world.objects.list(""), *world.keys.list("")) if "/kek-" in info.key
    }
    keks = [info.key for info in (*world.objects.list(""), *world.keys.list("")) if "/kek-" in info.key]
    assert len(keks) == len(rings)


@pytest.mark.parametrize("error", [Crash, OutcomeUnknown, Unavailable, StoreFull])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_failure_at_any_step_loses_nothing(name: str, layout: Layout, error: type[BaseException]) -> None:
    """Before and after every single operation of the inner stores, reads included: survivors open, what was deleted
    opens for nobody once the deletion is repeated, leftovers are found and removed.
    """
    points = 0
    for when in ("before", "after"):
        for nth in range(1, 200):
            world, store = _prepared(layout, name)
            world.faulty.plan(Fault(when=when, operation="any", nth=nth, error=error))
            with suppress(error, OutcomeUnknown):  # after the object is put, no failure is known to be one
                OPERATIONS[name][0](store)
            if world.faulty.faults:
                world.forget()
                break
            points += 1
            _check_kept(world, name)
            _check_written(world, name)
            _check_half_deleted(world, OPERATIONS[name][1])
            _finish(world, name)
            world.forget()
        else:
            pytest.fail("the operation never ends")
    assert points >= 2


def test_leftovers_are_seen_before_they_are_removed() -> None:
    """At every crash point of a rotation, leftovers are found exactly when there are some to remove."""
    found = set()
    for name in ("put", "put in a new ring", "delete", "tidy up"):
        for nth in range(1, 40):
            world, store = _prepared("beside", name)
            world.faulty.plan(Fault(when="after", operation="write", nth=nth, error=Crash))
            with suppress(Crash):
                OPERATIONS[name][0](store)
            struck = not world.faulty.faults
            world.faulty.plan()
            again = world.process()
            left = list(again.unfinished(""))
            assert again.remove_unfinished("") == len(left)
            found |= {"key" if "its key" in each else "kek" for each in left}
            world.forget()
            if not struck:
                break
    assert found == {"key", "kek"}


# ------------------------------------------------------------------------------------------------------ sleepers


@dataclass(slots=True)
class Interrupted(FaultyStore):
    """Runs ``meanwhile`` right before a write whose key holds ``at``, once."""

    at: str = "never"
    meanwhile: Callable[[], None] = lambda: None

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Create the object."""
        self._wait(key)
        return self.inner.put_if_absent(key, payload)

    def put_if_match(self, key: ObjectKey, payload: bytes, expected: VersionTag) -> VersionTag:
        """Replace the object."""
        self._wait(key)
        return self.inner.put_if_match(key, payload, expected)

    def delete(self, key: ObjectKey) -> None:
        """Remove the object."""
        self._wait(key)
        self.inner.delete(key)

    def _wait(self, key: str) -> None:
        if self.at in key:
            self.at = "never"
            self.meanwhile()


@contextmanager
def sleeper(at: str, meanwhile: Callable[[SealedStore], object]) -> Iterator[tuple[World, SealedStore]]:
    """A world, and a writer in it that falls asleep before writing what is named ``at`` while others do something."""
    world = World("beside")
    world.fill()
    interrupted = Interrupted(world.objects, at=at, meanwhile=lambda: None)
    interrupted.meanwhile = lambda: (meanwhile(SealedStore(world.objects)), None)[1]
    yield world, SealedStore(interrupted)
    assert interrupted.at == "never"
    world.forget()


def _delete_and_purge(store: SealedStore) -> None:
    store.delete(TWO)
    store.remove_unfinished("")


MEANWHILE: dict[str, Callable[[SealedStore], object]] = {
    "a purge": lambda store: store.remove_unfinished(""),
    "a deletion": lambda store: store.delete(TWO),
    "a deletion of nothing": lambda store: store.delete(object_key("shards/0001/never")),
    "a creation": lambda store: store.put_if_absent(object_key("shards/0001/else"), b"else"),
    "a deletion and a purge": _delete_and_purge,
}


@pytest.mark.parametrize("at", ["/kek-", "/ring", "/new"])
@pytest.mark.parametrize("name", MEANWHILE)
def test_a_put_survives_what_happens_meanwhile(name: str, at: str) -> None:
    """An object whose writer slept before any of its steps, while others purged or deleted, opens once it is put."""
    with sleeper("/ring" if at == "/kek-" else at, MEANWHILE[name]) as (world, store):
        store.put_if_absent(NEW, b"new")
        for reader in (store, world.process()):
            assert reader.get(NEW).payload == b"new"
            assert reader.get(THREE).payload == THREE.encode()
        assert list(world.process().unfinished("")) == []


@pytest.mark.parametrize("at", ["/kek-", "/ring", "/one"])
@pytest.mark.parametrize("name", MEANWHILE)
def test_a_deletion_survives_what_happens_meanwhile(name: str, at: str) -> None:
    """A deletion that slept before any of its steps, while others purged or deleted, destroys its object's key and no
    other; in particular its own new key-encryption key, taken for a stray and removed, is never named by a ring.
    """
    with sleeper(at, MEANWHILE[name]) as (world, store):
        store.delete(ONE)
        again = world.process()
        assert again.get(THREE).payload == THREE.encode()
        with pytest.raises(ObjectMissing, match="no such object"):
            again.get(ONE)
        assert ONE not in world.loot()
        assert {THREE, OTHER} <= world.loot().keys()
        again.remove_unfinished("")
        assert list(again.unfinished("")) == []
        assert again.get(THREE).payload == THREE.encode()


def test_a_put_of_a_key_deleted_meanwhile_comes_after_it() -> None:
    """A creation that paused while its key was deleted ends as if it had come later: the object can be read."""
    with sleeper("/new", lambda store: store.delete(NEW)) as (world, store):
        store.put_if_absent(NEW, b"new")
        assert world.process().get(NEW).payload == b"new"


def test_a_put_whose_key_another_took_is_in_doubt() -> None:
    """A process pauses; meanwhile its data key is purged and another process adds a key of its own. The paused process
    then reports that the outcome is unknown, and a reader gets an error, never other bytes.
    """

    def meanwhile(store: SealedStore) -> None:
        store.remove_unfinished("")
        Keyrings(store.inner, "keyrings").enter("0001", NEW, fresh_key())

    with sleeper("/new", meanwhile) as (world, store):
        with pytest.raises(OutcomeUnknown, match=r"Read the object, then decide|whether its key still exists"):
            store.put_if_absent(NEW, b"new")
        with pytest.raises(Exception, match=f"not what was written.*{NEW}"):
            world.process().get(NEW)


@dataclass(frozen=True, slots=True)
class SlowReader(MemoryStore):
    """Falls asleep right after reading what is named ``at``, once, while ``meanwhile`` happens."""

    at: str
    meanwhile: Callable[[], object]
    slept: list[ObjectKey] = field(default_factory=list)

    def get(self, key: ObjectKey) -> StoredObject:
        """Return the object as it was before."""
        found = MemoryStore.get(self, key)
        if self.at in key and not self.slept:
            self.slept.append(key)
            self.meanwhile()
        return found


@pytest.mark.parametrize("at", ["/ring", "/kek-", "/two"])
def test_a_reader_follows_a_rotation(at: str) -> None:
    """A process that pauses between ring, key-encryption key and object, while the ring is recreated, reads on."""
    world = World("beside")
    store = world.fill()
    slow = SlowReader(world.objects.name, at, lambda: store.delete(ONE))
    assert SealedStore(slow).get(TWO).payload == TWO.encode()
    assert slow.slept
    world.forget()


def test_a_reader_follows_an_object_made_anew() -> None:
    """A process that read an object's bytes right before it was deleted and created again returns the new content."""
    world = World("beside")
    store = world.fill()

    def make_anew() -> None:
        store.delete(TWO)
        store.put_if_absent(TWO, b"anew")

    slow = SlowReader(world.objects.name, "/two", make_anew)
    assert SealedStore(slow).get(TWO).payload == b"anew"
    gone = SlowReader(world.objects.name, "/two", lambda: store.delete(TWO))
    with pytest.raises(ObjectMissing, match="no such object"):
        SealedStore(gone).get(TWO)
    world.forget()


# ----------------------------------------------------------------------------------------------- two processes


@contextmanager
def _processes() -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    with ProcessPoolExecutor(2, mp_context=context, initializer=start_line, initargs=(barrier,)) as pool:
        yield pool


def test_two_processes_fill_one_ring(tmp_path: Path) -> None:
    """2 processes × 30 puts into one ring at once, from its first key on: all open, nothing is left over."""
    store = SealedStore(LocalStore(str(tmp_path / "store")))
    with _processes() as pool:
        for future in [pool.submit(put_all, store, writer) for writer in range(2)]:
            future.result()
    for writer in range(2):
        for number in range(PUTS):
            assert store.get(object_key(f"shards/0001/{writer}-{number}")).payload == b"%d %d" % (writer, number)
    assert list(store.unfinished("")) == []
    assert list(store.foreign()) == []


def test_two_processes_put_and_delete_in_one_ring(tmp_path: Path) -> None:
    """2 processes that put 30 objects each and delete every other one: what is kept opens, one key-encryption key is
    left, and keys elsewhere make no difference.
    """
    store = SealedStore(LocalStore(str(tmp_path / "store")), LocalStore(str(tmp_path / "keys")))
    with _processes() as pool:
        for future in [pool.submit(put_and_delete_all, store, writer) for writer in range(2)]:
            future.result()
    kept = {f"shards/0001/{writer}-{number}" for writer in range(2) for number in range(0, PUTS, 2)}
    assert {info.key for info in store.list("shards/")} == kept
    for key in kept:
        assert store.get(object_key(key)).payload
    assert list(store.unfinished("")) == []
    assert len(list((tmp_path / "keys").rglob("kek-*"))) == 1
