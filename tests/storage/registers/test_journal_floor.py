"""Truncation: the floor under pruned entries, readers beside a pruner, and writers that were paused meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import pytest

from storage.errors import Conflict, Corrupt, Fenced, Invalid, JournalTruncated, Unavailable
from storage.objects import ObjectInfo, ObjectKey, ObjectStore, StoredObject, VersionTag
from storage.registers.journal import START, Journal, Position
from tests.doubles.stores.faulty_store import Crash, Fault, FaultyStore
from tests.storage.registers.filled import entry_key, overwrite, written


@dataclass(slots=True)
class Disturbed(FaultyStore):
    """A store in which something happens once, just before the ``nth`` operation of any kind."""

    nth: int = 0
    disturb: Callable[[], object] = field(default=lambda: None)

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Create the object."""
        self._tick()
        return self.inner.put_if_absent(key, payload)

    def get(self, key: ObjectKey) -> StoredObject:
        """Return the object."""
        self._tick()
        return self.inner.get(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Return the objects."""
        self._tick()
        return iter(tuple(self.inner.list(prefix)))

    def _tick(self) -> None:
        self.nth -= 1
        if self.nth == 0:
            self.disturb()


def outcome(store: ObjectStore, after: Position) -> tuple[list[str], int | None]:
    """The nonces of the entries that a reader gets, or the floor that the error names."""
    try:
        return [entry.nonce for entry in Journal(store).read(after)], None
    except JournalTruncated as error:
        return [], int(error.context["floor"])


# -------------------------------------------------------------------------------------------------------------- prune


def test_pruning_keeps_what_follows(store: ObjectStore) -> None:
    """Entries through the number go, the others stay, and the floor is the next number."""
    places = written(store, 10)
    assert Journal(store).prune(6) == 6
    assert [info.key for info in store.list("journal/")] == [entry_key(number) for number in range(7, 11)]
    assert Journal(store).floor() == 7
    assert [entry.number for entry in Journal(store).read(places[6])] == [7, 8, 9, 10]
    assert [entry.number for entry in Journal(store).read(places[8])] == [9, 10]


def test_the_floor_never_falls(store: ObjectStore) -> None:
    """Pruning through a lower number than before changes nothing."""
    written(store, 10)
    assert [Journal(store).prune(through) for through in (6, 2, 0, -3, 6, 7)] == [6, 0, 0, 0, 0, 1]
    assert Journal(store).floor() == 8


def test_a_journal_may_be_pruned_to_its_end(store: ObjectStore) -> None:
    """A journal whose entries are all pruned continues with the next number, not with the first."""
    places = written(store, 3)
    assert Journal(store).prune(3) == 3
    assert list(store.list("journal/")) == []
    assert Journal(store).read(places[3]) == ()
    made = Journal(store).append(["next"], after=places[3], token=1, nonce="next")
    assert made.number == 4
    assert [entry.number for entry in Journal(store).read(places[3])] == [4]


@pytest.mark.parametrize(("count", "pruned", "through"), [(0, 0, 1), (3, 0, 4), (3, 3, 4), (3, 2, 9)])
def test_what_was_never_written_is_not_pruned(store: ObjectStore, count: int, pruned: int, through: int) -> None:
    """A floor above the journal's end would fence every writer to come, so it is refused."""
    written(store, count)
    Journal(store).prune(pruned)
    with pytest.raises(Invalid, match=rf"only entries that exist can be pruned \[through={through} end={count}\]"):
        Journal(store).prune(through)
    assert Journal(store).floor() == (pruned + 1 if pruned else 0)


def test_the_floor_rises_before_anything_is_deleted(store: ObjectStore) -> None:
    """A pruner that dies at its first delete has raised the floor; the next prune finishes its work."""
    faulty = FaultyStore(store)
    written(faulty, 5)
    faulty.plan(Fault(when="before", operation="delete", error=Crash))
    with pytest.raises(Crash, match=r"^$"):
        Journal(faulty).prune(3)
    assert Journal(store).floor() == 4
    assert len(list(store.list("journal/"))) == 5
    assert Journal(faulty).prune(0) == 3


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("first", [True, False])
def test_a_floor_in_doubt_is_read_again(store: ObjectStore, when: Literal["before", "after"], first: bool) -> None:
    """Whether the floor's put landed or not, the floor is where it has to be before anything is deleted."""
    faulty = FaultyStore(store)
    written(faulty, 5)
    if not first:
        Journal(faulty).prune(1)
    faulty.plan(Fault(when=when, operation="put_if_absent" if first else "put_if_match", prefix="control/"))
    assert Journal(faulty).prune(3) == (3 if first else 2)
    assert Journal(store).floor() == 4


def test_a_floor_that_cannot_be_raised_is_reported(store: ObjectStore) -> None:
    """When the outcome of every put of the floor is unknown, nothing is deleted and the caller gets an error."""
    faulty = FaultyStore(store)
    written(faulty, 3)
    faulty.plan(*(Fault(when="before", operation="put_if_absent", nth=nth) for nth in range(1, 200)))
    with pytest.raises(Unavailable, match=r"floor under the journal could not be raised.*floor=3"):
        Journal(faulty).prune(2)
    assert len(list(store.list("journal/"))) == 3


# ------------------------------------------------------------------------------------------------------------ readers


def test_pruned_entries_are_reported_apart_from_lost_ones(store: ObjectStore) -> None:
    """A reader that asks for pruned entries is referred to the manifest; one that knows a later position reads on."""
    places = written(store, 5)
    Journal(store).prune(3)
    for place in places[:3]:
        with pytest.raises(
            JournalTruncated,
            match=rf"entries of the journal were pruned \[after={place.number} floor=4\]\. Read the latest manifest",
        ):
            Journal(store).read(place)
    assert [entry.number for entry in Journal(store).read(places[3])] == [4, 5]
    store.delete(entry_key(4))
    with pytest.raises(Corrupt, match=r"is missing \[number=4 highest=5\]"):
        Journal(store).read(places[3])


def test_a_truncation_is_a_conflict() -> None:
    """A caller that handles conflicts by reading again also handles a truncation."""
    assert issubclass(JournalTruncated, Conflict)


def test_a_half_done_prune_is_a_truncation(store: ObjectStore) -> None:
    """Entries below the floor count for nothing, whether or not the pruner got round to deleting them."""
    for deleted in range(4):
        faulty = FaultyStore(store)
        places = written(faulty, 5)
        faulty.plan(Fault(when="before", operation="delete", prefix="journal/", nth=deleted + 1, error=Crash))
        with pytest.raises(Crash, match=r"^$"):
            Journal(faulty).prune(4)
        with pytest.raises(JournalTruncated, match="floor=5"):
            Journal(store).read(START)
        assert [entry.number for entry in Journal(store).read(places[4])] == [5]
        for info in tuple(store.list("")):
            store.delete(info.key)


@pytest.mark.parametrize("nth", range(1, 12))
@pytest.mark.parametrize(("place", "through"), [(0, 1), (0, 6), (2, 3), (2, 6), (3, 3), (3, 6)])
def test_a_reader_beside_a_pruner_is_never_misled(store: ObjectStore, nth: int, place: int, through: int) -> None:
    """Entries are pruned at any step of a read: the reader gets all entries or an error about the truncation, never a
    part of them, never a report of damage.
    """
    places = written(store, 6)
    read, floor = outcome(Disturbed(store, nth=nth, disturb=lambda: Journal(store).prune(through)), places[place])
    if floor is None:
        assert read == [f"nonce-{number}" for number in range(place + 1, 7)]
    else:
        assert floor == through + 1 > place + 1


@pytest.mark.parametrize("nth", range(1, 8))
def test_a_reader_beside_a_writer_is_never_misled(store: ObjectStore, nth: int) -> None:
    """Wherever in a reading entries are appended, the reader gets those that were there before, and no alarm."""
    places = written(store, 3)

    def append() -> None:
        place = places[3]
        for number in (4, 5):
            place = Journal(store).append([{"n": number}], after=place, token=1, nonce=f"nonce-{number}")

    read = [entry.number for entry in Journal(Disturbed(store, nth=nth, disturb=append)).read(places[1])]
    assert read in ([2, 3], [2, 3, 4, 5])


@pytest.mark.parametrize("hidden", [1, 2, 3, 4])
def test_a_listing_that_misses_an_entry_is_no_gap(store: ObjectStore, hidden: int) -> None:
    """A listing that passed an entry's place before it was created, and then showed the next: each is asked for."""

    class Hiding(FaultyStore):
        def list(self, prefix: str) -> Iterator[ObjectInfo]:
            return (info for info in self.inner.list(prefix) if info.key != entry_key(hidden))

    written(store, 4)
    read = [entry.number for entry in Journal(Hiding(store)).read(START)]
    assert read == ([1, 2, 3] if hidden == 4 else [1, 2, 3, 4])


# ------------------------------------------------------------------------------------------------------------- zombies


@dataclass(frozen=True, slots=True, kw_only=True)
class Nap:
    """What a writer sleeps through: a new writer goes on from ``start`` with ``entries`` and prunes ``through``."""

    store: ObjectStore
    start: Position
    entries: int
    through: int

    def __call__(self) -> None:
        """Do what the new writer does."""
        journal, place = Journal(self.store), self.start
        for step in range(self.entries):
            place = journal.append(["rival"], after=place, token=2, nonce=f"rival-{step}")
        journal.prune(self.through)


NAPS = [(count, entries, pruned) for count in (0, 1, 3) for entries in (1, 2, 4) for pruned in range(entries + 1)]


@pytest.mark.parametrize(("count", "entries", "pruned"), NAPS)
def test_a_writer_that_slept_is_fenced(store: ObjectStore, count: int, entries: int, pruned: int) -> None:
    """A writer pauses before its put while any number of entries are appended and pruned: it is fenced, and nobody
    reads what it wrote.
    """
    start = written(store, count)[-1]
    nap = Nap(store=store, start=start, entries=entries, through=count + pruned)
    match = r"paused while others appended.*start it again" if pruned else r"higher fencing token has appended"
    with pytest.raises(Fenced, match=match):
        Journal(Disturbed(store, nth=1, disturb=nap)).append(["late"], after=start, token=1, nonce="late")
    assert Journal(store).floor() == (count + pruned + 1 if count + pruned else 0)
    if pruned:
        with pytest.raises(JournalTruncated, match="were pruned"):
            Journal(store).read(start)
        assert Journal(store).prune(0) == 1
    assert sorted(info.key for info in store.list("journal/")) == [
        entry_key(number) for number in range(count + pruned + 1, count + entries + 1)
    ]


def test_there_are_enough_zombies() -> None:
    """At least twenty of them were paused during a truncation or a takeover."""
    assert len(NAPS) >= 20


def test_a_writer_that_slept_after_its_put_is_fenced_and_heard(store: ObjectStore) -> None:
    """The new writer reads an entry that landed in time; the old writer, which cannot know this, is fenced."""
    start = written(store, 2)[-1]
    heard: list[str] = []

    def take_over() -> None:
        entries = Journal(store).read(start)
        heard.extend(entry.nonce for entry in entries)
        Journal(store).prune(entries[-1].number)

    with pytest.raises(Fenced, match=r"number=3 floor=4"):
        Journal(Disturbed(store, nth=2, disturb=take_over)).append(["mine"], after=start, token=1, nonce="mine")
    assert heard == ["mine"]


def test_a_writer_that_repeats_after_a_truncation_is_fenced(store: ObjectStore) -> None:
    """An append that is repeated after its entry was pruned fails: it must not report that the entry landed now."""
    places = written(store, 3)
    Journal(store).prune(2)
    for _ in range(2):
        with pytest.raises(Fenced, match=r"number=2 floor=3"):
            Journal(store).append([{"n": 2}], after=places[1], token=1, nonce="nonce-2")
    assert [entry.number for entry in Journal(store).read(places[2])] == [3]


@pytest.mark.parametrize("nth", range(1, 9))
def test_a_reader_never_reads_a_sleepers_entry(store: ObjectStore, nth: int) -> None:
    """At any step of a read everything is pruned, and a paused writer puts its entry into the gap: the reader gets the
    entries that were there, or an error about the truncation.
    """
    places = written(store, 3)

    def prune_and_wake() -> None:
        Journal(store).prune(3)
        with pytest.raises(Fenced, match="paused while others appended"):
            Journal(store).append(["late"], after=places[1], token=1, nonce="late")

    read, floor = outcome(Disturbed(store, nth=nth, disturb=prune_and_wake), places[1])
    assert (read, floor) in ((["nonce-2", "nonce-3"], None), ([], 4))


def test_a_sleepers_entry_cannot_pass_for_the_one_read_up_to(store: ObjectStore) -> None:
    """An entry put below the floor, where a reader's place is, is not compared with that place: it means nothing."""
    places = written(store, 3)
    Journal(store).prune(3)
    with pytest.raises(Fenced, match="paused while others appended"):
        Journal(store).append(["late"], after=places[2], token=1, nonce="late")
    assert Journal(store).read(places[3]) == ()
    overwrite(store, entry_key(3), b"damaged")
    assert Journal(store).read(places[3]) == ()
