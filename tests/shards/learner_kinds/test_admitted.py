"""What is refused when data are taken is what the learner would refuse: nothing gets in that cannot be learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shards.learner_kinds.kinds import LEARNERS
from shards.learners.registry import open_learner
from shards.specification import ModelSettings, TrainingSettings
from storage.errors import Invalid
from tests.shards.learners.direct import learned, points_of

VALUES = [-(2.0**25), -(2.0**15) - 1, -(2.0**15), -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 2.5, 3.0, 2.0**15, 2.0**15 + 1]
VALUES += [2.0**24, 2.0**25]
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("forest", "number", {}),
    ("forest", "class", {}),
    ("k_means", "cluster", {}),
    ("cooccurrence", "recommend", {}),
    ("naive_bayes", "class", {}),
    ("naive_bayes", "class", {"form": "bernoulli"}),
    ("naive_bayes", "class", {"form": "multinomial"}),
    ("naive_bayes", "class", {"form": "categorical", "values": 3}),
    ("ridge", "class", {}),
    ("ridge", "number", {}),
    ("bayesian_linear", "number", {}),
    ("beta_bernoulli", "number", {}),
    ("gamma_poisson", "number", {"group": False}),
    ("dirichlet_categorical", "class", {}),
    ("certified_linear", "number", {"norm": 2.5}),
    ("certified_linear", "class", {"norm": 1.0, "clip": True}),
]


def _refuses(learner: Any, feature: float, label: float, target: str) -> bool:
    labels: Any = [[1.0], [label]] if target == "number" else [0, 1]
    try:
        learned(learner, points_of([[0.0, 0.0], [0.0, feature]], labels))
    except Invalid:
        return True
    return False


@pytest.mark.parametrize(("name", "target", "arguments"), CASES, ids=str)
def test_the_declared_range_is_that_of_the_learner(name: str, target: str, arguments: dict[str, Any]) -> None:
    """For each learner of sums, counts and trees."""
    guarantee = "certified" if name == "certified_linear" else "exact"
    model = ModelSettings(learner=name, arguments=arguments, guarantee=guarantee)
    learner = open_learner(
        model=model,
        training=TrainingSettings(epochs=1, batch_size=1, learning_rate=1.0),
        inputs=2,
        classes=1 if target == "number" else 2,
        slices=1,
        target=target,
    )
    for value in VALUES:
        given = np.array([value], dtype=np.float32)
        outside = [part is not None and bool(part.outside(given)[0]) for part in _parts(model)]
        assert _refuses(learner, value, 1.0, target) == outside[0], value
        if target == "number":
            assert _refuses(learner, 0.0, value, target) == outside[1], value


def _parts(model: ModelSettings) -> tuple[Any, Any]:
    return model.admitted.features, model.admitted.labels


def test_every_learner_that_takes_points_out_directly_is_among_them() -> None:
    """The others compute in floating point, which takes every finite number."""
    assert {name for name, *_ in CASES} == {name for name, kind in LEARNERS.items() if kind.whole}
