"""The methods, one entry each: its place in the survey's taxonomy, what it proves, and how it is made.

K-means, which forgets directly, too, is not here: it is not a classifier, so it has no accuracy and no score of a
label.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import numpy as np

from cluster.experiments.table_i.alone import Alone, DoNothing, Unlearned
from cluster.experiments.table_i.federated import Federated
from cluster.experiments.table_i.trial import Method, Repetition
from shards.learner_kinds.certified import CertifiedLinearArguments
from shards.learners.approximate.ascent import GradientAscent
from shards.learners.approximate.deltagrad import DeltaGrad
from shards.learners.approximate.descent import DescentRecipe, FullRetrain
from shards.learners.approximate.fisher import FisherScrubbing, residual_nats
from shards.learners.approximate.guo import CertifiedAlone
from shards.learners.approximate.models import Softmax, keyed_bytes
from shards.learners.approximate.sekhari import Sekhari
from shards.learners.approximate.variational import Variational, kl_to

_EPOCHS: Final = 600
"""Enough for softmax regression to learn single people by heart."""
_RECIPE: Final = DescentRecipe(epochs=_EPOCHS, rate=0.2, later_rate=0.1, penalty=1e-4)
_PERIOD: Final = 5
_BURN_IN: Final = 10
EXPLICIT_SHARE: Final = (_BURN_IN + (_EPOCHS - _BURN_IN) / _PERIOD) / _EPOCHS
"""Share of DeltaGrad's steps in which the gradient is computed."""
_LONGEST: Final = 10.0
"""Norm to which longer pictures are shortened, by methods that need one: above that of nearly all of them."""
_CERTIFIED: Final[Mapping[str, Any]] = {"norm": _LONGEST, "clip": True, "noise": 5.0, "penalty": 1e-2}
_EPSILON: Final = 1.0
_DELTA: Final = 1e-4
_SHARDS: Final[Mapping[str, Any]] = {"shards": 5, "slices": 4}
_WHOLE: Final[Mapping[str, Any]] = {"shards": 1, "slices": 1}
_STEPS: Final[Mapping[str, Any]] = {"epochs": 20, "batch_size": 16, "learning_rate": 0.1}
_SAME_BYTES: Final = "Constituents have the bytes of a training that never saw the erased; digests are compared."


def _retrain(trial: Repetition) -> FullRetrain:
    return FullRetrain(_softmax(trial), _RECIPE)


def _softmax(trial: Repetition) -> Softmax:
    return Softmax(inputs=trial.train_NF.shape[1], classes=trial.classes)


def _keyed(trial: Repetition) -> Callable[[int], bytes]:
    """Return a source of noise: the same in every run, and the same for the first training and for the retrain."""
    return keyed_bytes(f"{trial.stream}/noise")


def _learned_again(found: Unlearned) -> str:
    """Return a note where the budget was not enough: the noise is another one then."""
    is_same = np.array_equal(found.before.noise_DW, found.after.noise_DW)
    return "" if is_same else "the budget was used up: learned again, with new noise"


def _fisher_nats(found: Unlearned) -> float:
    scrubbing: FisherScrubbing = found.learner
    variances_P = scrubbing.variances(found.before, found.left)
    return residual_nats(scrubbing.parameters(found.before), scrubbing.parameters(found.retrained), variances_P)


def _posterior_nats(found: Unlearned) -> float:
    return kl_to(found.after, found.retrained)


def _variational(trial: Repetition, objective: Literal["eubo", "rkl"], reach: float) -> Variational:
    """Return the learner; ``reach`` says how far down the posterior is trusted, in nats for each coefficient.

    A posterior of D coefficients is about D / 2 nats below its peak at a typical place.
    """
    inputs = trial.train_NF.shape[1]
    return Variational(
        inputs, objective=objective, trust=math.exp(-reach * (inputs + 1)), seed=1, classes=trial.classes
    )


_METHODS: Final[tuple[Method, ...]] = (
    Alone(
        name="do-nothing",
        kind="floor",
        proves="Nothing: all that was learned of the erased stays.",
        make=lambda trial: DoNothing(_retrain(trial)),
        yardstick=_retrain,
    ),
    Alone(
        name="full-retrain",
        kind="yardstick",
        proves="Exact by construction: it never saw the erased.",
        make=_retrain,
        is_exact=True,
    ),
    Federated(
        name="sisa-net",
        kind="exact: partition",
        proves=f"{_SAME_BYTES} Not against people who choose whom to erase by what a model answered.",
        tables={
            "model": {"factory": "shards.models:mlp", "arguments": {"hidden": [32]}},
            "training": _STEPS,
            "partition": _SHARDS,
        },
    ),
    Federated(
        name="sisa-logistic",
        kind="exact: partition",
        proves=f"{_SAME_BYTES} Not against people who choose whom to erase by what a model answered.",
        tables={"model": {"factory": "shards.models:logistic"}, "training": _STEPS, "partition": _SHARDS},
    ),
    Federated(
        name="sisa-boosting",
        kind="exact: partition",
        proves=f"{_SAME_BYTES} Thresholds show values of people who are still there.",
        tables={
            "model": {"learner": "boosting", "arguments": {"leaves": 15, "min_leaf": 5}},
            "training": {"epochs": 20},
            "partition": _SHARDS,
        },
    ),
    Federated(
        name="sisa-sklearn",
        kind="exact: partition",
        proves=_SAME_BYTES,
        tables={
            "model": {"learner": "sklearn", "arguments": {"estimator": "SGDClassifier", "loss": "log_loss"}},
            "training": {"epochs": 20},
            "partition": _SHARDS,
        },
    ),
    Federated(
        name="forest",
        kind="exact: trees",
        proves=f"{_SAME_BYTES} Thresholds show values of people who are still there.",
        tables={"model": {"learner": "forest", "arguments": {"trees": 20, "min_leaf": 1}}, "partition": _WHOLE},
    ),
    Federated(
        name="naive-bayes",
        kind="exact: summation",
        proves=_SAME_BYTES,
        tables={"model": {"learner": "naive_bayes"}, "partition": _WHOLE},
    ),
    Federated(
        name="ridge",
        kind="exact: summation",
        proves=_SAME_BYTES,
        tables={"model": {"learner": "ridge"}, "partition": _WHOLE},
    ),
    Federated(
        name="sisa-certified",
        kind="approximate: certified",
        proves="No outcome is more likely than after a retrain by more than a factor exp(epsilon), except with"
        " probability delta, within a budget; then the constituent is learned again.",
        tables={
            "model": {
                "learner": "certified_linear",
                "guarantee": "certified",
                "arguments": {**_CERTIFIED, "epsilon": _EPSILON, "delta": _DELTA},
            },
            "partition": {"shards": 2, "slices": 1},
        },
        is_for_two=True,
    ),
    Alone(
        name="deltagrad",
        kind="exact: repeated gradients",
        proves="An error of a smaller order than the share of those who are erased, for strongly convex losses. The"
        " survey files it as exact; nothing is proved about what is left of a person.",
        make=lambda trial: DeltaGrad(_softmax(trial), _RECIPE, period=_PERIOD, burn_in=_BURN_IN),
        yardstick=_retrain,
    ),
    Alone(
        name="gradient-ascent",
        kind="not in the survey: custom",
        proves="Nothing.",
        make=lambda trial: GradientAscent(_softmax(trial), _RECIPE, steps=2, rate=0.1),
        yardstick=_retrain,
    ),
    Alone(
        name="sekhari",
        kind="approximate: Newton step and noise",
        proves="What is published after a single request is as likely as after a retrain with the same noise, up to"
        " epsilon and delta, for strongly convex losses; no data point that is left is read. What is kept is not"
        " covered.",
        make=lambda trial: Sekhari(
            trial.train_NF.shape[1],
            trial.classes,
            penalty=1.0,
            epsilon=_EPSILON,
            delta=_DELTA,
            norm=_LONGEST,
            draw=_keyed(trial),
        ),
        is_for_two=True,
    ),
    Alone(
        name="certified-alone",
        kind="approximate: certified",
        proves="As sisa-certified, without partition: one Newton step over all data points that are left.",
        make=lambda trial: CertifiedAlone(
            trial.train_NF.shape[1],
            trial.classes,
            CertifiedLinearArguments(**_CERTIFIED, epsilon=_EPSILON, delta=_DELTA),
            _keyed(trial),
        ),
        remark=_learned_again,
        is_for_two=True,
    ),
    Alone(
        name="fisher-scrubbing",
        kind="approximate: Fisher information",
        proves="The nats bound what any reader of the noisy parameters can distinguish from a retrain with the same"
        " noise, in this one run; only a retrain says how many there are.",
        make=lambda trial: FisherScrubbing(_softmax(trial), _RECIPE, strength=1e-3, draw=_keyed(trial)),
        yardstick=_retrain,
        nats=_fisher_nats,
    ),
    Alone(
        name="variational-eubo",
        kind="approximate: variational Bayes",
        proves="Nothing beyond the approximate posterior: the less it fits, the less has been unlearned.",
        make=lambda trial: _variational(trial, "eubo", 0.51),
        nats=_posterior_nats,
    ),
    Alone(
        name="variational-rkl",
        kind="approximate: variational Bayes",
        proves="Nothing beyond the approximate posterior: the less it fits, the less has been unlearned.",
        make=lambda trial: _variational(trial, "rkl", 0.47),
        nats=_posterior_nats,
    ),
)

METHODS: Final[Mapping[str, Method]] = {method.name: method for method in _METHODS}
"""The methods by name, in the order of the table."""
