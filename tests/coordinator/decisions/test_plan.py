"""Retrain plans: the affected shards from their earliest affected slice, and nothing else (SISA sections III, IV)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.decisions import plan
from coordinator.decisions.decide import decide
from coordinator.decisions.events import TrainingConfigured
from coordinator.decisions.plan import RetrainPlanner, affected_slices, plan_retrain
from coordinator.state import FederationState
from shards.cost import replay_point_epochs
from shards.routing import SliceId
from shards.schedule import slice_epochs
from shards.specification import ShardId, SliceIndex
from tests.coordinator.decisions.test_decide import learn_all, place, trained
from tests.coordinator.records import SETTINGS, configuration, federation

EPOCHS = 6


@st.composite
def sizes(draw: st.DrawFn) -> tuple[tuple[int, ...], ...]:
    """Return the sizes of the slices of up to 4 shards."""
    slices = draw(st.integers(1, 4))
    return tuple(draw(st.lists(st.tuples(*[st.integers(0, 6)] * slices), min_size=1, max_size=4)))


def _places(held: tuple[tuple[int, ...], ...]) -> list[SliceId]:
    return [place(shard, slice_ + 1) for shard, counts in enumerate(held) for slice_ in range(len(counts))]


def _count(held: tuple[tuple[int, ...], ...], where: SliceId) -> int:
    return held[where.shard][where.slice - 1]


@st.composite
def erasures(draw: st.DrawFn) -> tuple[tuple[tuple[int, ...], ...], dict[SliceId, int]]:
    """Return sizes, and how many points are to be erased where."""
    held = draw(sizes())
    return held, {where: draw(st.integers(0, _count(held, where))) for where in _places(held)}


def _without(held: tuple[tuple[int, ...], ...], erased: Mapping[SliceId, int]) -> FederationState:
    return federation(
        *(
            tuple(count - erased.get(place(shard, n + 1), 0) for n, count in enumerate(counts))
            for shard, counts in enumerate(held)
        )
    )


@given(case=erasures())
def test_only_affected_shards_from_their_earliest_slice(
    case: tuple[tuple[tuple[int, ...], ...], dict[SliceId, int]],
) -> None:
    """A plan names exactly the shards that lose a point, each from the first slice that does."""
    held, erased = case
    plan = plan_retrain(federation(*held), erased, EPOCHS)
    hit = {where for where, count in erased.items() if count}
    assert [each.shard for each in plan.shards] == sorted({where.shard for where in hit})
    for each in plan.shards:
        assert each.from_slice == min(where.slice for where in hit if where.shard == each.shard)
    assert plan.points == sum(erased.values())


@pytest.mark.parametrize(
    ("learner", "erasing", "correcting"), [("ridge", 2, 4), ("k_means", 4, 6), ("certified_linear", 4, 6)]
)
def test_what_may_have_to_be_learned_again_is_priced_so(learner: str, erasing: int, correcting: int) -> None:
    """Two points of six: most learners look at these alone, k-means at the four others if a centroid moves.

    A certified constituent is learned again for every correction, and for an erasure once its budget is used up.
    """
    asked = TrainingConfigured(settings=SETTINGS, configuration=replace(configuration(), learner=learner))
    state = decide(federation((3, 3)), asked)[0]
    erased = {place(0, 1): 1, place(0, 2): 1}
    assert plan_retrain(state, erased, 1).point_epochs == erasing
    assert plan_retrain(state, erased, 1, stay=True).point_epochs == correcting


@pytest.mark.parametrize(
    ("learner", "erasing", "expected"), [("forest", 100, 100), ("forest", 200, 1800), ("ridge", 200, 200)]
)
def test_many_points_are_priced_by_the_cheaper_way(learner: str, erasing: int, expected: int) -> None:
    """A tenth of a shard is as much work for a forest as growing it again; sums are corrected."""
    asked = TrainingConfigured(settings=SETTINGS, configuration=replace(configuration(), learner=learner))
    state = decide(federation((1000, 1000)), asked)[0]
    assert plan_retrain(state, {place(0, 1): erasing}, 1).point_epochs == expected


@given(case=erasures(), data=st.data())
def test_a_plan_costs_at_least_what_a_part_of_it_costs(
    case: tuple[tuple[tuple[int, ...], ...], dict[SliceId, int]], data: st.DataObject
) -> None:
    """Over the same survivors, erasing more never costs less, and never more than a full retrain."""
    held, erased = case
    part = {where: count for where, count in erased.items() if data.draw(st.booleans())}
    rest = {where: count for where, count in erased.items() if where not in part}
    whole = plan_retrain(federation(*held), erased, EPOCHS)
    sub = plan_retrain(_without(held, rest), part, EPOCHS)
    assert sub.full_point_epochs == whole.full_point_epochs
    assert sub.point_epochs <= whole.point_epochs <= whole.full_point_epochs
    assert {(each.shard) for each in sub.shards} <= {each.shard for each in whole.shards}
    assert 0.0 <= whole.fraction <= 1.0


@given(held=sizes())
def test_erasing_one_point_in_every_first_slice_costs_everything(held: tuple[tuple[int, ...], ...]) -> None:
    """The most expensive plan is the full retrain of the remaining points."""
    firsts = {place(shard, 1): 1 for shard, counts in enumerate(held) if counts[0]}
    plan = plan_retrain(federation(*held), firsts, EPOCHS)
    untouched = plan_retrain(_without(held, {}), {}, EPOCHS)
    assert untouched.point_epochs == 0
    if len(firsts) == len(held):
        assert plan.point_epochs == plan.full_point_epochs


def test_costs_by_hand() -> None:
    """Two slices of 4 and 5 points, one of the second erased: its step sees the 8 survivors for its epochs."""
    plan = plan_retrain(trained((4, 5), (3, 3)), {place(0, 2): 1}, EPOCHS)
    assert slice_epochs(EPOCHS, 2) == (4, 4)
    (only,) = plan.shards
    assert (only.shard, only.from_slice, only.point_epochs, only.seconds) == (0, 2, 4 * 8, 1.0)
    assert plan.full_point_epochs == 4 * 4 + 4 * 8 + 4 * 3 + 4 * 6
    assert plan.fraction == pytest.approx(32 / 84)


def test_what_it_took_last_time_is_reported() -> None:
    """The seconds are those of the discarded checkpoints; before training they are unknown."""
    state = federation((2, 2, 2))
    assert plan_retrain(state, {place(0, 1): 1}, EPOCHS).shards[0].seconds == 0
    configured = decide(state, TrainingConfigured(settings={}, configuration=configuration()))[0]
    assert plan_retrain(learn_all(configured), {place(0, 2): 1}, EPOCHS).shards[0].seconds == 2.0


def test_an_empty_plan() -> None:
    """Erasing nothing, or from a federation without points, costs nothing."""
    assert plan_retrain(federation((2, 2)), {}, EPOCHS).shards == ()
    assert plan_retrain(federation((0, 0)), {}, EPOCHS).fraction == 0.0
    assert affected_slices([]) == {}


def test_affected_slices_are_sorted_by_shard() -> None:
    """The earliest slice of each shard, in the order of shards."""
    found = affected_slices([place(3, 2), place(1, 4), place(3, 1), place(1, 5)])
    assert list(found.items()) == [(ShardId(1), SliceIndex(4)), (ShardId(3), SliceIndex(1))]


@given(case=erasures(), stay=st.booleans())
def test_a_planner_prices_each_erasure_by_its_steps(
    case: tuple[tuple[tuple[int, ...], ...], dict[SliceId, int]], *, stay: bool
) -> None:
    """One planner prices many erasures, each as if it were the only one: the points that remain, once an epoch."""
    held, erased = case
    planner = RetrainPlanner(federation(*held), EPOCHS)
    schedule = slice_epochs(EPOCHS, len(held[0]))
    for some in ({where: count} for where, count in erased.items()):
        for retrain in planner.retrains(some, stay=stay):
            gone = {} if stay else some
            points = [
                count - gone.get(place(retrain.shard, number), 0)
                for number, count in enumerate(held[retrain.shard], start=1)
            ]
            assert retrain.point_epochs == replay_point_epochs(points, schedule, retrain.from_slice)
        assert planner.plan(some, stay=stay) == plan_retrain(federation(*held), some, EPOCHS, stay=stay)


def test_an_erasure_is_priced_without_the_other_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a thousand erasures in one shard, only that shard is summed up, and only once."""
    summed = []
    original = plan.RetrainPlanner._cost_of

    def noted(planner: RetrainPlanner, shard: ShardId) -> object:
        summed.append(shard)
        return original(planner, shard)

    monkeypatch.setattr(plan.RetrainPlanner, "_cost_of", noted)
    monkeypatch.setattr(plan, "training_point_epochs", None)
    planner = RetrainPlanner(trained((3, 3), (3, 3), (3, 3)), EPOCHS)
    for _ in range(1_000):
        planner.retrains({place(1, 2): 1})
    assert summed == [1]
