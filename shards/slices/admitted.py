"""Refuses values that the federation's learner does not take, before they get into slices.

Shape legend: N points, F features, W columns of labels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shards.data.columns import ChosenColumns, Features
from shards.data.sources import Batch
from shards.learner_kinds.admissible import Range
from shards.points import scaled
from storage.errors import Invalid


def refuse_features(
    batch: Batch,
    columns: ChosenColumns,
    features_NF: Features,
    scale: float | tuple[float, ...],
    admitted: Range | None,
) -> None:
    """Raise ``Invalid`` for the first data point with a feature that is out of range once it is scaled."""
    if admitted is None or not len(features_NF):
        return
    outside_NF = admitted.outside(scaled(features_NF, scale))
    if outside_NF.any():
        position, feature = np.argwhere(outside_NF)[0].tolist()
        names = [name for name in columns.features for _ in range(columns.width_of(name))]
        name = names[feature] if len(names) == features_NF.shape[1] else columns.features[0]
        raise _outside(f"has a feature outside {admitted}, as scaled", batch, name, position, admitted)


def refuse_labels(
    batch: Batch, names: tuple[str, ...], labels_NW: npt.NDArray[np.float32], admitted: Range | None
) -> None:
    """Raise ``Invalid`` for the first data point with a label that is out of range as it is learned."""
    if admitted is None or not len(labels_NW):
        return
    outside_NW = admitted.outside(labels_NW)
    if outside_NW.any():
        position, label = np.argwhere(outside_NW)[0].tolist()
        raise _outside(f"has a label outside {admitted}, as it is learned", batch, names[label], position, admitted)


def _outside(fact: str, batch: Batch, column: str, position: int, admitted: Range) -> Invalid:
    file, row = batch.place(position)
    return Invalid(
        f"a data point {fact}, which [model] learner does not take", admitted.remedy, file=file, column=column, row=row
    )
