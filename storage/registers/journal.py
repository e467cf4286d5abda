"""The journal: numbered entries, each a batch of records that became durable together.

    journal/<n>             create-if-absent; names the digest of entry n-1
    control/journal-floor   compare-and-swap; raised before any entry is deleted, read after every create

Each entry names the digest of the entry before it. So a reader that knows one position can verify all entries before
it: none can be altered, exchanged, moved or left out unnoticed. Entries missing at the end are noticed only by a reader
that knows a later position. ``storage.registers.numbered`` explains the floor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from storage.digests import Json, Sha256, sha256
from storage.errors import (
    Conflict,
    Corrupt,
    Fenced,
    Invalid,
    InvariantBroken,
    JournalTruncated,
    ObjectExists,
    OutcomeUnknown,
    Unavailable,
)
from storage.objects import ObjectKey, ObjectStore, object_key
from storage.records import decode_record, encode_record
from storage.registers.numbered import ATTEMPTS, Floor, Numbers, misshapen, scalar

_NAMES = frozenset({"number", "token", "nonce", "previous", "records"})
_REMEDY = "Keep the store as it is and restore the journal from a copy. Nothing of it was used."


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One entry. ``records`` are JSON as they read back; do not change them in place."""

    number: int
    """1 for the first, then without gaps."""
    token: int
    """The fencing token of the writer."""
    nonce: str
    """Drawn by the writer for this entry alone, so that it recognises its own success."""
    previous: Sha256
    """Digest of the previous entry's stored bytes; for the first entry, of no bytes."""
    records: tuple[Json, ...]
    """Records in the order in which they take effect."""

    @property
    def position(self) -> Position:
        """The position after this entry."""
        return Position(number=self.number, digest=sha256(self.to_bytes()))

    def to_bytes(self) -> bytes:
        """Return the stored form. Raises ``Invalid`` when a record is not JSON."""
        return encode_record(
            {
                "number": self.number,
                "token": self.token,
                "nonce": self.nonce,
                "previous": self.previous,
                "records": self.records,
            }
        )


def entry_from_bytes(payload: bytes, key: ObjectKey) -> JournalEntry:
    """Return the entry stored as ``payload``; ``to_bytes`` of it gives ``payload`` again.

    Raises ``Corrupt`` when any byte is not what was written, ``Invalid`` when a newer version wrote it.
    """
    fields = decode_record(payload, key, _NAMES)
    records = fields["records"]
    if not isinstance(records, list):
        raise misshapen(key, "records")
    return JournalEntry(
        number=scalar(fields, "number", int, key),
        token=scalar(fields, "token", int, key),
        nonce=scalar(fields, "nonce", str, key),
        previous=Sha256(scalar(fields, "previous", str, key)),
        records=tuple(records),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The position after an entry."""

    number: int
    """Number of that entry; 0 for the position before the first."""
    digest: Sha256
    """Digest of that entry's stored bytes; before the first entry, the digest of zero bytes."""


START = Position(number=0, digest=sha256(b""))
"""The position before the first entry."""


@dataclass(frozen=True, slots=True)
class Journal:
    """The journal of one store. Holds no state: a caller keeps the position that it appends after.

    A second journal in one store needs its own ``prefix`` and its own ``control``.
    """

    store: ObjectStore
    prefix: str = "journal"
    control: str = "control"

    def append(self, records: Sequence[Json], *, after: Position, token: int, nonce: str) -> Position:
        """Write ``records`` durably as the entry that follows ``after``, and return the position after it.

        Costs one put and one read of the floor if no other writer interferes. After any doubt, repeat it with the same
        arguments before appending anything else: the nonce makes both attempts one entry.

        ``after`` comes from ``read`` or ``append``. The entries before it are not checked here: a writer that took its
        position from ``read`` has to compare the tokens that it found there with its own.

        Raises:
            Conflict: another entry follows ``after``: read on, then decide.
            Fenced: that entry has a higher token, or its number was pruned long ago: stop for good.
            OutcomeUnknown: the entry may have landed: the store did not say, 64 times in a row, or failed.
            Unavailable: the store is away; nothing was written.
            Invalid: a record is not JSON.
        """
        if after.number < 0 or token < 1 or not nonce:
            raise InvariantBroken("an entry needs a place, a claimed token and a nonce", after=after.number)
        entry = JournalEntry(
            number=after.number + 1, token=token, nonce=nonce, previous=after.digest, records=tuple(records)
        )
        payload = entry.to_bytes()
        if not self._create(entry.number, payload):
            self._find_out(entry, payload)
        with _in_doubt(entry.number):
            self._refuse_pruned(entry.number)
        return Position(number=entry.number, digest=sha256(payload))

    def read(self, after: Position) -> tuple[JournalEntry, ...]:
        """Return all entries that follow ``after``, each checked against the one before it.

        Entries appended while this runs may or may not be among them.

        Raises:
            JournalTruncated: entries after ``after`` were pruned: read the manifest again and start from its position.
            Corrupt: an entry is damaged, missing before a later one, or does not follow the one before it; or the
                entry at ``after`` is lost.
            Invalid: a newer version wrote an entry.
        """
        last = self._numbers.payload(after.number) if after.number else b""
        try:
            entries = self._follow(after)
        except Corrupt:
            self._refuse_truncated(after)  # entries below the floor were pruned, not damaged
            raise
        # The floor is read last: if it has not passed ``after``, no entry that was read here had been pruned, or put
        # back by a writer that was paused during the pruning.
        floor = self._refuse_truncated(after)
        if floor <= after.number and (last is None or sha256(last) != after.digest):
            raise Corrupt("the journal's entry that was read up to is gone", _REMEDY, number=after.number)
        return entries

    def read_on(self, known: Position) -> tuple[JournalEntry, ...]:
        """Do what ``read`` does, for a reader that kept the position since an earlier moment.

        Also raises ``JournalTruncated`` if no entry follows and the entry at ``known`` was pruned: the store may then
        have been rolled back and have written another entry under this number, and nothing would show it.
        """
        entries = self.read(known)
        if not entries and (floor := self.floor()) > known.number:
            raise _truncated(known, floor)
        return entries

    def settle(self, at: Position) -> None:
        """Make the entry at ``at`` durable, unless it was pruned: then its consequences are durable already.

        For a writer that starts: the previous one may have stopped without knowing whether its last entry is durable.
        """
        if at.number:
            self._numbers.durable(at.number)

    def prune(self, through: int) -> int:
        """Delete entry ``through``, all entries before it, and leftovers below the floor; return how many.

        Only for entries whose consequences are in a committed manifest that names their position.

        Raises ``Invalid`` when the journal has no entry ``through``.
        """
        present = self._numbers.present()
        end = max(*present, self.floor() - 1, 0)
        if through > end:
            raise Invalid(
                "only entries that exist can be pruned", "Prune up to an entry that was read.", through=through, end=end
            )
        floor = self._floor.raise_to(through + 1 if through > 0 else 0)
        return self._numbers.delete(number for number in present if number < floor)

    def floor(self) -> int:
        """Return the number below which entries may be gone; 0 before the first prune. Raises ``Corrupt``."""
        return self._floor.read()

    def _create(self, number: int, payload: bytes) -> bool:
        """Return whether the store confirms that it created the entry; if not, the entry may exist nevertheless."""
        try:
            self.store.put_if_absent(self._numbers.key(number), payload)
        except (ObjectExists, OutcomeUnknown):
            return False
        return True

    def _find_out(self, mine: JournalEntry, payload: bytes) -> None:
        """Find out whether ``mine`` landed, and put it again until some entry has; return when ``mine`` is durable."""
        for _ in range(ATTEMPTS):
            with _in_doubt(mine.number):
                # The same number again: the first attempt may still arrive under it.
                found = self._numbers.durable(mine.number)
                is_mine = found == payload or (found is None and self._create(mine.number, payload))
            if is_mine:
                return
            if found is not None:
                _refuse_other(entry_from_bytes(found, self._numbers.key(mine.number)), mine)
        raise _unknown(mine.number)

    def _refuse_pruned(self, number: int) -> None:
        """Raise when the number was pruned before: then creating it means nothing."""
        floor = self.floor()
        if number < floor:
            raise Fenced(
                "the entry's number was pruned before it was written: this writer was paused while others appended",
                "Stop this process and start it again.",
                number=number,
                floor=floor,
            )

    def _refuse_truncated(self, after: Position) -> int:
        """Return the floor unless it has passed the first entry that follows ``after``."""
        floor = self.floor()
        if floor > after.number + 1:
            raise _truncated(after, floor)
        return floor

    def _follow(self, after: Position) -> tuple[JournalEntry, ...]:
        """Return the entries from the one after ``after`` to the highest that a listing shows."""
        highest = max(self._numbers.present(), default=0)
        entries, digest = [], after.digest
        for number in range(after.number + 1, highest + 1):
            # Each entry is read by name: a listing may miss entries that were created while it ran.
            payload = self._numbers.payload(number)
            if payload is None:
                raise Corrupt("an entry of the journal is missing", _REMEDY, number=number, highest=highest)
            entries.append(self._entry(number, payload, digest))
            digest = sha256(payload)
        return tuple(entries)

    def _entry(self, number: int, payload: bytes, previous: Sha256) -> JournalEntry:
        key = self._numbers.key(number)
        entry = entry_from_bytes(payload, key)
        if entry.number != number:
            raise misshapen(key, "number")
        if entry.previous != previous:
            raise Corrupt("an entry of the journal does not follow the one before it", _REMEDY, number=number)
        return entry

    @property
    def _numbers(self) -> Numbers:
        return Numbers(self.store, self.prefix)

    @property
    def _floor(self) -> Floor:
        return Floor(store=self.store, key=object_key(f"{self.control}/journal-floor"), under="journal")


@contextmanager
def _in_doubt(number: int) -> Iterator[None]:
    """Turn errors of the store into ``OutcomeUnknown``: the entry may exist, although the store fails now."""
    try:
        yield
    except (Invalid, Unavailable) as error:
        raise _unknown(number) from error


def _truncated(after: Position, floor: int) -> JournalTruncated:
    return JournalTruncated(
        "entries of the journal were pruned", "Read the latest manifest.", after=after.number, floor=floor
    )


def _unknown(number: int) -> OutcomeUnknown:
    return OutcomeUnknown(
        "the store does not say whether the journal's entry landed", "Repeat the command.", number=number
    )


def _refuse_other(found: JournalEntry, mine: JournalEntry) -> None:
    """Raise the error for another entry at the number of ``mine``."""
    if found.nonce == mine.nonce:
        raise InvariantBroken("one nonce was used for two different entries", number=mine.number)
    if found.token > mine.token:
        raise Fenced(
            "a writer with a higher fencing token has appended",
            "Stop this process: another one has taken over.",
            number=mine.number,
            token=mine.token,
            higher=found.token,
        )
    raise Conflict("another entry has this number", "Read the entries that follow, then decide.", number=mine.number)
