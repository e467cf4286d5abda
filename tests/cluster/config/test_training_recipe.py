"""The training recipe in ``sisa.toml``: every mistake is named with what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config.specification import bit_settings, settings_record
from shards.targets import MultiLabel, Number
from tests.cluster.config.test_specification import changed, read, refusal

NUMBER = changed('classes  = ["0", "1"]', 'target   = "number"')
"""The good specification, with a number to predict."""

MISTAKES = [
    # targets
    (
        changed('"label"', '"label"\ntarget = "regression"'),
        "[data] target must be one of class, number, multi_label",
    ),
    (NUMBER.replace('"number"', '"class"'), "[data] classes needs two or more, got 0"),
    (changed('"label"', '["a", "b"]'), "[data] label is one column for the target class"),
    (changed('"label"', '"label"\ntarget = "number"'), "[data] classes belong to the target class: leave them out"),
    (
        changed("classes ", "label_scale = 2.0\nclasses "),
        "[data] label_shift and label_scale belong to the target number: leave them out",
    ),
    (NUMBER.replace("target ", "label_scale = 0\ntarget "), "[data] label_scale must be finite and above 0"),
    (NUMBER.replace("target ", "label_shift = inf\ntarget "), "[data] label_shift must be finite"),
    (
        NUMBER.replace("target ", "label_shift = [1.0, 2.0]\ntarget "),
        "[data] label_shift has 2 constants for 1 labels: give one for all or for each",
    ),
    (NUMBER.replace('"label"', "[]"), "[data] label is an empty list, or names a column twice"),
    (NUMBER.replace('"label"', '["a", "a"]'), "[data] label is an empty list, or names a column twice"),
    (NUMBER.replace('"label"', '["a", "id"]'), "[data] label names 'id', which is the id or a subject column"),
    (
        NUMBER.replace("0.05", '0.05\nloss = "cross_entropy"'),
        "line 15: [training] loss = 'cross_entropy' is not one of the target number. Take mse or mae or huber, or a",
    ),
    (
        NUMBER.replace("0.05", "0.05\nlabel_smoothing = 0.1"),
        "label_smoothing and class_weights belong to the target",
    ),
    (
        NUMBER + '[aggregation]\nrule = "majority_vote"\n',
        "[aggregation] rule = 'majority_vote' is not one of the",
    ),
    # the recipe
    (
        changed("0.05", '0.05\nengine = "fast"'),
        "line 15: [training] engine must be one of auto, eager, replay, got 'fast'",
    ),
    (
        changed("0.05", '0.05\nengine = "replay"') + "[cluster]\ngpus_per_worker = 1\n",
        'line 15: [training] engine = "replay" is for CPUs, and [cluster] gpus_per_worker is above 0: leave',
    ),
    (
        changed("0.05", '0.05\nkernels = "foreach"'),
        "line 15: [training] kernels must be one of separate, fused, got 'foreach'",
    ),
    (
        changed("0.05", '0.05\noptimizer = "rmsprop"\nkernels = "fused"'),
        "line 16: [training] kernels = 'fused' is for sgd, adam, adamw, adagrad, and PyTorch has none for rmsprop: ",
    ),
    (
        changed("0.05", '0.05\nkernels = "fused"') + "[cluster]\ngpus_per_worker = 1\n",
        'line 15: [training] kernels = "fused" is for CPUs, and [cluster] gpus_per_worker is above 0: leave one of',
    ),
    (
        changed("0.05", '0.05\nkernels = "fused"') + '[model]\nlearner = "ridge"\n',
        "kernels belongs to the learner torch, learner is ridge: leave it out",
    ),
    (
        changed("0.05", '0.05\noptimizer = "lion"'),
        "line 15: [training] optimizer must be one of sgd, adam, adamw, rmsprop",
    ),
    (
        changed("0.05", '0.05\noptimizer = "rmsprop"\noptimizer_arguments = { rho = 0.9 }'),
        "line 16: [training] optimizer_arguments.rho is not an argument of rmsprop; it takes alpha, centered",
    ),
    (
        changed("0.05", '0.05\noptimizer = "adamax"\noptimizer_arguments = { rho = 0.9 }'),
        "optimizer_arguments.rho is not an argument of adamax; it takes none",
    ),
    (
        changed("0.05", '0.05\noptimizer = "rmsprop"\noptimizer_arguments = { alpha = true }'),
        "optimizer_arguments.alpha must be a number from 0 to below 1, got True",
    ),
    (
        changed("0.05", "0.05\noptimizer_arguments = { lr = 1 }"),
        "optimizer_arguments.lr is not an argument of sgd; it takes none",
    ),
    (
        changed("0.05", '0.05\nloss = "mse"'),
        "[training] loss = 'mse' is not one of the target class. Take cross_entropy, or a callable of your own",
    ),
    (changed("0.05", '0.05\nstep = "mine"'), "[training] step must read 'module:callable', got 'mine'"),
    (changed("0.05", '0.05\naugment = "mine."'), "[training] augment must read 'module:callable', got 'mine.'"),
    (
        changed("0.05", '0.05\nstep = "mine:step"\nloss = "mine:loss"'),
        "[training] step computes the loss itself: leave out loss",
    ),
    (
        changed("0.05", '0.05\nloss = "mine:loss"\nlabel_smoothing = 0.1'),
        "[training] label_smoothing and class_weights belong to the loss cross_entropy",
    ),
    (changed("0.05", "0.05\nlabel_smoothing = 1"), "[training] label_smoothing must be in [0, 1), got 1.0"),
    (changed("0.05", "0.05\ngradient_clip = 0"), "[training] gradient_clip must be above 0, got 0.0"),
    (
        changed("0.05", "0.05\nclass_weights = [1]"),
        "line 15: [training] class_weights has 1 weights for 2 classes. Give one weight for each of [data] classes",
    ),
    (changed("0.05", "0.05\nclass_weights = [1, 0]"), "[training] class_weights must be above 0, got [1.0, 0.0]"),
    (changed("0.05", '0.05\nclass_weights = "balanced"'), "class_weights must be a list of numbers, got the text"),
    (
        changed("0.05", '0.05\nschedule = { kind = "cosine", end = 0.8 }'),
        "line 15: [training] schedule ends before training: from 0.8 of the training on the rate would be 0; set",
    ),
    (
        changed("0.05", '0.05\nschedule = { kind = "cosin" }'),
        "[training] schedule.kind must be one of constant, linear, cosine, step, got 'cosin'",
    ),
    (
        changed("0.05", '0.05\nschedule = { kind = "step", at = [0.5, 1] }'),
        "[training] schedule.at must be a list of numbers between 0 and 1, such as [0.5, 0.75], got [0.5, 1]",
    ),
    (changed("0.05", '0.05\nschedule = { kind = "step" }'), "[training] schedule.at must be a list of numbers"),
    (
        changed("0.05", '0.05\nschedule = { kind = "step", at = [0.5, 0.2] }'),
        "[training] schedule.at must rise, got [0.5, 0.2]",
    ),
    (
        changed("0.05", "0.05\nschedule = { warmup = 1 }"),
        "line 15: [training] schedule.warmup must be a number from 0 to below 1, the share of the training that it",
    ),
    (
        changed("0.05", '0.05\nschedule = { kind = "linear", warmup = 0.5, end = 0.5, final = 0.1 }'),
        "[training] schedule.end = 0.5 is not after schedule.warmup = 0.5",
    ),
    (
        changed("0.05", "0.05\nschedule = { epochs = 10 }"),
        "[training] schedule.epochs is not a setting of kind 'constant'; it has warmup",
    ),
]


@pytest.mark.parametrize(("text", "fact"), MISTAKES, ids=[fact[:60] for _, fact in MISTAKES])
def test_mistakes_are_named(tmp_path: Path, text: str, fact: str) -> None:
    """The error names line, setting, what was expected and what was got."""
    assert fact in refusal(tmp_path / "sisa.toml", text)


def test_targets_and_their_losses_are_read(tmp_path: Path) -> None:
    """A target has its outputs' names, and the default loss stated is the default."""
    number, several, stated = (
        read(tmp_path / "sisa.toml", text)
        for text in (
            NUMBER,
            NUMBER.replace('"label"', '["a", "b"]').replace('"number"', '"multi_label"'),
            NUMBER.replace("0.05", '0.05\nloss = "mse"'),
        )
    )
    assert (number.data.predicted, several.data.predicted) == (Number(("label",)), MultiLabel(("a", "b")))
    assert settings_record(stated) == settings_record(number)
    assert settings_record(number)["data"]["target"] == "number"
    assert bit_settings(settings_record(number)) != bit_settings(settings_record(several))


def test_constants_of_labels_are_recorded_where_there_are_some(tmp_path: Path) -> None:
    """Records of specifications without them stay as they were; with them both are there."""
    plain = settings_record(read(tmp_path / "sisa.toml", NUMBER))["data"]
    assert not {"label_shift", "label_scale"} & plain.keys()
    scaled = read(tmp_path / "sisa.toml", NUMBER.replace("target ", "label_scale = 2.0\ntarget "))
    assert settings_record(scaled)["data"] == plain | {"label_shift": 0.0, "label_scale": 2.0}
    assert scaled.data.predicted == Number(("label",), scale=2.0)
