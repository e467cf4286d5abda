"""The data of a round, which all methods of one half of the table share, and what is measured of a method on them.

The people who ask to be erased have wrong labels, so that a model has to learn them by heart: else there would be no
membership to see, and a result of chance after an erasure would say nothing. Those who were never seen have wrong
labels by the same rule, so before anything is learned nothing distinguishes the two.

Shape legend: N data points, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from cluster.experiments.datasets import load
from cluster.experiments.measured import accuracy
from cluster.experiments.membership import log_odds
from shards.learners.approximate.models import keyed_order, uniform_numbers
from shards.points import ShardPoints

Scorer = Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]]
"""Returns the probabilities of the classes, shape (N, C)."""

FIRST: Final = 1
"""The number of those who ask first, alone; the others of the erased ask together."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Repetition:
    """The data of a round: data points to learn, of which the first ones are erased, and others."""

    dataset: str
    stream: str
    """Names the stream of all other random numbers in the round."""
    classes: int
    train_NF: npt.NDArray[np.float32]
    train_labels_N: npt.NDArray[np.int64]
    erased: int
    """This many of the first data points are erased."""
    never_NF: npt.NDArray[np.float32]
    """Data points that are never learned, with labels that are wrong as those of the erased are."""
    never_labels_N: npt.NDArray[np.int64]
    test_NF: npt.NDArray[np.float32]
    test_labels_N: npt.NDArray[np.int64]

    def points(self, first: int, end: int | None = None) -> ShardPoints:
        """Return the data points from the row ``first`` to before ``end``, as a shard of one slice."""
        rows = np.arange(len(self.train_labels_N))[first:end]
        keys_N = rows.astype(np.uint64)
        return ShardPoints(
            features_NF=self.train_NF[rows],
            labels_N=self.train_labels_N[rows],
            keys_N=keys_N,
            subjects_N=keys_N,
            ends=(len(rows),),
        )

    def accuracy(self, answers: Scorer) -> float:
        """Return the accuracy on the test data."""
        return accuracy(answers(self.test_NF), self.test_labels_N)

    def scores(self, answers: Scorer) -> Scores:
        """Return the membership scores of the erased and the never-seen data points."""
        return Scores(
            erased_N=log_odds(answers(self.train_NF[: self.erased]), self.train_labels_N[: self.erased]),
            never_N=log_odds(answers(self.never_NF), self.never_labels_N),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """Membership scores."""

    erased_N: npt.NDArray[np.float64]
    never_N: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """What was measured of a method."""

    accuracy_before: float
    accuracy_after: float
    retrain_accuracy: float
    """Accuracy of a new model that is trained on the remaining data points."""
    one_seconds: float
    """Time to erase the people who ask first."""
    seconds: float
    """Time to erase all others in one request; for methods without a federation, to erase all people at once."""
    retrain_seconds: float
    storage_bytes: int
    """What has to be kept, beside the data points, so that others can be erased later."""
    distance: float | None
    """Between the parameters and those of the retrain; None: they cannot be compared."""
    distance_before: float | None
    """The same before the erasure."""
    before: Scores
    after: Scores
    nats: float | None = None
    """Divergence of what is published from the same of a retrain; None: the method has no distribution for it."""
    note: str = ""


class Method(Protocol):
    """An entry of the table."""

    @property
    def name(self) -> str:
        """Lower-case letters, digits and hyphens."""
        ...

    @property
    def kind(self) -> str:
        """The method's place in the survey's taxonomy, and its idea."""
        ...

    @property
    def proves(self) -> str:
        """One sentence about what is proved of the method, and what is not."""
        ...

    @property
    def is_exact(self) -> bool:
        """Whether the result is to have the parameters of the retrain."""
        ...

    @property
    def is_for_two(self) -> bool:
        """Whether it is for two classes alone: second derivatives of each class would take too long for ten."""
        ...

    def guarantee(self, trial: Repetition) -> str:
        """Return what it promises, as it declares it."""
        ...

    def measure(self, trial: Repetition) -> Measured:
        """Return what is measured on these data."""
        ...


def trial_of(dataset: str, data: Mapping[str, Any], number: int, folder: Path | None) -> Repetition:
    """Return the data of a round; ``data`` is what the settings say of the data set."""
    found = load(data["source"], folder)
    pool_NF, pool_N = _of_classes(found.train_NF, found.train_labels_N, data["labels"])
    tests_NF, tests_N = _of_classes(found.test_NF, found.test_labels_N, data["labels"])
    classes = len(data["labels"]) or len(found.classes)
    learned, erased, never = data["points"], data["erased"], data["never_seen"]
    stream = f"table-i/{dataset}/{number}"
    rows = keyed_order(f"{stream}/rows", len(pool_N))[: learned + never]
    asked = keyed_order(f"{stream}/tests", len(tests_N))[: data["tests"]]
    labels_N = pool_N[rows]
    places = np.arange(len(rows))
    is_wrong = (places < erased) | (places >= learned)
    labels_N[is_wrong] = wrong_labels(labels_N[is_wrong], classes, f"{stream}/labels")
    return Repetition(
        dataset=dataset,
        stream=stream,
        classes=classes,
        train_NF=pool_NF[rows[:learned]],
        train_labels_N=labels_N[:learned],
        erased=erased,
        never_NF=pool_NF[rows[learned:]],
        never_labels_N=labels_N[learned:],
        test_NF=tests_NF[asked],
        test_labels_N=tests_N[asked],
    )


def wrong_labels(labels_N: npt.NDArray[np.int64], classes: int, stream: str) -> npt.NDArray[np.int64]:
    """Return another label for each, every one as likely."""
    steps_N = 1 + np.floor((classes - 1) * uniform_numbers(stream, len(labels_N))).astype(np.int64)
    found_N: npt.NDArray[np.int64] = (labels_N + steps_N) % classes
    return found_N


def _of_classes(
    features_NF: npt.NDArray[np.float32], labels_N: npt.NDArray[np.int64], chosen: list[int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the data points with these labels, numbered from 0; all where none is chosen."""
    if not chosen:
        return features_NF, labels_N
    kept_N = np.isin(labels_N, chosen)
    return features_NF[kept_N], np.searchsorted(chosen, labels_N[kept_N])
