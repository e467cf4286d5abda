"""The front door in Python: settings as a dictionary, and what things say of themselves."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

import sisa
from cluster.config.specification import read_specification
from cluster.ensemble.loaded import Ensemble
from coordinator.ports import Notice
from storage.errors import Invalid
from tests.doubles.user_folder import UserFolder


def settings(home: UserFolder) -> dict[str, Any]:
    """Return the home's settings as a dictionary."""
    return tomllib.loads(home.config.read_text(encoding="utf-8"))


def hear_nothing(_: Notice) -> None:
    """Ignore the notice."""


def test_a_dictionary_is_as_good_as_a_file(home: UserFolder) -> None:
    """The same settings make the same federation, which the command goes on with."""
    with sisa.launch(settings(home)) as federation:
        assert federation.specification == read_specification(home.config)
        digests = [each.digest for each in federation.train().constituents]
    assert home.json("status").digests == digests


def test_a_dictionary_may_hold_what_python_has(home: UserFolder) -> None:
    """Paths, tuples, and None for what is left out; places are relative to the present folder."""
    given = settings(home)
    given["data"] |= {"train": Path("train.parquet"), "classes": ("a", "b", "c"), "endpoint": None}
    given["keys"] = None
    assert sisa.connect(given).specification == read_specification(home.config)


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
