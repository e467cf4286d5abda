"""Which data points leave: keyed by scenario and round, so that a larger share contains a smaller one.

Shape legend: N points, K points that leave.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shards.learners.approximate.models import keyed_order

IID: Final = "iid"
"""All data points are equally likely to leave."""
SKEWED: Final = "non-iid"
"""A declared share of those that leave is of one class."""
SCENARIOS: Final = (IID, SKEWED)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Leaving:
    """Data points that leave."""

    gone_K: npt.NDArray[np.int64]
    """Their rows, ascending."""
    left_M: npt.NDArray[np.int64]
    """The rows of all others, ascending."""
    note: str
    """A remark for readers of the results; may be empty."""


def points_that_leave(
    labels_N: npt.NDArray[Any], scenario: str, count: int, attempt: int, *, skewed_class: int, skewed_share: float
) -> Leaving:
    """Return ``count`` data points that leave.

    In the scenario ``SKEWED``, ``skewed_share`` of them are of ``skewed_class``, and the others are drawn from all
    other classes. Where the class has fewer, all of it leaves, and the note says so.
    """
    order_N = keyed_order(f"section-vi/{scenario}/{attempt}", len(labels_N))
    notes = []
    if scenario == IID:
        gone_K = order_N[:count]
    else:
        is_skewed_N = labels_N[order_N] == skewed_class
        wanted = round(skewed_share * count)
        of_class = order_N[is_skewed_N][:wanted]
        if len(of_class) < wanted:
            notes.append(
                f"class {skewed_class} has only {len(of_class)} of the {wanted} data points that were to leave"
            )
        gone_K = np.concatenate([of_class, order_N[~is_skewed_N][: count - len(of_class)]])
    gone_K = np.sort(gone_K)
    left_M = np.setdiff1d(np.arange(len(labels_N)), gone_K, assume_unique=True)
    absent = sorted(set(np.unique(labels_N).tolist()) - set(np.unique(labels_N[left_M]).tolist()))
    notes += [f"no data point of class {each} is left" for each in absent]
    return Leaving(gone_K=gone_K, left_M=left_M, note="; ".join(notes))
