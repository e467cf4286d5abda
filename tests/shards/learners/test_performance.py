"""What a model makes of made-up data, in one process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shards.learners.torch.model_code import model_code_digest
from shards.learners.torch.performance import Request, perform
from shards.learners.torch.user_modules import UserModules
from shards.specification import ModelSettings, TrainingSettings
from storage.digests import sha256

_NOISE_IN_FEATURES = """
import os
from torch import nn

class Net(nn.Linear):
    def forward(self, features):
        return super().forward(features * os.urandom(1)[0])
"""

_REQUEST = Request(
    model=ModelSettings(factory="odd_net:Net"),
    # Each step multiplies the weights by 100,000, or by 100.
    training=TrainingSettings(epochs=3, batch_size=4, learning_rate=1.0, weight_decay=1e5),
    inputs=4,
    classes=2,
    device="cpu",
    threads=1,
)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UserModules]:
    """Returns the user's modules of this process, which lie in ``tmp_path``."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield UserModules()
    for name in [name for name in sys.modules if name.startswith("odd_")]:
        del sys.modules[name]


def test_training_that_diverges_is_tried_with_smaller_steps_first(tmp_path: Path, modules: UserModules) -> None:
    """Zeros come last: what a model makes of its features would not be seen with them."""
    (tmp_path / "odd_noise.py").write_text(_NOISE_IN_FEATURES, encoding="utf-8")
    request = replace(_REQUEST, model=ModelSettings(factory="odd_noise:Net"))
    performance = perform(request, modules)
    assert performance.failure == []
    assert performance.straight != performance.again


def test_what_is_rehearsed_is_what_the_worker_has_read(tmp_path: Path, modules: UserModules) -> None:
    """A file that was edited since a worker read it is not rehearsed in its place."""
    (tmp_path / "odd_net.py").write_text("from torch import nn\nNet = nn.Linear\n", encoding="utf-8")
    code = model_code_digest(_REQUEST.model)
    assert perform(replace(_REQUEST, code=code), modules).failure == []
    other = perform(replace(_REQUEST, code=sha256(b"other code")), modules)
    assert other.failure[0] == "invalid"
    assert "its files have changed since the worker read them" in other.failure[1]
