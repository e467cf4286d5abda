"""Whether a task is still needed: without reading a state where nothing was recorded that can change a task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import get_args

import pytest

from coordinator.decisions.decide import next_state
from coordinator.decisions.events import CheckpointWritten, ErasureAccepted, Event
from coordinator.engine import tasks
from coordinator.engine.codec import encode_event
from coordinator.engine.ledger import Ledger, _fence
from coordinator.engine.tasks import Revisions, train_task
from coordinator.state import FederationState
from shards.learners.trainer import TrainTask
from shards.specification import ShardId
from storage.errors import Fenced
from storage.objects import ObjectKey, StoredObject
from storage.stores.memory import MemoryStore
from tests.coordinator.records import request_of
from tests.doubles.federation import Point, SmallFederation, plain_conditions, specification_of
from tests.doubles.time_and_names import CountingNames
from tests.doubles.workers.fake_learner import HashLearner, HashState

POINTS = [Point(id=f"p{n}", subject=f"s{n}", label="ab"[n % 2], features=(float(n), 1.0)) for n in range(20)]
_STORES = count()


@dataclass(frozen=True, slots=True)
class NotingStore(MemoryStore):
    """A store that notes what is read."""

    reads: list[str] = field(default_factory=list, compare=False)

    def get(self, key: ObjectKey) -> StoredObject:
        """Return the object."""
        self.reads.append(key)
        return MemoryStore.get(self, key)

    def states_read(self) -> int:
        """Return how many manifests were read since the last call."""
        found = sum(key.startswith("manifest/") for key in self.reads)
        self.reads.clear()
        return found


@pytest.fixture
def small() -> Iterator[SmallFederation[HashState]]:
    """A trained federation."""
    store = NotingStore(f"revisions-{next(_STORES)}")
    specification = specification_of(shards=2, slices=2)
    made: SmallFederation[HashState] = SmallFederation(
        specification=specification,
        store=store,
        learners=lambda _: HashLearner(slices=2),
        conditions=lambda _: plain_conditions(specification),
    )
    made.train(POINTS)
    yield made
    store.forget()


def issued(small: SmallFederation[HashState]) -> TrainTask:
    """Return a task as the engine issues it."""
    ledger = small.engine._ledger
    return train_task(small.state, ShardId(0), done=0, token=ledger.token, after=ledger.position)


def written(state: FederationState) -> CheckpointWritten:
    """Return an event that a checkpoint is there, which changes nothing."""
    return CheckpointWritten(shard=ShardId(0), checkpoint=state.shards[0].chain[0], at="")


def record_again(small: SmallFederation[HashState], event: Event) -> None:
    """Append the event, whether or not it changes the state."""
    ledger = small.engine._ledger
    ledger._append([encode_event(event)], ledger.state)


def test_no_state_is_read_while_checkpoints_and_acceptances_come(small: SmallFederation[HashState]) -> None:
    """A worker is started for each retrain, and a state may be many megabytes."""
    store = small.store
    assert isinstance(store, NotingStore)
    task, revised = issued(small), Revisions(store)
    store.states_read()
    assert revised(task) is task
    record_again(small, written(small.state))
    small.accept(subjects=["s3"], request_id="er-1")
    assert revised(task) is task
    assert revised(task) is task
    assert store.states_read() == 0
    unplaced = replace(task, after=None)
    assert Revisions(store)(unplaced) is unplaced
    assert store.states_read() == 1


def test_what_removes_points_is_seen_after_what_does_not(small: SmallFederation[HashState]) -> None:
    """Entries that change nothing were passed over; the one after them is read, and changes the task."""
    task, revised = issued(small), Revisions(small.store)
    small.accept(subjects=[each.subject for each in POINTS], request_id="er-1")
    assert revised(task) is task
    small.engine.remove_points()
    wanted = revised(task)
    assert wanted == train_task(small.state, ShardId(0), token=task.token)
    assert wanted.slices != task.slices
    assert revised(wanted) is wanted


@pytest.mark.parametrize("looked", [False, True])
def test_a_task_whose_position_was_pruned_is_compared_with_the_state(
    small: SmallFederation[HashState], *, looked: bool
) -> None:
    """A removal whose entry is gone, because a manifest includes it, is seen as well."""
    task, revised = issued(small), Revisions(small.store)
    if looked:
        assert revised(task) is task
    small.accept(subjects=[each.subject for each in POINTS], request_id="er-1")
    small.engine.remove_points()
    small.engine._ledger.compact(lambda: True)
    assert revised(task).slices != task.slices


@pytest.mark.parametrize("has_started", [False, True])
def test_another_writer_ends_the_task_before_it_changes_anything(
    small: SmallFederation[HashState], *, has_started: bool
) -> None:
    """Its first entry is empty, and has its token; then it writes a manifest, and prunes that entry."""
    task, revised = issued(small), Revisions(small.store)
    assert revised(task) is task
    if has_started:
        Ledger.start(small.store, CountingNames("other"), small.state)
    else:
        _fence(small.store, small.register.claim_token(), CountingNames("other"))
    with pytest.raises(Fenced, match="another writer"):
        revised(task)


def test_later_tasks_begin_at_their_own_position(small: SmallFederation[HashState]) -> None:
    """A worker that gets a task issued after a removal does not take the removal for news."""
    store = small.store
    assert isinstance(store, NotingStore)
    revised = Revisions(store)
    first = issued(small)
    assert revised(first) is first
    small.accept(subjects=["s3"], request_id="er-1")
    small.engine.remove_points()
    later = issued(small)
    store.states_read()
    assert revised(later) is later
    assert store.states_read() == 0


def test_the_events_passed_over_change_no_task(small: SmallFederation[HashState]) -> None:
    """Neither acceptances nor checkpoints change slices or the configuration, which are all that a task depends on."""
    assert set(tasks._CHANGING_NO_TASK) <= set(get_args(Event))
    before = small.state
    cut = replace(before, shards=tuple(replace(each, chain=each.chain[:1]) for each in before.shards))
    last = CheckpointWritten(shard=ShardId(0), checkpoint=before.shards[0].chain[1], at="")
    accepted = ErasureAccepted(request=request_of("er-1"), looked=before.ended.count)
    for state, event in ((cut, last), (before, written(before)), (before, accepted), (cut, accepted)):
        after = next_state(state, event)
        assert [each.slices for each in after.shards] == [each.slices for each in state.shards]
        assert after.configuration == state.configuration
