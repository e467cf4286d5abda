"""Values in plain attributes are compared by content, not by their addresses."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from shards.learners.torch.attributes import changed_tensors, kept_in_attributes


def _holding(*values: object) -> nn.Module:
    """Return a model that keeps the values in an array of objects."""
    model = nn.Linear(2, 2)
    held = np.empty(len(values), dtype=object)
    held[:] = values
    model.held = held  # type: ignore[assignment]
    return model


def test_an_array_of_objects_is_its_objects() -> None:
    """Equal objects at different addresses are equal; their contents are compared."""
    first, second = (kept_in_attributes(_holding(f"name-{number}", number * 1e300)) for number in (1, 1))
    assert first == second
    assert "held[1]" in first
    before, after = (kept_in_attributes(_holding(torch.full((2,), value))) for value in (0.0, 1.0))
    assert changed_tensors(before, after, is_first=False) == {"held[0]": "tensor"}
