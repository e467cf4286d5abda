"""The user's model: built and checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from shards.encoding import InputShape
from shards.learners.torch.model_code import import_factory
from shards.specification import SHIPPED_FACTORIES, ModelSettings
from shards.targets import Class
from storage.errors import Invalid

_INPUT_NAMES = ("inputs", "in_features", "n_features", "num_features", "input_size", "input_dim")
_CLASS_NAMES = ("classes", "outputs", "out_features", "n_classes", "num_classes", "output_size", "output_dim")


def received_shape(settings: ModelSettings, inputs: int, shape: InputShape | None) -> InputShape:
    """Return the form in which the model receives ``inputs`` features.

    The factories that come with this system take rows of numbers, images included. Raises ``Invalid`` when the features
    are whole numbers for an embedding, which they do not have.
    """
    if shape is None or settings.factory.partition(":")[0] != SHIPPED_FACTORIES:
        return shape or InputShape((inputs,))
    if shape.ids:
        raise Invalid(
            f"[model] factory {settings.factory!r} takes numbers, and all features are whole numbers for an embedding",
            'Name a factory of your own with an embedding, or encode otherwise: words = 4096, or as = "columns".',
        )
    return InputShape((inputs,))


def in_shape(features_NF: torch.Tensor, shape: InputShape) -> torch.Tensor:
    """Return features in the form in which a model receives them."""
    if len(shape.shape) > 1:
        features_NF = features_NF.reshape(-1, *shape.shape)
    return features_NF.long() if shape.ids else features_NF


def build_model(settings: ModelSettings, inputs: int | InputShape, classes: int, target: str = Class.kind) -> nn.Module:
    """Return the model that the settings describe, checked to map (2, inputs) to (2, classes).

    Draws initial weights from the global generators, so seed them first. The check also initialises lazy modules.
    Raises ``Invalid`` when the factory fails, returns no Module, or the Module does not fit the data.
    """
    factory = import_factory(settings.factory)
    shape = inputs if isinstance(inputs, InputShape) else InputShape((inputs,))
    arguments = _with_widths(factory, settings.arguments, shape.argument, classes)
    try:
        model = factory(*arguments[0], **arguments[1])
    except Invalid:
        raise
    except Exception as error:  # the factory is the user's code
        raise Invalid(
            f"[model] factory {settings.factory!r} failed with {type(error).__name__}: {error}",
            "Name the files that the model reads in [model] files, relative to the folder of sisa.toml."
            if isinstance(error, FileNotFoundError)
            else "Check [model] arguments against the factory's parameters.",
        ) from error
    if not isinstance(model, nn.Module):
        raise Invalid(
            f"[model] factory {settings.factory!r} returned {type(model).__name__}, not a torch.nn.Module",
            "Return the Module.",
        )
    _check_output(model, settings.factory, shape, classes, target)
    return model


def _with_widths(
    factory: Callable[..., Any], arguments: Mapping[str, Any], inputs: int | tuple[int, ...], classes: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword arguments for the call, with the widths added where the factory takes them."""
    keywords = dict(arguments)
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # a builtin without a signature: call it as the settings say
        return (), keywords
    for names, width in ((_INPUT_NAMES, inputs), (_CLASS_NAMES, classes)):
        if taken := [name for name in names if name in parameters]:
            keywords.setdefault(taken[0], width)
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and name not in keywords
    ]
    # A factory whose two parameters have other names, such as net(n_in, n_out), takes inputs and classes in this order.
    return ((inputs, classes) if len(missing) == 2 and list(parameters)[:2] == missing else ()), keywords


def _check_output(model: nn.Module, factory: str, shape: InputShape, classes: int, target: str) -> None:
    model.eval()
    expected = "(N, features)" if len(shape.shape) == 1 else f"(N, {', '.join(map(str, shape.shape))})"
    expected += " of whole numbers" if shape.ids else ""
    try:
        with torch.no_grad():
            output = model(in_shape(torch.zeros(2, shape.width), shape))
    except Exception as error:  # forward is the user's code
        raise Invalid(
            f"[model] factory {factory!r}: the model fails on 2 data points of {shape.width} features"
            f" with {type(error).__name__}: {error}",
            f"Make the model accept {expected} and check [model] arguments against the data.",
        ) from error
    found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if found != (2, classes):
        raise Invalid(
            f"[model] factory {factory!r}: the output for 2 data points has shape {found}, expected {(2, classes)}",
            f"Let the last layer give one logit for each of the {classes} declared classes."
            if target == Class.kind
            else f"Let the last layer give one output for each of the {classes} label columns, without squeezing.",
        )
    if "_extra_state" in " ".join(model.state_dict()):
        raise Invalid(
            f"[model] factory {factory!r}: the model keeps state outside its parameters and buffers",
            "Keep it in buffers (register_buffer), so that checkpoints include it.",
        )
