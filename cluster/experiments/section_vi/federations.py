"""Cells of exact federations: SISA and forests, each erasure beside a full retrain of the same federation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.experiments.datasets import DataSet, load
from cluster.experiments.experiment import Cell, Row, Settings
from cluster.experiments.federation import OwnFederation, key_of_round
from cluster.experiments.measured import accuracy, accuracy_by_class
from cluster.experiments.section_vi.grid import FOREST
from cluster.experiments.section_vi.removal import IID, Leaving, points_that_leave
from cluster.writer.one_process import Spent
from shards.cost import batch_fraction
from storage.errors import SisaError


def federation_rows(cell: Cell, settings: Settings, data_folder: Path | None) -> list[Row]:
    """Return the rows of a cell: of the trained federation, and of every erasure."""
    study, attempt = cell.arguments["study"], cell.arguments["round"]
    data = load(study["dataset"], data_folder)
    points = len(data.train_labels_N)
    erasures = [(IID, count / points, count) for count in study["counts"]] + [
        (scenario, ratio, round(ratio * points)) for scenario, ratios in study["cases"].items() for ratio in ratios
    ]
    common = {
        "dataset": study["dataset"],
        "model": study["model"],
        "method": "forest" if study["model"] == FOREST else "sisa",
        "variant": federation_name(study["tables"]),
        "round": attempt,
    }
    rows: list[Row] = []
    for scenario, ratio, count in erasures:
        found = points_that_leave(
            data.train_labels_N,
            scenario,
            count,
            attempt,
            skewed_class=settings["skewed_class"],
            skewed_share=settings["skewed_share"],
        )
        try:
            before, after = _erased(data, study["tables"], found, attempt)
        except SisaError as error:
            before, after = {}, {"removed": count, "note": f"failed: {error}"}
        if before and not rows:
            rows.append({**common, "ratio": 0.0, **before})
        rows.append({**common, "scenario": scenario, "ratio": ratio, **after})
    return rows


def _erased(data: DataSet, tables: Mapping[str, Any], found: Leaving, attempt: int) -> tuple[Row, Row]:
    """Return a row before the erasure and one after it."""
    labels_N, classes = data.train_labels_N, len(data.classes)
    given = {**tables, "training": {**tables["training"], "seed": attempt}} if "training" in tables else tables
    key = key_of_round(attempt)
    with OwnFederation(data.train_NF, labels_N, classes=classes, tables=given, key=key) as federation:
        trained = federation.train()
        before = {"seconds": trained.seconds, **_answers(federation, data)}
        spent = federation.erase(found.gone_K.tolist())
        after = _answers(federation, data)
        digests = federation.digests
        partition = federation.specification.partition
    kept_NF, kept_N = data.train_NF[found.left_M], labels_N[found.left_M]
    with OwnFederation(kept_NF, kept_N, classes=classes, tables=given, rows=found.left_M, key=key) as again:
        fresh = again.train()
        is_exact = again.digests == digests
    row = {
        "removed": len(found.gone_K),
        "seconds": spent.seconds,
        "retrain_seconds": fresh.seconds,
        "distance": 0.0 if is_exact else None,
        "exact": is_exact,
        "note": found.note,
        "accuracy_before": before["accuracy"],
        **after,
    }
    if partition.shards * partition.slices > 1:
        row |= _work(spent, fresh, batch_fraction(partition.shards, partition.slices, len(found.gone_K)))
    return before, row


def _work(spent: Spent, fresh: Spent, expected: float) -> Row:
    """Return the work of an erasure as a share of that of the full retrain, and the closed form beside it."""
    return {"work_share": spent.point_epochs / fresh.point_epochs, "expected_share": expected}


def _answers(federation: OwnFederation, data: DataSet) -> Row:
    scores_NC = federation.probabilities(data.test_NF)
    return {
        "accuracy": accuracy(scores_NC, data.test_labels_N),
        "per_class": accuracy_by_class(scores_NC, data.test_labels_N, data.classes),
    }


def federation_name(tables: Mapping[str, Any]) -> str:
    """Return shards and slices in SISA's letters, or the number of trees.

    >>> federation_name({"partition": {"shards": 5, "slices": 4}, "training": {}})
    'S=5 R=4'
    """
    if "training" not in tables:
        return f"{tables['model']['arguments']['trees']} trees"
    partition = tables["partition"]
    return f"S={partition['shards']} R={partition['slices']}"


def federation_recipe(tables: Mapping[str, Any]) -> str:
    """Return how a constituent is trained, in words; for forests a dash.

    >>> federation_recipe({"training": {"epochs": 5, "batch_size": 32}})
    '5 epochs in batches of 32'
    """
    training = tables.get("training")
    return f"{training['epochs']} epochs in batches of {training['batch_size']}" if training else "–"
