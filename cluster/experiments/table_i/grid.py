"""The grid of ``table-i``: every method on every data set, in several rounds; all methods of a round have its data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cluster.experiments.experiment import Cell, Experiment, Row, Settings
from cluster.experiments.membership import attack_auc, chance_interval
from cluster.experiments.table_i.methods import METHODS
from cluster.experiments.table_i.report import report
from cluster.experiments.table_i.trial import Measured, Method, Repetition, Scores, trial_of
from storage.errors import SisaError

COLUMNS: Final = (
    "dataset",
    "method",
    "kind",
    "guarantee",
    "round",
    "accuracy_before",
    "accuracy_after",
    "retrain_accuracy",
    "one_seconds",
    "one_ratio",
    "seconds",
    "retrain_seconds",
    "ratio",
    "storage_bytes",
    "distance",
    "relative_distance",
    "nats",
    "auc_before",
    "auc_after",
    "auc_low",
    "auc_high",
    "power",
    "note",
)


_TWO: Final = 2
_DEFAULT_CLASSES: Final = 10


def _data(source: str, labels: list[int], points: int, erased: int, never_seen: int, tests: int) -> dict[str, Any]:
    return {
        "source": source,
        "labels": labels,
        "points": points,
        "erased": erased,
        "never_seen": never_seen,
        "tests": tests,
    }


def settings(quick: bool) -> Settings:  # noqa: FBT001  experiments are asked so
    """Return the settings: ten classes, and two of them for methods that are usually shown on two."""
    if quick:
        data = {
            "digits": _data("digits", [], 600, 60, 500, 300),
            "digits-3-or-8": _data("digits", [3, 8], 150, 20, 130, 60),
        }
        return {"data": data, "rounds": 1, "methods": list(METHODS)}
    data = {
        "mnist": _data("mnist", [], 2000, 100, 1000, 2000),
        "mnist-3-or-8": _data("mnist", [3, 8], 2000, 100, 1000, 1900),
    }
    return {"data": data, "rounds": 3, "methods": list(METHODS)}


def datasets(given: Settings) -> Sequence[str]:
    """Return the data sets that are needed."""
    return sorted({each["source"] for each in given["data"].values()})


def cells(given: Settings) -> list[Cell]:
    """Return a cell for each method, data set and round; some methods have cells for two classes alone."""
    return [
        Cell(
            name=f"{dataset}.{method}.{number}",
            arguments={"dataset": dataset, "method": method, "round": number},
            weight=data["points"] * (len(data["labels"]) or _DEFAULT_CLASSES),
        )
        for dataset, data in given["data"].items()
        for method in given["methods"]
        if len(data["labels"]) == _TWO or not METHODS[method].is_for_two
        for number in range(1, given["rounds"] + 1)
    ]


def rows_of_cell(cell: Cell, given: Settings, data_folder: Path | None) -> list[Row]:
    """Return the row of a method in a round; where it fails, the note says how."""
    dataset, method = cell.arguments["dataset"], METHODS[cell.arguments["method"]]
    trial = trial_of(dataset, given["data"][dataset], cell.arguments["round"], data_folder)
    row: Row = dict.fromkeys(COLUMNS)
    row.update(dataset=dataset, method=method.name, kind=method.kind, round=cell.arguments["round"])
    try:
        row.update(guarantee=method.guarantee(trial))
        row.update(_measured(method, trial))
    except SisaError as error:
        row.update(note=f"failed: {error}")
    return [row]


def _measured(method: Method, trial: Repetition) -> Row:
    found: Measured = method.measure(trial)
    before, after = _auc(found.before), _auc(found.after)
    low, high = chance_interval(len(found.before.erased_N), len(found.before.never_N))
    return {
        "accuracy_before": found.accuracy_before,
        "accuracy_after": found.accuracy_after,
        "retrain_accuracy": found.retrain_accuracy,
        "one_seconds": found.one_seconds,
        "one_ratio": found.one_seconds / found.retrain_seconds,
        "seconds": found.seconds,
        "retrain_seconds": found.retrain_seconds,
        "ratio": found.seconds / found.retrain_seconds,
        "storage_bytes": found.storage_bytes,
        "distance": found.distance,
        "relative_distance": _share(found.distance, found.distance_before),
        "nats": found.nats,
        "auc_before": before,
        "auc_after": after,
        "auc_low": low,
        "auc_high": high,
        "power": before > high,
        "note": found.note,
    }


def _auc(scores: Scores) -> float:
    return attack_auc(scores.erased_N, scores.never_N)


def _share(distance: float | None, before: float | None) -> float | None:
    """Return which share of the way to the retrain is left; 0 where there is nothing left of it."""
    if distance == 0:
        return 0.0
    return None if distance is None or not before else distance / before


TABLE_I: Final = Experiment(
    name="table-i",
    summary="The survey's table of methods, measured: guarantee, accuracy, cost, storage, distance and membership.",
    columns=COLUMNS,
    settings=settings,
    cells=cells,
    run=rows_of_cell,
    report=report,
    datasets=datasets,
)
