"""Random federations, and random histories of erasures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from cluster.config.specification import FederationSpecification
from shards.learner_kinds.kinds import LEARNERS as KINDS
from shards.schedule import minimum_epochs
from shards.specification import ModelSettings, TrainingSettings
from tests.doubles.federation import Point, specification_of
from tests.exactness.federations import make_points

MODELS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "logistic": ("shards.models:logistic", {}, False),
    "mlp": ("shards.models:mlp", {"hidden": [5]}, False),
    "mlp-dropout": ("shards.models:mlp", {"hidden": [6, 4], "dropout": 0.4, "activation": "relu"}, False),
    "mlp-batch-norm": ("shards.models:mlp", {"hidden": [5], "batch_norm": True, "activation": "gelu"}, True),
    "cnn-batch-norm-dropout": (
        "shards.models:cnn",
        {"channels": [2, 3], "shape": [1, 2, 3], "batch_norm": True, "dropout": 0.3},
        True,
    ),
}
"""Factory, arguments, and whether the model has batch normalisation."""

OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "sgd"},
    {"optimizer": "sgd", "momentum": 0.9},
    {"optimizer": "sgd", "momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
    {"optimizer": "adam"},
    {"optimizer": "adam", "betas": (0.8, 0.99), "weight_decay": 0.02},
    {"optimizer": "adamw", "weight_decay": 0.05},
]


_USERS = "tests.exactness.user_models"

RECIPES: list[dict[str, Any]] = [
    {"optimizer": "rmsprop", "optimizer_arguments": {"alpha": 0.9, "centered": True}, "momentum": 0.5},
    {"optimizer": "adagrad", "optimizer_arguments": {"lr_decay": 0.1, "initial_accumulator_value": 0.2}},
    {"optimizer": "adadelta", "schedule": {"kind": "linear", "final": 0.1}},
    {"optimizer": "adamax", "gradient_clip": 0.5},
    {"optimizer": "nadam", "schedule": {"warmup": 0.3}, "augment": f"{_USERS}:noisy"},
    {"optimizer": "radam", "step": f"{_USERS}:mixed_up"},
    {"optimizer": "adam", "optimizer_arguments": {"amsgrad": True}, "loss": f"{_USERS}:focal"},
    {"optimizer": "sgd", "momentum": 0.9, "schedule": {"kind": "cosine", "warmup": 0.2}, "gradient_clip": 0.1},
    {"optimizer": "adamw", "schedule": {"kind": "step", "at": [0.3, 0.6], "factor": 0.5}, "label_smoothing": 0.1},
    {"optimizer": "sgd", "augment": f"{_USERS}:masked", "step": f"{_USERS}:twice", "gradient_clip": 1.0},
]
"""Settings of [training] beyond those of ``OPTIMIZERS``."""

FUSED: list[dict[str, Any]] = [
    {"kernels": "fused", **each}
    for each in (
        {"optimizer": "sgd", "weight_decay": 0.01},
        {"optimizer": "sgd", "momentum": 0.9, "gradient_clip": 0.1, "schedule": {"kind": "cosine", "warmup": 0.2}},
        {"optimizer": "sgd", "momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
        {"optimizer": "adam"},
        {"optimizer": "adam", "optimizer_arguments": {"amsgrad": True}, "weight_decay": 0.02, "betas": (0.8, 0.99)},
        {"optimizer": "adamw", "schedule": {"kind": "step", "at": [0.3, 0.6], "factor": 0.5}, "gradient_clip": 0.5},
        {"optimizer": "adamw", "optimizer_arguments": {"amsgrad": True}, "weight_decay": 0.05},
        {"optimizer": "adagrad", "optimizer_arguments": {"lr_decay": 0.1, "initial_accumulator_value": 0.2}},
    )
]
"""Settings of [training] with fused kernels."""

TARGETS: list[tuple[str, dict[str, Any]]] = [
    ("number", {"optimizer": "adam"}),
    ("number", {"optimizer": "sgd", "momentum": 0.5, "loss": "mae", "schedule": {"kind": "cosine"}}),
    ("number", {"optimizer": "rmsprop", "loss": "huber", "gradient_clip": 1.0, "augment": f"{_USERS}:noisy"}),
    ("number", {"optimizer": "adamw", "loss": f"{_USERS}:fourth_power", "gradient_clip": 0.1}),
    ("multi_label", {"optimizer": "adam", "loss": "bce"}),
    ("multi_label", {"optimizer": "sgd", "augment": f"{_USERS}:masked", "gradient_clip": 0.5}),
]
"""Targets other than classes, with settings of [training]."""


LEARNERS: list[tuple[str, str, dict[str, Any]]] = [
    ("naive_bayes", "class", {}),
    ("naive_bayes", "class", {"form": "bernoulli", "smoothing": 0.5, "select": 2}),
    ("naive_bayes", "class", {"form": "multinomial"}),
    ("naive_bayes", "class", {"form": "categorical", "values": 3}),
    ("forest", "class", {"trees": 3, "min_leaf": 1, "candidates": 3, "depth": 4}),
    ("forest", "class", {"trees": 4, "min_leaf": 2, "candidates": 4, "thresholds": "box", "low": -3.0, "high": 3.0}),
    ("forest", "class", {"trees": 5, "min_leaf": 1, "candidates": 4, "share": 0.4}),
    ("forest", "number", {"trees": 2, "min_leaf": 2, "candidates": 5}),
    ("k_means", "cluster", {"clusters": 2, "pivots": 1, "iterations": 3, "step": 1.0}),
    ("k_means", "cluster", {"clusters": 3, "pivots": 2, "iterations": 2, "balance": 0.0, "step": 4.0}),
    ("ridge", "class", {}),
    ("ridge", "number", {"penalty": 0.1}),
    ("bayesian_linear", "number", {"interval": 0.5}),
    ("beta_bernoulli", "number", {"alpha": 0.5}),
    ("dirichlet_categorical", "class", {}),
    ("gamma_poisson", "number", {"group": False}),
    ("boosting", "class", {"min_leaf": 2, "leaves": 4, "learning_rate": 0.5}),
    ("boosting", "number", {"min_leaf": 1, "depth": 2, "l2": 1.0, "feature_share": 0.7}),
    ("boosting", "multi_label", {"min_leaf": 1, "bins": 8, "l1": 0.1}),
    ("sklearn", "class", {"estimator": "SGDClassifier", "loss": "log_loss", "average": 5}),
    ("sklearn", "number", {"estimator": "MLPRegressor", "solver": "sgd", "hidden_layer_sizes": [3]}),
    ("cooccurrence", "recommend", {"top": 3}),
]
"""Learners other than torch, with a target that they serve, and arguments."""

NEEDED: dict[str, str] = {"boosting": "lightgbm"}
"""Packages that are optional dependencies, by the learner that needs them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedErasure:
    """One request."""

    subjects: tuple[str, ...]
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryStep:
    """Requests that are accepted together and then carried out."""

    erasures: tuple[PlannedErasure, ...]
    train_again: bool
    """Whether to train again afterwards on the original source, which still has the erased points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A federation and the steps that it goes through."""

    specification: FederationSpecification
    points: tuple[Point, ...]
    steps: tuple[HistoryStep, ...]


@st.composite
def specifications(
    draw: st.DrawFn, model: str, optimizers: Sequence[dict[str, Any]] = OPTIMIZERS, target: str = "class"
) -> FederationSpecification:
    """Return a random federation with this kind of model and up to 4 shards of 4 slices."""
    factory, arguments, batch_norm = MODELS[model]
    slices = draw(st.integers(1, 4), label="slices")
    training = TrainingSettings(
        epochs=draw(st.integers(minimum_epochs(slices), minimum_epochs(slices) + 2), label="epochs"),
        batch_size=draw(st.integers(2 if batch_norm else 1, 8), label="batch_size"),
        learning_rate=0.1,
        seed=draw(st.integers(0, 3), label="seed"),
        **draw(st.sampled_from(optimizers), label="optimizer"),
    )
    return specification_of(
        shards=draw(st.integers(1, 4), label="shards"),
        slices=slices,
        classes=draw(st.sampled_from([("a", "b"), ("a", "b", "c")]), label="classes") if target == "class" else (),
        target=target,
        labels=draw(st.integers(1, 3), label="labels") if target != "class" else 1,
        training=training,
        model=ModelSettings(factory=factory, arguments=arguments),
        scale=draw(st.sampled_from([1.0, 3.0])),
    )


@st.composite
def other_histories(draw: st.DrawFn, learner: str, target: str, arguments: dict[str, Any]) -> History:
    """Return a random federation of a learner other than torch, with one to three steps."""
    is_counting, has_items = KINDS[learner].is_counting, target == "recommend"
    width = draw(st.integers(1 + has_items, 5), label="features")
    specification = specification_of(
        shards=draw(st.integers(1, 3), label="shards"),
        slices=draw(st.integers(1, 4), label="slices"),
        classes=draw(st.sampled_from([("a", "b"), ("a", "b", "c")]), label="classes") if target == "class" else (),
        target=target,
        labels=draw(st.integers(1, 3), label="labels") if target != "class" else 1,
        features=tuple(f"x{number}" for number in range(width)) if has_items else ("x*",),
        model=ModelSettings(
            learner=learner,
            arguments=arguments,
            guarantee="certified" if learner == "certified_linear" else "exact",
        ),
    )
    points = make_points(
        draw(st.integers(0, 2**16), label="data"),
        draw(st.integers(1, 40), label="points"),
        width=width,
        classes=1 if has_items else len(specification.data.predicted.names),
        target="multi_label" if is_counting and target == "number" else target,  # labels 0 and 1
    )
    if arguments.get("form") in {"multinomial", "categorical"} or is_counting or has_items:
        points = [
            replace(each, features=tuple(float(round(abs(float(x or 0))) % 3) for x in each.features))
            for each in points
        ]
    return History(specification=specification, points=tuple(points), steps=draw(steps_over(points), label="steps"))


@st.composite
def histories(
    draw: st.DrawFn,
    model: str,
    most_points: int = 40,
    optimizers: Sequence[dict[str, Any]] = OPTIMIZERS,
    target: str = "class",
) -> History:
    """Return a random federation with one to three steps of one or two erasures each."""
    specification = draw(specifications(model, optimizers, target))
    width = 6 if model.startswith("cnn") else draw(st.integers(2, 6), label="features")
    points = make_points(
        draw(st.integers(0, 2**16), label="data"),
        draw(st.integers(1, most_points), label="points"),
        width=width,
        classes=len(specification.data.predicted.names),
        target=target,
    )
    return History(specification=specification, points=tuple(points), steps=draw(steps_over(points), label="steps"))


def steps_over(points: Sequence[Point]) -> st.SearchStrategy[tuple[HistoryStep, ...]]:
    """Return one to three steps of one or two erasures each."""
    erasure = st.builds(
        PlannedErasure,
        subjects=_some(sorted({point.subject for point in points})),
        ids=_some([point.id for point in points]),
    ).filter(lambda each: bool(each.subjects or each.ids))
    step = st.builds(
        HistoryStep, erasures=st.lists(erasure, min_size=1, max_size=2).map(tuple), train_again=st.booleans()
    )
    return st.lists(step, min_size=1, max_size=3).map(tuple)


def _some(names: list[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(names), max_size=3, unique=True).map(tuple)
