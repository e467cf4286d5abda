"""Cells of gradient descent: training, full retrain and DeltaGrad, with the distance between their parameters.

Shape legend: N points, F features, C classes, K points that leave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.experiments.datasets import DataSet, load
from cluster.experiments.experiment import Cell, Row, Settings
from cluster.experiments.measured import accuracy, accuracy_by_class, timed
from cluster.experiments.section_vi.grid import EXPLICIT, SOFTMAX
from cluster.experiments.section_vi.removal import Leaving, points_that_leave
from shards.learners.approximate.deltagrad import DeltaGrad
from shards.learners.approximate.descent import DescentRecipe, FullRetrain, Learned, Survivors
from shards.learners.approximate.models import Doubles, Model, Net, Softmax
from shards.learners.approximate.protocol import Diverged
from shards.points import ShardPoints


def descent_rows(cell: Cell, settings: Settings, data_folder: Path | None) -> list[Row]:
    """Return the rows of a cell: of the training, and of every ratio and method."""
    study, attempt = cell.arguments["study"], cell.arguments["round"]
    bench = _Bench(study, load(study["dataset"], data_folder), attempt)
    try:
        bench.train()
    except Diverged as error:
        return [bench.row("trained", 0.0, note=f"diverged: {error}")]
    rows = [bench.row("trained", 0.0, bench.trained, seconds=bench.seconds)]
    labels_N = bench.data.train_labels_N
    for scenario, ratios in study["cases"].items():
        for ratio in ratios:
            found = points_that_leave(
                labels_N,
                scenario,
                round(ratio * len(labels_N)),
                attempt,
                skewed_class=settings["skewed_class"],
                skewed_share=settings["skewed_share"],
            )
            rows += [{**row, "scenario": scenario} for row in bench.without(found, ratio)]
    return rows


class _Bench:
    """One model on one data set, trained once; every ratio starts from it."""

    def __init__(self, study: Mapping[str, Any], data: DataSet, attempt: int) -> None:
        self.data = data
        self._study = study
        self._common = {
            "dataset": study["dataset"],
            "model": study["model"],
            "recipe": recipe_name(study["recipe"]),
            "round": attempt,
        }
        self._model = _model(study["model"], data)
        self._recipe = DescentRecipe(**study["recipe"], seed=attempt)
        self._full = FullRetrain(self._model, self._recipe)
        self._points = points_of(data.train_NF, data.train_labels_N)

    def train(self) -> None:
        """Train on all data points. Raises ``Diverged``."""
        first = DeltaGrad(self._model, self._recipe)
        self._state, self.seconds = timed(lambda: first.learn(self._points))
        self.trained = first.parameters(self._state)

    def without(self, found: Leaving, ratio: float) -> list[Row]:
        """Return the rows of a full retrain and of each variant of DeltaGrad."""
        gone, left = points_at(self._points, found.gone_K), points_at(self._points, found.left_M)
        start = Learned(parameters_P=self.trained, kept=Survivors.all_of(self._points))
        try:
            state, retrain_seconds = timed(lambda: self._full.unlearn(start, gone, lambda: left))
        except Diverged as error:
            return [self.row("full-retrain", ratio, note=f"diverged: {error}")]
        retrained = self._full.parameters(state)
        more: dict[str, Any] = {"removed": len(found.gone_K), "retrain_seconds": retrain_seconds, "note": found.note}
        rows = [self.row("full-retrain", ratio, retrained, self.trained, seconds=retrain_seconds, **more)]
        variants = [tuple(variant) for variant in self._study["variants"]]
        if ratio == self._study["explicit"]:
            variants.append(EXPLICIT)
        for period, burn_in, history in variants:
            more["variant"] = variant_name((period, burn_in, history))
            method = DeltaGrad(self._model, self._recipe, period=period, burn_in=burn_in, history=history)
            try:
                unlearned, seconds = timed(partial(method.unlearn, self._state, gone, lambda: left))
            except Diverged as error:
                rows.append(self.row("deltagrad", ratio, **{**more, "note": f"diverged: {error}"}))
                continue
            more["explicit_steps"] = unlearned.explicit_steps
            rows.append(self.row("deltagrad", ratio, method.parameters(unlearned), retrained, seconds=seconds, **more))
            del more["explicit_steps"]
        return rows

    def row(
        self,
        method: str,
        ratio: float,
        parameters_P: Doubles | None = None,
        beside_P: Doubles | None = None,
        **more: Any,
    ) -> Row:
        """Return a row: what these parameters answer, and how far they are from others."""
        row: Row = {**self._common, "method": method, "ratio": ratio, **more}
        if parameters_P is not None:
            scores_NC = self._model.logits(parameters_P, self.data.test_NF)
            row["accuracy"] = accuracy(scores_NC, self.data.test_labels_N)
            row["per_class"] = accuracy_by_class(scores_NC, self.data.test_labels_N, self.data.classes)
        if parameters_P is not None and beside_P is not None:
            row["distance"] = float(np.linalg.norm(parameters_P - beside_P))
        return row


def recipe_name(recipe: Mapping[str, Any]) -> str:
    """Return a recipe in words.

    >>> recipe_name({"epochs": 32, "batch_size": 16384})
    '32 epochs in batches of 16,384'
    """
    size = recipe.get("batch_size")
    return f"{recipe['epochs']} full steps" if size is None else f"{recipe['epochs']} epochs in batches of {size:,}"


def variant_name(variant: Sequence[int]) -> str:
    """Return DeltaGrad's period, burn-in and history in the paper's letters.

    >>> variant_name((5, 10, 2))
    'T0=5 j0=10 m=2'
    """
    period, burn_in, history = variant
    return f"T0={period} j0={burn_in} m={history}"


def points_of(features_NF: npt.NDArray[np.float32], labels_N: npt.NDArray[np.int64]) -> ShardPoints:
    """Return all data points as one shard of one slice; each is a person of its own, named by its row."""
    keys_N = np.arange(len(labels_N), dtype=np.uint64)
    return ShardPoints(
        features_NF=features_NF, labels_N=labels_N, keys_N=keys_N, subjects_N=keys_N, ends=(len(labels_N),)
    )


def points_at(points: ShardPoints, rows_K: npt.NDArray[np.int64]) -> ShardPoints:
    """Return some of the data points."""
    return ShardPoints(
        features_NF=points.features_NF[rows_K],
        labels_N=points.labels_N[rows_K],
        keys_N=points.keys_N[rows_K],
        subjects_N=points.subjects_N[rows_K],
        ends=(len(rows_K),),
    )


def _model(name: str, data: DataSet) -> Model:
    inputs, classes = data.train_NF.shape[1], len(data.classes)
    return Softmax(inputs=inputs, classes=classes) if name == SOFTMAX else Net(inputs=inputs, classes=classes)
