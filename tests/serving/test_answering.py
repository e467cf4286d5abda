"""Answering: what was computed leaves only after a look at the store that began later; nobody waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from cluster.ensemble.loaded import Ensemble
from cluster.ensemble.replica_state import Standing
from cluster.serving.batcher import TOGETHER, Answer, Answering
from coordinator.aggregation import AnsweredBy, ModelFailed, model_failed
from storage.errors import InvariantBroken, SisaError, Unavailable
from tests.serving.world import PATIENCE_SECONDS

UNKNOWN = 0.5
"""A feature that the model has no answer for."""


@dataclass(slots=True)
class FakeEnsemble:
    """Answers each point with the generation; as ``Ensemble`` as its users see it."""

    generation: int
    shards: int = 3
    constituents: tuple[int, ...] = (0, 1)
    calls: list[int] = field(default_factory=list)
    before: Callable[[], None] = lambda: None
    quick_points: int = 0

    @property
    def answered_by(self) -> AnsweredBy:
        """The constituents behind its answers."""
        return AnsweredBy(generation=self.generation, constituents=len(self.constituents), shards=self.shards)

    def answer(self, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the first feature and the generation as scores."""
        self.calls.append(len(features_NF))
        self.before()
        if (places := np.flatnonzero(features_NF[:, 0] == UNKNOWN)).size:
            raise model_failed("it does not know a category", int(places[0]))
        if len(features_NF) and features_NF[0, 0] < 0:
            raise RuntimeError("the model quotes secret-person-001")
        generations = np.full(len(features_NF), self.generation)
        return np.stack([features_NF[:, 0].astype(np.float64), generations], axis=1)


@dataclass(slots=True)
class FakeStanding:
    """A replica's knowledge, as a test wants it."""

    held: FakeEnsemble | None = None
    floor: int = 0
    named: int = 1
    away: SisaError | None = None
    unloadable: SisaError | None = None
    looks: int = 0
    on_look: Callable[[], None] = lambda: None

    @property
    def state(self) -> object:
        """Something is always committed."""
        return self

    @property
    def ensemble(self) -> FakeEnsemble | None:
        """What is held and not withdrawn."""
        return self.held if self.held and self.held.generation >= self.floor else None

    @property
    def is_behind(self) -> bool:
        """Whether another generation is named than held."""
        return self.held is None or self.held.generation != self.named

    def current(self) -> None:
        """Look."""
        self.looks += 1
        self.on_look()
        if self.away:
            raise self.away

    def load(self) -> None:
        """Load what is named."""
        if self.unloadable:
            raise self.unloadable
        self.held = FakeEnsemble(self.named)


@pytest.fixture
def standing() -> FakeStanding:
    """A replica that holds generation 1."""
    return FakeStanding(FakeEnsemble(1))


@contextmanager
def at_work(standing: FakeStanding, answering: Answering) -> Iterator[Future[Answer]]:
    """Keep the model at work on one ask until the block ends; give the answer to that."""
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert go_on.wait(PATIENCE_SECONDS)

    assert standing.held is not None
    standing.held.before = wait
    first = answering.ask(features(0))
    assert begun.wait(PATIENCE_SECONDS)
    yield first
    go_on.set()


@pytest.fixture
def answering(standing: FakeStanding) -> Iterator[Answering]:
    """Its answers."""
    made = Answering(cast("Standing", standing), 0.01)
    yield made
    made.close()


def features(*firsts: float) -> npt.NDArray[np.float32]:
    """Return data points with these first features."""
    return np.array([[first, 0.0] for first in firsts], np.float32)


def result(answer: Future[Answer]) -> Answer:
    """Return the answer."""
    return answer.result(PATIENCE_SECONDS)


@pytest.mark.parametrize("quick_points", [0, 2], ids=["by a thread", "by the caller"])
def test_an_answer_is_confirmed_after_it_was_computed(
    standing: FakeStanding, answering: Answering, quick_points: int
) -> None:
    """A read of the store begins and ends between the end of the computation and the answer."""
    looks_before: list[int] = []
    assert standing.held is not None
    standing.held.quick_points = quick_points
    standing.held.before = lambda: looks_before.append(standing.looks)
    found = result(answering.ask(features(4, 5)))
    assert found.scores_NS[:, 0].tolist() == [4, 5]
    assert (found.generation, found.constituents, found.shards) == (1, 2, 3)
    assert standing.looks > looks_before[0]


def test_few_data_points_are_computed_by_the_caller(standing: FakeStanding, answering: Answering) -> None:
    """The caller computes as many as take no longer than waking a thread; more are left to the thread."""
    by: list[threading.Thread] = []
    assert standing.held is not None
    standing.held.quick_points = 2
    standing.held.before = lambda: by.append(threading.current_thread())
    assert result(answering.ask(features(4, 5))).scores_NS[:, 0].tolist() == [4, 5]
    assert result(answering.ask(features(4, 5, 6))).scores_NS[:, 0].tolist() == [4, 5, 6]
    assert [each is threading.current_thread() for each in by] == [True, False]


def test_nobody_overtakes_those_who_wait(standing: FakeStanding, answering: Answering) -> None:
    """While others wait for the model, few data points are evaluated together with theirs."""
    held = standing.held
    assert held is not None
    with at_work(standing, answering) as first:
        held.quick_points = 1
        many = answering.ask(features(1, 2, 3))
        few = answering.ask(features(4))
    assert [len(result(each).scores_NS) for each in (first, many, few)] == [1, 3, 1]
    assert held.calls == [1, 4]


@pytest.mark.parametrize("quick_points", [0, 1], ids=["by a thread", "by the caller"])
def test_what_was_withdrawn_meanwhile_is_computed_again(
    standing: FakeStanding, answering: Answering, quick_points: int
) -> None:
    """A floor that rises while an answer is computed takes it back: the caller gets the next generation's, no error."""

    def erase() -> None:
        standing.named = standing.floor = 2

    assert standing.held is not None
    standing.held.quick_points = quick_points
    standing.held.before = erase
    assert result(answering.ask(features(1))).generation == 2


@pytest.mark.parametrize("was_asked", [False, True], ids=["at first", "after an answer"])
@pytest.mark.parametrize("is_at_work", [False, True], ids=["before it was asked", "while it was computed"])
def test_another_s_look_that_withdraws_has_the_next_one_loaded(
    standing: FakeStanding, is_at_work: bool, was_asked: bool
) -> None:
    """A request about erasures reads the store too. Asks that wait then do not wait for the next refresh."""
    made = Answering(cast("Standing", standing), 1e6)
    try:
        if was_asked:
            assert result(made.ask(features(0))).generation == 1
        if is_at_work:
            with at_work(standing, made) as first:
                asked = made.ask(features(1))
                standing.floor = standing.named = 2
            assert result(first).generation == 2
        else:
            standing.floor = standing.named = 2
            asked = made.ask(features(1))
        assert result(asked).generation == 2
    finally:
        made.close()


def test_a_large_request_is_given_up_in_the_middle(standing: FakeStanding, answering: Answering) -> None:
    """Once the erasure floor has risen, no further piece of a request is computed with what it withdrew."""
    first = standing.held
    assert first is not None

    def erase() -> None:
        standing.named = standing.floor = 2

    first.before = erase
    numbers = np.arange(5 * TOGETHER)
    found = result(answering.ask(features(*numbers)))
    np.testing.assert_array_equal(numbers, found.scores_NS[:, 0])
    assert (found.generation, found.scores_NS[:, 1].min()) == (2, 2)
    assert first.calls == [TOGETHER]


def test_the_old_generation_answers_while_the_new_one_is_loaded(standing: FakeStanding, answering: Answering) -> None:
    """A published generation takes nothing away: until it is in memory the one before it answers."""
    loading, loaded = threading.Event(), threading.Event()

    class Slow(FakeStanding):
        def load(self) -> None:
            loading.set()
            assert loaded.wait(PATIENCE_SECONDS)
            FakeStanding.load(self)

    slow = Slow(FakeEnsemble(1))
    made = Answering(cast("Standing", slow), 0.01)
    slow.named = 2
    assert loading.wait(PATIENCE_SECONDS)
    assert result(made.ask(features(1))).generation == 1
    loaded.set()
    while result(made.ask(features(1))).generation != 2:
        pass
    made.close()


def test_a_store_that_is_away_silences_the_replica(standing: FakeStanding, answering: Answering) -> None:
    """What cannot be confirmed is not answered, even with a generation in memory; once the store is back, it is."""
    standing.away = Unavailable("the disk is gone", "mount it")
    with pytest.raises(Unavailable, match="cannot be confirmed"):
        result(answering.ask(features(1)))
    with pytest.raises(Unavailable, match="the disk is gone"):
        answering.check()
    standing.away = None
    while True:
        try:
            assert result(answering.ask(features(1))).generation == 1
            break
        except Unavailable:
            continue


def test_without_a_generation_the_reason_is_reported(standing: FakeStanding, answering: Answering) -> None:
    """If no generation may be served and none can be loaded, callers get the reason; if one can, they wait for it."""
    standing.unloadable = Unavailable("all constituents are being retrained", "Wait.")
    standing.named = standing.floor = 2  # nothing is loaded from here on: asks wait until that is known
    with pytest.raises(Unavailable, match="being retrained"):
        result(answering.ask(features(1)))
    with pytest.raises(Unavailable, match="being retrained"):
        answering.check()
    standing.unloadable = None
    while True:
        try:
            assert result(answering.ask(features(1))).generation == 2
            break
        except Unavailable:
            continue


def test_small_requests_share_an_evaluation(standing: FakeStanding, answering: Answering) -> None:
    """What comes in while the model is at work is its next batch."""
    with at_work(standing, answering) as first:
        others = [answering.ask(features(number, number)) for number in range(1, 40)]
    assert [result(each).scores_NS[:, 0].tolist() for each in others] == [[number] * 2 for number in range(1, 40)]
    assert result(first).scores_NS[:, 0].tolist() == [0]
    assert standing.held is not None
    assert standing.held.calls == [1, 78]


def test_requests_of_another_width_are_evaluated_apart(standing: FakeStanding, answering: Answering) -> None:
    """After retraining with one more feature, callers with old and new data points do not affect each other."""
    with at_work(standing, answering) as first:
        narrow, wide, again = map(answering.ask, (features(1), np.full((2, 3), 2, np.float32), features(3)))
    assert [result(each).scores_NS[:, 0].tolist() for each in (first, narrow, wide, again)] == [[0], [1], [2, 2], [3]]
    assert standing.held is not None
    assert standing.held.calls == [1, 1, 2, 1]


def test_large_requests_let_small_ones_pass(standing: FakeStanding, answering: Answering) -> None:
    """A large request is evaluated piece by piece, small ones in between, and its answer is whole and in order."""
    asked: list[Future[Answer]] = []
    assert standing.held is not None
    standing.held.before = lambda: asked.append(answering.ask(features(7))) if not asked else None
    numbers = np.arange(10 * TOGETHER + 5)
    large = result(answering.ask(features(*numbers)))
    np.testing.assert_array_equal(numbers, large.scores_NS[:, 0])
    assert result(asked[0]).scores_NS[:, 0].tolist() == [7]
    assert standing.held.calls[:3] == [TOGETHER, 1, TOGETHER]
    assert standing.held.calls[-1] == 5


def test_a_model_that_fails_is_not_quoted(standing: FakeStanding, answering: Answering) -> None:
    """An error of the model's code reaches the caller without its text, and the replica answers on."""
    with pytest.raises(InvariantBroken, match="the model failed") as caught:
        result(answering.ask(features(-1)))
    assert "secret" not in str(caught.value)
    assert result(answering.ask(features(1))).scores_NS[:, 0].tolist() == [1]


def test_who_has_good_values_is_answered(standing: FakeStanding, answering: Answering) -> None:
    """Among questions evaluated together, only the one that the model cannot answer is refused, at its own place."""
    with at_work(standing, answering):
        asked = [answering.ask(features(*firsts)) for firsts in ((1,), (2, UNKNOWN), (3,))]
    assert [result(each).scores_NS[:, 0].tolist() for each in (asked[0], asked[2])] == [[1], [3]]
    with pytest.raises(ModelFailed, match="point=1"):
        result(asked[1])
    assert standing.held is not None
    assert standing.held.calls == [1, 4, 1, 2, 1]


def test_a_thread_that_ends_takes_nobody_with_it(standing: FakeStanding) -> None:
    """A bug that ends a thread ends the replica: what is asked is refused, and the check says that it is over."""
    said: list[Any] = []
    hook, threading.excepthook = threading.excepthook, said.append

    def fail() -> None:
        raise KeyError("bug")

    standing.on_look = fail
    made = Answering(cast("Standing", standing), 0.01)
    with pytest.raises(Unavailable, match="stopping"):
        result(made.ask(features(1)))
    made.close()
    with pytest.raises(InvariantBroken, match="a thread of this replica has ended"):
        made.check()
    threading.excepthook = hook
    assert [each.exc_type for each in said] == [KeyError]


def test_who_went_away_is_not_answered(standing: FakeStanding, answering: Answering) -> None:
    """A caller that gave up costs nothing but its share of the work."""
    gone = answering.ask(features(1))
    gone.cancel()
    assert result(answering.ask(features(2))).scores_NS[:, 0].tolist() == [2]


def test_a_closed_replica_refuses(standing: FakeStanding) -> None:
    """A closed replica does not accept any request."""
    made = Answering(cast("Standing", standing), 0.01)
    made.close()
    with pytest.raises(Unavailable, match="stopping"):
        result(made.ask(features(1)))


def test_the_fake_stands_for_the_real_one() -> None:
    """What the fakes offer, the real classes have."""
    assert {"state", "ensemble", "floor", "is_behind", "current", "load"} <= set(dir(Standing))
    assert {"generation", "shards", "constituents", "answer"} <= set(dir(Ensemble))
