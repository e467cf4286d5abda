"""Numbers, several labels, clusters and items, from training to evaluation and answers over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import cluster.training.workers
from cluster.config.specification import read_specification
from cluster.federation import connect
from cluster.results.federation import Evaluation
from cluster.serving.schemas import Predictions
from tests.doubles.user_folder import Columns, UserFolder, small_points
from tests.doubles.workers.local_workers import LocalWorkers
from tests.serving.world import World, coordinator_of, open_world, points


def labelled() -> Columns:
    """Return the small data set with labels that the first features decide."""
    columns = small_points()
    first, second = columns["x00"], columns["x01"]
    columns["price"] = [100.0 + value for value in first]
    columns["rent"] = [float(value) for value in second]
    columns["dear"] = [int(value > 120) for value in first]
    columns["large"] = [value > 60 for value in second]
    return columns


@contextmanager
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: object) -> Iterator[World]:
    """Serve a federation with these settings, trained in this process."""
    monkeypatch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
    monkeypatch.setattr(cluster.training.workers, "join_ray", lambda _: False)
    home = UserFolder(tmp_path).fill(labelled(), data__classes=None, serve__refresh_seconds=0.05, **changes)
    resident = coordinator_of(read_specification(home.config))
    world = open_world(home, resident)
    yield world
    world.service.close()
    resident.stop()


def answered(world: World) -> list[dict[str, Any]]:
    """Return the answers over HTTP for the first data points, checked to be of the documented shape."""
    answer = world.predict(points(5))
    assert answer.status_code == 200, answer.text
    Predictions.model_validate(answer.json())
    found: list[dict[str, Any]] = answer.json()["predictions"]
    return found


def near(world: World) -> tuple[list[dict[str, Any]], Evaluation]:
    """Return the answers for the training file without HTTP, and the evaluation on it."""
    with connect(world.home.config) as federation:
        path = world.home.folder / "train.parquet"
        return federation.predict(path).table().to_pylist(), federation.evaluate(path)


@pytest.mark.parametrize("constants", [{}, {"data__label_shift": [220.0, 120.0], "data__label_scale": [70.0, 70.0]}])
def test_several_numbers_are_answered_and_measured(
    constants: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP answers what ``predict`` does, by column; the evaluation measures each column, in the labels' unit."""
    with served(tmp_path, monkeypatch, data__target="number", data__label=["price", "rent"], **constants) as world:
        lines, evaluation = near(world)
        for line, answer in zip(lines, answered(world), strict=False):
            for part in ("prediction", "spread"):
                expected = {name: line[f"{part}_{name}"] for name in ("price", "rent")}
                assert answer[part] == pytest.approx(expected, rel=1e-5)
        truth = labelled()["price"]
        mae = sum(abs(line["prediction_price"] - value) for line, value in zip(lines, truth, strict=True)) / len(lines)
        assert evaluation.breakdown["price"]["mae"] == pytest.approx(mae, rel=1e-5)
        assert (evaluation.target, evaluation.points) == ("number", 120)
        assert evaluation.trained_on is not None
        assert evaluation.trained_on.points == 120


def test_intervals_are_answered_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP answers the ends that ``predict`` does; the evaluation says how many labels are between them."""
    direct: dict[str, Any] = {"training__epochs": None, "training__batch_size": None, "training__learning_rate": None}
    direct |= {"model__factory": None, "model__learner": "bayesian_linear", "model__arguments": {"interval": 0.8}}
    with served(tmp_path, monkeypatch, data__target="number", data__label=["price", "rent"], **direct) as world:
        lines, evaluation = near(world)
        for line, answer in zip(lines, answered(world), strict=False):
            for part in ("prediction", "spread", "low", "high"):
                expected = {name: line[f"{part}_{name}"] for name in ("price", "rent")}
                assert answer[part] == pytest.approx(expected, rel=1e-5)
        truth = labelled()["price"]
        inside = [line["low_price"] <= value <= line["high_price"] for line, value in zip(lines, truth, strict=True)]
        assert evaluation.breakdown["price"]["coverage"] == sum(inside) / len(inside) > 0.8


def test_several_labels_are_answered_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP answers what ``predict`` does; the accuracy is the share of data points with all labels right."""
    with served(tmp_path, monkeypatch, data__target="multi_label", data__label=["dear", "large"]) as world:
        lines, evaluation = near(world)
        for line, answer in zip(lines, answered(world), strict=False):
            assert answer["labels"] == line["labels"]
            expected = {name: line[f"probability_{name}"] for name in ("dear", "large")}
            assert answer["probabilities"] == pytest.approx(expected, rel=1e-5)
        columns = labelled()
        truth = [
            [name for name in ("dear", "large") if columns[name][number]] for number in range(len(columns["dear"]))
        ]
        right = sum(line["labels"] == given for line, given in zip(lines, truth, strict=True))
        assert evaluation.accuracy == right / len(lines)
        assert evaluation.breakdown["dear"]["points"] == sum(columns["dear"])
        assert evaluation.trained_on is not None
        assert evaluation.trained_on.points == 120


def test_clusters_are_answered_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP answers what ``predict`` does, without labels: the number of the cluster, and the distance from it."""
    recipe = dict.fromkeys(("training__epochs", "training__batch_size", "training__learning_rate", "data__label"))
    model = {"model__learner": "k_means", "model__factory": None, "model__arguments": {"clusters": 3, "pivots": 4}}
    with served(tmp_path, monkeypatch, data__target="cluster", **recipe, **model) as world:
        lines, evaluation = near(world)
        for line, answer in zip(lines, answered(world), strict=False):
            assert answer.keys() == {"id", "prediction", "distance"}
            assert answer["prediction"] == line["prediction"]
            assert answer["distance"] == pytest.approx(line["distance"], rel=1e-5)
        assert {line["prediction"] for line in lines} == {0, 1, 2}
        inertia = sum(line["distance"] ** 2 for line in lines) / len(lines)
        assert evaluation.metrics["inertia"] == pytest.approx(inertia, rel=1e-5)
        assert sum(each["points"] for each in evaluation.breakdown.values()) == 120
        assert evaluation.trained_on is not None
        assert evaluation.trained_on.points == 120


def test_items_are_recommended_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP answers what ``predict`` does: the best items with their scores, as many as there are."""
    recipe = dict.fromkeys(("training__epochs", "training__batch_size", "training__learning_rate", "data__label"))
    model = {"model__learner": "cooccurrence", "model__factory": None, "model__arguments": {"top": 2}}
    own = {"data__features": [f"x{number:02d}" for number in range(16)], "data__target": "recommend"}
    with served(tmp_path, monkeypatch, **own, **recipe, **model) as world:
        lines, evaluation = near(world)
        for line, answer in zip(lines, answered(world), strict=False):
            assert answer.keys() == {"id", "items"}
            expected = [
                {"item": line[f"item_{rank}"], "score": line[f"score_{rank}"]}
                for rank in (1, 2)
                if line[f"item_{rank}"] is not None
            ]
            assert answer["items"] == expected
        assert any(line["item_1"] for line in lines)
        assert {"hit_rate", "mrr"} == set(evaluation.metrics)
        assert evaluation.trained_on is not None
        assert evaluation.trained_on.points == 120
