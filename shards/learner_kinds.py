"""The learners that ``[model] learner`` may name: what each can predict, and the arguments that it takes."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from shards.targets import Class, MultiLabel, Number

TORCH: Final = "torch"

FORMS: Final = ("gaussian", "bernoulli", "multinomial", "categorical")
"""What naive Bayes assumes about features within a class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NaiveBayesArguments:
    """The arguments of ``naive_bayes``."""

    form: str = "gaussian"
    """One of ``FORMS``. Bernoulli: a feature above 0.5 is present; multinomial: features are counts, 0 or more;
    categorical: features are codes 0 .. ``values`` - 1."""
    smoothing: float = 1.0
    """Added to every count; gaussian adds it, times 1e-9 and the largest variance of a feature, to each variance."""
    values: int = 0
    """How many codes a categorical feature may have: declared, never learned."""

    def problems(self) -> list[str]:
        """Return what is wrong with them."""
        problems = []
        if self.form not in FORMS:
            problems.append(f"form must be one of {', '.join(FORMS)}, got {self.form!r}")
        if not 0 < self.smoothing < math.inf:
            problems.append(f"smoothing must be above 0, got {self.smoothing}")
        if self.form == "categorical" and not 2 <= self.values <= 65536:
            problems.append(f"values must be 2 .. 65536 for the form categorical, got {self.values}")
        if self.form != "categorical" and self.values:
            problems.append("values belongs to the form categorical: leave it out")
        return problems


@dataclass(frozen=True, slots=True, kw_only=True)
class RidgeArguments:
    """The arguments of ``ridge``."""

    penalty: float = 1.0
    """The weight of the squared coefficients, as scikit-learn's ``alpha``; the intercept is not penalised."""

    def problems(self) -> list[str]:
        """Return what is wrong with them."""
        return [] if 0 < self.penalty < math.inf else [f"penalty must be above 0, got {self.penalty}"]


THRESHOLDS: Final = ("pivot", "box")
"""Where a forest's thresholds come from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestArguments:
    """The arguments of ``forest``."""

    trees: int = 100
    """How many trees a shard's forest has."""
    depth: int = 12
    """Most splits on the way from the root to a leaf."""
    min_leaf: int = 5
    """Fewest data points on each side of a split."""
    attributes: int = 0
    """How many features a node chooses among; 0: the square root of their number."""
    candidates: int = 10
    """How many thresholds a node tries for each of them."""
    thresholds: str = "pivot"
    """``pivot``: thresholds are values of some of the node's data points; ``box``: they are drawn between ``low`` and
    ``high``, so that no value of anybody is in the model, and less is grown again."""
    low: float = 0.0
    """Of the form box: the lowest value of all features, after scaling and encoding. Values outside are allowed."""
    high: float = 1.0
    """Of the form box: the highest value."""
    share: float = 1.0
    """Share of the trees that learn from each subject: fewer trees change when somebody is erased."""

    def problems(self) -> list[str]:
        """Return what is wrong with them."""
        least = {"trees": (1, 10_000), "depth": (1, 48), "min_leaf": (1, 10**6), "attributes": (0, 10**6)}
        least["candidates"] = (1, 1000)
        problems = [
            f"{name} must be {low} .. {high}, got {getattr(self, name)}"
            for name, (low, high) in least.items()
            if not low <= getattr(self, name) <= high
        ]
        if self.thresholds not in THRESHOLDS:
            problems.append(f"thresholds must be one of {', '.join(THRESHOLDS)}, got {self.thresholds!r}")
        if not -math.inf < self.low < self.high < math.inf:
            problems.append(f"low must be below high, got {self.low} and {self.high}")
        if not 0 < self.share <= 1:
            problems.append(f"share must be above 0 and at most 1, got {self.share}")
        return problems


LearnerArguments = NaiveBayesArguments | RidgeArguments | ForestArguments


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerKind:
    """A learner: what may be asked of it."""

    targets: tuple[str, ...]
    """The targets that it serves."""
    arguments: type[LearnerArguments] | None
    """None: the arguments are the factory's."""
    whole: bool
    """Whether it learns all slices of a shard at once, with a single checkpoint; slices remain the unit of storage."""
    version: int = 1
    """Raised whenever our code of the learner arrives at other bytes."""


LEARNERS: Final[Mapping[str, LearnerKind]] = {
    TORCH: LearnerKind(targets=(Class.kind, Number.kind, MultiLabel.kind), arguments=None, whole=False),
    "forest": LearnerKind(targets=(Class.kind, Number.kind), arguments=ForestArguments, whole=True),
    "naive_bayes": LearnerKind(targets=(Class.kind,), arguments=NaiveBayesArguments, whole=True),
    "ridge": LearnerKind(targets=(Class.kind, Number.kind), arguments=RidgeArguments, whole=True),
}
"""By the name in ``[model] learner``."""


def read_arguments(learner: str, given: Mapping[str, Any]) -> tuple[LearnerArguments | None, list[str]]:
    """Return the arguments of a learner other than torch, and what is wrong with ``given``.

    >>> read_arguments("ridge", {"penalty": 2})
    (RidgeArguments(penalty=2.0), [])
    >>> read_arguments("ridge", {"alpha": 2.0})
    (None, ['arguments.alpha is not an argument of ridge; it takes penalty'])
    """
    form = LEARNERS[learner].arguments
    assert form is not None
    known = {each.name: each.default for each in fields(form)}
    problems, values = [], dict[str, Any]()
    for name, value in given.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            takes = f"did you mean {close[0]}?" if close else f"it takes {', '.join(known)}"
            problems.append(f"arguments.{name} is not an argument of {learner}; {takes}")
        elif (fitting := _fitting(known[name], value)) is None:
            problems.append(f"arguments.{name} must be {_EXPECTED[type(known[name])]}, got {value!r}")
        else:
            values[name] = fitting
    if problems:
        return None, problems
    made = form(**values)
    problems = [f"arguments.{problem}" for problem in made.problems()]
    return (None if problems else made), problems


def arguments_record(learner: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return valid arguments as a record has them: with the defaults, so that it does not matter who wrote them."""
    made, _ = read_arguments(learner, given)
    assert made is not None
    return asdict(made)


_EXPECTED: Final[Mapping[type, str]] = {
    float: "a number",
    int: "a whole number",
    str: "a text",
    bool: "true or false",
    tuple: "a list",
}


def _fitting(default: Any, value: Any) -> Any:
    """Return the value in the type of the default; None: it is of another type."""
    if isinstance(default, float) and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return value if type(value) is type(default) else None
