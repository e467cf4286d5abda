"""Answers over HTTP have the form of the target: a class, numbers, several labels."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cluster.serving.bodies import JSON, Asked, answer_body
from cluster.serving.schemas import Predictions
from shards.targets import Class, MultiLabel, Number, Target

FACTS = {"generation": 3, "constituents": 2, "shards": 2, "guarantee": "exact"}


@pytest.mark.parametrize(
    ("target", "scores", "facts", "line"),
    [
        (Class(("no", "yes")), [0.25, 0.75], {"classes": ["no", "yes"]}, ("yes", [0.25, 0.75])),
        (Number(("price",)), [1.5, 0.25], {}, {"prediction": 1.5, "spread": 0.25}),
        (
            Number(("low", "high")),
            [1.0, 2.0, 0.0, 0.5],
            {},
            {"prediction": {"low": 1.0, "high": 2.0}, "spread": {"low": 0.0, "high": 0.5}},
        ),
        (
            Number(("price",), interval="predictive"),
            [1.5, 0.25, 1.0, 2.0],
            {},
            {"prediction": 1.5, "spread": 0.25, "low": 1.0, "high": 2.0},
        ),
        (
            Class(("no", "yes"), interval="credible"),
            [0.25, 0.75, 0.0, 0.5, 0.5, 1.0],
            {"classes": ["no", "yes"]},
            {"prediction": "yes", "probabilities": [0.25, 0.75], "low": [0.0, 0.5], "high": [0.5, 1.0]},
        ),
        (
            MultiLabel(("red", "round")),
            [0.5, 0.25],
            {},
            {"labels": ["red"], "probabilities": {"red": 0.5, "round": 0.25}},
        ),
    ],
)
def test_an_answer_is_as_its_target(
    target: Target, scores: list[float], facts: dict[str, object], line: dict[str, object] | tuple[str, list[float]]
) -> None:
    """The body holds what the documented shape allows, and the ids come back."""
    asked = Asked(features_NF=np.zeros((1, 1), dtype=np.float32), ids=[7])
    body = answer_body(FACTS, np.array([scores]), asked, target, "id", JSON)
    expected = {"prediction": line[0], "probabilities": line[1]} if isinstance(line, tuple) else line
    assert json.loads(body) == {**FACTS, **facts, "predictions": [{"id": 7, **expected}]}
    Predictions.model_validate_json(body)
