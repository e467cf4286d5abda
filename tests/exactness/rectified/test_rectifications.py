"""The law for corrections: after any history the bytes equal those of a run on the corrected data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shards.learners.torch.learner import TorchState
from shards.routing import subject_digest
from tests.doubles.corrected import Truth
from tests.doubles.federation import KEY, NAMING, Point, SmallFederation
from tests.exactness.federations import assert_exact, assert_untouched, federation_of
from tests.exactness.strategies import LEARNERS, MODELS, OPTIMIZERS, TARGETS, History, histories, other_histories
from tests.volume import examples

pytestmark = pytest.mark.volume

_SHARE = 0.4
_CHOSEN = [[each[0] for each in LEARNERS].index(name) for name in ("forest", "naive_bayes", "ridge")]
_ORDERS = st.sampled_from(["ce", "ec", "cse", "esc"])
"""``c``: correct, ``e``: erase, ``s``: carry out what was accepted."""


def _corrected(points: Sequence[Point], seed: int) -> list[Point]:
    """Return the data points with other features, and the labels of others."""
    generator = np.random.default_rng(seed)
    labels = [point.label for point in points]
    return [
        replace(
            point,
            label=labels[int(generator.integers(len(labels)))],
            features=tuple(float(value) for value in generator.normal(size=len(point.features)).astype(np.float32)),
        )
        for point in points
    ]


def _held_out(points: Sequence[Point]) -> set[str]:
    """Return the subjects that ``_SHARE`` holds out."""
    digests = {point.subject: subject_digest(KEY, point.subject, NAMING) for point in points}
    return {name for name, digest in digests.items() if int.from_bytes(digest[:8], "big") < _SHARE * 2**64}


def _check(history: History, seed: int, order: str) -> None:
    """Correct some data points before, after, or together with each step's erasures, and compare every byte."""
    federation: SmallFederation[TorchState] = federation_of(history.specification)
    truth, partition = Truth(), history.specification.partition
    held = _held_out(history.points) if history.specification.data.holdout else set()
    federation.train(history.points)
    truth.train(history.points)
    for number, step in enumerate(history.steps):
        rows = _corrected(history.points[number :: len(history.steps) + 1][:4] or history.points[:1], seed + number)
        before = federation.state
        touched = [row for row in rows if row.id in truth.present]
        for kind in order:
            if kind == "c":
                federation.propose(rows, request_id=f"c-{number}")
                truth.rectify(rows)
            elif kind == "e":
                for position, erasure in enumerate(step.erasures):
                    federation.accept(subjects=erasure.subjects, ids=erasure.ids, request_id=f"er-{number}-{position}")
                    gone = dict(truth.present)
                    truth.erase(erasure.subjects, erasure.ids)
                    touched += [point for id_, point in gone.items() if id_ not in truth.present]
            else:
                federation.engine.settle()
        federation.engine.settle()
        trained = [point for point in touched if point.subject not in held]
        assert_untouched(
            before, federation.state, [point.slice_id(partition.shards, partition.slices) for point in trained]
        )
        if step.train_again:
            federation.train(history.points)
            truth.train(history.points)
    left = list(truth.present.values())
    if not left or any(point.subject not in held for point in left):  # a source of hold-out points alone is refused
        assert_exact(federation, left)


@pytest.mark.parametrize("model", MODELS)
def test_any_history_of_corrections_ends_in_the_bytes_of_a_full_retrain(model: str) -> None:
    """Corrections before erasures, after them and together with them, and trainings on the uncorrected source."""

    @settings(max_examples=examples(4, few=3))
    @given(history=histories(model, most_points=30), seed=st.integers(0, 99), order=_ORDERS)
    def check(history: History, seed: int, order: str) -> None:
        _check(history, seed, order)

    check()


@pytest.mark.parametrize("number", [None, 0, 5])
def test_any_history_of_corrections_beside_hold_out_points(number: int | None) -> None:
    """Constituents never see them, and their slices have the corrected values."""
    given_ = histories("mlp", most_points=30) if number is None else other_histories(*LEARNERS[number])

    @settings(max_examples=examples(6, few=3))
    @given(history=given_, seed=st.integers(0, 99), order=_ORDERS)
    def check(history: History, seed: int, order: str) -> None:
        people = {point.subject for point in history.points}
        assume(0 < len(_held_out(history.points)) < len(people))
        data = replace(history.specification.data, holdout=_SHARE)
        _check(replace(history, specification=replace(history.specification, data=data)), seed, order)

    check()


@pytest.mark.parametrize("number", _CHOSEN)
def test_any_history_of_corrections_of_any_learner(number: int) -> None:
    """A point whose content changes is taken out and put in directly, to the same bytes."""

    @settings(max_examples=examples(6, few=3))
    @given(history=other_histories(*LEARNERS[number]), seed=st.integers(0, 99), order=_ORDERS)
    def check(history: History, seed: int, order: str) -> None:
        _check(history, seed, order)

    check()


@pytest.mark.slow
@settings(max_examples=examples(120, few=4))
@given(data=st.data(), seed=st.integers(0, 99), order=_ORDERS)
def test_any_longer_history_of_corrections_ends_in_the_bytes_of_a_full_retrain(
    data: st.DataObject, seed: int, order: str
) -> None:
    """The same over more federations, and for targets that are numbers."""
    settings_: list[tuple[str, dict[str, Any]]] = [*TARGETS, ("class", OPTIMIZERS[3])]
    target, optimizer = data.draw(st.sampled_from(settings_))
    model = data.draw(st.sampled_from(sorted(MODELS)))
    _check(data.draw(histories(model, most_points=40, optimizers=[optimizer], target=target)), seed, order)
