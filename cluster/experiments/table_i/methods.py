"""The methods, one entry each: its place in the survey's taxonomy, what it proves, and how it is made.

K-means, which forgets directly, too, is not here: it is not a classifier, so it has no accuracy and no score of a
label.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cluster.experiments.table_i.alone import Alone, DoNothing
from cluster.experiments.table_i.federated import Federated
from cluster.experiments.table_i.trial import Method, Trial
from shards.learners.approximate.descent import DescentRecipe, FullRetrain
from shards.learners.approximate.models import Softmax

_EPOCHS: Final = 300
"""Enough for softmax regression to learn single people by heart."""
_RECIPE: Final = DescentRecipe(epochs=_EPOCHS, rate=0.2, later_rate=0.1, penalty=1e-4)
_SHARDS: Final[Mapping[str, Any]] = {"shards": 5, "slices": 4}
_WHOLE: Final[Mapping[str, Any]] = {"shards": 1, "slices": 1}
_STEPS: Final[Mapping[str, Any]] = {"epochs": 20, "batch_size": 16, "learning_rate": 0.1}
_SAME_BYTES: Final = "Constituents have the bytes of a training that never saw the erased; digests are compared."


def _retrain(trial: Trial) -> FullRetrain:
    return FullRetrain(_softmax(trial), _RECIPE)


def _softmax(trial: Trial) -> Softmax:
    return Softmax(inputs=trial.train_NF.shape[1], classes=trial.classes)


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
                "arguments": {"norm": 10.0, "clip": True, "noise": 1.0, "penalty": 1e-2},
            },
            "partition": {"shards": 2, "slices": 1},
        },
        is_for_two=True,
    ),
)

METHODS: Final[Mapping[str, Method]] = {method.name: method for method in _METHODS}
"""By name, in the order of the table."""
