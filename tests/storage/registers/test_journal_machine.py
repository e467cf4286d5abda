"""The journal against a model of it: any writers, any order of appends, repeats, reads and prunes."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from storage.digests import Json, sha256
from storage.errors import Conflict, Fenced, Invalid, JournalTruncated, SisaError
from storage.registers.journal import START, Journal, JournalEntry, Position
from storage.stores.memory import MemoryStore
from tests.storage.registers.filled import entry_key
from tests.volume import examples

pytestmark = pytest.mark.volume

WRITERS = st.integers(0, 2)


@dataclass(slots=True, kw_only=True)
class Attempt:
    """What a writer appended, or tried to."""

    after: Position
    nonce: str
    records: list[Json]


@dataclass(slots=True, kw_only=True)
class Writer:
    """A writer with its own view of where the journal ends."""

    token: int
    place: Position = START
    last: Attempt | None = None
    drawn: int = 0
    history: list[Position] = field(default_factory=lambda: [START])


class Journals(RuleBasedStateMachine):
    """Three writers, of which one may be stale at any time, and the laws that must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore(secrets.token_hex(8))
        self.journal = Journal(self.store)
        self.writers = [Writer(token=token) for token in (1, 2, 2)]
        self.entries: list[JournalEntry] = []
        self.left: dict[int, JournalEntry] = {}
        """Below the floor: what stale writers have put there since."""
        self.floor = 0

    def teardown(self) -> None:
        """Free the memory."""
        self.store.forget()

    @rule(number=WRITERS, records=st.lists(st.none() | st.integers() | st.text(), max_size=3))
    def append(self, number: int, records: list[Json]) -> None:
        """Append at the writer's place, stale or not."""
        writer = self.writers[number]
        writer.drawn += 1
        attempt = Attempt(after=writer.place, nonce=f"{number}-{writer.drawn}", records=records)
        writer.last = attempt
        self.attempt(writer, attempt)

    @rule(number=WRITERS)
    def repeat(self, number: int) -> None:
        """Append once more what was appended last, as after a doubt."""
        writer = self.writers[number]
        if writer.last is not None:
            self.attempt(writer, writer.last)

    @rule(number=WRITERS)
    def read(self, number: int) -> None:
        """Read on from the writer's place, and from a place that it was at before."""
        writer = self.writers[number]
        for place in (writer.history[len(writer.history) // 2], writer.place):
            if self.floor > place.number + 1:
                with pytest.raises(JournalTruncated, match=rf"after={place.number} floor={self.floor}"):
                    self.journal.read(place)
            else:
                assert self.journal.read(place) == tuple(self.entries[place.number :])
        self.go_to(writer, self.end)

    @rule(share=st.floats(0, 1))
    def prune(self, share: float) -> None:
        """Prune a share of all entries there ever were."""
        through = round(share * len(self.entries))
        floor = max(self.floor, through + 1 if through else 0)
        gone = set(range(max(self.floor, 1), floor)) | {each for each in self.left if each < floor}
        assert self.journal.prune(through) == len(gone)
        self.floor, self.left = floor, {}

    @rule(beyond=st.integers(1, 3))
    def prune_too_much(self, beyond: int) -> None:
        """Prune what was never written: refused."""
        with pytest.raises(Invalid, match="only entries that exist"):
            self.journal.prune(len(self.entries) + beyond)

    @invariant()
    def nothing_else_is_there(self) -> None:
        """The store holds the entries from the floor on, what stale writers left below it, and nothing more."""
        held = {entry_key(number) for number in range(max(self.floor, 1), len(self.entries) + 1)}
        assert {info.key for info in self.store.list("journal/")} == held | {entry_key(each) for each in self.left}
        assert self.journal.floor() == self.floor

    def attempt(self, writer: Writer, attempt: Attempt) -> None:
        """Append, and check that it ends as it has to."""
        entry = JournalEntry(
            number=attempt.after.number + 1,
            token=writer.token,
            nonce=attempt.nonce,
            previous=attempt.after.digest,
            records=tuple(attempt.records),
        )
        expected = self.expected(entry)
        if expected is None:
            made = self.journal.append(attempt.records, after=attempt.after, token=writer.token, nonce=attempt.nonce)
            assert made == place_after(entry)
            self.go_to(writer, made)
        else:
            with pytest.raises(expected, match=rf"number={entry.number}"):
                self.journal.append(attempt.records, after=attempt.after, token=writer.token, nonce=attempt.nonce)

    def expected(self, mine: JournalEntry) -> type[SisaError] | None:
        """What an append ends in (None: success), the model being changed as the append changes the store."""
        pruned = mine.number < self.floor
        if pruned:
            there = self.left.setdefault(mine.number, mine)
        else:
            if mine.number == len(self.entries) + 1:
                self.entries.append(mine)
            there = self.entries[mine.number - 1]
        if there != mine:
            return Fenced if there.token > mine.token else Conflict
        return Fenced if pruned else None

    def go_to(self, writer: Writer, place: Position) -> None:
        """Remember the place."""
        writer.place = place
        writer.history.append(place)

    @property
    def end(self) -> Position:
        """The place behind the last entry."""
        return place_after(self.entries[-1]) if self.entries else START


def place_after(entry: JournalEntry) -> Position:
    """The place behind an entry."""
    return Position(number=entry.number, digest=sha256(entry.to_bytes()))


TestJournals = Journals.TestCase
TestJournals.settings = settings(max_examples=examples(150, few=60), stateful_step_count=30, deadline=None)
