"""Values on which a model fails: only the caller that sent them gets an error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import cluster.training.workers
from cluster.config.specification import read_specification
from coordinator.aggregation import ModelFailed
from tests.doubles.user_folder import FEATURES, Columns, UserFolder, small_points
from tests.doubles.workers.local_workers import LocalWorkers
from tests.serving.world import PATIENCE_SECONDS, World, coordinator_of, error_of, open_world, rows

MODEL = '''
import torch

class Picky(torch.nn.Module):
    """Knows the categories 0 and 1 of its first feature, and takes roots of its second."""

    def __init__(self, inputs, classes):
        super().__init__()
        self.known = torch.nn.Embedding(2, 4)
        self.linear = torch.nn.Linear(4 + inputs, classes)

    def forward(self, x):
        category = x[:, 0].clamp(min=0).long()
        return self.linear(torch.cat([self.known(category), x[:, :1], torch.sqrt(1000 - x[:, 1:2]), x[:, 2:]], 1))

def build(inputs, classes):
    return Picky(inputs, classes)
'''
UNKNOWN, NEGATIVE = 700, 400_000
"""Values before scaling: a category that the model does not know, and what it has no root of."""


@pytest.fixture(scope="module")
def picky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A federation with that model, served."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
        patch.setattr(cluster.training.workers, "join_ray", lambda _: False)
        home = UserFolder(tmp_path_factory.mktemp("picky"))
        (home.folder / "picky_model.py").write_text(MODEL, encoding="utf-8")
        home.fill(model__factory="picky_model:build", model__arguments=None)
        resident = coordinator_of(read_specification(home.config))
        made = open_world(home, resident)
        yield made
        made.service.close()
        resident.stop()


def asked(*, first: int, second: int = 0, place: int = 2) -> dict[str, Any]:
    """Return a body of five data points, one of which has these first features."""
    lists = rows(5)
    lists[place] = [first, second, *lists[place][2:]]
    return {"points": [{"features": values} for values in lists]}


@pytest.mark.parametrize(
    ("body", "fact"),
    [
        (asked(first=UNKNOWN), "the model's code raises IndexError"),
        (asked(first=0, second=NEGATIVE), "the model's answer is not a number"),
    ],
)
def test_the_caller_is_reported_which_data_point(picky: World, body: dict[str, Any], fact: str) -> None:
    """Values on which the model raises, or computes no number, are the caller's matter: 422, and which data point."""
    error = error_of(picky.predict(body), 422, "model_failed")
    assert fact in error["message"]
    assert "[point=2]" in error["message"]
    assert picky.predict().status_code == 200


def test_the_command_says_the_same(picky: World) -> None:
    """'sisa predict' and 'sisa evaluate' name the data point by its place in the file, and do not call it a bug."""
    columns: Columns = {name: [0] * 20_000 for name in small_points()}
    columns["label"] = ["a"] * 20_000
    columns["x00"][17_000] = UNKNOWN
    file = str(picky.home.write("asked.parquet", columns))
    for words in (("predict", file, "--out", str(picky.home.folder / "answers.csv")), ("evaluate", file)):
        said = picky.home.json(*words)
        assert said.code == 2
        assert "raises IndexError [point=17000]" in said.envelope["error"]["message"]


def test_pieces_of_a_large_question_keep_their_places(picky: World) -> None:
    """A data point of a question that is evaluated piece by piece is named by its place among all of them."""
    many = np.zeros((3000, FEATURES), np.float32)
    many[2500, 0] = UNKNOWN
    with pytest.raises(ModelFailed, match="point=2500"):
        picky.service.answering.ask(many).result(PATIENCE_SECONDS)
