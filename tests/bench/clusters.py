"""What k-means that forgets costs, beside scikit-learn's, on KDD Census-Income and on the digits.

    python -m tests.bench.clusters [TRAIN]

The first TRAIN rows of Census-Income (default 100,000) and all digits, in one shard and in five. The inertia is over
the mean of five runs of scikit-learn's k-means++; "best" is the best of ten. Times are processor time. One person is
erased at a time, 40 times in one shard; an erasure that moves a centroid learns the shard again.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean, median
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans as Reference
from sklearn.datasets import load_digits

from shards.learner_kinds.k_means import KMeansArguments
from shards.learners.k_means.learner import KMeans
from shards.points import ShardPoints
from tests.bench.learners import points_of
from tests.real.census import census
from tests.shards.learners.direct import learned

_ERASED: Final = 40
_SHARDS: Final = (1, 5)

_Features = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Known:
    """What scikit-learn reaches."""

    inertia: float
    best: float
    seconds: float


def known(features_NF: _Features, clusters: int) -> Known:
    """Return the mean of five runs, the best of ten, and the seconds of one."""
    started = time.process_time()
    runs = [Reference(clusters, n_init=1, random_state=seed).fit(features_NF).inertia_ for seed in range(10)]
    seconds = (time.process_time() - started) / 10
    return Known(mean(runs[:5]) / len(features_NF), min(runs) / len(features_NF), seconds)


def lines(name: str, features_NF: _Features, clusters: int) -> Iterator[str]:
    """Yield the lines of one data set."""
    expected = known(features_NF, clusters)
    labels_N = np.zeros(len(features_NF), dtype=np.int64)
    places_N = np.random.default_rng(0).integers(2**31, size=len(features_NF))
    for shards in _SHARDS:
        learner = KMeans(KMeansArguments(clusters=clusters), features_NF.shape[1], 2, "cluster", 0)
        started = time.process_time()
        states = [
            learned(learner, points_of(features_NF, labels_N, places_N % shards == each)) for each in range(shards)
        ]
        seconds = time.process_time() - started
        together = learner.together(states)
        inertia = float((learner.probabilities(together, features_NF)[:, 1] ** 2).mean())
        direct, again = _erased(learner, states[0], features_NF, labels_N) if shards == 1 else ("", "")
        yield (
            f"| {name} | {shards} | {inertia:.4f} | {inertia / expected.inertia:.3f} | {inertia / expected.best:.3f} |"
            f" {seconds:.2f} | {expected.seconds:.2f} | {direct} | {again} |"
        )


def _erased(learner: KMeans, state: Any, features_NF: _Features, labels_N: Any) -> tuple[str, str]:
    """Return the milliseconds of an erasure that moves no centroid, and the share of those that do."""
    seconds = []
    for number in range(_ERASED):
        person = np.array([number * (len(features_NF) // _ERASED)])
        gone, new = (points_of(features_NF, labels_N, which) for which in (person, person[:0]))
        own = copy.deepcopy(state)

        def left(new: ShardPoints = new) -> ShardPoints:
            return new

        started = time.process_time()
        if learner.unlearn(own, gone, new, left) is not None:
            seconds.append(time.process_time() - started)
    return f"{median(seconds) * 1e3:.1f}" if seconds else "-", f"{1 - len(seconds) / _ERASED:.0%}"


def main() -> None:
    """Print the table."""
    train = int([*sys.argv[1:], "100000"][0])
    columns = "data, shards, inertia, ÷ k-means++'s, ÷ best, train s, scikit-learn's, erase ms, learned again"
    print(f"| {columns.replace(', ', ' | ')} |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for line in lines(f"Census-Income, {train:,} rows", census(train)[0], 8):
        print(line)
    for line in lines("digits", (load_digits().data / 16).astype(np.float32), 10):
        print(line)


if __name__ == "__main__":
    main()
