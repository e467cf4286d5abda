"""A copy of one moment, of a store that is written to and swept while it is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from storage.backups.cut import Part, cut
from storage.backups.repository import Repository
from storage.each import in_turn
from storage.errors import Corrupt, Invalid, Unavailable
from storage.objects import ObjectKey, ObjectStore, StoredObject, object_key
from storage.stores.local import LocalStore
from tests.doubles.stores.faulty_store import Crash, Fault, FaultyStore

MANIFEST, RING, ROWS = object_key("manifest/1"), object_key("keyrings/a/ring"), object_key("shards/a/rows-1")


class Busy(FaultyStore):
    """A store in which something happens after some of the reads."""

    def __init__(self, inner: ObjectStore, happens: Callable[[ObjectStore, int], None]) -> None:
        FaultyStore.__init__(self, inner)
        self.happens = happens
        self.reads = 0

    def get(self, key: ObjectKey) -> StoredObject:
        """Read, then let something happen."""
        found = FaultyStore.get(self, key)
        self.reads += 1
        self.happens(self.inner, self.reads)
        return found


def replace(store: ObjectStore, key: ObjectKey, payload: bytes) -> None:
    """Put it instead of what is there."""
    store.put_if_match(key, payload, store.get(key).tag)


def taken(store: ObjectStore, place: ObjectStore, position: Callable[[], object] = int) -> dict[ObjectKey, bytes]:
    """Return what a cut has, read back."""
    part = Part(store=store, takes=lambda _: True, repository=Repository(place))
    (found,) = cut([part], position, in_turn, lambda _done, _of: None)
    return {key: part.repository.get(blob) for key, blob in found.items()}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A store with an object of each kind."""
    made = LocalStore(str(tmp_path / "store"))
    for key, payload in ((MANIFEST, b"rows-1"), (RING, b"keys of rows-1"), (ROWS, b"rows")):
        made.put_if_absent(key, payload)
    return made


@pytest.fixture
def place(tmp_path: Path) -> LocalStore:
    """Where backups go."""
    return LocalStore(str(tmp_path / "place"))


def everything(store: ObjectStore) -> dict[ObjectKey, bytes]:
    """Return all objects."""
    return {info.key: store.get(info.key).payload for info in store.list("")}


@pytest.mark.parametrize("when", range(1, 9))
def test_what_is_swept_and_made_meanwhile_is_there_as_of_one_moment(
    store: LocalStore, place: LocalStore, when: int
) -> None:
    """At each of the reads the writer replaces rows, ring and manifest: the copy has them all before, or all after."""
    before = everything(store)

    def happens(inner: ObjectStore, reads: int) -> None:
        if reads == when:
            inner.put_if_absent(object_key("shards/a/rows-2"), b"fewer rows")
            replace(inner, RING, b"keys of rows-2")
            inner.put_if_absent(object_key("manifest/2"), b"rows-2")
            inner.delete(MANIFEST)
            inner.delete(ROWS)

    busy = Busy(store, happens)
    found = taken(busy, place, lambda: max(info.key for info in store.list("manifest/")))
    assert found in (before, everything(store))
    assert found == everything(store) or busy.reads < when


def test_what_moves_into_another_object_is_in_one_of_the_two(store: LocalStore, place: LocalStore) -> None:
    """An entry that is packed between the listing and its turn, with nothing else recorded, is in the copy's pack."""

    def happens(inner: ObjectStore, reads: int) -> None:
        if reads == 2:  # the last of the first pass
            inner.put_if_absent(object_key("log/entries/1"), b"first")
            inner.put_if_absent(object_key("log/entries/2"), b"second")
        if reads == 3:  # of the first entry
            inner.put_if_absent(object_key("log/packs/1"), b"second")
            inner.delete(object_key("log/entries/2"))

    assert taken(Busy(store, happens), place) == everything(store)


def test_a_store_that_never_rests_is_reported(store: LocalStore, place: LocalStore) -> None:
    """There is an end to the attempts, and a way out."""
    busy = Busy(store, lambda inner, reads: replace(inner, RING, str(reads).encode()))
    with pytest.raises(Unavailable, match="changes too fast for a consistent copy"):
        taken(busy, place)


@pytest.mark.parametrize("write", range(1, 8))
def test_killed_at_any_write_the_backup_before_is_whole(store: LocalStore, place: LocalStore, write: int) -> None:
    """The new backup is there once all of it is; repeated, nothing is written twice and nothing is left over."""
    repository = Repository(place)
    part = Part(store=store, takes=lambda _: True, repository=repository)

    def backed_up(onto: ObjectStore) -> None:
        own = Part(store=store, takes=lambda _: True, repository=Repository(onto))
        if (last := own.repository.newest()) is not None:
            own.remember(last.objects)
        (objects,) = cut([own], int, in_turn, lambda _done, _of: None)
        made = own.repository.add({"at": "now"}, objects)
        own.repository.forget([made.number])

    backed_up(place)
    first = repository.index(1)
    replace(store, RING, b"keys of rows-2")
    store.put_if_absent(object_key("shards/a/rows-2"), b"fewer rows")
    store.delete(ROWS)
    faulty = FaultyStore(place, (Fault(when="after", operation="write", nth=write, error=Crash),))
    try:
        backed_up(faulty)
    except Crash:
        newest = repository.newest()
        assert newest is not None
        assert newest.number == 2 or newest == first
        for blob in newest.objects.values():
            repository.get(blob)
    backed_up(place)
    last = repository.newest()
    assert last is not None
    assert {key: part.repository.get(blob) for key, blob in last.objects.items()} == everything(store)
    assert repository.numbers() == (last.number,)
    assert set(repository.kept()) == {blob.sha256 for blob in last.objects.values()}


def test_damage_is_found_by_the_bytes_alone(store: LocalStore, place: LocalStore) -> None:
    """A blob that another tool cut short, and an index that was edited, are not used."""
    repository = Repository(place)
    (objects,) = cut([Part(store=store, takes=lambda _: True, repository=repository)], int, in_turn, lambda *_: None)
    index = repository.add({}, objects)
    blob = index.objects[ROWS]
    path = Path(place.root) / "blobs" / blob.sha256
    path.write_bytes(b"row")
    with pytest.raises(Corrupt, match="a part of the backup is damaged or gone"):
        repository.get(blob)
    path.unlink()
    with pytest.raises(Corrupt, match="a part of the backup is damaged or gone"):
        repository.get(blob)
    file = next((Path(place.root) / "backups").iterdir())
    file.write_bytes(file.read_bytes().replace(b'"number":1', b'"number":2'))
    with pytest.raises(Corrupt, match="not what was written"):
        repository.newest()
    with pytest.raises(Invalid, match="there is no backup 7 here"):
        repository.index(7)
