"""The law, over random histories: after any erasures the bytes equal those of a run without the erased points."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.learner_kinds.kinds import LEARNERS as KINDS
from shards.learners.torch.learner import TorchState
from shards.routing import SliceId
from tests.doubles.federation import Point, SmallFederation, survivors
from tests.exactness.federations import assert_exact, assert_untouched, federation_of, retrained
from tests.exactness.strategies import (
    FUSED,
    LEARNERS,
    MODELS,
    NEEDED,
    RECIPES,
    TARGETS,
    History,
    HistoryStep,
    PlannedErasure,
    histories,
    other_histories,
)
from tests.volume import examples, spread

pytestmark = pytest.mark.volume


def _places(history: History, points: list[Point]) -> list[SliceId]:
    partition = history.specification.partition
    return [point.slice_id(partition.shards, partition.slices) for point in points]


def _without(points: list[Point], step: HistoryStep) -> list[Point]:
    for erasure in step.erasures:
        points = survivors(points, subjects=erasure.subjects, ids=erasure.ids)
    return points


def _perform(federation: SmallFederation[TorchState], step: HistoryStep, number: int) -> None:
    for position, erasure in enumerate(step.erasures):
        federation.accept(subjects=erasure.subjects, ids=erasure.ids, request_id=f"er-{number}-{position}")
    federation.engine.settle()


def check_history(history: History) -> SmallFederation[TorchState]:
    """Play the history, check that each step changes only what it must, and compare the bytes at the end.

    Returns the federation at the end of the history.
    """
    federation = federation_of(history.specification)
    federation.train(history.points)
    left = list(history.points)
    for number, step in enumerate(history.steps):
        before, remaining = federation.state, _without(left, step)
        gone = [point for point in left if point not in remaining]
        _perform(federation, step, number)
        assert_untouched(before, federation.state, _places(history, gone))
        left = remaining
        if step.train_again:
            settled = [shard.chain for shard in federation.state.shards]
            federation.train(history.points)
            assert [shard.chain for shard in federation.state.shards] == settled
    assert_exact(federation, left)
    return federation


@pytest.mark.parametrize("model", MODELS)
def test_any_history_ends_in_the_bytes_of_a_full_retrain(model: str) -> None:
    """After any erasures in any order, every checkpoint has the bytes of a new run on the remaining points."""

    @settings(max_examples=examples(8, few=3))
    @given(history=histories(model))
    def check(history: History) -> None:
        check_history(history)

    check()


@pytest.mark.parametrize("recipe", range(len(RECIPES)))
def test_any_history_with_any_recipe_ends_in_the_bytes_of_a_full_retrain(recipe: int) -> None:
    """Losses, schedules, clipping, augmentation, other optimizers and the user's own steps are as exact."""

    @settings(max_examples=examples(6, few=3))
    @given(data=st.data(), model=st.sampled_from(sorted(MODELS)))
    def check(data: st.DataObject, model: str) -> None:
        check_history(data.draw(histories(model, most_points=30, optimizers=[RECIPES[recipe]])))

    check()


@settings(max_examples=examples(8, few=4))
@given(history=st.sampled_from(sorted(MODELS)).flatmap(partial(histories, most_points=30, optimizers=FUSED)))
def test_any_history_with_fused_kernels_ends_in_the_bytes_of_a_full_retrain(history: History) -> None:
    """Their bits are others, and as exact."""
    check_history(history)


@pytest.mark.parametrize("number", range(len(TARGETS)))
def test_any_history_with_any_target_ends_in_the_bytes_of_a_full_retrain(number: int) -> None:
    """Federations that predict numbers, or several labels at once, are as exact."""
    target, recipe = TARGETS[number]

    @settings(max_examples=examples(6, few=3))
    @given(data=st.data(), model=st.sampled_from(sorted(MODELS)))
    def check(data: st.DataObject, model: str) -> None:
        check_history(data.draw(histories(model, most_points=30, optimizers=[recipe], target=target)))

    check()


@pytest.mark.parametrize("number", range(len(LEARNERS)))
def test_any_history_with_any_learner_ends_in_the_bytes_of_a_full_retrain(number: int) -> None:
    """Learners that take points out directly, or train on from a slice, arrive at the bytes of a run without them."""
    learner, target, arguments = LEARNERS[number]
    if learner in NEEDED:
        pytest.importorskip(NEEDED[learner])

    @settings(max_examples=examples(10, few=4) if KINDS[learner].whole else examples(4, few=3))
    @given(history=other_histories(learner, target, arguments))
    def check(history: History) -> None:
        check_history(history)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", spread(range(len(RECIPES)), 5))
def test_any_longer_history_with_any_recipe_ends_in_the_bytes_of_a_full_retrain(recipe: int) -> None:
    """The same over more federations, with more points."""

    @settings(max_examples=examples(120, few=4))
    @given(data=st.data(), model=st.sampled_from(sorted(MODELS)))
    def check(data: st.DataObject, model: str) -> None:
        check_history(data.draw(histories(model, most_points=60, optimizers=[RECIPES[recipe]])))

    check()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", spread(range(len(FUSED)), 5))
def test_any_longer_history_with_fused_kernels_ends_in_the_bytes_of_a_full_retrain(recipe: int) -> None:
    """The same over more federations, with more points."""

    @settings(max_examples=examples(120, few=4))
    @given(
        history=st.sampled_from(sorted(MODELS)).flatmap(partial(histories, most_points=60, optimizers=[FUSED[recipe]]))
    )
    def check(history: History) -> None:
        check_history(history)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("model", spread(sorted(MODELS), 5))
def test_any_longer_history_ends_in_the_bytes_of_a_full_retrain(model: str) -> None:
    """The same over more federations, with more points."""

    @settings(max_examples=examples(80, few=4))
    @given(history=histories(model, most_points=60))
    def check(history: History) -> None:
        check_history(history)

    check()


@settings(max_examples=examples(10, few=4))
@given(data=st.data(), model=st.sampled_from(sorted(MODELS)))
def test_the_order_of_erasures_leaves_no_trace(data: st.DataObject, model: str) -> None:
    """A then B, B then A, and A and B together end in the same bytes (E9)."""
    history = data.draw(histories(model, most_points=25))
    first, second = (step.erasures[0] for step in (history.steps * 2)[:2])
    orders: list[list[tuple[PlannedErasure, ...]]] = [[(first,), (second,)], [(second,), (first,)], [(first, second)]]
    for order in orders:
        steps = tuple(HistoryStep(erasures=erasures, train_again=False) for erasures in order)
        check_history(History(specification=history.specification, points=history.points, steps=steps))


@settings(max_examples=examples(8, few=3))
@given(history=histories("mlp-dropout", most_points=25))
def test_two_federations_of_the_same_points_are_equal(history: History) -> None:
    """Training twice on the same data points in different orders gives the same bytes under different keys."""
    federation = federation_of(history.specification)
    federation.train(history.points)
    assert_exact(federation, history.points)
    assert retrained(history.specification, history.points).state.generation == 1
