"""Every generator is seeded as torch, numpy and Python do it, and devices that are not there cost nothing."""

from __future__ import annotations

import random
import subprocess
import sys
import traceback

import numpy as np
import pytest
import torch

from shards.learners.torch.seeding import seed_all


@pytest.mark.parametrize("number", [0, 7, 2**31, 2**63 - 1, 2**63 + 5, 2**64 - 1])
def test_the_numbers_are_those_of_each_library(number: int) -> None:
    """The seed of a stream may be any number of 64 bits."""
    torch.manual_seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002  what users' models call
    random.seed(number)
    expected = torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()  # noqa: NPY002, S311
    seed_all(number)
    assert (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()) == expected  # noqa: NPY002, S311


@pytest.mark.skipif(torch.cuda.is_available(), reason="there are GPUs here, whose generators are seeded at once")
def test_nothing_is_noted_for_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """No stack is formatted, which takes longer than the seeding of a small model's slice."""
    monkeypatch.setattr(traceback, "format_stack", None)
    seed_all(1)


NUMERICS = """
import sys, torch
from shards.learners.torch.seeding import set_numerics
set_numerics(1, "cpu")
assert torch.are_deterministic_algorithms_enabled()
assert not torch.is_deterministic_algorithms_warn_only_enabled()
assert "torch._inductor" not in sys.modules
from torch._inductor import config
assert config.deterministic
"""


def test_fixing_numerics_imports_no_compiler() -> None:
    """The compiler takes longer to import than all else; a model that imports it finds its own switch set."""
    subprocess.run([sys.executable, "-c", NUMERICS], check=True)
