"""The learners that ``[model] learner`` may name: the targets of each, and its arguments."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from operator import attrgetter
from typing import Any, Final

from shards.learner_kinds.admissible import (
    AMOUNTS,
    ANYTHING,
    CODES,
    COUNTS,
    LABELS_ON_GRID,
    ON_GRID,
    ZERO_OR_ONE,
    Admissible,
    Range,
)
from shards.learner_kinds.approximate import LABORATORY
from shards.learner_kinds.bayesian import BayesianLinearArguments, DirichletArguments, RateArguments
from shards.learner_kinds.boosting import BoostingArguments
from shards.learner_kinds.certified import CertifiedLinearArguments
from shards.learner_kinds.forest import ForestArguments
from shards.learner_kinds.guarantees import EXACT, Guarantee, guarantee_problem
from shards.learner_kinds.k_means import KMeansArguments
from shards.learner_kinds.leaving import nothing
from shards.learner_kinds.scikit import ScikitArguments, read_estimator
from shards.learner_kinds.summation import CooccurrenceArguments, NaiveBayesArguments, RidgeArguments
from shards.targets import Class, Cluster, Interval, MultiLabel, Number, Recommend

TORCH: Final = "torch"

LearnerArguments = (
    NaiveBayesArguments
    | RidgeArguments
    | ForestArguments
    | BayesianLinearArguments
    | DirichletArguments
    | RateArguments
    | KMeansArguments
    | CooccurrenceArguments
    | BoostingArguments
    | ScikitArguments
    | CertifiedLinearArguments
)

_ALL: Final = (Class.kind, Number.kind, MultiLabel.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerKind:
    """A kind of learner and its capabilities."""

    targets: tuple[str, ...]
    """The targets that it serves."""
    arguments: type[LearnerArguments] | None
    """Class of the learner's arguments; None if they are the arguments of the user's factory."""
    whole: bool
    """Whether it learns all slices of a shard at once, with a single checkpoint; slices remain the unit of storage."""
    interval: Interval = ""
    """The quantity that the intervals of its answers are about; empty: there are no intervals."""
    is_counting: bool = False
    """Whether labels, and the features that it looks at, have to be whole numbers, which are not scaled."""
    epochs: int | None = None
    """``[training] epochs`` of a learner that has no further recipe, where they are not set; None: it has no epochs."""
    is_same_anywhere: bool = True
    """Whether every process computes the same constituents, on any machine: those of whole numbers."""
    is_sure: bool = True
    """Of a learner that takes points out directly: whether it always can. Otherwise a shard may be retrained, and the
    cost of an erasure is forecast as if it were."""
    direct_share: float = 1.0
    """Of a learner that takes points out directly: how many may change, as a share of those that are left, until it is
    cheaper to retrain the shard, as measured (``tests.bench.break_even``)."""
    parts: str | None = None
    """The argument that says of how many parts of the same cost a constituent consists; None: of one."""
    version: int = 1
    """Incremented whenever the learner's code computes other bytes."""
    admits: Callable[[Any], Admissible] = lambda _: ANYTHING
    """Returns the features and labels that it accepts with these arguments (None for torch)."""
    promise: Callable[[Any], Guarantee] = lambda _: EXACT
    """Returns the learner's guarantee with these arguments (None for torch)."""
    withheld: Callable[[Any], str | None] = lambda _: "counts, sums or values of single data points"
    """Returns, as a fragment, what must not leave a site although the part of a constituent that serves holds it. None:
    there is a part that may leave (``shards.learners.protocol.Serves``), or all of it may, as for torch."""


def _by_group(target: str, arguments: type[LearnerArguments], *, labels: Range | None = None) -> LearnerKind:
    """Return a learner that counts data points and labels by group."""
    return LearnerKind(
        targets=(target,),
        arguments=arguments,
        whole=True,
        interval="credible",
        is_counting=True,
        admits=lambda given: Admissible(features=CODES if given.group else None, labels=labels),
    )


LEARNERS: Final[Mapping[str, LearnerKind]] = {
    TORCH: LearnerKind(targets=_ALL, arguments=None, whole=False, is_same_anywhere=False, withheld=nothing),
    "forest": LearnerKind(
        targets=(Class.kind, Number.kind),
        arguments=ForestArguments,
        whole=True,
        admits=lambda _: LABELS_ON_GRID,
        direct_share=0.1,
        parts="trees",
        version=3,
        withheld=attrgetter("withheld"),
    ),
    "k_means": LearnerKind(
        targets=(Cluster.kind,), arguments=KMeansArguments, whole=True, is_sure=False, admits=lambda _: ON_GRID
    ),
    "cooccurrence": LearnerKind(
        targets=(Recommend.kind,), arguments=CooccurrenceArguments, whole=True, admits=lambda _: AMOUNTS
    ),
    "naive_bayes": LearnerKind(
        targets=(Class.kind,),
        arguments=NaiveBayesArguments,
        whole=True,
        admits=attrgetter("admitted"),
        withheld=nothing,
    ),
    "ridge": LearnerKind(
        targets=(Class.kind, Number.kind),
        arguments=RidgeArguments,
        whole=True,
        admits=lambda _: ON_GRID,
        withheld=nothing,
    ),
    "bayesian_linear": LearnerKind(
        targets=(Number.kind,),
        arguments=BayesianLinearArguments,
        whole=True,
        interval="predictive",
        admits=lambda _: ON_GRID,
        withheld=lambda _: "the sums of products of features, which intervals need and which show who was erased",
    ),
    "beta_bernoulli": _by_group(Number.kind, RateArguments, labels=ZERO_OR_ONE),
    "dirichlet_categorical": _by_group(Class.kind, DirichletArguments),
    "gamma_poisson": _by_group(Number.kind, RateArguments, labels=COUNTS),
    "boosting": LearnerKind(
        targets=_ALL,
        arguments=BoostingArguments,
        whole=False,
        is_same_anywhere=False,
        epochs=100,
        withheld=lambda _: "thresholds between values of single data points, and the smallest and largest of them",
    ),
    "sklearn": LearnerKind(
        targets=(Class.kind, Number.kind),
        arguments=ScikitArguments,
        whole=False,
        is_same_anywhere=False,
        epochs=20,
        withheld=nothing,
    ),
    "certified_linear": LearnerKind(
        targets=(Class.kind, Number.kind),
        arguments=CertifiedLinearArguments,
        whole=True,
        is_same_anywhere=False,
        is_sure=False,
        admits=attrgetter("admitted"),
        promise=attrgetter("promise"),
        version=2,
        withheld=nothing,
    ),
}
"""All kinds, by the name in ``[model] learner``."""


_FEW: Final = 100
"""At most this many data points are taken out directly of any shard: in a small one it does not matter."""


def is_cheaper_directly(learner: str, changes: int, left: int) -> bool:
    """Return whether to take ``changes`` data points out, or put them in, directly, where ``left`` are in the result.

    >>> is_cheaper_directly("forest", 1000, 20_000), is_cheaper_directly("forest", 4000, 20_000)
    (True, False)
    """
    return changes <= max(_FEW, LEARNERS[learner].direct_share * left)


def read_arguments(learner: str, given: Mapping[str, Any]) -> tuple[LearnerArguments | None, list[str]]:
    """Return the arguments of a learner other than torch, and what is wrong with ``given``.

    >>> read_arguments("ridge", {"penalty": 2})
    (RidgeArguments(penalty=2.0), [])
    >>> read_arguments("ridge", {"alpha": 2.0})
    (None, ['arguments.alpha is not an argument of ridge; it takes penalty'])
    """
    form = LEARNERS[learner].arguments
    assert form is not None
    if form is ScikitArguments:
        return read_estimator(given)
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
    assert not isinstance(made, ScikitArguments)
    problems = [f"arguments.{problem}" for problem in made.problems()]
    return (None if problems else made), problems


def learner_problems(learner: str, given: Mapping[str, Any], asked: str, of_torch: Sequence[str]) -> list[str]:
    """Return what is wrong with a learner's name, or with its arguments.

    ``asked`` is the guarantee asked for, ``of_torch`` are settings that are given and belong to the learner torch.
    """
    if learner in LABORATORY:
        refused = guarantee_problem(learner, LABORATORY[learner], asked)
        return [] if refused is None else [refused]
    if learner not in LEARNERS:
        return [f"learner must be one of {', '.join(LEARNERS)}, got {learner!r}"]
    if learner == TORCH:
        return []
    others = [f"{name} belongs to the learner torch, learner is {learner}: leave it out" for name in of_torch]
    return read_arguments(learner, given)[1] + others


def arguments_record(learner: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return valid arguments as a record has them: with the defaults, so that it does not matter who wrote them.

    Stores of releases that did not know an argument keep their records (E16): those that came later are left out at
    their defaults.

    >>> arguments_record("naive_bayes", {"form": "bernoulli", "select": 0})
    {'form': 'bernoulli', 'smoothing': 1.0, 'values': 0}
    """
    made, _ = read_arguments(learner, given)
    assert made is not None
    if isinstance(made, ScikitArguments):
        return made.record()
    later = {each.name: each.default for each in fields(made) if each.metadata}
    return {name: value for name, value in asdict(made).items() if name not in later or value != later[name]}


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
