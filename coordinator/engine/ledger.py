"""The ledger: a federation's state, made durable event by event (D1, D2, D3).

A manifest holds the whole state at one position of the journal; the journal holds the events after it. The current
state is the latest manifest with those events applied by ``decide.next_state``. Each commit is one small journal entry,
which the events of many callers share (group commit). A new manifest from time to time keeps the journal short.

A writer starts as follows: it claims a fencing token, appends an entry that carries it, replays the journal up to that
entry, and writes a manifest. From that entry on every older writer is fenced: its next append finds the number taken by
a higher token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from coordinator.decisions.decide import next_state
from coordinator.decisions.events import Event
from coordinator.engine.codec import decode_event, decode_state, encode_event
from coordinator.engine.state_encoder import StateEncoder
from coordinator.requests import ErasureRequest
from coordinator.state import FederationState
from storage.digests import Json, Sha256
from storage.errors import (
    Conflict,
    Corrupt,
    Fenced,
    Invalid,
    JournalTruncated,
    OutcomeUnknown,
    SisaError,
    Unavailable,
)
from storage.objects import NewName, ObjectStore
from storage.registers.group_commit import GroupCommit
from storage.registers.journal import START, Journal, JournalEntry, Position
from storage.registers.manifest import Manifest, ManifestRegister

_ATTEMPTS: Final = 16
"""How often a reader starts again when the journal was shortened meanwhile; each time a writer made progress."""

_MOST_TOGETHER: Final = 256
"""Most callers that share one entry."""

_SNAPSHOT_EVERY: Final = 256
"""Entries after which a manifest is written, so that reading does not grow with history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """The current state, and its position."""

    state: FederationState | None
    """The state; None if nothing was ever committed."""
    manifest: int
    """Number of the manifest it is based on; 0: no manifest."""
    position: Position
    """Position of the journal's last entry in it."""
    base: int
    """Number of the journal's last entry in the manifest: entries up to it have no further effect."""
    token: int
    """The fencing token of the last writer that committed anything."""
    read: tuple[Manifest, FederationState] | None = None
    """The manifest with its state, so that the same manifest is not decoded again."""


def read_ledger(store: ObjectStore, known: Current | None = None) -> Current:
    """Return the current state of the federation in ``store``.

    Of the journal only what follows ``known`` is read, an earlier reading of this store, as long as it was not pruned.
    Then the manifest is read, and decoded if it is another one.

    Raises ``Corrupt`` when manifest or journal are damaged or have a gap, ``Invalid`` when newer software wrote them,
    ``Unavailable`` when writers shorten the journal faster than it can be read.
    """
    register, journal = ManifestRegister(store), Journal(store)
    if known is not None and known.state is not None:
        with suppress(Corrupt, JournalTruncated):  # damage is reported by the reader of the whole entry
            return continued(known, journal.read_on(known.position))
    for _ in range(_ATTEMPTS):
        latest = register.latest()
        position = _position(latest)
        try:
            entries = journal.read(position)
        except JournalTruncated:
            continue  # a newer manifest includes the pruned entries
        return _replayed(latest, position, entries, known)
    raise Unavailable("the journal is shortened faster than it can be read", "Try again.", store=store.location)


def read_state(store: ObjectStore) -> FederationState | None:
    """Return the current state; None when nothing was ever committed. Raises as ``read_ledger`` does."""
    return read_ledger(store).state


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The effect of events."""

    before: FederationState
    after: FederationState

    def moved(self) -> Iterator[ErasureRequest]:
        """Yield the requests that are new, or that are shown in another state than before."""
        if self.after.requests is self.before.requests:
            return  # as for most checkpoints of a first training
        # By identity first: each checkpoint of a retrain changes few requests of a batch.
        same = set(map(id, self.before.requests))
        changed = [request for request in self.after.requests if id(request) not in same]
        earlier = {each.request_id: each for each in self.before.requests} if changed else {}
        for request in changed:
            was = earlier.get(request.request_id)
            if was is None or was.shown is not request.shown:
                yield request


@dataclass(frozen=True, slots=True)
class Compaction:
    """A wish to compact."""

    ready: Callable[[], bool]
    """Decides whether to do it now."""
    events: Callable[[], Sequence[Event]]
    """Returns what to record if it is done, so that the manifest includes it."""


_Item = tuple[Event, ...] | Compaction
"""What callers submit: events to record, or a wish to compact."""

_Result = Change | None | SisaError
"""What they get back: the effect of their events, None where it is not time to compact, or the error of compacting."""


class Ledger:
    """One writer's access to the state. Made by ``Ledger.start``; ``record`` may be called from any thread."""

    def __init__(
        self, store: ObjectStore, new_name: NewName, token: int, reading: Current, state: FederationState
    ) -> None:
        self._store = store
        self._register = ManifestRegister(store, remembers={})
        self._journal = Journal(store)
        self._new_name = new_name
        self._encoded = StateEncoder()  # called only by ``_perform``
        self._token = token
        # Only ``_perform`` changes the fields below, and ``_commits`` never calls it in two threads at once. Others
        # read one of them at a time, each of which is replaced as a whole.
        self._manifest = reading.manifest
        self._position = reading.position
        self._since_manifest = 0
        self._is_lost = False
        self._state = state
        self._commits: GroupCommit[_Item, _Result] = GroupCommit(self._perform, most=_MOST_TOGETHER)

    @classmethod
    def start(cls, store: ObjectStore, new_name: NewName, fresh: FederationState) -> Ledger:
        """Return the ledger of the federation in the store, or of ``fresh`` when the store holds none.

        Raises as ``read_ledger`` does, and ``Fenced`` when another writer starts at the same time and wins.
        """
        token = ManifestRegister(store).claim_token()
        reading = _fence(store, token, new_name)
        state = reading.state
        if state is None or not state.is_begun:
            state = fresh  # an earlier attempt ended before it had ingested any data
        ledger = cls(store, new_name, token, reading, state)
        ledger._shorten()
        return ledger

    @property
    def state(self) -> FederationState:
        """The state as of the last durable entry."""
        return self._state

    @property
    def token(self) -> int:
        """This writer's fencing token."""
        return self._token

    @property
    def position(self) -> Position:
        """Position of the last durable entry. Read before ``state``, it is one that the state includes."""
        return self._position

    @property
    def manifest(self) -> int:
        """Number of the last manifest written."""
        return self._manifest

    @property
    def journal_entries(self) -> int:
        """Number of journal entries since the last manifest."""
        return self._since_manifest

    def record(self, *events: Event) -> Change:
        """Apply the events, durably and together, and return the states before and after them.

        Events that change nothing are not recorded. Raises ``Fenced`` when another writer has taken over,
        ``OutcomeUnknown`` when the entry may have landed (this ledger then records nothing more), and ``Unavailable``
        when the store is away and nothing was written.
        """
        change = self._commits.submit(events)
        assert isinstance(change, Change)
        return change

    def compact(self, ready: Callable[[], bool], events: Callable[[], Sequence[Event]] = tuple) -> Change | None:
        """Compact the store if ``ready`` returns True; return what the events change, None if it does not.

        Records the ``events``, writes a manifest, and deletes the older manifests and the journal up to it, which name
        objects that are gone. Nothing else is recorded meanwhile.
        """
        answer = self._commits.submit(Compaction(ready, events))
        if isinstance(answer, SisaError):
            raise answer
        return answer

    def refuse_superseded(self) -> None:
        """Raise ``Fenced`` when another writer has claimed a later token."""
        if (highest := self._register.highest_token()) > self._token:
            raise Fenced(
                "another writer has taken over: nothing was deleted",
                "Stop this process: the other one completes the work.",
                token=self._token,
                higher=highest,
            )

    def _perform(self, items: Sequence[_Item]) -> list[_Result]:
        """Write the events of all callers as one entry, then compact if a caller asks for it. One thread at a time."""
        results: list[_Result] = []
        state, records = self._state, list[Json]()
        for item in items:
            before = state
            state = _with_events(state, () if isinstance(item, Compaction) else item, records)
            results.append(Change(before=before, after=state))
        if records:
            self._append(records, state)
        for place, item in enumerate(items):
            if isinstance(item, Compaction):
                results[place] = self._compacted(item)
        return results

    def _compacted(self, wish: Compaction) -> _Result:
        """Compact if it is time.

        Errors are returned, not raised, because other callers of the batch have recorded events durably.
        """
        try:
            if not wish.ready():
                return None
            before, records = self._state, list[Json]()
            state = _with_events(before, wish.events(), records)
            if records:
                self._append(records, state)
            self._shorten()
        except SisaError as error:
            return error
        return Change(before=before, after=state)

    def _append(self, records: Sequence[Json], state: FederationState) -> None:
        if self._is_lost:
            raise Fenced("this writer has lost its place in the journal", "Stop this process and start it again.")
        self._is_lost = True  # cleared when nothing was written, or when the outcome is known
        try:
            position = self._journal.append(records, after=self._position, token=self._token, nonce=self._new_name())
        except (Invalid, Unavailable):
            self._is_lost = False
            raise
        self._is_lost = False
        self._position = position
        self._state = state
        self._since_manifest += 1
        if self._since_manifest >= _SNAPSHOT_EVERY:
            # The entry is durable even without the manifest: the next entry tries again.
            with suppress(Fenced, OutcomeUnknown, Unavailable):
                self._shorten()

    def _shorten(self) -> None:
        self._write_manifest()
        self._register.prune(keep_from=self._manifest)
        self._journal.prune(self._position.number)

    def _write_manifest(self) -> None:
        """Write a manifest for the current position of the journal.

        A fenced writer may be the first to use a number: its manifest is true for an earlier position of the journal.
        """
        body = self._encoded(self._state, {"journal": _place(self._position)})
        nonce = self._new_name()
        for _ in range(_ATTEMPTS):
            try:
                written = self._register.commit_encoded(body, after=self._manifest, token=self._token, nonce=nonce)
            except Conflict:
                latest = self._register.latest()
                self._manifest = latest.number if latest else 0
                continue
            self._manifest = written.number
            self._since_manifest = 0
            return
        raise Unavailable("other writers keep writing manifests", "Stop them, or try again.")


def _with_events(state: FederationState, events: Sequence[Event], records: list[Json]) -> FederationState:
    """Return the state after the events; add the records of those that change it."""
    for event in events:
        after = next_state(state, event)
        if after != state:
            records.append(encode_event(event))
            state = after
    return state


def _fence(store: ObjectStore, token: int, new_name: NewName) -> Current:
    """Append an entry with ``token``, after which no older writer can append, and return what is then current.

    Raises ``Fenced`` when a writer with a later token is already at work: it must not be disturbed.
    """
    journal = Journal(store)
    nonce = new_name()
    for _ in range(_ATTEMPTS):
        reading = read_ledger(store)
        if reading.token > token:
            raise Fenced(
                "another writer started at the same time and was quicker",
                "Wait until it ends, or stop it.",
                token=token,
                higher=reading.token,
            )
        journal.settle(reading.position)  # an entry must not become durable before the one that it follows
        try:
            position = journal.append([], after=reading.position, token=token, nonce=nonce)
        except Conflict:
            continue  # the older writer was faster again
        return replace(reading, position=position, token=token)
    raise Unavailable("another writer keeps writing", "Stop it, or try again.", store=store.location)


def _replayed(
    latest: Manifest | None, position: Position, entries: Sequence[JournalEntry], known: Current | None
) -> Current:
    read = known.read if known is not None else None
    if latest is not None and (read is None or read[0] != latest):
        read = (latest, decode_state(latest.body))
    fresh = Current(
        state=read[1] if latest and read else None,
        manifest=latest.number if latest else 0,
        position=position,
        base=position.number,
        token=latest.token if latest else 0,
        read=read,
    )
    return continued(fresh, entries)


def continued(known: Current, entries: Sequence[JournalEntry]) -> Current:
    """Return what is current after ``entries``, which follow ``known`` in the journal."""
    state, token = known.state, known.token
    for entry in entries:
        token = max(token, entry.token)
        for record in entry.records:
            if state is None:
                raise Corrupt("the journal has events before any manifest", "Restore the store from a copy.")
            state = next_state(state, decode_event(record))
    if not entries:
        return known
    return replace(known, state=state, position=entries[-1].position, token=token)


def _position(latest: Manifest | None) -> Position:
    """Return the position of the journal that the manifest names."""
    place: Any = latest.body.get("journal") if latest else None
    if place is None:
        return START  # there is no manifest yet, or it is older than the journal
    match place:
        case {"number": int(number), "digest": str(digest)}:
            return Position(number=number, digest=Sha256(digest))
    raise Corrupt("the manifest does not say its place in the journal", "Restore the store from a copy.")


def _place(position: Position) -> dict[str, Json]:
    return {"number": position.number, "digest": position.digest}
