"""How many points may leave a constituent until it is cheaper to learn the shard again.

    python -m tests.bench.break_even [TRAIN] [TREES]

KDD Census-Income, one shard; processor time of taking a share of its points out directly, over that of learning from
the others. ``LearnerKind.direct_share`` says what follows from it.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Final

import numpy as np

from deploy.views.tables import table
from shards.learner_kinds.forest import ForestArguments
from shards.learner_kinds.summation import NaiveBayesArguments, RidgeArguments
from shards.learners.forest.learner import Forest
from shards.learners.summation.naive_bayes import NaiveBayes
from shards.learners.summation.ridge import Ridge
from shards.specification import ShardId, SliceIndex
from tests.bench.learners import points_of
from tests.doubles.lineages import lineage_of
from tests.real.census import census

_SHARES: Final = (0.01, 0.05, 0.1, 0.2, 0.4)


def _learned(learner: Any, points: Any) -> tuple[Any, float]:
    began, learning = time.process_time(), learner.learn(learner.initial(ShardId(0)), points, ShardId(0), SliceIndex(1))
    while True:
        try:
            next(learning)
        except StopIteration as end:
            return end.value, time.process_time() - began


def measure(learner: Any, rows: int) -> list[str]:
    """Return the ratio for each share."""
    features_NF, labels_N = census(rows)
    everybody, ratios = np.arange(rows), []
    payload = learner.to_bytes(_learned(learner, points_of(features_NF, labels_N, everybody))[0], lineage_of(1))
    for share in _SHARES:
        gone = np.random.default_rng(1).choice(rows, int(rows * share), replace=False)
        left = points_of(features_NF, labels_N, np.setdiff1d(everybody, gone))
        leaving, nobody = (points_of(features_NF, labels_N, each) for each in (gone, gone[:0]))
        state = learner.from_bytes(payload, ShardId(0))

        def survivors(left: Any = left) -> Any:
            return left

        began = time.process_time()
        learner.unlearn(state, leaving, nobody, survivors)
        directly = time.process_time() - began
        ratios.append(f"{directly / _learned(learner, left)[1]:.2f}")
    return ratios


def main() -> None:
    """Print the table."""
    rows, trees = (int(word) for word in [*sys.argv[1:3], "20000", "10"][:2])
    width, classes = census(rows)[0].shape[1], 2
    forests: list[dict[str, Any]] = [{}, {"share": 0.2}, {"thresholds": "box"}]
    cases = [
        *(
            (f"forest {each or ''}", Forest(ForestArguments(trees=trees, **each), width, classes, "class", 7))
            for each in forests
        ),
        ("naive_bayes", NaiveBayes(NaiveBayesArguments(), width, classes, "class", 7)),
        ("ridge", Ridge(RidgeArguments(), width, classes, "class", 7)),
    ]
    header = ("learner", *(f"{share:.0%}" for share in _SHARES))
    print(table(header, [(name, *measure(learner, rows)) for name, learner in cases]))


if __name__ == "__main__":
    main()
