"""The training recipe: optimizer, loss, augmentation and the user's own step, as ``[training]`` declares them.

Shape legend: N points of a batch, F features, C classes.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional
from torch.optim import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop

from shards.learners.torch.engines.fused import check_parameters
from shards.learners.torch.model_code import import_callable
from shards.recipe.kernels import FUSED
from shards.recipe.optimizers import OPTIMIZERS
from shards.specification import CROSS_ENTROPY, TrainingSettings
from shards.targets import TARGETS, Class
from storage.errors import Invalid, SisaError

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Returns the mean loss of a batch from the model's outputs (N, C) and the labels, (N,) or (N, C)."""

Step = Callable[[nn.Module, torch.Tensor, torch.Tensor, torch.Generator | None], torch.Tensor]
"""Returns the mean loss of a batch from the model, features (N, F), labels (N,) and a generator."""

Augment = Callable[[torch.Tensor, torch.Generator | None], torch.Tensor]
"""Returns features to learn from, from features (N, F) and a generator."""

_KINDS: Final[Mapping[str, Callable[..., Optimizer]]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
    "adadelta": Adadelta,
    "adamax": Adamax,
    "nadam": NAdam,
    "radam": RAdam,
}
_LOSSES: Final[Mapping[str, Loss]] = {
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
    "huber": functional.huber_loss,
    "bce": functional.binary_cross_entropy_with_logits,
}
"""Losses of outputs and labels of one shape."""
_NAMES: Final = {"epsilon": "eps"}
"""torch's names of settings, where they differ from ours."""


def optimizer_of(model: nn.Module, training: TrainingSettings) -> Optimizer:
    """Return the declared optimizer of the model's trainable parameters.

    Raises ``Invalid`` when there are none, or their fused kernel cannot take them.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise Invalid("[model] the model has no parameter to train", "Use a model with trainable parameters.")
    settings, _ = OPTIMIZERS[training.optimizer]
    is_fused = training.kernels == FUSED
    further: dict[str, Any] = {**training.optimizer_arguments, **({"fused": True} if is_fused else {})}
    optimizer = _KINDS[training.optimizer](
        parameters,
        lr=training.learning_rate,
        weight_decay=training.effective_weight_decay,
        **{_NAMES.get(name, name): getattr(training, name) for name in settings},
        **further,
    )
    if is_fused:
        check_parameters(optimizer)
    return optimizer


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """The parts of a training step, with the user's callables as this process has just imported them."""

    step: Step
    augment: Augment | None
    is_users: bool
    """Whether the loss is computed by code of the user's."""

    @classmethod
    def of(cls, training: TrainingSettings, device: torch.device, target: str = Class.kind) -> Recipe:
        """Return the recipe. Raises ``Invalid`` when one of the user's callables cannot be used."""
        if training.step is not None:
            step = _scalar(_users("step", training.step, 4), "step", training.step)
        elif "loss" in training.code:
            path = training.code["loss"]
            step = _scalar(_step_with(_users("loss", path, 2)), "loss", path)
        elif (name := training.loss or TARGETS[target].losses[0]) == CROSS_ENTROPY:
            step = _step_with(_cross_entropy(training, device))
        else:
            step = _step_with(_LOSSES[name])
        augment = None if training.augment is None else _augmenting(training.augment)
        return cls(step, augment, bool(training.code.keys() & {"loss", "step"}))


def check_learns(optimizer: Optimizer) -> None:
    """Raise ``Invalid`` when the loss of the first step gave no parameter a gradient."""
    if all(each.grad is None for group in optimizer.param_groups for each in group["params"]):
        raise Invalid(
            "[training] the loss gives no parameter of the model a gradient",
            "Compute it from the model's outputs, without detach(), item() or torch.no_grad().",
        )


def check_finite(loss: float, training: TrainingSettings) -> None:
    """Raise ``Invalid`` when the user's loss was not a number."""
    if not math.isfinite(loss):
        name, path = next((name, path) for name, path in training.code.items() if name in {"loss", "step"})
        raise Invalid(
            f"[training] {name} {path!r} returns a loss that is not a finite number",
            "Avoid logarithms of zero and divisions by zero in it, or lower learning_rate.",
        )


def _cross_entropy(training: TrainingSettings, device: torch.device) -> Loss:
    if training.class_weights is None and not training.label_smoothing:
        return functional.cross_entropy
    weights = training.class_weights
    return partial(
        functional.cross_entropy,
        weight=None if weights is None else torch.tensor(weights, dtype=torch.float32, device=device),
        label_smoothing=training.label_smoothing,
    )


def _step_with(loss: Loss) -> Step:
    return lambda model, features, labels, _: loss(model(features), labels)


def _users(name: str, path: str, arguments: int) -> Callable[..., Any]:
    """Return the user's callable; its errors are ``Invalid``, without their text, which may quote data points."""
    target = import_callable(path, f"[training] {name}")
    try:
        inspect.signature(target).bind(*[None] * arguments)
    except TypeError as error:
        raise Invalid(
            f"[training] {name} {path!r} does not take {arguments} arguments: {error}",
            f"It is called as {_CALLS[name]}.",
        ) from error
    except ValueError:  # a builtin without a signature
        pass

    def call(*values: Any) -> Any:
        try:
            return target(*values)
        except SisaError:
            raise
        except Exception as error:
            raise Invalid(
                f"[training] {name} {path!r} failed with {type(error).__name__}",
                f"It is called as {_CALLS[name]}.",
            ) from error

    return call


_CALLS: Final = {
    "loss": "loss(outputs, labels), with outputs of shape (N, C) and labels of shape (N,)",
    "step": "step(model, features, labels, generator), with features of shape (N, F) and labels of shape (N,)",
    "augment": "augment(features, generator), with features of shape (N, F)",
}


def _scalar(compute: Callable[..., Any], name: str, path: str) -> Step:
    """Return ``compute``, checked to return one number that has a gradient."""

    def step(
        model: nn.Module, features: torch.Tensor, labels: torch.Tensor, generator: torch.Generator | None
    ) -> torch.Tensor:
        loss = compute(model, features, labels, generator)
        if not isinstance(loss, torch.Tensor) or loss.shape != ():
            got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
            raise Invalid(
                f"[training] {name} {path!r} returns {got}, not one number in a tensor",
                "Return the mean over the batch, such as with .mean().",
            )
        if not loss.requires_grad:
            raise Invalid(
                f"[training] {name} {path!r} returns a loss without a gradient",
                "Compute it from the model's outputs, without detach(), item() or torch.no_grad().",
            )
        return loss

    return step


def _augmenting(path: str) -> Augment:
    """Return the user's augmentation, checked to keep shape and type of the features."""
    target = _users("augment", path, 2)

    def augment(features: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        changed = target(features, generator)
        if not isinstance(changed, torch.Tensor):
            got = type(changed).__name__
        elif (changed.shape, changed.dtype) == (features.shape, features.dtype):
            return changed
        else:
            got = f"{changed.dtype} of shape {tuple(changed.shape)}"
        raise Invalid(
            f"[training] augment {path!r} returns {got}, not {features.dtype} of shape {tuple(features.shape)}",
            "Return as many features for as many data points as it gets.",
        )

    return augment
