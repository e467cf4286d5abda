"""The arguments of k-means."""

from __future__ import annotations

from dataclasses import dataclass

from shards.learner_kinds.bounds import outside


@dataclass(frozen=True, slots=True, kw_only=True)
class KMeansArguments:
    """The arguments of ``k_means``."""

    clusters: int = 8
    """How many clusters there are; fewer, where there are fewer different data points."""
    iterations: int = 10
    """How often all data points are assigned to the nearest centroid."""
    pivots: int = 32
    """How many data points for each cluster, drawn by keyed hash, decide where the clusters start. More give better
    clusters; without one of them, a shard is learned from nothing."""
    step: float = 0.125
    """Grid step of the centroids between iterations, in units of features after scaling. A larger one keeps more
    erasures from changing a centroid; the centroids that answer are not rounded to it."""
    balance: float = 0.2
    """A cluster of fewer data points than this share of the mean number moves less far."""

    def problems(self) -> list[str]:
        """Return what is wrong with them."""
        problems = outside(self, {"clusters": (2, 10_000), "iterations": (1, 1000), "pivots": (1, 10_000)})
        if not 2.0**-16 <= self.step <= 1024:
            problems.append(f"step must be 2**-16 .. 1024, got {self.step}")
        if not 0 <= self.balance <= 1:
            problems.append(f"balance must be 0 .. 1, got {self.balance}")
        return problems
