"""A frame of real patients in memory, with ``sisa.Regressor``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from sklearn.datasets import load_diabetes

import cluster.training.workers
import sisa
from tests.doubles.workers.local_workers import LocalWorkers
from tests.real.plain import PlainRecipe, plain_answers, prepared

ENCODE: Final = {
    "age": {"shift": 49.0, "scale": 13.0},
    "bmi": {"shift": 26.0, "scale": 4.4},
    "bp": {"shift": 95.0, "scale": 14.0},
    "s1": {"shift": 190.0, "scale": 35.0},
    "s2": {"shift": 120.0, "scale": 30.0},
    "s3": {"shift": 50.0, "scale": 13.0},
    "s4": {"shift": 4.1, "scale": 1.3},
    "s5": {"shift": 4.6, "scale": 0.52},
    "s6": {"shift": 91.0, "scale": 11.0},
}
"""Means and spreads to two digits."""


def test_diabetes_from_a_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The progression of 442 patients' diabetes, in its own unit (25 to 346): a figure within 2 % of the plain loop's,
    and one patient erased exactly.
    """
    monkeypatch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
    monkeypatch.setattr(cluster.training.workers, "join_ray", lambda _: False)
    monkeypatch.chdir(tmp_path)
    found = load_diabetes(as_frame=True, scaled=False).frame
    held = np.arange(len(found)) % 3 == 0
    frame, target = found.drop(columns="target"), found["target"]
    recipe: dict[str, Any] = {"epochs": 20, "batch_size": 16, "optimizer": "sgd", "learning_rate": 0.01}
    recipe |= {"arguments": {"hidden": [32]}, "shards": 2}
    constants: dict[str, Any] = {"encode": ENCODE, "label_shift": 150.0, "label_scale": 77.0}
    with sisa.Regressor(slices=3, store="own", key="5e" * 16, **constants, **recipe) as model:
        model.fit(frame[~held], target[~held])
        ours = float(np.sqrt(np.square(model.predict(frame[held]) - target[held]).mean()))
        people = [str(index) for index in frame.index[~held]]
        erased = model.erase(subjects=[people[7]])
        assert (erased.state, erased.points) == ("complete", 1)
        assert model.verify().holds
    features_NF = prepared(frame.astype(str), list(frame.columns), ENCODE)
    labels_N = ((target.to_numpy() - 150.0) / 77.0).astype(np.float32)[:, None]
    plain_recipe = PlainRecipe(target="number", outputs=1, **recipe)
    answers = plain_answers(plain_recipe, features_NF[~held], labels_N[~held], people, features_NF[held])
    plain = float(77.0 * np.sqrt(np.square(answers - labels_N[held]).mean()))
    assert ours == pytest.approx(plain, rel=0.02)
    assert ours < 0.8 * float(target[held].std())
