"""A crash before, during and after every named step of an erasure, on both kinds of store (D1, D5, E10, E12)."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, get_args

import pytest

from coordinator.engine.ledger import read_state
from coordinator.receipts.issuer import Registrar
from coordinator.requests import MOST_INLINE, RequestState
from coordinator.state import FederationState, servable
from coordinator.verification import scan_residue
from storage.encryption.store import SealedStore
from tests.doubles.federation import Point, SmallFederation, plain_conditions, specification_of, survivors
from tests.doubles.stores.faulty_store import Crash
from tests.doubles.stores.memory_bucket import RetriedBucket
from tests.doubles.time_and_names import CountingNames, VirtualClock
from tests.doubles.workers.fake_learner import HashLearner, HashState, decode_state
from tests.simulation.crash_points import (
    STEPS,
    BucketUnderTest,
    CrashPoint,
    CrashPointStore,
    ErasureStep,
    LocalStoreUnderTest,
    StoreUnderTest,
    When,
)
from tests.simulation.model.scenario import keys_of
from tests.volume import spread

pytestmark = pytest.mark.volume

_SLICES = 3
_SPECIFICATION = specification_of(shards=2, slices=_SLICES, holdout=0.16)
"""s4 and four others are held out, s1 and three others are trained on."""
_LIVES = count()
_ID = "er-1"

POINTS = [Point(id=f"p{n}", subject=f"s{n // 2}", label="ab"[n % 2], features=(float(n), 0.5)) for n in range(18)]
SUBJECTS = ("s1", "s4", *(f"stranger-{n}" for n in range(MOST_INLINE)))
LEFT = survivors(POINTS, subjects=SUBJECTS)
ERASED = keys_of(POINTS) - keys_of(LEFT)


def _federation(store: CrashPointStore) -> SmallFederation[HashState]:
    """Return the federation on the store as a new process opens it."""
    return SmallFederation(
        specification=_SPECIFICATION,
        store=SealedStore(store),
        learners=lambda _: HashLearner(slices=_SLICES),
        conditions=lambda _: plain_conditions(_SPECIFICATION),
        names=CountingNames(f"life{next(_LIVES)}"),
    )


Digests = tuple[tuple[str, ...], ...]


def _digests(state: FederationState) -> Digests:
    return tuple(tuple(checkpoint.digest for checkpoint in shard.chain) for shard in state.shards)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A trained federation on one kind of store, which tests copy, and what its erasure does without a crash."""

    another: Callable[[], StoreUnderTest]
    asked: tuple[tuple[str, str, bytes], ...]
    """Store operations of the erasure without a crash."""

    def number(self, step: ErasureStep) -> int:
        """Return which of the operations that match the step is the step itself, counted from 0."""
        matching = [crash_point for crash_point, each in enumerate(self.asked) if step.matches(*each)]
        assert matching, f"the erasure has no such operation: {step}"
        return matching.index(matching[step.occurrence])


@pytest.fixture(scope="module")
def fresh() -> Digests:
    """Returns the constituents of a federation that never saw the erased data points."""
    federation = _federation(CrashPointStore(BucketUnderTest(RetriedBucket())))
    federation.train(LEFT)
    return _digests(federation.state)


def _trained(first: StoreUnderTest, another: Callable[[], StoreUnderTest]) -> Trained:
    _federation(CrashPointStore(first)).train(POINTS)
    first.leave_old_traces()
    store = CrashPointStore(another())
    federation = _federation(store)
    federation.erase(subjects=SUBJECTS, request_id=_ID)
    return Trained(another=another, asked=tuple(store.asked))


@pytest.fixture(scope="module")
def on_a_folder(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Returns a trained federation in a folder."""
    root, numbers = tmp_path_factory.mktemp("crash-points"), count()

    def another() -> StoreUnderTest:
        folder: Path = shutil.copytree(root / "first", root / f"copy-{next(numbers)}")
        return LocalStoreUnderTest(folder)

    return _trained(LocalStoreUnderTest(root / "first"), another)


@pytest.fixture(scope="module")
def in_a_bucket() -> Trained:
    """Returns a trained federation in a bucket."""
    bucket = RetriedBucket()
    return _trained(BucketUnderTest(bucket), lambda: BucketUnderTest(copy.deepcopy(bucket)))


def _check_quarantine(store: CrashPointStore) -> FederationState:
    """Return the state that the next process finds, after checking that nothing tainted can be served."""
    view = SealedStore(store)
    state = read_state(view)
    assert state is not None
    request = state.request(_ID)
    if request is not None and request.state is not RequestState.ACCEPTED:
        for each in servable(state):
            assert not decode_state(view.get(each.checkpoint.key).payload).seen & ERASED
    return state


def _check_end(store: CrashPointStore, state: FederationState, fresh: Digests) -> None:
    """The final state is that of a federation without the erased points, with a receipt and without residue."""
    request = state.request(_ID)
    assert request is not None
    assert (request.state, request.found.points, request.found.held_out) == (RequestState.COMPLETE, 4, 2)
    assert state.held_out == 8
    assert _digests(state) == fresh
    view = SealedStore(store)
    assert scan_residue(view, state).found == ()
    assert Registrar(view, VirtualClock(), CountingNames()).check_all([_ID]).broken == ()
    assert list(view.unfinished("")) == []


def _erase_with_a_death(trained: Trained, step: ErasureStep, when: When) -> tuple[CrashPointStore, bool]:
    """Erase and crash at the crash point; return the next process's store and whether the request was acknowledged."""
    target = trained.another()
    crash_point = CrashPoint(step=step, when=when, number=trained.number(step))
    federation = _federation(CrashPointStore(target, crash_point))
    acknowledged = False
    try:
        federation.accept(subjects=SUBJECTS, request_id=_ID)
        acknowledged = True
        federation.engine.settle()
    except Crash:
        pass
    assert crash_point.is_hit, "the erasure never reached this crash point"
    return CrashPointStore(target), acknowledged


def _check_cell(trained: Trained, step: ErasureStep, when: When, fresh: Digests) -> None:
    """Crash, check what the next process finds, let it finish, check the final state."""
    store, acknowledged = _erase_with_a_death(trained, step, when)
    found = _check_quarantine(store)
    assert not acknowledged or found.request(_ID) is not None
    federation = _federation(store)
    if found.request(_ID) is None:
        federation.accept(subjects=SUBJECTS, request_id=_ID)
    federation.engine.settle()
    _check_end(store, federation.state, fresh)


CELLS = [(step, when) for step in STEPS for when in get_args(When)]


def _cells(shift: int) -> list[Any]:
    """Return every other cell; folder and bucket get different halves. In a soak, return all of them."""
    return [
        pytest.param(step, when, id=f"{step.name}-{when}", marks=[] if when == "unacknowledged" else pytest.mark.slow)
        for step, when in spread(CELLS, 2, shift)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("step", "when"), _cells(0))
def test_a_death_at_any_step_in_a_folder_changes_nothing(
    step: ErasureStep, when: When, on_a_folder: Trained, fresh: Digests
) -> None:
    """The next process finds nothing tainted to serve, and ends with the same bytes, a receipt and no residue.

    An acknowledged request does not have to be repeated.
    """
    _check_cell(on_a_folder, step, when, fresh)


@pytest.mark.parametrize(("step", "when"), _cells(1))
def test_a_death_at_any_step_in_a_bucket_changes_nothing(
    step: ErasureStep, when: When, in_a_bucket: Trained, fresh: Digests
) -> None:
    """The same for the S3 store, in a bucket where every put has left two versions."""
    _check_cell(in_a_bucket, step, when, fresh)


def test_the_table_is_whole() -> None:
    """All 18 steps are in the table, even those that are one operation in our design."""
    names = {step.name for step in STEPS if step.name != "checkpoint put, last"}
    assert len(names) == 18
    assert len(CELLS) == (18 + 1) * 3
    known = {step.name: step for step in STEPS}
    for step in STEPS:
        same = known.get(step.same_as, step)
        assert (step.operation, step.key, step.entry, step.occurrence) == (
            same.operation,
            same.key,
            same.entry,
            same.occurrence,
        )
