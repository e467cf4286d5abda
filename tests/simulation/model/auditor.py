"""The auditor: holds the law at every commit and at every deletion, whoever makes it.

It keeps its own copy of the state, event by event as they become durable, so that it knows what every reader and every
later writer will find, and compares that with what manifests state and what writers believe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from coordinator.decisions.decide import (
    EndedKept,
    ErasureAccepted,
    Event,
    HistoryKept,
    Ingested,
    NothingToErase,
    PointsRemoved,
    SubjectsReadmitted,
    decide,
)
from coordinator.engine.codec import decode_event, decode_state
from coordinator.engine.ended import all_readmissions, all_requests
from coordinator.engine.history import generations
from coordinator.engine.ledger import Ledger
from coordinator.engine.lookup import is_intact, load_digests, load_tombstones
from coordinator.requests import ErasureRequest, Readmission, RequestState, Similar
from coordinator.state import DataState, FederationState, servable
from storage.digests import Sha256, sha256
from storage.objects import ObjectKey, ObjectStore
from storage.registers.journal import START, JournalEntry, Position, entry_from_bytes
from storage.registers.manifest import Manifest, manifest_from_bytes
from storage.stores.memory import MemoryStore
from tests.simulation.model.sight import Identity, Sight

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
"""Where objects lie that a state refers to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """How an object came about."""

    tick: int
    author: str
    """Who put it; empty: nobody in particular."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A source that somebody began to read."""

    points: frozenset[Identity]
    """What it holds."""
    barred: frozenset[bytes]
    """The tombstones there were by then."""

    def left_out(self) -> tuple[int, int]:
        """Return how many data points tombstones keep out, and how many of them by their ids alone."""
        out = [(point, subject) for point, subject in self.points if not self.barred.isdisjoint((point, subject))]
        return len(out), sum(1 for _, subject in out if subject not in self.barred)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meant:
    """What a request means of the data points that are there."""

    points: frozenset[Identity]
    tombstones: frozenset[bytes]
    similar: Similar
    """What stays of people spelt alike."""
    unknown: int
    """Names that nobody bears here."""


@dataclass(slots=True, kw_only=True)
class Auditor:
    """Checks every state that ever becomes current."""

    erases: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """For requests that may come: keys (``ShardPoints.keys_N``) of data points that each must erase."""
    similar: frozenset[str] = frozenset()
    """Requests that mean people spelt alike as well."""
    returns: Mapping[str, frozenset[bytes]] = field(default_factory=dict)
    """For readmissions that may come: keyed digests of the subjects that each lets back."""
    spelt: Mapping[bytes, str] = field(default_factory=dict)
    """What people spelt alike have in common, by keyed digest; who is not in it is spelt like nobody else."""
    sources: list[Reading] = field(default_factory=list)
    """Every source that was ever read; empty: not known."""
    acknowledged: set[str] = field(default_factory=set)
    """Requests whose acceptance was returned to the caller, and readmissions."""
    view: Callable[[MemoryStore], ObjectStore] = lambda store: store
    """How the objects are read: as they lie there, or decrypted."""
    thorough: bool = True
    """Whether all objects of the state are read at every commit, and not only those that are new in it. On a store that
    is not encrypted an object cannot change unseen; on one that is its key may be destroyed."""
    author: str = ""
    """Who changes the store right now."""
    may_leave: Callable[[Birth], bool] | None = None
    """Whether an object that nothing refers to may be there when a request completes, because others are at work; None:
    nobody is."""
    noted: Callable[[str], None] = lambda _: None
    """Told of what has happened that is worth counting."""
    sight: Sight = field(default_factory=Sight)
    states: dict[int, FederationState | None] = field(default_factory=lambda: {0: None})
    """The state after every entry of the journal."""
    born: dict[ObjectKey, Birth] = field(default_factory=dict)
    """The objects that are there now, of those that a state may refer to."""
    gone: frozenset[int] = frozenset()
    """Keys of the data points that must not be in anything current any more: whoever comes back, they do not."""
    taken_over: int = 0
    """The tick at which the present writer's entry fenced all others."""
    compacted: int = 0
    """The tick of the last manifest: right before, nothing was left over but what others were writing."""
    holder: str = ""
    """Who wrote that entry."""
    tick: int = 0
    token: int = 0
    tombstoned: dict[str, frozenset[bytes]] = field(default_factory=dict)
    """Keyed digests that a request has had set as tombstones, by its id."""
    tombstones: frozenset[bytes] = frozenset()
    """Those of all requests, but for subjects who were let back since."""
    barred: dict[int, frozenset[bytes]] = field(default_factory=lambda: {0: frozenset()})
    """The tombstones after every entry of the journal."""
    returned: frozenset[bytes] = frozenset()
    """Subjects who were ever let back."""
    generations: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    """Every generation that ever was, with how many slices each shard's served checkpoint had seen."""
    _whole: dict[int, FederationState] = field(default_factory=dict)
    _position: Position = START
    _base: Position = START
    _manifest: int = 0
    _referenced: frozenset[ObjectKey] = frozenset()

    @property
    def state(self) -> FederationState | None:
        """The state that is current."""
        return self.states[self._position.number]

    def whole(self, store: ObjectStore, state: FederationState) -> FederationState:
        """Return the state with all requests and readmissions that have left it."""
        if not state.ended.count:
            return state
        return replace(state, requests=all_requests(store, state), readmissions=all_readmissions(store, state))

    def erased_by(self, request_ids: Iterable[str]) -> frozenset[bytes]:
        """Return the keyed digests that the requests have made tombstones of, without those of who was let back."""
        nobody: frozenset[bytes] = frozenset()
        named = frozenset(chain.from_iterable(self.tombstoned.get(each, nobody) for each in request_ids))
        return named & self.tombstones

    def reads(self, points: frozenset[Identity], ledger: Ledger) -> None:
        """Take note of a source that a writer is about to read, and of whom it knows as erased."""
        self.sources.append(Reading(points=points, barred=self.barred[ledger._position.number]))

    # ------------------------------------------------------------------------------------------- what is told to it

    def created(self, store: MemoryStore, key: ObjectKey, payload: bytes) -> None:
        """Take note of an object that is there now; entries and manifests are checked."""
        self.tick += 1
        if key.startswith("journal/"):
            self._commit(store, entry_from_bytes(payload, key), sha256(payload))
        elif key.startswith("manifest/"):
            self._state_all(store, manifest_from_bytes(payload, key))
        elif key.startswith(_HELD):
            assert key not in self.born, f"{key} was written twice"
            self.born[key] = Birth(tick=self.tick, author=self.author)

    def replacing(self, key: str) -> None:
        """Check that what is about to be replaced is meant to be: floors and keyrings, and nothing else."""
        is_floor = key in {"control/floor", "control/journal-floor"}
        assert is_floor or key.startswith("keyrings/"), f"{key} is being replaced"

    def deleting(self, key: str) -> None:
        """Check that what is about to be deleted is not needed by anyone any more."""
        self.tick += 1
        assert key not in self._referenced, f"{key} is current and being deleted"
        folder, _, number = key.partition("/")
        assert folder != "journal" or int(number) <= self._base.number, f"{key} is in no manifest and being deleted"
        assert folder != "manifest" or int(number) < self._manifest, f"{key} is the manifest and being deleted"
        assert key not in {"control/floor", "control/journal-floor"}, f"{key} is being deleted"
        assert folder != "history", f"{key} is on record for good and being deleted"
        self.born.pop(ObjectKey(key), None)

    def check_writer(self, ledger: Ledger) -> None:
        """Check that a writer's state is what everyone else reads at its place of the journal."""
        expected = self.states.get(ledger._position.number)
        assert ledger.state == expected, "a writer believes in another state than the one that is durable"

    def check_serving(self, store: ObjectStore, state: FederationState, gone: frozenset[int]) -> None:
        """Check what someone may serve who has read ``state`` after ``gone`` was quarantined (E10)."""
        for each in servable(state):
            if each.checkpoint.key in self.born:  # else it was purged meanwhile, and cannot be loaded
                saw = self.sight.checkpoint(store, each.checkpoint.key)
                assert not gone & saw, f"tainted and served: {each.checkpoint.key}"

    def hand_over(self, successor: Auditor) -> None:
        """Tell another auditor all that is known, as of a time when nobody is at work."""
        successor.states = dict(self.states)
        successor.born = {key: Birth(tick=0, author="") for key in self.born}
        successor.sources = list(self.sources)
        successor.barred = dict(self.barred)
        successor.generations = list(self.generations)
        successor.sight = self.sight.copy()
        successor.token = self.token
        successor._position, successor._base, successor._manifest = self._position, self._base, self._manifest
        successor._referenced = self._referenced

    # ------------------------------------------------------------------------------------------------- what it does

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
        assert place["number"] >= self._base.number, "a manifest does not know of what was deleted from the journal"
        if known is None or not known.is_begun:
            assert not stated.is_begun, "a manifest states what no entry has brought about"
            self.states[place["number"]] = stated
        else:
            assert stated == known, "a manifest states what never was"
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
        """Return both with all requests that have left them; what is known of the former is not read again."""
        was, now = self._whole.get(id(before)) or self.whole(store, before), self.whole(store, after)
        self._whole = {id(after): now}
        return was, now

    def _check_ended(self, before: FederationState, after: FederationState) -> None:
        """What has left the state was over, and is counted."""
        self.noted("requests left the state")
        if len(after.ended.buckets) > len(before.ended.buckets) > 0:
            self.noted("buckets parted")
        assert after.ended.count + len(asked_for(after)) == before.ended.count + len(asked_for(before))
        assert not {each.request_id for each in asked_for(after)} - {each.request_id for each in asked_for(before)}

    def _erase(self, store: ObjectStore, before: FederationState, after: FederationState, events: list[Event]) -> None:
        """Learn from the requests themselves which data points must be gone from here on, and who may come back."""
        present = self.sight.points(store, before)
        for event in events:
            if isinstance(event, SubjectsReadmitted):
                self._let_back(before, event.readmission)
            if not isinstance(event, PointsRemoved | NothingToErase):
                continue
            was, now = before.request(event.request_id), after.request(event.request_id)
            assert now is not None
            if was is None or was.state is not RequestState.ACCEPTED or now.state is RequestState.ACCEPTED:
                continue
            meant = self._meant(store, was, present)
            assert (now.points, now.similar) == (len(meant.points), meant.similar), f"{now.request_id} has miscounted"
            assert now.unknown == meant.unknown, f"{now.request_id} has miscounted whom nobody knows"
            assert bool(meant.points) == isinstance(event, PointsRemoved), f"{now.request_id} is refused wrongly"
            if meant.similar.points:
                self.noted("similar left")
            self.tombstoned[now.request_id] = meant.tombstones
            self.tombstones |= meant.tombstones
            # As if they had been carried out one by one (E9): of what one erases the next finds nothing any more.
            present -= meant.points
        self.gone = self.sight.named(self.tombstones)
        for request in after.requests:
            if request.state not in _UNTOUCHED:
                missed = self.erases.get(request.request_id, frozenset()) - self.gone
                assert not missed, f"{request.request_id} has not erased all that it names"

    def _meant(self, store: ObjectStore, request: ErasureRequest, present: frozenset[Identity]) -> Meant:
        """Return what the request means.

        Names without any data point leave no tombstone: whoever bears them may come later. What is erased leaves one
        by its id as well: it stays out under another subject's name, too.
        """
        names = load_digests(store, request.names)
        include_similar = request.request_id in self.similar
        assert request.include_similar == include_similar, f"{request.request_id} means others than was asked for"
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
            # Whoever is spelt alike, also where all of their data points are named one by one.
            every = frozenset(subject for _, subject in present if self.spelt.get(subject) in likenesses)
            likenesses = self._likenesses(every)
            found |= every | frozenset(each for each in subjects if self.spelt.get(each) in likenesses)
            named |= alike
        return Meant(
            points=named,
            tombstones=found | frozenset(point for point, _ in named),
            similar=Similar() if include_similar else Similar(points=len(alike), subjects=len(spelt_alike)),
            unknown=len((subjects | ids) - found),
        )

    def _likenesses(self, subjects: Iterable[bytes]) -> frozenset[str]:
        return frozenset(self.spelt[each] for each in subjects if each in self.spelt)

    def _let_back(self, before: FederationState, readmission: Readmission) -> None:
        """Subjects come back; the data points of theirs that were erased do not."""
        if before.readmission(readmission.request_id) is not None:
            return
        back = self.returns[readmission.request_id] & self.tombstones
        assert back, f"{readmission.request_id} readmits nobody"
        assert readmission.subjects == len(back), f"{readmission.request_id} has miscounted"
        self.tombstones -= back
        self.returned |= back

    def _check_tombstones(self, store: ObjectStore, before: FederationState, after: FederationState) -> None:
        """The tombstones are those of who was erased, of nobody else, and each object holds as many as it says."""
        if after.tombstone_objects() == before.tombstone_objects():
            return
        if before.segments and len(after.segments) <= len(before.segments):
            self.noted("segments merged")
        if len(after.segments) > 1:
            self.noted("segments side by side")
        held = load_tombstones(store, after.tombstone_objects())
        kept = frozenset((*held.subject_digests(), *held.point_digests()))
        assert kept == self.tombstones, "the tombstones are not of those who were erased"
        for segment in after.segments:
            assert segment.digests == len(load_digests(store, segment.ref)), f"{segment.ref.key} holds others"

    def _check_numbers(self, before: FederationState, after: FederationState) -> None:
        assert before.floor <= after.floor <= after.generation
        assert before.generation <= after.generation
        if after.generation == before.generation:
            assert servable(after) == servable(before), "what is served changed within a generation"

    def _check_requests(self, before: FederationState, after: FederationState) -> None:
        ids = [each.request_id for each in asked_for(after)]
        assert len(set(ids)) == len(ids), "a request is there twice"
        missing = self.acknowledged - set(ids)
        assert not missing, f"acknowledged and lost: {missing}"
        for was, now in zip(before.requests, after.requests, strict=False):
            assert was.request_id == now.request_id, f"accepted and lost: {was.request_id}"
            stated = replace(was, receipt=now.receipt) if was.state is RequestState.REFUSED else was
            assert was.state.is_open or now in (was, stated), f"{was.request_id} changed after its end"
            assert _stage(now.state) >= _stage(was.state), f"{was.request_id} moved back"
            assert not was.held or now.state in {was.state, RequestState.CANCELLED}, f"{was.request_id} was not paused"
            assert dict(now.times).items() >= dict(was.times).items(), f"{was.request_id} did something twice"
            assert was.receipt in {None, now.receipt}, f"{was.request_id} has two receipts"

    def _check_readmissions(self, before: FederationState, after: FederationState) -> None:
        known = {each.request_id: each for each in after.readmissions}
        for was in before.readmissions:
            now = known[was.request_id]
            assert replace(was, receipt=now.receipt) == now, f"{was.request_id} changed after its end"
            assert was.receipt in {None, now.receipt}, f"{was.request_id} has two statements"

    def _check_statements(self, store: MemoryStore, before: FederationState, after: FederationState) -> None:
        """Whoever is said to have a receipt or statement has one."""
        known = {each.request_id for each in asked_for(before) if each.receipt is not None}
        for each in asked_for(after):
            if each.receipt is not None and each.request_id not in known:
                store.get(_bundle(each.request_id))

    def _check_history(self, before: FederationState, after: FederationState) -> None:
        """The last generations are on record, each from when the one before ended until the next began."""
        recorded = [(each.number, each.serving) for each in after.history]
        assert recorded == self.generations[len(self.generations) - len(recorded) :], "the history is another one"
        assert bool(recorded) == bool(after.generation), "the present generation is not on record"
        for each, following in zip(after.history, after.history[1:], strict=False):
            assert each.until == following.since, f"generation {each.number} did not end when the next began"
        assert not after.history or not after.history[-1].until, "the present generation has ended"
        known = {each.number: each for each in before.history}
        for each in after.history:
            was = known.get(each.number, each)
            assert was == each or not was.until, f"generation {each.number} changed after its end"

    def check_generations(self, store: ObjectStore, state: FederationState) -> None:
        """Check that every generation that ever was is on record: once, in order, with what it served."""
        told = [(each.number, each.serving) for each in generations(store, state)]
        assert told == self.generations, "the history is not that of what was served"

    def _check_objects(self, store: ObjectStore, before: FederationState, after: FederationState) -> None:
        """Every object of the state is there and has the bytes that it should have."""
        self._referenced = after.referenced()
        missing = self._referenced - self.born.keys()
        assert not missing, f"current and not there: {missing}"
        known = frozenset() if self.thorough else before.referenced()
        parts = [(part.key, part.sha256) for shard in after.shards for each in shard.slices for part in each.parts]
        checkpoints = [(each.key, each.sha256) for shard in after.shards for each in shard.chain]
        for key, digest in (*parts, *checkpoints):
            assert key in known or is_intact(store, key, digest), f"{key} is current and not what it should be"

    def _check_points(
        self, store: ObjectStore, before: FederationState, after: FederationState, events: list[Event]
    ) -> None:
        """The slices hold what was ingested but for what was erased: nobody else loses a data point."""
        slices = [shard.slices for shard in after.shards]
        if slices == [shard.slices for shard in before.shards]:
            return
        points = self.sight.points(store, after)
        if any(isinstance(event, Ingested) for event in events):
            assert after.data is not None
            known = [each for each in self.sources if points == self._taken(each)]
            assert known or not self.sources, "the slices are not what a source holds without the erased"
            assert not known or any(map(self._is_told(after.data), known)), "what tombstones kept out is miscounted"
            self._note_returns(points, known)
        else:
            left = self._without_erased(self.sight.points(store, before), self.tombstones)
            assert points == left, "the slices are not what they were without the erased"

    def _taken(self, source: Reading) -> frozenset[Identity]:
        """Return what is taken in from a source: neither who was erased when reading began nor who was meanwhile."""
        return self._without_erased(source.points, source.barred | self.tombstones)

    def _without_erased(self, points: frozenset[Identity], barred: frozenset[bytes]) -> frozenset[Identity]:
        return frozenset(each for each in points if barred.isdisjoint(each))

    def _is_told(self, data: DataState) -> Callable[[Reading], bool]:
        """Return whether what the state tells of left out data points is true of a source, as reading it began."""

        def told(source: Reading) -> bool:
            likenesses = self._likenesses(source.barred)
            taken = self._without_erased(source.points, source.barred)
            respelt = sum(self.spelt.get(subject) in likenesses for _, subject in taken)
            return (data.refused, data.by_id, data.respelt) == (*source.left_out(), respelt)

        return told

    def _note_returns(self, points: frozenset[Identity], sources: list[Reading]) -> None:
        back = self.returned - self.tombstones
        out = frozenset(chain.from_iterable(each.points for each in sources)) - points
        if any(subject in back for _, subject in points):
            self.noted("back with new points")
        if any(subject in back and point in self.tombstones for point, subject in out):
            self.noted("back without erased points")
        if any(subject not in self.tombstones and subject not in back for _, subject in out):
            self.noted("kept out under another name")

    def _check_models(self, store: ObjectStore, state: FederationState) -> None:
        """The law: no current model has seen a removed point."""
        checkpoints = [checkpoint.key for shard in state.shards for checkpoint in shard.chain]
        assert {each.checkpoint.key for each in servable(state)} <= set(checkpoints)
        for key in checkpoints:
            assert not self.gone & self.sight.checkpoint(store, key), f"tainted: {key}"

    def _check_completed(self, store: MemoryStore, before: FederationState, after: FederationState) -> None:
        """A request that completes has its receipt and leaves nothing: deleting comes before saying so (E12)."""
        open_before = {request.request_id for request in before.requests if request.state.is_open}
        for request in after.requests:
            if request.state is not RequestState.COMPLETE or request.request_id not in open_before:
                continue
            store.get(_bundle(request.request_id))
            may_leave = self.may_leave or (lambda _: False)
            left = [key for key, birth in self.born.items() if key not in self._referenced and not may_leave(birth)]
            unfinished = [] if self.may_leave else list(self.view(store).unfinished(""))
            assert not left + unfinished, f"{request.request_id} is complete, and this is left: {left + unfinished}"


def asked_for(state: FederationState) -> tuple[ErasureRequest | Readmission, ...]:
    """Return all that was ever asked for, to erase or to let people back."""
    return (*state.requests, *state.readmissions)


def _bundle(request_id: str) -> ObjectKey:
    return ObjectKey(f"receipts/bundles/{sha256(request_id.encode())}")


def _stage(state: RequestState) -> int:
    return _STAGES.index(state) if state in _STAGES else len(_STAGES)
