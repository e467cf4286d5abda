"""Losses, augmentations and steps of the user's: what is wrong with them is said before they learn from anybody."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from shards.learners.torch.factory import build_model
from shards.learners.torch.recipe import Recipe, optimizer_of
from shards.learners.torch.rehearsal import compare_rehearsals
from shards.learners.torch.rehearsal_process import RehearsalRequest, rehearse_here
from shards.learners.torch.user_modules import UserModules
from shards.recipe.kernels import HAVE_FUSED
from shards.recipe.optimizers import OPTIMIZERS
from shards.specification import ModelSettings, TrainingSettings
from storage.digests import sha256
from storage.errors import Invalid

_TRAINING = TrainingSettings(epochs=3, batch_size=4, learning_rate=0.05)
_MODEL = ModelSettings(factory="shards.models:mlp", arguments={"hidden": [5]})
_CPU = torch.device("cpu")

_CODE = """
import math
import torch
from torch.nn import functional

STEPS = 0

def each(outputs, labels):
    return functional.cross_entropy(outputs, labels, reduction="none")

def number(outputs, labels):
    return 0.5

def frozen(outputs, labels):
    return functional.cross_entropy(outputs.detach(), labels)

def elsewhere(outputs, labels):
    return torch.ones((), requires_grad=True) * 2

def nothing(outputs, labels):
    return functional.cross_entropy(outputs, labels) + math.nan

def wrong(outputs, labels):
    raise ValueError("three classes")

def three(outputs, labels, more):
    return functional.cross_entropy(outputs, labels)

def counting(model, features, labels, generator):
    global STEPS
    STEPS += 1
    return functional.cross_entropy(model(features), labels) * (1 + 0.1 * STEPS)

def attached(model, features, labels, generator):
    model.seen = getattr(model, "seen", 0) + features.mean()
    return functional.cross_entropy(model(features), labels)

def good(model, features, labels, generator):
    return functional.cross_entropy(model(features), labels)

def unseeded(features, generator):
    return features + torch.randn(features.shape, generator=torch.Generator().manual_seed(torch.seed()))

def shorter(features, generator):
    return features[1:]

def doubles(features, generator):
    return features.double()
"""


def rehearsed(tmp_path: Path, modules: UserModules, **training: Any) -> set[str]:
    """Rehearse a shipped model with the recipe; return the names of the user's modules that it loaded."""
    (tmp_path / "odd_recipe.py").write_text(_CODE, encoding="utf-8")
    request = RehearsalRequest(
        model=_MODEL, training=replace(_TRAINING, **training), inputs=4, classes=2, device="cpu", threads=1
    )
    result = rehearse_here(request, modules)
    compare_rehearsals(_MODEL.factory, result, result)
    assert result.modules == {"odd_recipe": sha256((tmp_path / "odd_recipe.py").read_bytes())}
    return set(result.modules)


@pytest.mark.parametrize(
    ("setting", "name", "text"),
    [
        ("loss", "each", r"loss 'odd_recipe:each' returns a tensor of shape \(4,\), not one number in a tensor"),
        ("loss", "number", "loss 'odd_recipe:number' returns float, not one number in a tensor"),
        ("loss", "frozen", "loss 'odd_recipe:frozen' returns a loss without a gradient"),
        ("loss", "elsewhere", "the loss gives no parameter of the model a gradient"),
        ("loss", "nothing", "loss 'odd_recipe:nothing' returns a loss that is not a finite number"),
        ("loss", "wrong", "loss 'odd_recipe:wrong' failed with ValueError: three classes"),
        ("loss", "three", "loss 'odd_recipe:three' does not take 2 arguments: missing a required argument: 'more'"),
        ("loss", "missing", "loss 'odd_recipe:missing': 'odd_recipe' has no 'missing'"),
        ("step", "each", "step 'odd_recipe:each' does not take 4 arguments: too many positional arguments"),
        ("step", "counting", "does not repeat itself.*A variable of the model.s module or class"),
        ("step", "attached", "tensors in plain attributes change while the model learns: seen"),
        ("augment", "unseeded", "does not repeat itself"),
        (
            "augment",
            "shorter",
            r"augment 'odd_recipe:shorter' returns torch.float32 of shape \(3, 4\), not torch.float",
        ),
        ("augment", "doubles", "augment 'odd_recipe:doubles' returns torch.float64 of shape"),
    ],
)
def test_bad_callables_are_refused(tmp_path: Path, modules: UserModules, setting: str, name: str, text: str) -> None:
    """The rehearsal, on made-up data, names setting, callable and fault."""
    with pytest.raises(Invalid, match=text):
        rehearsed(tmp_path, modules, **{setting: f"odd_recipe:{name}"})


def test_a_good_callable_is_part_of_the_manifest(tmp_path: Path, modules: UserModules) -> None:
    """The module of a step beside a shipped model is among the modules that the rehearsal found."""
    assert rehearsed(tmp_path, modules, step="odd_recipe:good") == {"odd_recipe"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_take_what_the_table_says(name: str) -> None:
    """Every setting and argument in the table is one of torch's, and all of torch's that change results are there."""
    settings, arguments = OPTIMIZERS[name]
    model = build_model(_MODEL, 4, 2)
    optimizer = optimizer_of(model, replace(_TRAINING, optimizer=name))
    known = set(inspect.signature(type(optimizer)).parameters)
    ours = {"params", "lr", "weight_decay", *arguments} | {{"epsilon": "eps"}.get(each, each) for each in settings}
    of_speed = {"foreach", "maximize", "capturable", "differentiable", "fused"}
    left_out = {"sgd": {"dampening"}, "adam": {"decoupled_weight_decay"}, "adamw": set[str]()}
    assert known - of_speed == ours | left_out.get(name, set())
    assert ("fused" in known) == (name in HAVE_FUSED)


def test_cross_entropy_with_weights_and_smoothing_is_torch_s() -> None:
    """Declared weights and smoothing reach torch's loss; without them nothing is passed."""
    training = replace(_TRAINING, class_weights=(1.0, 3.0), label_smoothing=0.2)
    outputs, labels = torch.tensor([[0.5, 1.0], [2.0, -1.0]]), torch.tensor([1, 0])
    expected = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]), label_smoothing=0.2)(outputs, labels)
    found = Recipe.of(training, _CPU).step(nn.Identity(), outputs, labels, None)
    assert torch.equal(found, expected)
    plain = Recipe.of(_TRAINING, _CPU).step(nn.Identity(), outputs, labels, None)
    assert torch.equal(plain, nn.CrossEntropyLoss()(outputs, labels))
