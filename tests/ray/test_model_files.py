"""A model that reads files: declared ones are carried to workers and are part of the lineage, others are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import cluster
from storage.errors import Conflict, Invalid
from tests.doubles.user_folder import FEATURES, UserFolder, small_points, without

pytestmark = [pytest.mark.ray, pytest.mark.slow]

_CODE = """
import json
from pathlib import Path
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, inputs, classes):
        super().__init__()
        width = json.loads((Path(__file__).parent / "shape" / "shape.json").read_text())["width"]
        self.base = nn.Linear(inputs, width)
        self.base.load_state_dict(torch.load("base.pt"))
        self.base.requires_grad_(False)
        self.head = nn.Linear(width, classes)

    def forward(self, features):
        if self.training:
            from frozen_scale import SCALE
            features = features * SCALE
        return self.head(torch.relu(self.base(features)))
"""


def _write_base(home: UserFolder, seed: int) -> None:
    torch.manual_seed(seed)
    torch.save(torch.nn.Linear(FEATURES, 5).state_dict(), home.folder / "base.pt")


@pytest.fixture
def frozen(home: UserFolder) -> UserFolder:
    """Returns a home whose model has a base that it reads from a file, and a helper that it imports while it learns."""
    (home.folder / "frozen_net.py").write_text(_CODE, encoding="utf-8")
    (home.folder / "frozen_scale.py").write_text("SCALE = 1.0\n", encoding="utf-8")
    (home.folder / "shape").mkdir()
    (home.folder / "shape" / "shape.json").write_text('{"width": 5}', encoding="utf-8")
    _write_base(home, 0)
    _specify(home)
    return home


def _specify(home: UserFolder, *files: str) -> None:
    home.specify(model__factory="frozen_net:Net", model__arguments={}, model__files=list(files), cluster__workers=1)


def test_files_that_are_not_declared_are_refused_one_by_one(frozen: UserFolder) -> None:
    """Before anything is learned, with what to write; a declared file that is missing is named, too."""
    for declared, reported in (((), "shape/shape.json"), (("shape",), "base.pt")):
        _specify(frozen, *declared)
        with (
            cluster.connect(frozen.config) as federation,
            pytest.raises(Invalid, match=f"reads .*{reported}, which") as no,
        ):
            federation.train()
        assert no.value.remedy == f'Name it in [model] files = ["{reported}"].'
    _specify(frozen, "shape", "bass.pt")
    with cluster.connect(frozen.config) as federation, pytest.raises(Invalid, match=r"no file 'bass\.pt' next to"):
        federation.train()
    assert not (frozen.store / "shards").exists()
    assert not (frozen.store / "rehearsals").exists()


def test_another_file_is_another_model(frozen: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The change is noticed before any prediction or erasure, and retrained; the same holds for a late import."""
    _specify(frozen, "shape", "base.pt")
    monkeypatch.chdir("/")
    with cluster.connect(frozen.config) as federation:
        first = [each.digest for each in federation.train().constituents]
        assert federation.evaluate(str(frozen.folder / "train.parquet")).points == 120
        federation.erase(subjects=["secret-person-003"], request_id="er-1", wait=True)
        assert federation.verify().exact
        erased = [each.digest for each in federation.status().constituents]
    assert Path.cwd() == Path("/")
    _write_base(frozen, 99)
    with cluster.connect(frozen.config) as federation:
        with pytest.raises(Conflict, match=r"other conditions: file base\.pt has changed \[factory"):
            federation.evaluate(str(frozen.folder / "train.parquet"))
        with pytest.raises(Conflict, match="or its declared files"):
            federation.verify()
        second = [each.digest for each in federation.train().constituents]
        assert not {*second} & {*first, *erased}
        assert federation.verify([0]).exact
    (frozen.folder / "frozen_scale.py").write_text("SCALE = 2.0\n", encoding="utf-8")
    with cluster.connect(frozen.config) as federation:
        third = [each.digest for each in federation.train().constituents]
        assert not {*third} & {*second}
        assert federation.verify([0]).exact
    (frozen.folder / "frozen_scale.py").write_text("SCALE = 1.0\n", encoding="utf-8")
    _write_base(frozen, 0)
    frozen.write("train.parquet", without(small_points(), subjects=["secret-person-003"]))
    with cluster.connect(frozen.config) as federation:
        assert [each.digest for each in federation.train().constituents] == erased
