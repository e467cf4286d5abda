"""The arguments of learner ``sklearn``: which estimator, and its parameters, checked as scikit-learn checks them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from shards.targets import Class, Number
from storage.errors import Invalid

ESTIMATORS: Final[Mapping[str, tuple[str, str]]] = {
    "SGDClassifier": ("linear_model", Class.kind),
    "Perceptron": ("linear_model", Class.kind),
    "MLPClassifier": ("neural_network", Class.kind),
    "SGDRegressor": ("linear_model", Number.kind),
    "MLPRegressor": ("neural_network", Number.kind),
}
"""The estimators that learn incrementally (``partial_fit``): their module in scikit-learn, and their target."""

_OURS: Final[Mapping[str, str]] = {
    "random_state": "the seed is [training] seed",
    "max_iter": "passes over the data points are [training] epochs",
    "shuffle": "data points are always shuffled, by their keys",
    "warm_start": "each slice goes on from the one before",
    "verbose": "progress is reported anyhow",
    "n_jobs": "each worker has one thread",
    "early_stopping": "the number of epochs is declared",
    "validation_fraction": "it belongs to early_stopping, and the number of epochs is declared",
    "max_fun": "it belongs to the solver lbfgs, which cannot go on from slice to slice",
    "class_weight": "data points have no weights",
}
"""Parameters that users cannot set, and why."""
_NONE: Final = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScikitArguments:
    """The arguments of ``sklearn``."""

    estimator: str
    """One of ``ESTIMATORS``."""
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Parameters of its constructor; ``none`` stands for None, which TOML does not have."""

    def made(self, seed: int = 0) -> Any:
        """Return an untrained estimator; ``seed`` determines its initial weights."""
        from sklearn import linear_model, neural_network  # noqa: PLC0415  it takes a second

        modules = {"linear_model": linear_model, "neural_network": neural_network}
        kind = getattr(modules[ESTIMATORS[self.estimator][0]], self.estimator)
        parameters = {name: None if value == _NONE else value for name, value in self.parameters.items()}
        return kind(**parameters, random_state=seed, shuffle=False)

    def record(self) -> dict[str, Any]:
        """Return the arguments for a record: without parameters that equal the estimator's own default."""
        usual = ScikitArguments(estimator=self.estimator).made().get_params()
        own = {name: value for name, value in self.parameters.items() if value != usual[name]}
        return {"estimator": self.estimator, **own}


def read_estimator(given: Mapping[str, Any]) -> tuple[ScikitArguments | None, list[str]]:
    """Return the arguments of ``sklearn``, and what is wrong with ``given``."""
    parameters = dict(given)
    name = parameters.pop("estimator", None)
    if not isinstance(name, str) or name not in ESTIMATORS:
        return None, [f"arguments.estimator must be one of {', '.join(ESTIMATORS)}, got {name!r}"]
    known = ScikitArguments(estimator=name).made().get_params()
    problems = []
    for each in parameters:
        if each in _OURS:
            problems.append(f"arguments.{each} is not to be set: {_OURS[each]}")
        elif each not in known:
            close = difflib.get_close_matches(each, known, n=1)
            takes = f"did you mean {close[0]}?" if close else f"it takes {', '.join(sorted(known.keys() - _OURS))}"
            problems.append(f"arguments.{each} is not a parameter of {name}; {takes}")
    if problems:
        return None, problems
    arguments = ScikitArguments(estimator=name, parameters=parameters)
    estimator = arguments.made()
    try:
        estimator._validate_params()  # noqa: SLF001  as its ``fit`` does; there is no other name for it
    except ValueError as error:
        return None, [f"arguments: {str(error).rstrip('.')}"]
    if not hasattr(estimator, "partial_fit"):
        return None, [f"arguments: {name} with solver = 'lbfgs' cannot continue from slice to slice: take adam or sgd"]
    return arguments, []


def check_estimator(arguments: object, target: str) -> None:
    """Raise ``Invalid`` when ``arguments`` name an estimator that does not predict ``target``."""
    if not isinstance(arguments, ScikitArguments) or (own := ESTIMATORS[arguments.estimator][1]) == target:
        return
    raise Invalid(
        f"[model] arguments.estimator = {arguments.estimator!r} predicts a {own}, and [data] target is {target}",
        f"Take {' or '.join(name for name, (_, other) in ESTIMATORS.items() if other == target)}.",
    )
