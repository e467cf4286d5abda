"""The simulated world: a store whose user can die at any operation, and an auditor who sees every change.

The auditor holds the law at all times, not at the end: it looks after every manifest that is committed and before every
object that is deleted, whoever does it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from coordinator.codec import decode_state
from coordinator.lookup import is_intact
from coordinator.requests import RequestState
from coordinator.state import FederationState, servable
from shards.dataset import SliceRecord, count_erased
from shards.tombstones import DigestSet
from storage.manifest import ManifestRegister
from storage.memory import MemoryStore
from storage.objects import ObjectKey, ObjectStore, VersionTag
from tests.doubles.fake_learner import decode_state as decode_checkpoint
from tests.doubles.faulty_store import WRITES, Crash, Fault, FaultyStore, Operation

_STAGES = [
    RequestState.ACCEPTED,
    RequestState.PLANNED,
    RequestState.QUARANTINED,
    RequestState.RETRAINING,
    RequestState.PUBLISHED,
    RequestState.PURGED,
    RequestState.COMPLETE,
]


@dataclass(slots=True, kw_only=True)
class Auditor:
    """Checks every state that is ever current."""

    names: Mapping[str, DigestSet]
    """What each request that may come names."""
    points: Mapping[str, frozenset[int]]
    """The keys (``ShardPoints.keys_N``) of the data points that each request erases."""
    acknowledged: set[str] = field(default_factory=set)
    """Requests whose acceptance was returned to the caller."""
    view: Callable[[MemoryStore], ObjectStore] = lambda store: store
    """How the objects are read: as they lie there, or decrypted."""
    manifests: int = 0
    """States audited."""
    _last: FederationState | None = None
    _seen: dict[ObjectKey, frozenset[int]] = field(default_factory=dict)
    _erased: dict[tuple[str, tuple[ObjectKey, ...]], int] = field(default_factory=dict)

    def committed(self, store: MemoryStore) -> None:
        """Check the state that has just become current."""
        manifest = ManifestRegister(store).latest()
        assert manifest is not None
        state = decode_state(dict(manifest.body))
        seen = self.view(store)
        self.manifests += 1
        self._check_numbers(state)
        self._check_requests(state)
        self._check_objects(seen, state)
        self._check_taint(seen, state)
        self._check_completed(seen, state)
        self._last = state

    def deleting(self, key: str) -> None:
        """Check that what is about to be deleted is no longer part of the current state."""
        assert self._last is None or key not in self._last.referenced(), f"{key} is current and being deleted"

    def _check_numbers(self, state: FederationState) -> None:
        assert state.floor <= state.generation
        if self._last is not None:
            assert state.floor >= self._last.floor
            assert state.generation >= self._last.generation

    def _check_requests(self, state: FederationState) -> None:
        missing = self.acknowledged - {request.request_id for request in state.requests}
        assert not missing, f"acknowledged and lost: {missing}"
        for request in self._last.requests if self._last else ():
            now = state.request(request.request_id)
            assert now is not None, f"accepted and lost: {request.request_id}"
            assert _stage(now.state) >= _stage(request.state), f"{request.request_id} moved back"

    def _check_objects(self, store: ObjectStore, state: FederationState) -> None:
        for shard in state.shards:
            for part in (part for record in shard.slices for part in record.parts):
                assert is_intact(store, part.key, part.sha256), f"{part.key} is current and not there"
            for checkpoint in shard.chain:
                assert is_intact(store, checkpoint.key, checkpoint.sha256), f"{checkpoint.key} is current and not there"

    def _check_taint(self, store: ObjectStore, state: FederationState) -> None:
        """The law: no current model has seen a removed point, no current slice holds one."""
        for request in state.requests:
            if request.state in (RequestState.ACCEPTED, RequestState.REFUSED):
                continue
            gone = self.points[request.request_id]
            checkpoints = [checkpoint for shard in state.shards for checkpoint in shard.chain]
            assert {each.checkpoint.key for each in servable(state)} <= {each.key for each in checkpoints}
            for checkpoint in checkpoints:
                assert not gone & self._saw(store, checkpoint.key), f"tainted by {request.request_id}: {checkpoint.key}"
            for record in (record for shard in state.shards for record in shard.slices):
                assert self._erased_in(store, record, request.request_id) == 0

    def _check_completed(self, store: ObjectStore, state: FederationState) -> None:
        """A request that becomes complete leaves nothing: deleting comes before saying so (E12)."""
        done = {each.request_id for each in state.requests if each.state is RequestState.COMPLETE}
        known = (
            {each.request_id for each in self._last.requests if each.state is RequestState.COMPLETE}
            if self._last
            else set()
        )
        if done - known:
            assert left_over(store, state) == []
            assert list(store.unfinished("")) == [], "done, and keys are left that could open what was erased"

    def _erased_in(self, store: ObjectStore, record: SliceRecord, request_id: str) -> int:
        parts = tuple(part.key for part in record.parts)
        if (request_id, parts) not in self._erased:
            self._erased[request_id, parts] = count_erased(store, record, self.names[request_id])
        return self._erased[request_id, parts]

    def _saw(self, store: ObjectStore, key: ObjectKey) -> frozenset[int]:
        if key not in self._seen:
            self._seen[key] = decode_checkpoint(store.get(key).payload).seen
        return self._seen[key]


def left_over(store: ObjectStore, state: FederationState) -> list[ObjectKey]:
    """Return the objects that the state does not name; not those of register, receipts' log and keyrings."""
    current = state.referenced()
    others = ("manifest/", "control/", "receipts/", "log/", "keyrings/")
    return [info.key for info in store.list("") if info.key not in current and not info.key.startswith(others)]


def _stage(state: RequestState) -> int:
    return _STAGES.index(state) if state in _STAGES else len(_STAGES)


@dataclass(frozen=True, slots=True)
class AuditedStore(MemoryStore):
    """Objects in memory, every change of which an auditor sees."""

    auditor: Auditor

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Create the object; a manifest is audited."""
        tag = MemoryStore.put_if_absent(self, key, payload)
        if key.startswith("manifest/"):
            self.auditor.committed(self)
        return tag

    def delete(self, key: ObjectKey) -> None:
        """Remove the object, unless the auditor objects."""
        self.auditor.deleting(key)
        MemoryStore.delete(self, key)


@dataclass(slots=True)
class MortalStore(FaultyStore):
    """After a ``Crash`` nothing reaches the inner store until ``revive``: a dead process cleans nothing up."""

    dead: bool = False
    at_write: Callable[[int], None] = lambda _: None
    """Called before every write with its number, from 0."""
    writes: int = 0
    next_life: tuple[Fault, ...] = ()
    """The faults that the process after the next crash meets."""

    def revive(self) -> None:
        """Start a new process."""
        self.dead = False
        self.plan(*self.next_life)
        self.next_life = ()

    def _due(self, operation: Operation, key: str) -> tuple[Fault, ...]:
        if self.dead:
            raise Crash
        if operation in WRITES:
            self.writes += 1
            self.at_write(self.writes - 1)
        due = FaultyStore._due(self, operation, key)
        self.dead = any(fault.error is Crash for fault in due)
        return due
