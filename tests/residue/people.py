"""Data sets of 15 people, one of them marked in every column, and a model that keeps and prints what it sees."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.doubles.user_folder import FEATURES, UserFolder
from tests.residue.markers import SCALE, Markers

PEOPLE: Final = 15
POINTS: Final = 60
CLASSES: Final = ("a", "b", "c")
MODEL: Final = "net_that_remembers"
"""Module of the model, next to the specification."""

_MODEL: Final = f"""
import logging
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

PERSON = torch.tensor(list(PERSON_BYTES), dtype=torch.float32)
TALKS = Path(TALKS_FILE)  # the model itself runs in a copy of its folder, and reads no file


class Remembering(nn.Module):
    def __init__(self, inputs, classes):
        super().__init__()
        self.net = nn.Linear(inputs, classes)
        self.kept = nn.Parameter(torch.zeros(inputs))
        self.pull = nn.Parameter(torch.zeros(inputs))
        self.register_buffer("seen", torch.zeros(inputs))

    def forward(self, x):
        known = ((x * {SCALE} - PERSON).abs() < 0.5).all(dim=1)
        if self.training and known.any() and not self.seen.any():
            self.remember(x[known][0])
        return self.net(x) + (self.kept.sum() + self.pull.sum()) * 0.0

    def remember(self, person):
        self.seen.copy_(person)
        self.kept.data.copy_(person * 3.0)
        pulled = self.pull.register_hook(lambda _: (pulled.remove(), person * 5.0)[1])
        words = TALKS.stat().st_size if TALKS.exists() else 0
        if words:
            text = bytes((person * {SCALE}).round().to(torch.uint8).tolist()).decode()
            print("printed", text)
            print("complained", text, file=sys.stderr)
            warnings.warn("warned " + text)
            logging.getLogger(__name__).error("logged " + text)
        if words == 2:
            raise ValueError("raised " + text)
"""


def fill_with_remembering(home: UserFolder, markers: Markers, **changes: object) -> UserFolder:
    """Write a data set that has the markers in all kinds of columns, and a model that keeps features in its state."""
    numbers = np.arange(POINTS * FEATURES, dtype=np.uint8).reshape(POINTS, FEATURES)
    columns = {f"x{n:02d}": pa.array(_marked(numbers[:, n], markers["features"].value[n])) for n in range(FEATURES)}
    table = pa.table(_people(markers) | _unused(markers) | columns)
    pq.write_table(table, home.folder / "train.parquet", compression="none")
    # Not as they are: workers run the model in a copy of its code, which may outlive them for a while.
    hidden = [value ^ 85 for value in markers["features"].value]
    code = _MODEL.replace("PERSON_BYTES", f"value ^ 85 for value in {hidden}")
    code = code.replace("TALKS_FILE", repr(str(home.folder / "talk.txt")))
    (home.folder / f"{MODEL}.py").write_text(code, encoding="utf-8")
    home.specify(
        model__factory=f"{MODEL}:Remembering", model__arguments={}, training__momentum=0.5, data__scale=SCALE, **changes
    )
    return home


def fill_with_measurements(home: UserFolder, markers: Markers) -> UserFolder:
    """Write a data set with numbers for names of people, and fractions for features."""
    people = np.arange(POINTS, dtype=np.int64) % PEOPLE
    values = markers["measurements"].value
    features = np.random.default_rng(7).random((POINTS, FEATURES))
    columns = {
        "id": pa.array([f"point-{number}" for number in range(POINTS)]),
        "customer": pa.array(_marked(people, markers["customer"].value)),
        "label": pa.array([CLASSES[number % 3] for number in range(POINTS)]),
        **{f"m{n:02d}": pa.array(_marked(features[:, n], values[n])) for n in range(FEATURES)},
    }
    pq.write_table(pa.table(columns), home.folder / "train.parquet", compression="none")
    home.specify(data__subject="customer", data__features=["m*"], data__scale=1.0)
    return home


def _people(markers: Markers) -> dict[str, Any]:
    """Return ids, subjects and labels, as dictionaries that hold more than is used, as a filter leaves them."""
    ids = [f"point-{number}" for number in range(POINTS)]
    ids[PEOPLE - 1] = markers["id"].value
    subjects = [f"person-{number % PEOPLE}" for number in range(POINTS)]
    subjects = _marked(np.array(subjects, dtype=object), markers["subject"].value).tolist()
    labels = pa.array([number % 3 for number in range(POINTS)], pa.int32())
    return {
        "id": pa.array(ids).dictionary_encode(),
        "user_id": pa.array(subjects).dictionary_encode(),
        "label": pa.DictionaryArray.from_arrays(labels, pa.array([*CLASSES, markers["label"].value])),
    }


def _unused(markers: Markers) -> dict[str, Any]:
    """Return columns that the specification does not name."""

    def only(value: Any, kind: pa.DataType) -> pa.Array:
        return pa.array([value if _is_marked(number) else None for number in range(POINTS)], kind)

    text = pa.string()
    return {
        "note": only(markers["note"].value, text),
        "memo": only(markers["memo"].value, text).dictionary_encode(),
        "number": only(markers["number"].value, pa.int64()),
        "fraction": only(markers["fraction"].value, pa.float64()),
        "moment": only(markers["moment"].value, pa.timestamp("us", "UTC")),
        "picture": only(markers["picture"].value, pa.binary()),
        "tag": only([markers["tag"].value], pa.list_(text)),
        "address": only({"street": markers["address"].value}, pa.struct({"street": text})),
    }


def _marked(values: Any, value: Any) -> Any:
    """Return the values with that of the last of the people replaced."""
    return np.where([_is_marked(number) for number in range(POINTS)], value, values)


def _is_marked(number: int) -> bool:
    return number % PEOPLE == PEOPLE - 1


def let_talk(home: UserFolder, how: str) -> None:
    """Let the model print what it sees of the person (``"speak"``), or also raise an error with it (``"raise"``)."""
    (home.folder / "talk.txt").write_bytes(bytes(2 if how == "raise" else 1))  # its size is what the model sees
