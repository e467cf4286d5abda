"""Certified removal without SISA: its steps, its budget, and what it does beyond it."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np
import pytest

from shards.learner_kinds.certified import CertifiedLinearArguments
from shards.learner_kinds.guarantees import Certified
from shards.learners.approximate.guo import CertifiedAlone
from shards.learners.approximate.models import keyed_bytes
from shards.learners.approximate.protocol import Diverged
from storage.errors import Invalid
from tests.shards.learners.approximate.test_sekhari import made, refused
from tests.shards.learners.direct import chosen, points_of


def learner_of(classes: int = 2, stream: str = "noise", **changes: Any) -> CertifiedAlone:
    """Return a learner whose noise is the same in every run."""
    arguments = CertifiedLinearArguments(**{"norm": 4.0, "penalty": 1e-2, "noise": 0.5, "clip": True, **changes})
    return CertifiedAlone(4, classes, arguments, keyed_bytes(stream))


@pytest.mark.parametrize("classes", [2, 3])
def test_a_step_comes_near_a_retrain_with_the_same_noise(classes: int) -> None:
    """Far nearer than no step, and without new noise. A second learner with the same draws is what retrains."""
    every = made(300, classes)
    learner = learner_of(classes, penalty=0.1)
    state, left = learner.learn(every), chosen(every, np.arange(5, 300))
    after = learner.unlearn(state, chosen(every, np.arange(5)), lambda: left)
    retrained = learner_of(classes, penalty=0.1).learn(left)
    assert (after.noise_DW == state.noise_DW).all()
    before, now = (
        float(np.linalg.norm(learner.parameters(each) - learner.parameters(retrained))) for each in (state, after)
    )
    assert now < before / 20
    assert learner.parameters(after).shape == (5 * (1 if classes == 2 else classes),)
    found_NC = learner.probabilities(after, every.features_NF)
    assert found_NC.shape == (300, classes)
    assert found_NC.sum(axis=1) == pytest.approx(1)
    assert set(learner.arrays(after)) == {"coefficients", "noise", "spent", "salt"}
    assert state.spent < after.spent


def test_a_used_up_budget_means_learning_again_with_new_noise() -> None:
    """Steps go on until the budget does not allow another one."""
    every = made(60)
    learner = learner_of(noise=0.05)
    states = [learner.learn(every)]
    for gone in range(59):
        states.append(
            learner.unlearn(
                states[-1],
                chosen(every, np.arange(gone, gone + 1)),
                functools.partial(chosen, every, np.arange(gone + 1, 60)),
            )
        )
    renewed = [bool((now.noise_DW != was.noise_DW).any()) for was, now in itertools.pairwise(states)]
    assert 0 < sum(renewed) < len(renewed)
    assert not renewed[0]
    assert all(each.spent <= 0.05 / CertifiedLinearArguments().promise.constant for each in states)
    at = renewed.index(True)
    assert states[at + 1].spent < states[at].spent


def test_it_promises_what_its_arguments_say() -> None:
    """It is the one method of the laboratory with a guarantee other than a federation's exact one."""
    assert learner_of(epsilon=0.5, delta=1e-6).guarantee == Certified(epsilon=0.5, delta=1e-6)


def test_nobody_everybody_and_a_class_as_a_whole_leave() -> None:
    """Nothing changes; nothing is left; the class is no longer answered."""
    every = made(90, 3)
    learner = learner_of(3, noise=0.01)
    state = learner.learn(every)
    assert learner.unlearn(state, chosen(every, np.zeros(90, dtype=bool)), refused) is state
    nobody = learner.unlearn(state, every, lambda: chosen(every, np.zeros(90, dtype=bool)))
    assert not any(array.any() for array in learner.arrays(nobody).values())
    assert learner.probabilities(nobody, every.features_NF) == pytest.approx(1 / 3)
    gone_N = every.labels_N == 1
    left = chosen(every, ~gone_N)
    after = learner.unlearn(state, chosen(every, gone_N), lambda: left)
    assert (learner.probabilities(after, every.features_NF).argmax(axis=1) != 1).all()


def test_bad_input_is_named() -> None:
    """Features that are not numbers are a method's failure; arguments and lengths are the experimenter's."""
    learner, every = learner_of(), made(20)
    state = learner.learn(every)
    broken = made(20)
    broken.features_NF[3, 0] = math.nan
    with pytest.raises(Diverged, match="features of data points are not numbers"):
        learner.learn(broken)
    with pytest.raises(Diverged, match="features of data points are not numbers"):
        learner.unlearn(state, broken, refused)
    with pytest.raises(Invalid, match="norm must be above 0, got 0.0"):
        learner_of(norm=0.0)
    with pytest.raises(Invalid, match="is below the norm of the features of 1 of 1 data points"):
        learner_of(norm=1.0, clip=False).learn(points_of(np.ones((1, 4)), np.zeros(1, dtype=int)))
