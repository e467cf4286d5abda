"""The law for data points of several people: if any of them is erased, the bytes are those of a full retrain."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.engine.lookup import load_tombstones
from coordinator.requests import Readmission
from shards.tombstones import DigestSet
from storage.digests import sha256
from tests.doubles.federation import names_of, survivors
from tests.exactness.federations import assert_exact, federation_of
from tests.exactness.strategies import History, HistoryStep, PlannedErasure, histories
from tests.exactness.test_histories import check_history
from tests.volume import examples


@st.composite
def several(draw: st.DrawFn, most_points: int = 25) -> History:
    """Return a random history over points with up to two further subjects each; some of these have no own points."""
    history = draw(histories(draw(st.sampled_from(["mlp-dropout", "logistic"])), most_points=most_points))
    people = [*sorted({point.subject for point in history.points}), "stranger-0", "stranger-1"]
    other = st.sampled_from(["", *people])
    points = tuple(replace(point, others=(draw(other), draw(other))) for point in history.points)
    erasure = st.builds(
        PlannedErasure,
        subjects=st.lists(st.sampled_from(people), max_size=2, unique=True).map(tuple),
        ids=st.lists(st.sampled_from([point.id for point in points]), max_size=2, unique=True).map(tuple),
    ).filter(lambda each: bool(each.subjects or each.ids))
    step = st.builds(
        HistoryStep, erasures=st.lists(erasure, min_size=1, max_size=2).map(tuple), train_again=st.booleans()
    )
    data = replace(history.specification.data, subject=("who", "who0", "who1"))
    return History(
        specification=replace(history.specification, data=data),
        points=points,
        steps=draw(st.lists(step, min_size=1, max_size=2).map(tuple)),
    )


@pytest.mark.volume
@settings(max_examples=examples(12, few=5))
@given(history=several())
def test_any_history_ends_in_the_bytes_of_a_full_retrain(history: History) -> None:
    """Points erased by sender, by recipient or by id leave no trace; unaffected objects are not rewritten."""
    check_history(history)


@pytest.mark.volume
@settings(max_examples=examples(6, few=3))
@given(history=several(most_points=16))
def test_the_order_of_erasures_leaves_no_trace(history: History) -> None:
    """A then B, B then A, and both together end in the same bytes (E9), with the same tombstones of ids."""
    first, second = (step.erasures[0] for step in (history.steps * 2)[:2])
    kept_out = set()
    for order in ([(first,), (second,)], [(second,), (first,)], [(first, second)]):
        steps = tuple(HistoryStep(erasures=erasures, train_again=False) for erasures in order)
        federation = check_history(replace(history, steps=steps))
        kept_out.add(load_tombstones(federation.store, federation.state.tombstone_objects()).points)
    assert len(kept_out) == 1


@pytest.mark.volume
@settings(max_examples=examples(6, few=3))
@given(history=several(most_points=16), data=st.data())
def test_a_readmission_does_not_bring_back_points_erased_with_others(history: History, data: st.DataObject) -> None:
    """After a readmission and another training, the points erased with a person stay out, by their ids."""
    erasure = history.steps[0].erasures[0]
    federation = federation_of(history.specification)
    federation.train(history.points)
    federation.erase(subjects=erasure.subjects, ids=erasure.ids, request_id="er-1")
    tombstones = load_tombstones(federation.store, federation.state.tombstone_objects())
    left = survivors(history.points, subjects=erasure.subjects, ids=erasure.ids)
    back = [name for name in erasure.subjects if len(names_of([name], []).shared(tombstones))]
    if back:
        names = names_of([data.draw(st.sampled_from(back))], [])
        body = sha256(names.digest().encode())
        federation.engine.readmit(
            Readmission(request_id="back", body=body, subjects=1, reason="asked to", at=federation.engine.now()), names
        )
        federation.engine.settle()
        kept = load_tombstones(federation.store, federation.state.tombstone_objects())
        assert kept == tombstones.without(DigestSet(subjects=names.subjects))
    federation.train(history.points)
    assert_exact(federation, left)
