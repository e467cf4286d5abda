"""Models built by copying the form of one: without initial weights, which cost more time than reading trained ones."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from shards.learners.torch.checkpoint import kinds_of, model_tensors
from shards.learners.torch.engines.replay import is_of_torch


def form_of(model: nn.Module) -> nn.Module | None:
    """Return the model, which is used up, without the memory of its tensors; None unless it is of torch's own modules.

    Code of others may keep values elsewhere, such as drawn ones, or depend on how it is built.
    """
    return model.to("meta").eval() if is_of_torch(model) else None


def filled(form: nn.Module, tensors: Mapping[str, torch.Tensor]) -> nn.Module | None:
    """Return a model of this form whose tensors are ``tensors``; None if names, shapes or types are not the form's."""
    if kinds_of(model_tensors(form)) != kinds_of(tensors):
        return None
    memo: dict[int, object] = {}
    for name, parameter in form.named_parameters(remove_duplicate=False):
        memo[id(parameter)] = nn.Parameter(tensors[name], requires_grad=parameter.requires_grad)
    for name, buffer in form.named_buffers(remove_duplicate=False):
        memo[id(buffer)] = tensors[name]
    return copy.deepcopy(form, memo)
