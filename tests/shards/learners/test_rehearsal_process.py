"""One process of a rehearsal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from shards.learners.torch.rehearsal_process import RehearsalRequest, rehearse_here
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

_LATE = """
import importlib
layers = importlib.import_module("odd_lay" + "ers")

class Net(layers.nn.Linear):
    def forward(self, features):
        if self.training:
            from odd_late import SCALE
            features = features * SCALE
        return super().forward(features)
"""

_COUNTING = """
from torch import nn

class Net(nn.Linear):
    calls = 0

    def forward(self, features):
        self.calls += 1
        return super().forward(features) * (1 + 0.01 * self.calls)
"""

_REQUEST = RehearsalRequest(
    model=ModelSettings(factory="odd_net:Net"),
    # Each step multiplies the weights by 100,000, or by 100.
    training=TrainingSettings(epochs=3, batch_size=4, learning_rate=1.0, weight_decay=1e5),
    inputs=4,
    classes=2,
    device="cpu",
    threads=1,
)


def test_training_that_diverges_is_tried_with_smaller_steps_first(tmp_path: Path, modules: UserModules) -> None:
    """Zeros come last, because they would hide randomness in the use of features."""
    (tmp_path / "odd_noise.py").write_text(_NOISE_IN_FEATURES, encoding="utf-8")
    request = replace(_REQUEST, model=ModelSettings(factory="odd_noise:Net"))
    result = rehearse_here(request, modules)
    assert result.failure == []
    assert result.straight != result.again


def test_all_modules_that_were_loaded_are_named(tmp_path: Path, modules: UserModules) -> None:
    """This includes modules that are imported late, and by a name that is not in any import statement."""
    (tmp_path / "odd_late.py").write_text("SCALE = 1.0\n", encoding="utf-8")
    (tmp_path / "odd_layers.py").write_text("from torch import nn\n", encoding="utf-8")
    (tmp_path / "odd_net.py").write_text(_LATE, encoding="utf-8")
    result = rehearse_here(_REQUEST, modules)
    assert result.failure == []
    assert result.modules == {
        name: sha256((tmp_path / f"{name}.py").read_bytes()) for name in ("odd_late", "odd_layers", "odd_net")
    }


def test_an_engine_that_would_change_the_result_is_refused(tmp_path: Path, modules: UserModules) -> None:
    """A rehearsal makes the trial of ``replay``, on made-up data, before anything real is trained."""
    (tmp_path / "odd_counting.py").write_text(_COUNTING, encoding="utf-8")
    training = TrainingSettings(epochs=3, batch_size=4, learning_rate=0.1)
    request = replace(_REQUEST, model=ModelSettings(factory="odd_counting:Net"), training=training)
    assert rehearse_here(request, modules).failure == []
    kind, fact, remedy = rehearse_here(replace(request, training=replace(training, engine="replay")), modules).failure
    assert kind == "invalid"
    assert fact.startswith('[training] engine = "replay" would not give the result of training step by step: repeated')
    assert "attribute calls" in fact
    assert remedy == 'Set engine to "auto" or "eager", or leave it out: all of them train the same constituents.'
