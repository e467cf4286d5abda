"""Checkpoints: what is put back is what was taken, and another model's is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import Adam

from shards.learners.torch.checkpoint import (
    decode_checkpoint,
    digest_tensors,
    encode_checkpoint,
    model_tensors,
    restore,
)
from storage.errors import Corrupt
from tests.doubles.lineages import lineage_of


def made(width: int = 3, *, bias: bool = True, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Adam]:
    """Return a model that has learned a step, and its optimizer."""
    model = nn.Sequential(nn.Linear(2, width, bias=bias), nn.Linear(width, 2)).to(dtype)
    optimizer = Adam(model.parameters())
    model(torch.ones(4, 2, dtype=dtype)).sum().backward()
    optimizer.step()
    return model, optimizer


def taken(model: nn.Module, optimizer: Adam) -> bytes:
    """Return a checkpoint of both."""
    return encode_checkpoint(model, optimizer, lineage_of())


def test_what_is_put_back_is_what_was_taken() -> None:
    """Model and optimizer come back whole: the same checkpoint can be taken of them, byte for byte."""
    payload = taken(*made())
    model, optimizer = made()
    assert taken(model, optimizer) != payload
    restore(model, optimizer, decode_checkpoint(payload))
    assert taken(model, optimizer) == payload


@pytest.mark.parametrize(
    "other",
    [made(4), made(1), made(bias=False), made(dtype=torch.float64)],
    ids=["wider", "narrower, which would be repeated", "without a bias", "of another type, which would be rounded"],
)
def test_another_models_checkpoint_is_refused(other: tuple[nn.Module, Adam]) -> None:
    """Names, shapes and types have to be the model's; nothing of it is changed by one that is refused."""
    model, optimizer = made()
    before = digest_tensors(model_tensors(model))
    with pytest.raises(Corrupt, match="tensors are not this model's"):
        restore(model, optimizer, decode_checkpoint(taken(*other)))
    assert digest_tensors(model_tensors(model)) == before


def test_another_optimizers_state_is_refused() -> None:
    """The state of a parameter that the model has not is no state of its optimizer."""
    model, optimizer = made()
    tensors = decode_checkpoint(taken(model, optimizer))
    with pytest.raises(Corrupt, match="optimizer state is not this model's"):
        restore(model, optimizer, {**tensors, "optimizer/9.weight/exp_avg": torch.zeros(2)})
