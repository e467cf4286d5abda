"""Data points in memory, as arrays.

Shape legend: N points, F features, K further subjects, W labels of a data point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

from shards.targets import LabelArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PointBlock:
    """Some data points as they are stored: columns of equal length, in any order."""

    points_N: npt.NDArray[np.void]
    """Keyed digests of the points' ids (dtype V16)."""
    subjects_N: npt.NDArray[np.void]
    """Keyed digests of the subjects that decide the slice (dtype V16)."""
    labels_N: LabelArray
    """Position of the label in ``classes``; for targets that are numbers the labels themselves, shape (N, W);
    0 where the target has no labels."""
    features_NF: npt.NDArray[np.uint8] | npt.NDArray[np.float32]
    """Raw features, not scaled; C-contiguous; uint8 when every feature column is uint8, else float32."""
    further_NK: npt.NDArray[np.void] = field(default_factory=lambda: np.empty((0, 0), dtype="V16"))
    """Keyed digests of further subjects of the same data points (dtype V16); zeros where there is no further subject. K
    is 0 when a single column names the subject."""

    def __post_init__(self) -> None:
        if not self.further_NK.shape[1]:  # the default, whose length is wrong
            object.__setattr__(self, "further_NK", np.empty((len(self), 0), dtype="V16"))

    @property
    def people(self) -> tuple[npt.NDArray[np.void], ...]:
        """The keyed digests of all subjects, column by column: those that decide the slice, then the further ones."""
        return (self.subjects_N, *self.further_NK.T)

    def __len__(self) -> int:
        return len(self.labels_N)

    def take(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> PointBlock:
        """Return the chosen points, by mask or by position, copied into new arrays."""
        return PointBlock(
            points_N=self.points_N[chosen],
            subjects_N=self.subjects_N[chosen],
            labels_N=self.labels_N[chosen],
            features_NF=self.features_NF[chosen],
            further_NK=self.further_NK[chosen],
        )

    def between(self, start: int, stop: int) -> PointBlock:
        """Return consecutive points, as views."""
        return PointBlock(
            points_N=self.points_N[start:stop],
            subjects_N=self.subjects_N[start:stop],
            labels_N=self.labels_N[start:stop],
            features_NF=self.features_NF[start:stop],
            further_NK=self.further_NK[start:stop],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PointBlocks:
    """Data points in several blocks, as if they were in one; their features are not copied."""

    blocks: tuple[PointBlock, ...]
    points_N: npt.NDArray[np.void]
    subjects_N: npt.NDArray[np.void]

    @classmethod
    def of(cls, blocks: Sequence[PointBlock]) -> Self:
        """Return the data points of the blocks, in order."""
        nothing = [np.empty(0, dtype="V16")]
        return cls(
            blocks=tuple(blocks),
            points_N=np.concatenate([block.points_N for block in blocks] or nothing),
            subjects_N=np.concatenate([block.subjects_N for block in blocks] or nothing),
        )

    def take(self, ascending: npt.NDArray[np.intp]) -> PointBlock:
        """Return the points at these positions, which are one or more, copied into new arrays."""
        first = self.blocks[0]
        features_NF = np.empty_like(first.features_NF, order="C", shape=(len(ascending), first.features_NF.shape[1]))
        labels, further = [], []
        ends = np.cumsum([len(block) for block in self.blocks])
        bounds = [0, *np.searchsorted(ascending, ends).tolist()]
        for block, end, start, stop in zip(self.blocks, ends.tolist(), bounds[:-1], bounds[1:], strict=True):
            own = ascending[start:stop] - (end - len(block))
            # Written to its place at once; "clip" because numpy would otherwise write to a buffer first.
            np.take(block.features_NF, own, axis=0, out=features_NF[start:stop], mode="clip")
            labels.append(block.labels_N[own])
            further.append(block.further_NK[own])
        return PointBlock(
            points_N=self.points_N[ascending],
            subjects_N=self.subjects_N[ascending],
            labels_N=np.concatenate(labels),
            features_NF=features_NF,
            further_NK=np.concatenate(further),
        )

    def __len__(self) -> int:
        return len(self.points_N)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShardPoints:
    """All data points of one shard, in memory, ready for training.

    Canonical order: slice after slice, within a slice by point digest. It depends only on which points there are (E3).
    """

    features_NF: npt.NDArray[np.float32]
    """Scaled features, C-contiguous."""
    labels_N: npt.NDArray[np.int64] | npt.NDArray[np.float32]
    """Labels, with the types of ``PointBlock``."""
    keys_N: npt.NDArray[np.uint64]
    """First 8 bytes (big-endian) of the point's digest, from which its place in each epoch is derived."""
    subjects_N: npt.NDArray[np.uint64]
    """The same of the subject that decides the slice."""
    ends: tuple[int, ...]
    """``ends[r - 1]`` is the number of points in slices 1..r; length R."""


def points_within(block: PointBlock, most_bytes: int) -> int:
    """Return how many data points like those of ``block`` take ``most_bytes``, at least one."""
    row = block.between(0, 1)
    columns = (row.points_N, row.subjects_N, row.labels_N, row.features_NF, row.further_NK)
    return max(1, most_bytes // max(1, sum(column.nbytes for column in columns)))


def scaled(
    features_NF: npt.NDArray[np.uint8] | npt.NDArray[np.float32],
    scale: float | tuple[float, ...],
    out: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.float32]:
    """Return the features divided in float32 by the declared constant, or by one constant per feature."""
    return np.divide(features_NF, np.asarray(scale, dtype=np.float32), out=out, dtype=np.float32)
