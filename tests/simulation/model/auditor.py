"""The auditor: checks the law at every commit and every deletion by any process.

It applies every event to its own copy of the state as soon as the event is durable. So it knows what every reader and
every later writer will find, and compares that with the manifests and with the writers' states in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from coordinator.decisions.decide import decide
from coordinator.decisions.events import (
    EndedKept,
    ErasureAccepted,
    Event,
    HistoryKept,
    Ingested,
    NothingToErase,
    PointsRemoved,
    SubjectsReadmitted,
)
from coordinator.engine.codec import decode_event, decode_state
from coordinator.engine.ended import all_readmissions, all_requests
from coordinator.engine.history import generations
from coordinator.engine.ledger import Ledger
from coordinator.engine.lookup import is_intact, load_digests, load_tombstones
from coordinator.receipts.archive import Archive
from coordinator.receipts.bundles import ReceiptBundle
from coordinator.requests import ErasureRequest, Readmission, RequestState, Similar
from coordinator.state import DataState, FederationState, servable
from storage.digests import Sha256, sha256
from storage.each import in_turn
from storage.objects import ObjectKey, ObjectStore
from storage.registers.journal import START, JournalEntry, Position, entry_from_bytes
from storage.registers.manifest import Manifest, manifest_from_bytes
from storage.stores.memory import MemoryStore
from storage.transparency import packs
from tests.simulation.model.contents import ContentIndex, Identity

_STAGES = [
    RequestState.ACCEPTED,
    RequestState.PLANNED,
    RequestState.QUARANTINED,
    RequestState.RETRAINING,
    RequestState.PUBLISHED,
    RequestState.PURGED,
    RequestState.COMPLETE,
]
_UNTOUCHED = (RequestState.ACCEPTED, RequestState.REFUSED, RequestState.CANCELLED)
_HELD = ("shards/", "requests/", "tombstones/", "ended/")
"""Folders of the objects that a state may refer to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """When an object was written, and by whom."""

    tick: int
    author: str
    """Name of the process; empty when it was there from the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReading:
    """A source that a process began to read."""

    points: frozenset[Identity]
    """Its data points."""
    barred: frozenset[bytes]
    """The tombstones at that time."""

    def left_out(self) -> tuple[int, int]:
        """Return how many data points tombstones keep out, and how many of these only by their ids."""
        out = [(point, subject) for point, subject in self.points if not self.barred.isdisjoint((point, subject))]
        return len(out), sum(1 for _, subject in out if subject not in self.barred)


@dataclass(frozen=True, slots=True, kw_only=True)
class Affected:
    """What a request affects among the current data points."""

    points: frozenset[Identity]
    tombstones: frozenset[bytes]
    similar: Similar
    """What remains of similarly spelt subjects."""
    unknown: int
    """Number of unknown names."""


@dataclass(slots=True, kw_only=True)
class Auditor:
    """Checks every state that ever becomes current."""

    erases: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """For each expected request: keys (``ShardPoints.keys_N``) of the data points that it must erase."""
    similar: frozenset[str] = frozenset()
    """Requests that include similarly spelt subjects."""
    returns: Mapping[str, frozenset[bytes]] = field(default_factory=dict)
    """For each expected readmission: keyed digests of its subjects."""
    spelt: Mapping[bytes, str] = field(default_factory=dict)
    """The common spelling of similar subjects, by keyed digest; subjects that are not in it are similar to none."""
    sources: list[SourceReading] = field(default_factory=list)
    """Every source that was ever read; empty when they are not known."""
    acknowledged: set[str] = field(default_factory=set)
    """Requests and readmissions whose acceptance was returned to the caller."""
    view: Callable[[MemoryStore], ObjectStore] = lambda store: store
    """How objects are read: raw, or decrypted."""
    thorough: bool = True
    """Whether every commit reads all objects of the state, not only new ones. In an unencrypted store an object cannot
    change unnoticed; in an encrypted one its key may be destroyed."""
    author: str = ""
    """Name of the process that is changing the store."""
    may_leave: Callable[[Origin], bool] | None = None
    """Returns whether an unreferenced object may exist when a request completes, because other processes are running.
    None: there are no others."""
    noted: Callable[[str], None] = lambda _: None
    """Called with the name of every event to count."""
    contents: ContentIndex = field(default_factory=ContentIndex)
    states: dict[int, FederationState | None] = field(default_factory=lambda: {0: None})
    """The state after every entry of the journal."""
    origins: dict[ObjectKey, Origin] = field(default_factory=dict)
    """The current objects that a state may refer to, with their origins."""
    gone: frozenset[int] = frozenset()
    """Keys of the data points that no current object may contain, even after readmissions."""
    taken_over: int = 0
    """The tick at which the current writer's first entry fenced all others."""
    compacted: int = 0
    """The tick of the last manifest; right before it, only objects of concurrent writes were unreferenced."""
    holder: str = ""
    """Name of the process that wrote that entry."""
    tick: int = 0
    token: int = 0
    tombstoned: dict[str, frozenset[bytes]] = field(default_factory=dict)
    """The keyed digests that became tombstones through each request, by its id."""
    tombstones: frozenset[bytes] = frozenset()
    """The tombstones of all requests, without subjects readmitted since."""
    barred: dict[int, frozenset[bytes]] = field(default_factory=lambda: {0: frozenset()})
    """The tombstones after every entry of the journal."""
    returned: frozenset[bytes] = frozenset()
    """Subjects that were ever readmitted."""
    generations: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    """Every generation so far, with the number of slices of each shard's served checkpoint."""
    _whole: dict[int, FederationState] = field(default_factory=dict)
    _position: Position = START
    _base: Position = START
    _manifest: int = 0
    packed: int = 0
    """Entries of the receipts' log that are in packs."""
    receipts: dict[str, ReceiptBundle] = field(default_factory=dict)
    """Those that were there when somebody was said to have one."""
    _referenced: frozenset[ObjectKey] = frozenset()

    @property
    def state(self) -> FederationState | None:
        """The current state."""
        return self.states[self._position.number]

    def whole(self, store: ObjectStore, state: FederationState) -> FederationState:
        """Return the state including all requests and readmissions that have left it."""
        if not state.ended.count:
            return state
        return replace(state, requests=all_requests(store, state), readmissions=all_readmissions(store, state))

    def erased_by(self, request_ids: Iterable[str]) -> frozenset[bytes]:
        """Return the tombstones that the requests have set, without readmitted subjects."""
        none: frozenset[bytes] = frozenset()
        named = frozenset(chain.from_iterable(self.tombstoned.get(each, none) for each in request_ids))
        return named & self.tombstones

    def reads(self, points: frozenset[Identity], ledger: Ledger) -> None:
        """Record a source that a writer is about to read, and the tombstones that it knows."""
        self.sources.append(SourceReading(points=points, barred=self.barred[ledger._position.number]))

    # -------------------------------------------------------------------------------------- calls from the simulation

    def created(self, store: MemoryStore, key: ObjectKey, payload: bytes) -> None:
        """Record a new object; check entries and manifests."""
        self.tick += 1
        if key.startswith("journal/"):
            self._commit(store, entry_from_bytes(payload, key), sha256(payload))
        elif key.startswith("manifest/"):
            self._state_all(store, manifest_from_bytes(payload, key))
        elif key.startswith("log/packs/"):
            self.packed += packs.TILE_ENTRIES
            self.noted("receipts packed")
        elif key.startswith(_HELD):
            assert key not in self.origins, f"{key} was written twice"
            self.origins[key] = Origin(tick=self.tick, author=self.author)

    def replacing(self, key: str) -> None:
        """Check that only floors, keyrings, the receipts' index and the log's name are replaced."""
        may_be = key in {"control/floor", "control/journal-floor", "log/origin"}
        assert may_be or key.startswith(("keyrings/", "receipts/index/")), f"{key} is being replaced"

    def deleting(self, key: str) -> None:
        """Check that a deleted object is no longer needed."""
        self.tick += 1
        assert key not in self._referenced, f"{key} is current and being deleted"
        folder, _, number = key.partition("/")
        assert folder != "journal" or int(number) <= self._base.number, f"{key} is in no manifest and being deleted"
        assert folder != "manifest" or int(number) < self._manifest, f"{key} is the manifest and being deleted"
        assert key not in {"control/floor", "control/journal-floor"}, f"{key} is being deleted"
        is_entry = key.startswith("log/entries/")
        assert not is_entry or int(key.rpartition("/")[2]) < self.packed, f"{key} is in no pack and being deleted"
        assert folder != "history", f"{key} is on record for good and being deleted"
        self.origins.pop(ObjectKey(key), None)

    def check_writer(self, ledger: Ledger) -> None:
        """Check that a writer's state equals the durable state at its position in the journal."""
        expected = self.states.get(ledger._position.number)
        assert ledger.state == expected, "a writer's state differs from the durable one"

    def check_serving(self, store: ObjectStore, state: FederationState, gone: frozenset[int]) -> None:
        """Check what a reader of ``state`` may serve, if it read after ``gone`` was quarantined (E10)."""
        for each in servable(state):
            if each.checkpoint.key in self.origins:  # else it has been purged and cannot be loaded
                saw = self.contents.checkpoint(store, each.checkpoint.key)
                assert not gone & saw, f"tainted and served: {each.checkpoint.key}"

    def hand_over(self, successor: Auditor) -> None:
        """Copy everything known to another auditor; no process may be running."""
        successor.states = dict(self.states)
        successor.origins = {key: Origin(tick=0, author="") for key in self.origins}
        successor.sources = list(self.sources)
        successor.barred = dict(self.barred)
        successor.generations = list(self.generations)
        successor.contents = self.contents.copy()
        successor.token = self.token
        successor._position, successor._base, successor._manifest = self._position, self._base, self._manifest
        successor._referenced = self._referenced

    # ------------------------------------------------------------------------------------------------------ the checks

    def _commit(self, store: MemoryStore, entry: JournalEntry, digest: Sha256) -> None:
        if entry.number <= self._position.number:  # put back by a sleeper, who will find that the floor has passed it
            assert entry.number <= self._base.number, "an entry of the journal was written twice"
            return
        follows = (self._position.number + 1, self._position.digest)
        assert (entry.number, entry.previous) == follows, "an entry of the journal does not follow the one before"
        assert entry.token >= self.token, "a stale writer's entry is durable"
        if entry.token > self.token:
            self.token, self.taken_over, self.holder = entry.token, self.tick, self.author
        before, events = self.state, [decode_event(record) for record in entry.records]
        after = before
        for event in events:
            assert after is not None
            was, (after, _) = after, decide(after, event)
            if after.generation != was.generation:
                self.generations.append((after.generation, tuple(shard.serving for shard in after.shards)))
        self._position = Position(number=entry.number, digest=digest)
        self.states[entry.number] = after
        if len(events) > 1 and any(isinstance(event, ErasureAccepted) for event in events):
            self.noted("entries shared")
        if before is not None and after is not None:
            self._check(store, before, after, events)
        self.barred[entry.number] = self.tombstones

    def _state_all(self, store: MemoryStore, manifest: Manifest) -> None:
        place: Any = manifest.body["journal"]
        if manifest.number <= self._manifest:  # put back by a sleeper, who will find that the floor has passed it
            return
        stated, known = decode_state(manifest.body), self.states[place["number"]]
        assert place["number"] >= self._base.number, "a manifest lacks entries that were deleted from the journal"
        if known is None or not known.is_begun:
            assert not stated.is_begun, "a manifest has a state that no entry has caused"
            self.states[place["number"]] = stated
        else:
            assert stated == known, "a manifest has a state that never existed"
        self._manifest, self._base, self.compacted = manifest.number, Position(**place), self.tick
        self._referenced = self.state.referenced() if self.state else frozenset()

    def _check(self, store: MemoryStore, before: FederationState, after: FederationState, events: list[Event]) -> None:
        seen = self.view(store)
        self._erase(seen, before, after, events)
        self._check_tombstones(seen, before, after)
        self._check_numbers(before, after)
        was, now = self._wholes(seen, before, after)
        self._check_requests(was, now)
        self._check_readmissions(was, now)
        self._check_statements(store, was, now)
        self._check_objects(seen, before, after)
        self._check_points(seen, before, after, events)
        self._check_models(seen, after)
        self._check_completed(store, was, now)
        self._check_history(before, after)
        if any(isinstance(event, HistoryKept) for event in events):
            self.noted("history kept")
            self.check_generations(seen, after)
        if any(isinstance(event, EndedKept) for event in events):
            self._check_ended(before, after)

    def _wholes(
        self, store: ObjectStore, before: FederationState, after: FederationState
    ) -> tuple[FederationState, FederationState]:
        """Return both states including all requests that have left them; the former is cached."""
        was, now = self._whole.get(id(before)) or self.whole(store, before), self.whole(store, after)
        self._whole = {id(after): now}
        return was, now

    def _check_ended(self, before: FederationState, after: FederationState) -> None:
        """Requests that have left the state had ended, and are counted."""
        self.noted("requests left the state")
        if len(after.ended.buckets) > len(before.ended.buckets) > 0:
            self.noted("buckets parted")
        assert after.ended.count + len(asked_for(after)) == before.ended.count + len(asked_for(before))
        assert not {each.request_id for each in asked_for(after)} - {each.request_id for each in asked_for(before)}

    def _erase(self, store: ObjectStore, before: FederationState, after: FederationState, events: list[Event]) -> None:
        """Derive from the requests which data points must be gone from now on, and who is readmitted."""
        present = self.contents.points(store, before)
        for event in events:
            if isinstance(event, SubjectsReadmitted):
                self._let_back(before, event.readmission)
            if not isinstance(event, PointsRemoved | NothingToErase):
                continue
            was, now = before.request(event.request_id), after.request(event.request_id)
            assert now is not None
            if was is None or was.state is not RequestState.ACCEPTED or now.state is RequestState.ACCEPTED:
                continue
            affected = self._affected(store, was, present)
            assert (now.found.points, now.found.similar) == (len(affected.points), affected.similar), (
                f"{now.request_id} has miscounted"
            )
            assert now.found.unknown == affected.unknown, f"{now.request_id} has miscounted unknown names"
            assert bool(affected.points) == isinstance(event, PointsRemoved), f"{now.request_id} is refused wrongly"
            if affected.similar.points:
                self.noted("similar left")
            if now.found.held_out:
                self.noted("hold-out points erased")
            self.tombstoned[now.request_id] = affected.tombstones
            self.tombstones |= affected.tombstones
            # As if they were carried out one by one (E9): a request does not find what an earlier one has erased.
            present -= affected.points
        self.gone = self.contents.named(self.tombstones)
        for request in after.requests:
            if request.state not in _UNTOUCHED:
                missed = self.erases.get(request.request_id, frozenset()) - self.gone
                assert not missed, f"{request.request_id} has not erased everything that it names"

    def _affected(self, store: ObjectStore, request: ErasureRequest, present: frozenset[Identity]) -> Affected:
        """Return what the request affects.

        Names without data points leave no tombstone, because such a person may come later. Erased data points also
        leave a tombstone by their id, so that they stay out under another subject's name.
        """
        names = load_digests(store, request.names)
        include_similar = request.request_id in self.similar
        assert request.include_similar == include_similar, f"{request.request_id} has the wrong include_similar"
        body = sha256(b"sisa/similar/" + names.digest().encode()) if include_similar else names.digest()
        assert request.body == body
        subjects: frozenset[bytes] = frozenset(names.subject_digests())
        ids: frozenset[bytes] = frozenset(names.point_digests())
        named = frozenset(each for each in present if each[0] in ids or each[1] in subjects)
        likenesses = self._likenesses(subjects)
        alike = frozenset(each for each in present - named if self.spelt.get(each[1]) in likenesses)
        found = (subjects | ids) & frozenset(chain.from_iterable(present))
        spelt_alike = frozenset(subject for _, subject in alike)
        if include_similar:
            if alike:
                self.noted("similar erased")
            # All similar subjects, including those whose data points are all named by id.
            every = frozenset(subject for _, subject in present if self.spelt.get(subject) in likenesses)
            likenesses = self._likenesses(every)
            found |= every | frozenset(each for each in subjects if self.spelt.get(each) in likenesses)
            named |= alike
        return Affected(
            points=named,
            tombstones=found | frozenset(point for point, _ in named),
            similar=Similar() if include_similar else Similar(points=len(alike), subjects=len(spelt_alike)),
            unknown=len((subjects | ids) - found),
        )

    def _likenesses(self, subjects: Iterable[bytes]) -> frozenset[str]:
        return frozenset(self.spelt[each] for each in subjects if each in self.spelt)

    def _let_back(self, before: FederationState, readmission: Readmission) -> None:
        """Record a readmission: its subjects come back, but not their erased data points."""
        if before.readmission(readmission.request_id) is not None:
            return
        back = self.returns[readmission.request_id] & self.tombstones
        assert back, f"{readmission.request_id} readmits nobody"
        assert readmission.subjects == len(back), f"{readmission.request_id} has miscounted"
        self.tombstones -= back
        self.returned |= back

    def _check_tombstones(self, store: ObjectStore, before: FederationState, after: FederationState) -> None:
        """The tombstones are exactly those of the erased, and each object has its stated number of digests."""
        if after.tombstone_objects() == before.tombstone_objects():
            return
        if before.segments and len(after.segments) <= len(before.segments):
            self.noted("segments merged")
        if len(after.segments) > 1:
            self.noted("segments side by side")
        held = load_tombstones(store, after.tombstone_objects())
        kept = frozenset((*held.subject_digests(), *held.point_digests()))
        assert kept == self.tombstones, "the tombstones are not those of the erased"
        for segment in after.segments:
            assert segment.digests == len(load_digests(store, segment.ref)), f"{segment.ref.key} is miscounted"

    def _check_numbers(self, before: FederationState, after: FederationState) -> None:
        assert before.floor <= after.floor <= after.generation
        assert before.generation <= after.generation
        if after.generation == before.generation:
            assert servable(after) == servable(before), "what is served changed within a generation"

    def _check_requests(self, before: FederationState, after: FederationState) -> None:
        ids = [each.request_id for each in asked_for(after)]
        assert len(set(ids)) == len(ids), "a request exists twice"
        missing = self.acknowledged - set(ids)
        assert not missing, f"acknowledged and lost: {missing}"
        for was, now in zip(before.requests, after.requests, strict=False):
            assert was.request_id == now.request_id, f"accepted and lost: {was.request_id}"
            stated = replace(was, receipt=now.receipt) if was.state is RequestState.REFUSED else was
            if now.effect is not None and was.effect is not None and not was.effect.unmeasured:
                # A record that is closed unmeasured says why.
                stated = replace(stated, effect=replace(was.effect, unmeasured=now.effect.unmeasured))
            assert was.state.is_open or now in (was, stated), f"{was.request_id} changed after its end"
            assert _stage(now.state) >= _stage(was.state), f"{was.request_id} moved back"
            assert not was.pause or now.state in {was.state, RequestState.CANCELLED}, f"{was.request_id} was not paused"
            assert dict(now.times).items() >= dict(was.times).items(), f"{was.request_id} did something twice"
            assert was.receipt in {None, now.receipt}, f"{was.request_id} has two receipts"

    def _check_readmissions(self, before: FederationState, after: FederationState) -> None:
        known = {each.request_id: each for each in after.readmissions}
        for was in before.readmissions:
            now = known[was.request_id]
            assert replace(was, receipt=now.receipt) == now, f"{was.request_id} changed after its end"
            assert was.receipt in {None, now.receipt}, f"{was.request_id} has two statements"

    def _check_statements(self, store: MemoryStore, before: FederationState, after: FederationState) -> None:
        """Every request with a receipt or statement on record has one in the store."""
        known = {each.request_id for each in asked_for(before) if each.receipt is not None}
        for each in asked_for(after):
            if each.receipt is not None and each.request_id not in known:
                self._check_receipt(store, each.request_id)

    def _check_receipt(self, store: MemoryStore, request_id: str) -> None:
        found = Archive(store, in_turn).find(request_id)
        assert found is not None, f"{request_id} has no receipt"
        assert self.receipts.setdefault(request_id, found) == found, f"{request_id} has another receipt than before"

    def _check_history(self, before: FederationState, after: FederationState) -> None:
        """The last generations are on record, and each ends when the next begins."""
        recorded = [(each.number, each.serving) for each in after.history]
        assert recorded == self.generations[len(self.generations) - len(recorded) :], (
            "the history differs from what was served"
        )
        assert bool(recorded) == bool(after.generation), "the current generation is not on record"
        for each, following in zip(after.history, after.history[1:], strict=False):
            assert each.until == following.since, f"generation {each.number} did not end when the next began"
        assert not after.history or not after.history[-1].until, "the current generation has ended"
        known = {each.number: each for each in before.history}
        for each in after.history:
            was = known.get(each.number, each)
            assert was == each or not was.until, f"generation {each.number} changed after its end"

    def check_generations(self, store: ObjectStore, state: FederationState) -> None:
        """Check that every generation is on record: once, in order, with what it served."""
        recorded = [(each.number, each.serving) for each in generations(store, state)]
        assert recorded == self.generations, "the history is not that of what was served"

    def _check_objects(self, store: ObjectStore, before: FederationState, after: FederationState) -> None:
        """Every object of the state exists and has the right bytes."""
        self._referenced = after.referenced()
        missing = self._referenced - self.origins.keys()
        assert not missing, f"current and missing: {missing}"
        known = frozenset() if self.thorough else before.referenced()
        parts = [(part.key, part.sha256) for _, each in after.slices() for part in each.parts]
        checkpoints = [(each.key, each.sha256) for shard in after.shards for each in shard.chain]
        for key, digest in (*parts, *checkpoints):
            assert key in known or is_intact(store, key, digest), f"{key} is current and differs from its record"

    def _check_points(
        self, store: ObjectStore, before: FederationState, after: FederationState, events: list[Event]
    ) -> None:
        """The slices have exactly what was ingested and not erased."""
        if list(after.slices()) == list(before.slices()):
            return
        points = self.contents.points(store, after)
        if any(isinstance(event, Ingested) for event in events):
            assert after.data is not None
            known = [each for each in self.sources if points == self._taken(each)]
            assert known or not self.sources, "the slices are not a source without the erased"
            assert not known or any(map(self._is_counted(after.data), known)), "data points kept out are miscounted"
            self._note_returns(points, known)
        else:
            left = self._without_erased(self.contents.points(store, before), self.tombstones)
            assert points == left, "the slices are not the earlier ones without the erased"

    def _taken(self, source: SourceReading) -> frozenset[Identity]:
        """Return the points ingested from a source: none erased before or during reading."""
        return self._without_erased(source.points, source.barred | self.tombstones)

    def _without_erased(self, points: frozenset[Identity], barred: frozenset[bytes]) -> frozenset[Identity]:
        return frozenset(each for each in points if barred.isdisjoint(each))

    def _is_counted(self, data: DataState) -> Callable[[SourceReading], bool]:
        """Return a check of the state's counts of data points left out, against a source as of the start of reading."""

        def matches(source: SourceReading) -> bool:
            likenesses = self._likenesses(source.barred)
            taken = self._without_erased(source.points, source.barred)
            respelt = sum(self.spelt.get(subject) in likenesses for _, subject in taken)
            return (data.refused, data.by_id, data.respelt) == (*source.left_out(), respelt)

        return matches

    def _note_returns(self, points: frozenset[Identity], sources: list[SourceReading]) -> None:
        back = self.returned - self.tombstones
        out = frozenset(chain.from_iterable(each.points for each in sources)) - points
        if any(subject in back for _, subject in points):
            self.noted("back with new points")
        if any(subject in back and point in self.tombstones for point, subject in out):
            self.noted("back without erased points")
        if any(subject not in self.tombstones and subject not in back for _, subject in out):
            self.noted("kept out under another name")

    def _check_models(self, store: ObjectStore, state: FederationState) -> None:
        """The law: no current model has seen a removed point, or a hold-out point."""
        checkpoints = [checkpoint.key for shard in state.shards for checkpoint in shard.chain]
        assert {each.checkpoint.key for each in servable(state)} <= set(checkpoints)
        held_out = self.contents.held_out(store, state)
        for key in checkpoints:
            assert not held_out & self.contents.checkpoint(store, key), f"trained on hold-out points: {key}"
            assert not self.gone & self.contents.checkpoint(store, key), f"tainted: {key}"

    def _check_completed(self, store: MemoryStore, before: FederationState, after: FederationState) -> None:
        """A completed request has its receipt and no leftovers, because deleting precedes completing (E12)."""
        open_before = {request.request_id for request in before.requests if request.state.is_open}
        for request in after.requests:
            if request.state is not RequestState.COMPLETE or request.request_id not in open_before:
                continue
            self._check_receipt(store, request.request_id)
            may_leave = self.may_leave or (lambda _: False)
            left = [
                key for key, origin in self.origins.items() if key not in self._referenced and not may_leave(origin)
            ]
            unfinished = [] if self.may_leave else list(self.view(store).unfinished(""))
            assert not left + unfinished, f"{request.request_id} is complete, and this is left: {left + unfinished}"


def asked_for(state: FederationState) -> tuple[ErasureRequest | Readmission, ...]:
    """Return all requests and readmissions of the state."""
    return (*state.requests, *state.readmissions)


def _stage(state: RequestState) -> int:
    return _STAGES.index(state) if state in _STAGES else len(_STAGES)
