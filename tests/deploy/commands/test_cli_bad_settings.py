"""Bad specifications and models: the error gives the line or name and a remedy, and nothing is lost."""

from __future__ import annotations

import pytest

from tests.doubles.user_folder import CommandResult, UserFolder, run

_MODELS = """
import torch
from torch import nn


def fails(inputs, classes):
    raise ValueError("no such width")


def wide(inputs, classes):
    return nn.Linear(inputs, classes + 2)


def needs_more(inputs, classes):
    return nn.Linear(inputs + 1, classes)


def text(inputs, classes):
    return "a model"


class Still(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, x):
        return x[:, : self.classes]


def still(inputs, classes):
    return Still(classes)


def normed(inputs, classes):
    return nn.Sequential(nn.Linear(inputs, 4), nn.BatchNorm1d(4), nn.Linear(4, classes))


NUMBER = 3
"""


def _text(said: CommandResult) -> str:
    return said.error["message"] + " " + said.error["remedy"]


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({"model__factory": "no_such_module:net"}, ("'no_such_module:net'", "no module named 'no_such_module'")),
        ({"model__factory": "bad_models:nett"}, ("'bad_models' has no 'nett'", "Choose one of its names:", "normed")),
        ({"model__factory": "bad_models:NUMBER"}, ("is not callable", "function or class")),
        ({"model__factory": "broken_models:net"}, ("importing 'broken_models' failed with ZeroDivisionError",)),
        ({"model__factory": "unreadable_models:net"}, ("importing 'unreadable_models' failed with SyntaxError",)),
        ({"model__factory": "bad_models:fails"}, ("failed with ValueError: no such width", "[model] arguments")),
        ({"model__factory": "bad_models:wide"}, ("has shape (2, 5), expected (2, 3)", "3 declared classes")),
        ({"model__factory": "bad_models:needs_more"}, ("fails on 2 data points of 16 features",)),
        ({"model__factory": "bad_models:text"}, ("returned str, not a torch.nn.Module",)),
        ({"model__factory": "bad_models:still"}, ("no parameter to train",)),
        ({"model__factory": "bad_models:normed", "training__batch_size": 1}, ("batch_size = 1", "Set batch_size to 2")),
        ({"model__arguments": {"hidenn": [6]}}, ("'shards.models:mlp' failed", "hidenn", "[model] arguments")),
    ],
)
def test_a_bad_model_is_refused(changes: dict[str, object], texts: tuple[str, ...], home: UserFolder) -> None:
    """A factory that cannot be had, fails, or does not fit the data is named with what is wrong with it."""
    (home.folder / "bad_models.py").write_text(_MODELS, encoding="utf-8")
    (home.folder / "broken_models.py").write_text("1 / 0\n", encoding="utf-8")
    (home.folder / "unreadable_models.py").write_text("def net(:\n", encoding="utf-8")
    if "model__factory" in changes:
        changes = {"model__arguments": {}, **changes}
    home.specify(**changes)
    text = _text(home.refused("train"))
    for part in texts:
        assert part in text


def test_a_bad_model_does_not_hurt_what_was_trained(trained: UserFolder) -> None:
    """A factory that fails leaves the trained federation as it was, back under the old settings."""
    before = trained.json("status")
    trained.specify(model__arguments={"hidden": "many"})
    trained.refused("train")
    trained.specify()
    assert trained.json("train").digests == before.digests
    assert trained.json("status").out == before.out


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        ({"training__epochs": 1, "partition__slices": 5}, ("epochs = 1 gives some of 5 slices no epoch", "at least 3")),
        ({"training__epochs": 0}, ("epochs must be at least 1, got 0",)),
        ({"partition__shards": 0}, ("shards must be 1 .. 4096, got 0",)),
        ({"partition__shards": 5000}, ("shards must be 1 .. 4096, got 5000",)),
        ({"partition__slices": -1}, ("slices must be 1 .. 4096, got -1",)),
        ({"training__epochs": "20"}, ("epochs must be a whole number", '"20"')),
        ({"training__optimizer": "sdg"}, ("optimizer must be one of sgd, adam, adamw",)),
        ({"training__learning_rat": 0.1}, ("learning_rat is not a known setting; did you mean learning_rate?",)),
        ({"data__subjct": "user_id"}, ("subjct is not a known setting; did you mean subject?",)),
        ({"trainings__epochs": 3}, ("[trainings] is not a known table; did you mean [training]?",)),
        ({"data__label": None}, ("[data] label is missing: text or a list of texts is needed",)),
        ({"data__classes": ["a"]}, ("classes needs two or more",)),
        ({"data__features": ["x*", "user_id"]}, ("features names 'user_id', which is the id, subject or label",)),
        ({"data__scale": [1.0, 2.0]}, ("scale has 2 constants for 16 features",)),
        ({"cluster__cpus_per_worker": 0}, ("cpus_per_worker must be above 0",)),
        ({"store": "ftp://somewhere"}, ("ftp",)),
        ({"name": "a name/with a path"}, ("name must be 1 to 63 letters",)),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, object], texts: tuple[str, ...], home: UserFolder) -> None:
    """A setting that is unknown, misspelt, missing, of the wrong type or out of range is named."""
    home.specify(**changes)
    said = home.json("train")
    assert said.code == 2
    assert said.error["remedy"]
    for part in texts:
        assert part in _text(said)
    assert not home.store.exists() or not list((home.store / "shards").rglob("*"))


@pytest.mark.parametrize(
    "words",
    [
        ("train",),
        ("status",),
        ("verify",),
        ("plan",),
        ("predict", "train.parquet", "--out", "out.csv"),
        ("evaluate", "train.parquet"),
        ("erase", "--subject", "somebody"),
    ],
)
def test_every_command_tells_the_line_of_a_bad_setting(words: tuple[str, ...], home: UserFolder) -> None:
    """Every command reports two problems in ``sisa.toml`` at once, each with its line."""
    lines = home.config.read_text(encoding="utf-8").splitlines()
    epochs, shards = lines.index("epochs = 4"), lines.index("shards = 3")
    lines[epochs], lines[shards] = 'epochs = "many"', "shards = 0"
    home.config.write_text("\n".join(lines), encoding="utf-8")
    said = home.json(*words)
    assert said.code == 2
    assert "sisa.toml has 2 problems" in said.error["message"]
    assert f"line {epochs + 1}: [training] epochs" in said.error["message"]
    assert f"line {shards + 1}: [partition] shards" in said.error["message"]


def test_unreadable_toml_is_reported_with_its_line(home: UserFolder) -> None:
    """A syntax error names its line, and shows nothing of it: the line may hold the partition key."""
    lines = home.config.read_text(encoding="utf-8").splitlines()
    key = next(number for number, line in enumerate(lines) if line.startswith("key"))
    lines[key] = lines[key].rstrip('"')
    home.config.write_text("\n".join(lines), encoding="utf-8")
    said = home.json("train")
    assert said.code == 2
    assert f"sisa.toml is not readable TOML at line {key + 1}" in said.error["message"]
    assert bytes(range(16)).hex() not in said.out + said.err


def test_a_missing_specification_names_the_way_to_one(home: UserFolder) -> None:
    """Without a specification the command says how to get one."""
    said = run("train", "--config", str(home.folder / "none.toml"), "--json")
    assert said.code == 2
    assert "there is no specification none.toml" in said.error["message"]
    assert "sisa init" in said.error["remedy"]
