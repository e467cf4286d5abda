"""The journal: one sequence of entries, each stored durably and once, with several writers and any failure."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Literal

import pytest

from storage.digests import sha256
from storage.errors import (
    Conflict,
    Fenced,
    Invalid,
    InvariantBroken,
    OutcomeUnknown,
    SisaError,
    StoreFull,
    Unavailable,
)
from storage.objects import ObjectKey, ObjectStore, VersionTag, object_key
from storage.registers.journal import START, Journal, JournalEntry, Position
from tests.doubles.stores.faulty_store import Crash, Fault, FaultyStore
from tests.storage.registers.filled import entry_key, written

# -------------------------------------------------------------------------------------------------- append and read


def test_an_empty_journal_has_no_entries(store: ObjectStore) -> None:
    """Before the first entry there is nothing to read, the floor is 0, and looking writes nothing."""
    journal = Journal(store)
    assert journal.read(START) == ()
    assert journal.floor() == 0
    assert journal.prune(0) == 0
    assert list(store.list("")) == []


def test_entries_follow_one_another(store: ObjectStore) -> None:
    """Each entry gets the next number, names the bytes before it, and is read from every place before it."""
    journal, place, entries = Journal(store), START, []
    for number in range(1, 12):
        records = ({"n": number}, "Zürich", None)
        made = journal.append(records, after=place, token=2, nonce=f"n{number}")
        assert made == Position(number=number, digest=sha256(store.get(entry_key(number)).payload))
        entries.append(JournalEntry(number=number, token=2, nonce=f"n{number}", previous=place.digest, records=records))
        assert journal.read(place) == tuple(entries[-1:])
        place = made
        assert journal.read(place) == ()
    assert journal.read(START) == tuple(entries)


def test_keys_have_twenty_digits(store: ObjectStore) -> None:
    """Numbers are zero-padded, so that the order of names is the order of numbers; the floor has a name of its own."""
    written(store, 11)
    Journal(store).prune(1)
    assert sorted(info.key for info in store.list("")) == [
        "control/journal-floor",
        *(f"journal/{number:020d}" for number in range(2, 12)),
    ]


def test_an_append_costs_one_put_and_one_look(store: ObjectStore) -> None:
    """Where nothing gets in the way, nothing is listed and no entry is read."""
    places = written(store, 3)
    faulty = FaultyStore(store)
    Journal(faulty).append(["x"], after=places[3], token=1, nonce="n")
    assert faulty.calls == [("put_if_absent", entry_key(4)), ("get", "control/journal-floor")]


def test_an_append_may_be_repeated(store: ObjectStore) -> None:
    """The same append with the same nonce is one entry, also after others followed."""
    places = written(store, 2)
    for _ in range(2):
        assert Journal(store).append([{"n": 2}], after=places[1], token=1, nonce="nonce-2") == places[2]
    Journal(store).append([{"n": 3}], after=places[2], token=1, nonce="nonce-3")
    assert Journal(store).append([{"n": 2}], after=places[1], token=1, nonce="nonce-2") == places[2]
    assert len(list(store.list("journal/"))) == 3


def test_many_records_are_one_entry(store: ObjectStore) -> None:
    """A batch is durable together and in its order; an empty one is an entry too, as a fence has nothing to say."""
    journal = Journal(store)
    place = journal.append([], after=START, token=1, nonce="fence")
    journal.append(list(range(1000)), after=place, token=1, nonce="batch")
    assert [entry.records for entry in journal.read(START)] == [(), tuple(range(1000))]


def test_records_are_read_as_json(store: ObjectStore) -> None:
    """What is read is what JSON holds: lists for tuples."""
    Journal(store).append([{"list": (1, 2)}], after=START, token=1, nonce="n")
    assert Journal(store).read(START)[0].records == ({"list": [1, 2]},)


@pytest.mark.parametrize("record", [float("nan"), b"bytes", {1: "number as name"}, {"x": {1, 2}}])
def test_a_record_that_is_no_json_is_refused(store: ObjectStore, record: object) -> None:
    """A record that could not be read back is refused and nothing is written."""
    with pytest.raises(Invalid, match=r"JSON cannot hold|read back with other names"):
        Journal(store).append([record], after=START, token=1, nonce="n")  # type: ignore[list-item]
    assert list(store.list("")) == []


@pytest.mark.parametrize(("number", "token", "nonce"), [(-1, 1, "n"), (0, 0, "n"), (0, 1, "")])
def test_an_entry_without_its_parts_is_a_bug(store: ObjectStore, number: int, token: int, nonce: str) -> None:
    """A negative place, an unclaimed token or an empty nonce is a bug of the caller."""
    with pytest.raises(InvariantBroken, match=f"a claimed token and a nonce.*after={number}"):
        Journal(store).append([], after=Position(number=number, digest=START.digest), token=token, nonce=nonce)


def test_foreign_objects_do_not_disturb(store: ObjectStore) -> None:
    """Objects beside the entries are passed over."""
    places = written(store, 2)
    for text in ("journal/note", "journal/9", "journal/00000000000000000009.old", "journal-old/x"):
        store.put_if_absent(object_key(text), b"x")
    assert len(Journal(store).read(START)) == 2
    assert Journal(store).append([], after=places[2], token=1, nonce="n").number == 3


def test_two_journals_share_a_store(store: ObjectStore) -> None:
    """Journals with their own prefix and control do not meet, nor does a journal meet the manifests."""
    written(store, 3)
    second = Journal(store, prefix="other/journal", control="other/control")
    place = second.append(["second"], after=START, token=1, nonce="n")
    assert second.prune(1) == 1
    assert second.read(place) == ()
    assert Journal(store).floor() == 0
    assert len(Journal(store).read(START)) == 3


def test_a_journal_pickles(store: ObjectStore) -> None:
    """A journal, its places and its entries are the same after pickle."""
    places = written(store, 2)
    journal = Journal(store)
    assert pickle.loads(pickle.dumps(journal)).read(START) == journal.read(START)
    assert pickle.loads(pickle.dumps((places, journal.read(START)))) == (places, journal.read(START))


# ----------------------------------------------------------------------------------------------- conflict and fence


def test_another_entry_is_a_conflict(store: ObjectStore) -> None:
    """A number that an entry of an equal or lower token has is a conflict, and stays as it is."""
    places = written(store, 2, token=3)
    for token in (3, 4):
        with pytest.raises(
            Conflict, match=r"another entry has this number \[number=2\]\. Read the entries that follow"
        ):
            Journal(store).append(["other"], after=places[1], token=token, nonce="other")
    assert Journal(store).read(places[1])[0].records == ({"n": 2},)


def test_a_lower_token_is_fenced(store: ObjectStore) -> None:
    """A writer that meets an entry with a higher token stops for good."""
    places = written(store, 1, token=1)
    Journal(store).append([], after=places[1], token=2, nonce="fence")
    with pytest.raises(
        Fenced, match=r"higher fencing token has appended \[number=2 token=1 higher=2\]\. Stop this process"
    ):
        Journal(store).append(["late"], after=places[1], token=1, nonce="late")
    assert len(list(store.list("journal/"))) == 2


@pytest.mark.parametrize("changed", ["records", "place", "token"])
def test_one_nonce_for_two_entries_is_a_bug(store: ObjectStore, changed: str) -> None:
    """A nonce that comes back with anything else changed is a bug of the writer, not a success."""
    written(store, 1)
    after = Position(number=0, digest=sha256(b"other")) if changed == "place" else START
    records = [{"n": 1}] if changed != "records" else ["other"]
    with pytest.raises(InvariantBroken, match=r"one nonce was used for two different entries.*number=1"):
        Journal(store).append(records, after=after, token=2 if changed == "token" else 1, nonce="nonce-1")


class _Overtaken(FaultyStore):
    """A store where another writer appends just before this writer's put."""

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Let the other writer in first."""
        Journal(self.inner).append(["rival"], after=START, token=2, nonce="rival")
        return self.inner.put_if_absent(key, payload)


@pytest.mark.parametrize(("token", "error"), [(1, Fenced), (2, Conflict), (3, Conflict)])
def test_being_overtaken_is_reported_by_the_token(store: ObjectStore, token: int, error: type[SisaError]) -> None:
    """Overtaken, a writer is fenced by a higher token and in conflict with any other."""
    with pytest.raises(error, match=r"higher fencing token|another entry has this number"):
        Journal(_Overtaken(store)).append(["mine"], after=START, token=token, nonce="mine")
    assert [entry.records for entry in Journal(store).read(START)] == [("rival",)]


def test_one_of_eight_writers_wins_each_number(store: ObjectStore) -> None:
    """8 writers that append 20 entries each at once, reading on after conflicts, lose nothing, double nothing and
    leave no gap.
    """
    start = threading.Barrier(8)

    def write(writer: int) -> list[tuple[int, str]]:
        journal, place = Journal(store), START
        won: list[tuple[int, str]] = []
        start.wait()
        while len(won) < 20:
            nonce = f"{writer}-{len(won)}-{place.number}"
            try:
                place = journal.append([writer], after=place, token=1, nonce=nonce)
            except Conflict:
                place = _end(store, place)
                continue
            won.append((place.number, nonce))
        return won

    with ThreadPoolExecutor(8) as pool:
        won = [each for wins in pool.map(write, range(8)) for each in wins]
    assert sorted(won) == [(entry.number, entry.nonce) for entry in Journal(store).read(START)]
    assert [number for number, _ in sorted(won)] == list(range(1, 161))


def _end(store: ObjectStore, place: Position) -> Position:
    entries = Journal(store).read(place)
    if not entries:
        return place
    return Position(number=entries[-1].number, digest=sha256(entries[-1].to_bytes()))


# ------------------------------------------------------------------------------------------------------ doubt, crash


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("times", [1, 5])
def test_a_put_in_doubt_is_resolved(store: ObjectStore, when: Literal["before", "after"], times: int) -> None:
    """Whether the put landed or not, the append finds out by its nonce and is there once."""
    faulty = FaultyStore(store)
    places = written(faulty, 1)
    faulty.plan(*(Fault(when=when, operation="put_if_absent", nth=nth) for nth in range(1, times + 1)))
    made = Journal(faulty).append(["mine"], after=places[1], token=1, nonce="mine")
    assert made.number == 2
    assert [entry.nonce for entry in Journal(store).read(START)] == ["nonce-1", "mine"]


def test_a_false_refusal_is_recognised_as_success(store: ObjectStore) -> None:
    """A client that retries by itself reports its own success as 'exists'; the nonce proves it its own."""

    class Retrying(FaultyStore):
        def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
            self.inner.put_if_absent(key, payload)
            return self.inner.put_if_absent(key, payload)

    assert Journal(Retrying(store)).append(["mine"], after=START, token=1, nonce="mine").number == 1


def test_a_doubtful_put_that_lost_is_a_conflict(store: ObjectStore) -> None:
    """Where the put is in doubt and another's entry has the number, the entry is surely not there."""
    places = written(store, 2)
    faulty = FaultyStore(store, (Fault(when="before", operation="put_if_absent"),))
    with pytest.raises(Conflict, match="another entry has this number"):
        Journal(faulty).append(["mine"], after=places[1], token=1, nonce="mine")


def test_endless_doubt_is_unknown(store: ObjectStore) -> None:
    """A store that never says whether the put landed leaves the outcome unknown, not failed."""
    faults = (Fault(when="before", operation="put_if_absent", nth=nth) for nth in range(1, 200))
    with pytest.raises(OutcomeUnknown, match=r"does not say whether the journal's entry landed \[number=1\]"):
        Journal(FaultyStore(store, tuple(faults))).append([], after=START, token=1, nonce="n")


@pytest.mark.parametrize("error", [Unavailable, StoreFull])
def test_an_absent_store_is_reported(store: ObjectStore, error: type[SisaError]) -> None:
    """A store that is away or full from the start is reported as such: nothing was written, and it can be repeated."""
    faulty = FaultyStore(store, (Fault(when="before", operation="put_if_absent", error=error),))
    with pytest.raises(error, match=r"planned fault \[when=before\]"):
        Journal(faulty).append([], after=START, token=1, nonce="n")
    assert list(store.list("")) == []
    assert Journal(faulty).append([], after=START, token=1, nonce="n").number == 1


@pytest.mark.parametrize(
    ("put", "then"),
    [
        pytest.param((), Fault(when="before", operation="get", prefix="control/", error=Unavailable), id="the floor"),
        pytest.param((), Fault(when="before", operation="get", prefix="control/", error=Invalid), id="credentials"),
        pytest.param(
            (Fault(when="after", operation="put_if_absent"),),
            Fault(when="before", operation="get", prefix="journal/", error=Unavailable),
            id="the read after a doubtful put",
        ),
        pytest.param(
            (Fault(when="before", operation="put_if_absent"),),
            Fault(when="before", operation="put_if_absent", nth=2, error=StoreFull),
            id="the second put after a doubtful first",
        ),
    ],
)
def test_a_store_that_goes_away_after_a_put_leaves_doubt(
    store: ObjectStore, put: tuple[Fault, ...], then: Fault
) -> None:
    """From the first put on, a store that is away, or does not accept the credentials any more, cannot make a writer
    believe that nothing was written.
    """
    faulty = FaultyStore(store, (*put, then))
    with pytest.raises(OutcomeUnknown, match=r"does not say whether.*number=1.*Repeat") as caught:
        Journal(faulty).append(["mine"], after=START, token=1, nonce="mine")
    assert isinstance(caught.value.__cause__, then.error)
    assert Journal(faulty).append(["mine"], after=START, token=1, nonce="mine").number == 1
    assert len(Journal(store).read(START)) == 1


FAULTS = [
    (when, error, nth)
    for when, error in [
        ("before", OutcomeUnknown),
        ("after", OutcomeUnknown),
        ("before", Unavailable),
        ("before", Crash),
        ("after", Crash),
    ]
    for nth in range(1, 15)
]


@pytest.mark.parametrize(("when", "error", "nth"), FAULTS)
def test_every_append_takes_effect_once(
    store: ObjectStore, when: Literal["before", "after"], error: type[BaseException], nth: int
) -> None:
    """A fault at any write of a life of appends and prunes, and everything repeated as it was: each entry is there
    once, in order.
    """
    faulty = FaultyStore(store, (Fault(when=when, operation="write", nth=nth, error=error),))
    seen: list[tuple[int, str]] = []
    place = START
    for number in range(1, 7):
        while place.number < number:
            try:
                place = Journal(faulty).append([number], after=place, token=1, nonce=f"n{number}")
            except (Crash, OutcomeUnknown, Unavailable):
                continue
        if number % 2 == 0:
            seen += [(entry.number, entry.nonce) for entry in Journal(store).read(_seen(store, seen))]
            _prune(Journal(faulty), number - 1)
    assert faulty.faults == ()
    assert seen == [(number, f"n{number}") for number in range(1, 7)]
    assert [info.key for info in store.list("journal/")] == [entry_key(6)]


def _seen(store: ObjectStore, seen: list[tuple[int, str]]) -> Position:
    if not seen:
        return START
    return Position(number=seen[-1][0], digest=sha256(store.get(entry_key(seen[-1][0])).payload))


def _prune(journal: Journal, through: int) -> None:
    while journal.floor() <= through or len(list(journal.store.list("journal/"))) > 1:
        try:
            journal.prune(through)
        except (Crash, OutcomeUnknown, Unavailable):
            continue


def test_a_crash_at_any_operation_loses_nothing(store: ObjectStore) -> None:
    """A writer dies before or after any operation: every entry that was acknowledged to it stays, and the next writer
    continues from the end with a higher token.
    """
    place, acknowledged = START, 0
    for token, (when, nth) in enumerate(((when, nth) for when in ("before", "after") for nth in range(1, 9)), start=1):
        faulty = FaultyStore(store, (Fault(when=when, nth=nth, error=Crash),))  # type: ignore[arg-type]
        try:
            for step in range(4):
                place = Journal(faulty).append([step], after=place, token=token, nonce=f"{token}-{step}")
                acknowledged += 1
        except Crash:
            after = _end(store, place)
            assert after.number - place.number in {0, 1}
            acknowledged += after.number - place.number
            place = after
    entries = Journal(store).read(START)
    assert len(entries) == acknowledged > 16
    assert all(earlier.token <= later.token for earlier, later in pairwise(entries))
