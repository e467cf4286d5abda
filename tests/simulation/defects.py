"""Defects injected into the product: a simulation that does not find them is useless.

Each is a mistake that a careless change could make.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import pytest

from coordinator.decisions import decide, events, lifecycle
from coordinator.decisions.history import forgotten
from coordinator.engine import ended, engine, ledger, removal, sweep
from coordinator.engine.engine import Engine
from coordinator.engine.ledger import Ledger
from coordinator.engine.lookup import load_tombstones
from coordinator.engine.removal import Demand
from coordinator.engine.tasks import Revisions
from coordinator.requests import ErasureRequest, ObjectRef, Readmission, RequestState, Segment
from coordinator.state import FederationState
from shards.learners.trainer import ConstituentTrainer, TrainTask
from shards.tombstones import NOTHING, DigestSet
from storage.digests import Json
from storage.errors import Conflict
from storage.objects import NewName, ObjectStore
from storage.registers.journal import Journal, JournalEntry
from storage.registers.manifest import ManifestRegister

Defect = Callable[[pytest.MonkeyPatch], None]


def _nothing(*_: object, **__: object) -> None:
    """Do nothing."""


def _without_the_last(store: ObjectStore) -> ledger.Current:
    """Return the current state without the journal's last entry."""
    latest = ManifestRegister(store).latest()
    position = ledger._position(latest)
    return ledger._replayed(latest, position, Journal(store).read(position)[:-1], None)


def acknowledges_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    """An entry of unknown outcome counts as written, so that a request may be acknowledged and lost."""
    create = Journal._create

    def careless(self: Journal, number: int, payload: bytes) -> bool:
        return create(self, number, payload) or self._numbers.payload(number) is None

    patch.setattr(Journal, "_create", careless)


def does_not_look_at_the_floor(patch: pytest.MonkeyPatch) -> None:
    """An entry counts although its number was pruned while its writer slept, because the floor is not checked."""
    patch.setattr(Journal, "_refuse_pruned", _nothing)


def takes_any_entry_for_its_own(patch: pytest.MonkeyPatch) -> None:
    """After an unknown outcome any entry of that number counts as the writer's own: no nonce is compared."""

    def careless(self: Journal, mine: JournalEntry, payload: bytes) -> None:
        while self._numbers.durable(mine.number) is None:
            self._create(mine.number, payload)

    patch.setattr(Journal, "_find_out", careless)


def believes_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    """The state in memory changes before the entry is durable."""
    append = Ledger._append

    def careless(self: Ledger, records: Sequence[Json], state: FederationState) -> None:
        self._state = state
        append(self, records, state)

    patch.setattr(Ledger, "_append", careless)


def deletes_although_superseded(patch: pytest.MonkeyPatch) -> None:
    """A sweep does not check whether another writer has taken over."""
    patch.setattr(Ledger, "refuse_superseded", _nothing)


def disturbs_its_successor(patch: pytest.MonkeyPatch) -> None:
    """A starting writer does not check whether one that claimed its token later is already running.

    The product had this defect until the simulation found it.
    """

    def careless(store: ObjectStore, token: int, names: Callable[[], str]) -> ledger.Current:
        nonce = names()
        while True:
            reading = ledger.read_ledger(store)
            try:
                position = Journal(store).append([], after=reading.position, token=token, nonce=nonce)
            except Conflict:
                continue
            return replace(reading, position=position, token=token)

    patch.setattr(ledger, "_fence", careless)


def fences_nobody(patch: pytest.MonkeyPatch) -> None:
    """A writer starts without its own first entry, so that the older one continues."""

    def careless(store: ObjectStore, token: int, names: Callable[[], str]) -> ledger.Current:
        return replace(ledger.read_ledger(store), token=token)

    patch.setattr(ledger, "_fence", careless)


def shortens_before_it_states(patch: pytest.MonkeyPatch) -> None:
    """The journal is pruned before a manifest has its content."""

    def careless(self: Ledger) -> None:
        self._journal.prune(self._position.number)
        self._write_manifest()
        self._register.prune(keep_from=self._manifest)

    patch.setattr(Ledger, "_shorten", careless)


def takes_any_checkpoint(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint enters its chain regardless of its lineage (E8)."""
    extend = decide._extend

    def careless(state: FederationState, event: events.CheckpointWritten) -> FederationState:
        wanted = state.lineages(event.shard)
        done = len(state.shards[event.shard].chain)
        if done == len(wanted) or event.checkpoint.slice != done + 1:
            return state
        return extend(state, replace(event, checkpoint=replace(event.checkpoint, lineage=wanted[done].digest())))

    patch.setattr(decide, "_extend", careless)


def keeps_serving_what_is_tainted(patch: pytest.MonkeyPatch) -> None:
    """Chains are not cut when slices lose points (E10)."""
    patch.setattr("coordinator.decisions.chains.with_valid_chains", lambda state, *_: state)


def completes_before_it_purges(patch: pytest.MonkeyPatch) -> None:
    """A request counts as purged, but nothing is deleted (E12)."""

    def careless(self: Engine, records: Callable[[], Sequence[events.Event]] = tuple) -> None:
        self.record(*records())

    patch.setattr(Engine, "_sweep", careless)


def purges_from_its_list_alone(patch: pytest.MonkeyPatch) -> None:
    """Only objects on the purge list are deleted, but not those that a dead worker wrote."""

    def careless(
        store: ObjectStore,
        own: Ledger,
        drafts: sweep.Drafts,
        records: Callable[[], Sequence[events.Event]] = tuple,
    ) -> ledger.Change | None:
        store.delete_all(own.state.condemned)
        return own.compact(lambda: True, records)

    patch.setattr(engine, "sweep", careless)


def forgets_tombstones_at_ingest(patch: pytest.MonkeyPatch) -> None:
    """The source is read without leaving out erased subjects."""
    patch.setattr(engine, "load_tombstones", lambda _store, _objects: NOTHING)


def forgets_who_was_erased_meanwhile(patch: pytest.MonkeyPatch) -> None:
    """A subject that is erased while the source is read comes back with it."""
    patch.setattr(engine, "without_erased", lambda _store, _state, slices, _names: slices)


def forgets_earlier_tombstones(patch: pytest.MonkeyPatch) -> None:
    """The latest request's tombstones replace all others."""
    with_all = removal.with_tombstones
    patch.setattr(removal, "with_tombstones", lambda store, names, _segments, new: with_all(store, names, (), new))


def forgets_ids(patch: pytest.MonkeyPatch) -> None:
    """Only subjects get tombstones, so that an erased data point comes back under another subject's name."""
    patch.setattr(removal, "ids_are_subjects", lambda _state: True)


def loses_a_segment(patch: pytest.MonkeyPatch) -> None:
    """Merging segments of tombstones drops the older one."""
    with_all = removal.with_tombstones

    def careless(
        store: ObjectStore, new_name: NewName, segments: tuple[Segment, ...], new: DigestSet
    ) -> tuple[Segment, ...]:
        merged = segments and segments[-1].digests <= removal._MERGED_WITHIN * len(new)
        return with_all(store, new_name, segments[:-1] if merged else segments, new)

    patch.setattr(removal, "with_tombstones", careless)


def lets_everybody_back(patch: pytest.MonkeyPatch) -> None:
    """A readmission removes the tombstones of all other subjects too."""
    patch.setattr(engine, "without_tombstones", lambda _store, _new_name, _state, _gone: (None, ()))


def lets_what_was_erased_back(patch: pytest.MonkeyPatch) -> None:
    """A readmission also brings back the erased data points."""
    without = removal.without_tombstones

    def careless(
        store: ObjectStore, new_name: NewName, state: FederationState, gone: DigestSet
    ) -> tuple[ObjectRef | None, tuple[Segment, ...]]:
        points = DigestSet(points=load_tombstones(store, state.tombstone_objects()).points)
        return without(store, new_name, state, gone.union(points))

    patch.setattr(engine, "without_tombstones", careless)


def erases_by_the_letter(patch: pytest.MonkeyPatch) -> None:
    """Similar subjects stay although the request includes them."""
    patch.setattr(removal, "Demand", lambda names, **_: Demand(names=names))


def erases_who_is_spelt_alike(patch: pytest.MonkeyPatch) -> None:
    """Similar subjects are erased although the request does not include them."""
    patch.setattr(removal, "Demand", lambda names, **_: Demand(names=names, include_similar=True))


def takes_another_body_for_the_same(patch: pytest.MonkeyPatch) -> None:
    """A repeated request may have another ``include_similar`` (D4)."""
    accept = Engine.accept

    def careless(self: Engine, request: ErasureRequest, names: DigestSet) -> ErasureRequest:
        known = self.state.request(request.request_id)
        return accept(self, request if known is None else replace(request, body=known.body), names)

    patch.setattr(Engine, "accept", careless)


def readmits_twice(patch: pytest.MonkeyPatch) -> None:
    """A repeated readmission also readmits subjects that were erased again since (D4)."""
    readmit = Engine.readmit

    def careless(self: Engine, readmission: Readmission, names: DigestSet) -> Readmission:
        is_known = self.state.readmission(readmission.request_id) is not None
        return readmit(self, replace(readmission, request_id="again") if is_known else readmission, names)

    patch.setattr(Engine, "readmit", careless)


def owes_a_statement(patch: pytest.MonkeyPatch) -> None:
    """A request that ends without an erasure gets no statement."""
    patch.setattr(decide, "_statements_owed", lambda _state: iter(()))


def forgets_a_generation(patch: pytest.MonkeyPatch) -> None:
    """One more generation leaves the state than its object holds."""
    patch.setattr(decide, "forgotten", lambda state, through: forgotten(state, through + 1))


def erases_who_is_held(patch: pytest.MonkeyPatch) -> None:
    """A hold has no effect."""
    patch.setattr(lifecycle, "is_ready", lifecycle.is_untouched)
    patch.setattr(decide, "is_ready", lifecycle.is_untouched)


def loses_a_request(patch: pytest.MonkeyPatch) -> None:
    """Cancelling a request also removes the next one."""
    cancel = lifecycle.cancel

    def careless(state: FederationState, request_id: str, reason: str, at: str) -> FederationState:
        after = cancel(state, request_id, reason, at)
        kept = tuple(each for each in after.requests if each.state is not RequestState.CANCELLED)
        return replace(after, requests=kept)

    patch.setattr(decide, "cancel", careless)


def accepts_twice(patch: pytest.MonkeyPatch) -> None:
    """A repeated request counts as a new one (D4)."""
    accept = lifecycle.accept

    def careless(state: FederationState, request: ErasureRequest) -> FederationState:
        known = tuple(each for each in state.requests if each.request_id != request.request_id)
        after = accept(replace(state, requests=known), request)
        return replace(after, requests=(*state.requests, after.requests[-1]))

    patch.setattr(decide, "accept", careless)


def takes_an_ended_id_for_a_new_one(patch: pytest.MonkeyPatch) -> None:
    """Ids of requests that have left the state are not checked (D4)."""
    patch.setattr(ended, "_find_ended", lambda _store, _state, _request_id: None)


def loses_an_ended_request(patch: pytest.MonkeyPatch) -> None:
    """Splitting a bucket drops one half."""
    add = ended._Buckets.add

    def careless(self: ended._Buckets, number: int, each: ErasureRequest | Readmission) -> None:
        if ended._place(each.request_id, len(self._refs)) == 0 or len(self._refs) == 1:
            add(self, number, each)

    patch.setattr(ended._Buckets, "add", careless)


def leaves_a_zombies_checkpoint(patch: pytest.MonkeyPatch) -> None:
    """A worker does not delete what it wrote for a writer that has been superseded."""
    patch.setattr(ConstituentTrainer, "_superseding", _nothing)


def learns_what_is_not_wanted(patch: pytest.MonkeyPatch) -> None:
    """A worker never checks whether its slice is still needed, and its checkpoint is accepted anyway (D7)."""

    def careless(self: Revisions, task: TrainTask) -> TrainTask:
        return task

    patch.setattr(Revisions, "__call__", careless)
    takes_any_checkpoint(patch)


def forgets_the_receipt(patch: pytest.MonkeyPatch) -> None:
    """A request completes without a receipt."""

    def careless(self: Engine, request_ids: Sequence[str]) -> None:
        self.record(*(events.ReceiptIssued(request_id=each, index=0) for each in request_ids))

    patch.setattr(Engine, "_issue_receipts", careless)


def shows_the_past(patch: pytest.MonkeyPatch) -> None:
    """A reader ignores the journal's last entry."""
    patch.setattr("tests.simulation.model.actors.read_ledger", _without_the_last)


DEFECTS: Final[tuple[tuple[Defect, int], ...]] = (
    (acknowledges_before_it_is_durable, 59),
    (does_not_look_at_the_floor, 19),
    (takes_any_entry_for_its_own, 1),
    (believes_before_it_is_durable, 14),
    (deletes_although_superseded, 74),
    (disturbs_its_successor, 74),
    (fences_nobody, 17),
    (shortens_before_it_states, 0),
    (takes_any_checkpoint, 55),
    (keeps_serving_what_is_tainted, 1),
    (completes_before_it_purges, 0),
    (purges_from_its_list_alone, 0),
    (forgets_tombstones_at_ingest, 0),
    (forgets_who_was_erased_meanwhile, 447),
    (forgets_earlier_tombstones, 10),
    (forgets_ids, 0),
    (loses_a_segment, 10),
    (lets_everybody_back, 11),
    (lets_what_was_erased_back, 11),
    (erases_by_the_letter, 16),
    (erases_who_is_spelt_alike, 11),
    (takes_another_body_for_the_same, 10),
    (readmits_twice, 11),
    (owes_a_statement, 0),
    (forgets_a_generation, 7),
    (takes_an_ended_id_for_a_new_one, 84),
    (loses_an_ended_request, 11),
    (erases_who_is_held, 4),
    (loses_a_request, 13),
    (accepts_twice, 146),
    (leaves_a_zombies_checkpoint, 74),
    (learns_what_is_not_wanted, 55),
    (forgets_the_receipt, 0),
    (shows_the_past, 0),
)
"""Each defect with the first seed that showed it when this was written; when schedules change, it may be another.

``test_defects`` prints it. It begins with the seed named here, and then tries one after another, which takes its time.
"""
