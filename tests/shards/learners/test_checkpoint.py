"""Checkpoints: restoring gives the saved state, and another model's checkpoint is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import Adam

from shards.learners.torch.checkpoint import (
    base_digests,
    decode_checkpoint,
    digest_tensors,
    encode_checkpoint,
    model_tensors,
    put_tensors,
)
from storage.errors import Corrupt
from tests.doubles.lineages import lineage_of


def made(width: int = 3, *, bias: bool = True, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Adam]:
    """Return a model after one training step, and its optimizer."""
    model = nn.Sequential(nn.Linear(2, width, bias=bias), nn.Linear(width, 2)).to(dtype)
    optimizer = Adam(model.parameters())
    model(torch.ones(4, 2, dtype=dtype)).sum().backward()
    optimizer.step()
    return model, optimizer


def saved(model: nn.Module, optimizer: Adam) -> bytes:
    """Return a checkpoint of model and optimizer."""
    return encode_checkpoint(model, optimizer, lineage_of())


def test_restoring_gives_the_saved_state() -> None:
    """Model and optimizer are restored completely: saving them again gives the same bytes."""
    payload = saved(*made())
    model, optimizer = made()
    assert saved(model, optimizer) != payload
    put_tensors(model, optimizer, decode_checkpoint(payload))
    assert saved(model, optimizer) == payload


@pytest.mark.parametrize(
    "other",
    [made(4), made(1), made(bias=False), made(dtype=torch.float64)],
    ids=["wider", "narrower, which would be broadcast", "without a bias", "another dtype, which would be rounded"],
)
def test_another_models_checkpoint_is_refused(other: tuple[nn.Module, Adam]) -> None:
    """Names, shapes and types must be the model's; a refused checkpoint does not change the model."""
    model, optimizer = made()
    before = digest_tensors(model_tensors(model))
    with pytest.raises(Corrupt, match="tensors are not this model's"):
        put_tensors(model, optimizer, decode_checkpoint(saved(*other)))
    assert digest_tensors(model_tensors(model)) == before


def test_another_optimizers_state_is_refused() -> None:
    """A checkpoint with optimizer state for a parameter that the model lacks is refused."""
    model, optimizer = made()
    tensors = decode_checkpoint(saved(model, optimizer))
    with pytest.raises(Corrupt, match="optimizer state is not this model's"):
        put_tensors(model, optimizer, {**tensors, "optimizer/9.weight/exp_avg": torch.zeros(2)})


def frozen(scale: float = 1.0) -> tuple[nn.Module, Adam]:
    """Return a model with a large frozen layer, batch normalisation and a small head."""
    layer = nn.Linear(64, 64)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(4096.0).reshape(64, 64).mul(scale / 4096))
    for parameter in layer.parameters():
        parameter.requires_grad = False
    model = nn.Sequential(layer, nn.BatchNorm1d(64), nn.Linear(64, 2))
    return model, Adam([parameter for parameter in model.parameters() if parameter.requires_grad])


def test_what_is_as_in_the_files_is_referenced_and_all_else_stored() -> None:
    """A frozen layer costs 32 bytes; what has moved is stored, such as the buffers of a frozen batch normalisation."""
    model, optimizer = frozen()
    base = base_digests(model)
    model(torch.ones(4, 64)).sum().backward()
    optimizer.step()
    payload = encode_checkpoint(model, optimizer, lineage_of(), base)
    tensors = decode_checkpoint(payload)
    assert [name for name in tensors if name.startswith("base/")] == ["base/0.weight"]
    assert {"model/0.bias", "model/1.running_mean", "model/1.weight", "model/2.weight"} < tensors.keys()
    assert len(payload) < len(saved(model, optimizer)) - 4 * 4000
    again, fresh = frozen()
    put_tensors(again, fresh, tensors)
    assert digest_tensors(model_tensors(again)) == digest_tensors(model_tensors(model))
    assert encode_checkpoint(again, fresh, lineage_of(), base) == payload


def test_a_reference_to_another_file_is_refused() -> None:
    """A model that is built with other weights than the checkpoint refers to is not used."""
    model, optimizer = frozen()
    tensors = decode_checkpoint(encode_checkpoint(model, optimizer, lineage_of(), base_digests(model)))
    with pytest.raises(Corrupt, match="refers to the tensor '0.weight' of the model's files"):
        put_tensors(*frozen(2.0), tensors)
    with pytest.raises(Corrupt, match="tensors are not this model's"):
        put_tensors(*made(), tensors)
