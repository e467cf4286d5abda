"""The front door in Python: settings as a dictionary, and what things say of themselves."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import sisa
from cluster.config.specification import read_specification
from cluster.ensemble.loaded import Ensemble
from coordinator.ports import Notice
from shards.specification import TrainingSettings
from storage.errors import Invalid
from tests.doubles.user_folder import UserFolder


def settings(home: UserFolder) -> dict[str, Any]:
    """Return the home's settings as a dictionary."""
    return tomllib.loads(home.config.read_text(encoding="utf-8"))


def hear_nothing(_: Notice) -> None:
    """Ignore the notice."""


def test_a_dictionary_is_as_good_as_a_file(home: UserFolder) -> None:
    """The same settings make the same federation, with which the command continues."""
    with sisa.launch(settings(home)) as federation:
        assert federation.specification == read_specification(home.config)
        digests = [each.digest for each in federation.train().constituents]
    assert home.json("status").digests == digests


def test_a_dictionary_may_hold_what_python_has(home: UserFolder) -> None:
    """Paths, tuples, and None for what is left out; places are relative to the current folder."""
    given = settings(home)
    given["data"] |= {"train": Path("train.parquet"), "classes": ("a", "b", "c"), "endpoint": None}
    given["keys"] = None
    assert sisa.connect(given).specification == read_specification(home.config)


def test_settings_may_be_values_of_numpy(home: UserFolder) -> None:
    """A parameter search passes such values. A range counts as a list; a value without an order is refused."""
    given = settings(home)
    given["training"] |= {"epochs": np.int64(given["training"]["epochs"]), "learning_rate": np.float64(0.25)}
    given["data"]["classes"] = np.array(["a", "b", "c"])
    given["model"]["arguments"] = {"hidden": [np.int32(7)]}
    found = sisa.connect(given).specification
    assert (found.data.classes, found.training.learning_rate) == (("a", "b", "c"), 0.25)
    assert json.dumps(found.model.arguments) == '{"hidden": [7]}'
    given["data"]["classes"] = range(3)
    assert sisa.connect(given).specification.data.classes == ("0", "1", "2")
    given["data"]["classes"] = {"a", "b", "c"}
    with pytest.raises(Invalid, match=r"\[data\] classes must be a list of .*, got a value of the type builtins\.set"):
        sisa.connect(given)


@pytest.mark.parametrize(
    ("table", "setting", "value", "problem"),
    [
        ("data", "train", pa.table({"x": [1]}), r"train must be text, got a value of the type pyarrow\.lib\.Table"),
        ("model", "factory", len, r"factory must be text, got a value of the type builtins\.builtin_function"),
        ("model", "arguments", {"activation": len}, "arguments must be a table of .*, got a table with something else"),
        ("training", "epochs", object(), r"epochs must be a whole number, got a value of the type builtins\.object"),
        ("training", "epochs", [object()], r"epochs must be a whole number, got a list of 1, among them a value of"),
    ],
)
def test_values_that_no_file_could_hold_are_refused(
    home: UserFolder, table: str, setting: str, value: object, problem: str
) -> None:
    """By the setting's name, and without calling or storing them."""
    given = settings(home)
    given[table][setting] = value
    with pytest.raises(Invalid, match=rf"the settings have 1 problem:\n  \[{table}\] {problem}"):
        sisa.connect(given)


def test_settings_classes_are_as_good_as_a_file(home: UserFolder) -> None:
    """Built by keyword, with what a person leaves out at its default; alone, or as tables of a dictionary."""
    written = read_specification(home.config)
    built = sisa.Specification(
        name=written.name,
        store=written.store,
        data=written.data,
        training=written.training,
        partition=sisa.PartitionSettings(**settings(home)["partition"]),
        model=written.model,
        cluster=written.cluster,
        erasure=written.erasure,
    )
    assert sisa.connect(built).specification == written
    tables = settings(home) | {"training": written.training, "data": written.data}
    assert sisa.connect(tables).specification == written


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"name": "a b"}, "name must be 1 to 63 letters"),
        ({"keys": "./federation"}, "keys is empty or names the store itself"),
        (
            {"training": TrainingSettings(epochs=1, batch_size=8, learning_rate=0.1)},
            r"\[training\] epochs = 1 gives some",
        ),
        ({"aggregation": {"rule": "best"}}, r"\[aggregation\] rule must be one of"),
        ({"partition": None}, r"\[partition\] shards is missing"),
    ],
)
def test_settings_classes_are_checked_together(home: UserFolder, change: dict[str, Any], problem: str) -> None:
    """Dataclasses check themselves; what they cannot know of each other, and their types, the front door checks."""
    written = read_specification(home.config)
    with pytest.raises(Invalid, match=rf"the settings have \d problems?:\n  {problem}"):
        sisa.connect(replace(written, **change))


def test_all_problems_of_a_dictionary_are_reported(home: UserFolder) -> None:
    """As of a file, all at once, without lines that nobody has written."""
    given = settings(home)
    given["training"] |= {"epochs": "many", "batchsize": 3}
    del given["data"]["label"]
    with pytest.raises(Invalid, match="the settings have 3 problems") as caught:
        sisa.launch(given)
    reported = str(caught.value)
    assert all(part in reported for part in ("[training] epochs must be", "batchsize", "label is missing"))
    assert "line" not in reported
    with pytest.raises(Invalid, match="these settings specify several sites"):
        sisa.connect({**given, "site": [{"name": "north"}]})


def test_things_say_what_they_are(home: UserFolder) -> None:
    """Names and places, never a token, a key, a model or a generator."""
    key = settings(home)["partition"]["key"]
    with sisa.launch(home.config, listener=hear_nothing) as federation:
        assert repr(federation) == f"Federation('small', store={federation.store.location!r})"
        federation.train()
        answers = federation.predict("train.parquet")
        assert repr(answers).startswith("Answers(generation 1, constituents 3 of 3, 3 classes")
        state = federation.reading.current()
        assert state is not None
        ensemble = Ensemble.load(federation.store, state, federation.specification)
        assert "generation=1" in repr(ensemble)
        assert "Linear" not in repr(ensemble)
        assert key not in repr(federation.specification)
    assert repr(sisa.Client("https://example.org/api/", "secret")) == "Client('https://example.org/api')"
    assert repr(sisa.Client("http://[::1]:8000", "secret")) == "Client('http://[::1]:8000')"
