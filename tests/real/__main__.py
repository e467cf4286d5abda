"""Prints the table of docs/benchmarks.md: ``python -m tests.real`` takes each data set whole, on one processor."""

from __future__ import annotations

import contextlib
import tempfile

import pytest

import cluster.training.workers
from tests.doubles.workers.local_workers import LocalWorkers
from tests.real.cases import PEOPLE
from tests.real.measuring import compare


def main() -> None:
    """Measure all data sets and print a line for each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
        patch.setattr(cluster.training.workers, "join_ray", lambda _: False)
        for case in PEOPLE:
            with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
                found = compare(case, every=1)
            figures = " | ".join(f"{figure:.4g}" for figure in (found.ours, found.plain, found.trivial))
            proof = "exact" if found.exact and not found.found else "not exact"
            print(  # noqa: T201  a table for people
                f"| {case.name} | {found.points:,} | {found.people:,} | {case.metric} of {case.label} | {figures}"
                f" | {found.erased} | {found.share:.0%} | {proof} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
