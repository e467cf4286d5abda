"""What one erasure costs a summation learner, over ever more rows: its work does not depend on them.

    python -m tests.bench.sums [ROWS ...]

Made-up rows of 8 columns (default: 10,000, 1,000,000 and 10,000,000 of them) are learned as one shard, and 15 people
of one row each are taken out. Times are of the processor; erasing is the median, in milliseconds, without reading the
slice, which the worker does before: of a shard's slices it reads the one that changed.

A second table has ``bayesian_linear`` beside scikit-learn's ``BayesianRidge``: the age of people of KDD Census-Income
from their other 40 columns, 20,000 of them learned and 10,000 others answered, with intervals of 90 %.
"""

from __future__ import annotations

import sys
import time
from statistics import median
from typing import Any, Final

import numpy as np
from sklearn.linear_model import BayesianRidge
from sklearn.metrics import r2_score

from deploy.views.tables import table
from shards.learners.registry import open_learner
from shards.points import ShardPoints
from shards.specification import ModelSettings, ShardId, SliceIndex, TrainingSettings
from tests.bench.learners import points_of
from tests.real.census import census

_COLUMNS: Final = 8
_ERASED: Final = 15
_SHARD: Final = ShardId(0)
_LEARNERS: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    ("naive_bayes", "class", {}),
    ("naive_bayes", "class", {"form": "categorical", "values": 4}),
    ("ridge", "class", {}),
    ("bayesian_linear", "number", {}),
    ("dirichlet_categorical", "class", {}),
    ("cooccurrence", "recommend", {}),
)


def rows(count: int) -> tuple[Any, Any, Any]:
    """Return features, which are codes 0 .. 3, the labels as classes, and as numbers."""
    generator = np.random.default_rng(1)
    features_NF = generator.integers(0, 4, size=(count, _COLUMNS), dtype=np.uint8).astype(np.float32)
    classes_N = (features_NF[:, 0] > features_NF[:, 1]).astype(np.int64)
    return features_NF, classes_N, features_NF[:, :1] * np.float32(2)


def measure(learner: Any, features_NF: Any, labels_N: Any) -> tuple[float, float, Any]:
    """Return the seconds that learning all rows takes, those of erasing one, and the state without the erased rows."""
    keys_N = np.arange(len(labels_N), dtype=np.uint64)
    everyone = ShardPoints(
        features_NF=features_NF, labels_N=labels_N, keys_N=keys_N, subjects_N=keys_N, ends=(len(keys_N),)
    )
    started = time.process_time()
    learning = learner.learn(learner.initial(_SHARD), everyone, _SHARD, SliceIndex(1))
    next(learning)
    try:
        next(learning)
    except StopIteration as end:
        state = end.value
    else:
        raise AssertionError("it looks at every row once")
    learned = time.process_time() - started
    seconds = []
    for number in range(_ERASED):
        person = np.array([number * (len(keys_N) // _ERASED)])
        gone, new = points_of(features_NF, labels_N, person), points_of(features_NF, labels_N, person[:0])
        started = time.process_time()
        state = learner.unlearn(state, gone, new, lambda: everyone)
        seconds.append(time.process_time() - started)
    return learned, median(seconds), state


def beside_scikit_learn() -> list[tuple[str, ...]]:
    """Return R², the share of labels in their intervals, and the times, of both."""
    features_NF, _ = census(30_000)
    ages_N1, others_NF = features_NF[:, :1] * np.float32(10), np.ascontiguousarray(features_NF[:, 1:])
    learner = open_learner(
        model=ModelSettings(learner="bayesian_linear", arguments={"interval": 0.9}),
        training=TrainingSettings(epochs=1, batch_size=1, learning_rate=1.0),
        inputs=others_NF.shape[1],
        classes=1,
        slices=1,
        target="number",
    )
    learned, erased, state = measure(learner, others_NF[:20_000], ages_N1[:20_000])
    means_N, _, low_N, high_N = learner.probabilities(state, others_NF[20_000:]).T
    truth_N = ages_N1[20_000:, 0]
    inside = ((low_N <= truth_N) & (truth_N <= high_N)).mean()
    started = time.process_time()
    known = BayesianRidge().fit(others_NF[:20_000], ages_N1[:20_000, 0])
    seconds = time.process_time() - started
    found_N, spreads_N = known.predict(others_NF[20_000:], return_std=True)
    covered = (np.abs(truth_N - found_N) <= 1.6449 * spreads_N).mean()
    own, other = (f"{r2_score(truth_N, answers_N):.4f}" for answers_N in (means_N, found_N))
    return [
        ("bayesian_linear", own, f"{inside:.3f}", f"{learned:.2f}", f"{erased * 1e3:.2f}"),
        ("BayesianRidge", other, f"{covered:.3f}", f"{seconds:.2f}", "-"),
    ]


def main() -> None:
    """Print both tables."""
    lines = []
    for count in [int(word) for word in sys.argv[1:]] or [10**4, 10**6, 10**7]:
        features_NF, classes_N, numbers_N1 = rows(count)
        for name, target, arguments in _LEARNERS:
            learner = open_learner(
                model=ModelSettings(learner=name, arguments=arguments),
                training=TrainingSettings(epochs=1, batch_size=1, learning_rate=1.0),
                inputs=_COLUMNS,
                classes=2 if target == "class" else 1,
                slices=1,
                target=target,
            )
            learned, erased, _ = measure(learner, features_NF, classes_N if target == "class" else numbers_N1)
            called = " ".join([name, *(str(value) for value in arguments.values())])
            lines.append((called, f"{count:,}", f"{learned:.2f}", f"{erased * 1e3:.2f}", f"{learned / erased:,.0f}"))
    print(table(("learner", "rows", "learning, s", "erasing one, ms", "learning ÷ erasing"), lines))
    print(table(("of numbers", "R²", "in 90 % intervals", "learning, s", "erasing one, ms"), beside_scikit_learn()))


if __name__ == "__main__":
    main()
