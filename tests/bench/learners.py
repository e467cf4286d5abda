"""What learners other than networks cost, beside scikit-learn's and LightGBM, on KDD Census-Income.

    python -m tests.bench.learners [TRAIN] [TREES]

Those that take points out directly have one slice; those that train on from the person's slice have five.

One shard; the first TRAIN rows (default 20,000) are learned, the next 10,000 are answered. Times are processor time, in
milliseconds: the median of 15 erasures of one person each, and one erasure of 1 % of the people. Rows are data points
that were looked at, counted once for each node; bytes are those of the checkpoint that an erasure writes, which are all
of it.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Final

import lightgbm
import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.metrics import roc_auc_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier

from shards.learner_kinds.kinds import LEARNERS
from shards.learners.certified.learner import CertifiedLinear
from shards.learners.forest.learner import Forest
from shards.learners.registry import fix_numerics, open_learner
from shards.points import ShardPoints
from shards.specification import ModelSettings, ShardId, SliceIndex, TrainingSettings
from tests.doubles.lineages import lineage_of
from tests.real.census import census

_ANSWERED: Final = 10_000
_ERASED: Final = 15
_SHARD: Final = ShardId(0)
_SLICES: Final = 5


@dataclass(frozen=True, slots=True)
class Measured:
    """One learner."""

    area: float
    train: float
    erase: float
    erase_many: float
    """The same for 1 % of the people at once."""
    rows_ratio: float
    checkpoint_bytes: int


def points_of(features_NF: Any, labels_N: Any, which: Any) -> ShardPoints:
    """Return some of the rows as one slice; each is a person."""
    keys = (np.flatnonzero(which) if which.dtype == bool else which).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return ShardPoints(
        features_NF=features_NF[which], labels_N=labels_N[which], keys_N=keys, subjects_N=keys, ends=(len(keys),)
    )


def measure(learner: Any, features_NF: Any, labels_N: Any, train: int) -> Measured:
    """Return what the learner does with the first ``train`` rows, and how well it answers the next ones."""
    looked_at = [0]
    if isinstance(learner, Forest):
        learner.looked_at = looked_at
    everyone = np.arange(len(labels_N)) < train
    started = time.process_time()
    state = _last(
        learner.learn(learner.initial(_SHARD), points_of(features_NF, labels_N, everyone), _SHARD, SliceIndex(1))
    )
    trained = time.process_time() - started
    full, looked_at[0] = looked_at[0] or train, 0
    area = float(roc_auc_score(labels_N[train:], learner.probabilities(state, features_NF[train:])[:, 1]))

    def erased(leaving: npt.NDArray[np.int64]) -> float:
        left = everyone.copy()
        left[leaving] = False
        gone, new = points_of(features_NF, labels_N, leaving), points_of(features_NF, labels_N, leaving[:0])
        own = copy.deepcopy(state)
        started = time.process_time()
        learner.unlearn(own, gone, new, lambda: points_of(features_NF, labels_N, left))
        return time.process_time() - started

    seconds = [erased(np.array([number * (train // _ERASED)])) for number in range(_ERASED)]
    rows, many = looked_at[0], erased(_hundredth(train))
    size = sum(array.nbytes for array in learner.arrays(state).values())
    if isinstance(learner, CertifiedLinear):  # the Hessian and the bound are those of all that are left
        rows = full * _ERASED
        last = np.array([train - 1])
        gone, new = points_of(features_NF, labels_N, last), points_of(features_NF, labels_N, last[:0])
        after = learner.unlearn(
            state, gone, new, lambda: points_of(features_NF, labels_N, everyone & (np.arange(len(labels_N)) != last))
        )
        assert after is not None
        budget = learner.accounted(state).budget
        print(f"its budget is that of about {(budget - state.spent) / (after.spent - state.spent):,.0f} erasures")
    return Measured(area, trained, median(seconds), many, full * _ERASED / max(rows, _ERASED), size)


def measure_continued(learner: Any, features_NF: Any, labels_N: Any, train: int) -> Measured:
    """Return the same for a learner that trains on from the slice of the person who is erased."""
    slices_N = np.arange(train) * _SLICES // train  # in the order of the rows

    def points(left_N: npt.NDArray[np.int64]) -> ShardPoints:
        ends = tuple(int((slices_N[left_N] < number).sum()) for number in range(1, _SLICES + 1))
        return replace(points_of(features_NF, labels_N, left_N), ends=ends)

    def learned(state: Any, first: int, left_N: npt.NDArray[np.int64]) -> tuple[list[Any], float, int]:
        """Return the states after each slice from the ``first`` on, seconds, and data points times epochs."""
        started, states, data, work = time.process_time(), [], points(left_N), 0
        for number in range(first, _SLICES + 1):
            state = _last(learner.learn(state, data, _SHARD, SliceIndex(number)))
            state = learner.from_bytes(learner.to_bytes(state, lineage_of(number)), _SHARD)
            states.append(state)
            work += data.ends[number - 1] * learner.epochs(SliceIndex(number))
        return states, time.process_time() - started, work

    states, trained, full = learned(learner.initial(_SHARD), 1, np.arange(train))
    area = float(roc_auc_score(labels_N[train:], learner.probabilities(states[-1], features_NF[train:])[:, 1]))
    seconds, again = [], 0
    for number in range(_ERASED):
        person = number * (train // _ERASED)
        first = int(slices_N[person]) + 1
        start = states[first - 2] if first > 1 else learner.initial(_SHARD)
        _, erased, work = learned(start, first, np.delete(np.arange(train), person))
        seconds.append(erased)
        again += work
    # A hundredth of the people has somebody in the first slice.
    _, many, _ = learned(learner.initial(_SHARD), 1, np.delete(np.arange(train), _hundredth(train)))
    size = len(learner.to_bytes(states[-1], lineage_of(_SLICES)))
    return Measured(area, trained, median(seconds), many, full * _ERASED / again, size)


def learner_of(name: str, arguments: dict[str, Any], inputs: int, epochs: int = 1, slices: int = 1) -> Any:
    """Return a learner of two classes."""
    guarantee = "certified" if name == "certified_linear" else "exact"
    model = ModelSettings(learner=name, arguments=arguments, guarantee=guarantee)
    recipe = TrainingSettings(epochs=epochs, batch_size=64, learning_rate=0.05)
    fix_numerics(model, 1, "cpu")
    return open_learner(model=model, training=recipe, inputs=inputs, classes=2, slices=slices)


def _hundredth(train: int) -> npt.NDArray[np.int64]:
    return np.arange(0, train, 100)


def _last(learning: Any) -> Any:
    while True:
        try:
            next(learning)
        except StopIteration as end:
            return end.value


def _reference(make: Callable[[], Any], features_NF: Any, labels_N: Any, train: int) -> tuple[float, float]:
    started = time.process_time()
    model = make().fit(features_NF[:train], labels_N[:train])
    seconds = time.process_time() - started
    rest = features_NF[train:]
    scores = model.predict_proba(rest)[:, 1] if hasattr(model, "predict_proba") else model.decision_function(rest)
    return float(roc_auc_score(labels_N[train:], scores)), seconds


def main() -> None:
    """Print the table."""
    train, trees = (int(word) for word in [*sys.argv[1:], "20000", "100"][:2])
    features_NF, labels_N = census(train + _ANSWERED)
    same = {"n_estimators": trees, "max_depth": 12, "min_samples_leaf": 5, "random_state": 0}
    references: dict[str, Callable[[], Any]] = {
        "forest": lambda: RandomForestClassifier(**same),
        "naive_bayes": GaussianNB,
        "ridge": RidgeClassifier,
        "SGDClassifier": lambda: SGDClassifier(loss="log_loss", max_iter=trees, tol=None, random_state=0),
        "MLPClassifier": lambda: MLPClassifier(max_iter=trees, tol=0, n_iter_no_change=trees, random_state=0),
        "boosting": lambda: lightgbm.LGBMClassifier(n_estimators=trees, n_jobs=1, verbosity=-1),
        "certified_linear": lambda: LogisticRegression(max_iter=3000),
    }
    cases: list[tuple[str, dict[str, Any]]] = [
        ("forest", {"trees": trees}),
        ("forest", {"trees": trees, "share": 0.2}),
        ("forest", {"trees": trees, "thresholds": "box"}),
        ("forest", {"trees": trees, "thresholds": "box", "share": 0.2}),
        ("naive_bayes", {}),
        ("ridge", {}),
        ("torch", {"hidden": [64]}),
        ("boosting", {}),
        ("sklearn", {"estimator": "SGDClassifier", "loss": "log_loss"}),
        ("sklearn", {"estimator": "MLPClassifier"}),
        ("certified_linear", {"norm": 6.4, "noise": 1.0, "penalty": 1e-4}),
        ("certified_linear", {"norm": 6.4, "noise": 1.0, "penalty": 1e-5}),
    ]
    known = {name: _reference(make, features_NF, labels_N, train) for name, make in references.items()}
    columns = (
        "learner, AUC, reference's, train s, reference's, erase ms, erase 1 % ms, retrain ÷ erase, rows ÷ erase's, MB"
    )
    print(f"| {columns.replace(', ', ' | ')} |")
    print("|" + " --- |" * 10)
    for name, arguments in cases:
        if LEARNERS[name].whole:
            found = measure(learner_of(name, arguments, features_NF.shape[1]), features_NF, labels_N, train)
        else:
            learner = learner_of(name, arguments, features_NF.shape[1], trees, _SLICES)
            found = measure_continued(learner, features_NF, labels_N, train)
        area, seconds = known[arguments.get("estimator", "MLPClassifier" if name == "torch" else name)]
        words = ", ".join(f"{key} {value}" for key, value in arguments.items() if key != "trees")
        ratios = f"{found.train / found.erase:,.0f} | {found.rows_ratio:,.0f} | {found.checkpoint_bytes / 1e6:.2f}"
        print(
            f"| {name} {words} | {found.area:.4f} | {area:.4f} | {found.train:.2f} | {seconds:.2f} |"
            f" {found.erase * 1e3:.1f} | {found.erase_many * 1e3:.1f} | {ratios} |"
        )


if __name__ == "__main__":
    main()
