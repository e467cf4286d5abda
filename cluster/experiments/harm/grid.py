"""The grid of ``harm``: erasures of growing size and skew, of one class or of one declared group, by each method.

Shape legend: N points, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cluster.experiments.datasets import DataSet, load
from cluster.experiments.experiment import Cell, Row, Settings
from cluster.experiments.federation import OwnFederation, key_of_round
from cluster.experiments.harm.groups import GROUPS, groups_of
from cluster.experiments.harm.learners import CERTIFIED, LearnerMaker, is_budget_used_up
from cluster.experiments.measured import accuracy, accuracy_by_class
from coordinator.effects import ErasureEffect, HoldoutMeasure
from coordinator.settings import ErasureSettings
from shards.learners.approximate.models import keyed_order
from shards.learners.approximate.protocol import ApproximateLearner, Diverged
from shards.points import ShardPoints

COLUMNS: Final = (
    "dataset", "kind", "target", "method", "guarantee", "ratio", "skew", "round", "erased", "target_left",
    "accuracy_before", "accuracy_after", "fall", "target_before", "target_after", "target_fall", "excess_fall",
    "gains_most", "highest_gain", "alarms", "hidden", "per_class_before", "per_class_after",
    "per_group_before", "per_group_after", "budget_used_up", "note",
)  # fmt: skip

MARGIN: Final = ErasureSettings().alarm_margin
"""By how much a class may fall without an alarm, in a federation that sets nothing else."""

AnswersOfMethod = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]


def settings(quick: bool) -> Settings:  # noqa: FBT001
    """Return the settings: the quick run takes about a minute.

    ``norms`` are those to which longer pictures are shortened by the methods that need one, and ``trusted_nats`` says
    how far below its peak, for each coefficient, a posterior is trusted: about half of it is within 0.5 nats.
    """
    targets = [
        {"dataset": "mnist", "points": 2_000, "kind": "class", "target": "4", "rounds": 2},
        {"dataset": "mnist", "points": 2_000, "kind": "group", "target": "leans left", "rounds": 1},
        {"dataset": "digits", "points": 1_438, "kind": "class", "target": "4", "rounds": 1},
    ]
    quick_targets = [
        {"dataset": "digits", "points": 700, "kind": "class", "target": "4", "rounds": 1},
        {"dataset": "digits", "points": 700, "kind": "group", "target": "leans left", "rounds": 1},
    ]
    return {
        "targets": quick_targets if quick else targets,
        "ratios": [0.1, 0.3],
        "skews": [None, 0.3, 0.6, 1.0],
        "methods": [name for name in METHODS if not quick or name != "SISA, S = 20"],
        "steps": 80,
        "rates": [0.2, 0.1],
        "penalty": 0.001,
        "ascent_steps": 10,
        "fisher_strength": 1e-5,
        "epsilon": 1.0,
        "delta": 1e-4,
        "norms": {"digits": 4.0, "mnist": 10.0},
        "sekhari_penalty": 30.0,
        "certified_noise": 5.0,
        "certified_penalty": 0.01,
        "trusted_nats": {"eubo": 0.47, "rkl": 0.55},
        "network_epochs": 12,
        "hidden": 32,
        "trees": 6,
    }


def cells(settings: Settings) -> list[Cell]:
    """Return the grid: a cell for each target, round and method."""
    return [
        Cell(
            name=f"{target['dataset']}-{target['target'].replace(' ', '-')}-{turn}-{SHORT[method]}",
            arguments={"target": number, "round": turn, "method": method},
            weight=_WEIGHTS[method] * target["points"],
        )
        for number, target in enumerate(settings["targets"])
        for turn in range(target["rounds"])
        for method in settings["methods"]
    ]


def rows_of_cell(cell: Cell, settings: Settings, data_folder: Path | None) -> list[Row]:
    """Return the rows of a cell: for each skew, erasures that grow."""
    target, method = settings["targets"][cell.arguments["target"]], cell.arguments["method"]
    setup = _Setup(settings, target, cell.arguments["round"], load(target["dataset"], data_folder))
    return list(METHODS[method][1](setup, method))


class _Setup:
    """Data and target of a cell, and how its rows are made."""

    def __init__(self, settings: Settings, target: Mapping[str, Any], turn: int, data: DataSet) -> None:
        self.settings, self.target, self.turn, self.data = settings, target, turn, data
        self.features_NF = data.train_NF[: target["points"]]
        self.labels_N = data.train_labels_N[: target["points"]]
        self._test_groups_N = groups_of(data.test_NF)
        if target["kind"] == "class":
            self._member_N = self.labels_N == data.classes.index(target["target"])
        else:
            self._member_N = groups_of(self.features_NF) == GROUPS.index(target["target"])

    def learner(self, method: str) -> ApproximateLearner[Any]:
        """Return the learner of a method; erasures at random have the same noise for every target of a data set."""
        maker = LearnerMaker(
            self.settings,
            dataset=self.data.name,
            inputs=self.features_NF.shape[1],
            classes=len(self.data.classes),
            stream=f"harm/{self.data.name}/{self.turn}/{method}",
        )
        return maker.make(method)

    def erased(self, ratio: float, skew: float | None) -> list[int]:
        """Return who is erased; those of a higher ratio include those of a lower one."""
        return [int(row) for row in removed(self._member_N, ratio, skew, f"harm/{self.turn}")]

    def measured(self, answer: AnswersOfMethod) -> dict[str, Any]:
        """Return the accuracies on the test data: overall, per class, per group."""
        scores_NC, labels_N = answer(self.data.test_NF), self.data.test_labels_N
        return {
            "accuracy": accuracy(scores_NC, labels_N),
            "class": accuracy_by_class(scores_NC, labels_N, self.data.classes),
            "group": {
                name: accuracy(scores_NC[self._test_groups_N == number], labels_N[self._test_groups_N == number])
                for number, name in enumerate(GROUPS)
                if (self._test_groups_N == number).any()
            },
        }

    def row(
        self,
        method: str,
        ratio: float,
        skew: float | None,
        before: Mapping[str, Any],
        after: Mapping[str, Any] | None,
        *,
        is_used_up: bool | None = None,
    ) -> Row:
        """Return a row; ``after`` None: the method diverged."""
        gone = self.erased(ratio, skew)
        target, kind = self.target["target"], self.target["kind"]
        about = {
            "dataset": self.data.name,
            "kind": kind,
            "target": target,
            "method": method,
            "guarantee": METHODS[method][0],
            "ratio": ratio,
            "skew": skew,
            "round": self.turn,
            "erased": len(gone),
            "target_left": 1 - float(self._member_N[gone].sum() / self._member_N.sum()),
            "accuracy_before": before["accuracy"],
            "target_before": before[kind][target],
            "per_class_before": before["class"],
            "per_group_before": before["group"],
        }
        if after is None:
            return {**about, "note": "diverged"}
        fall = before["accuracy"] - after["accuracy"]
        target_fall = before[kind][target] - after[kind][target]
        gains = {name: after["class"][name] - share for name, share in before["class"].items()}
        gains_most = max(gains, key=lambda name: gains[name])
        alarms = alarms_of(before, after)
        return {
            **about,
            "accuracy_after": after["accuracy"],
            "fall": fall,
            "target_after": after[kind][target],
            "target_fall": target_fall,
            "excess_fall": target_fall - fall,
            "gains_most": gains_most,
            "highest_gain": gains[gains_most],
            "alarms": alarms,
            "hidden": bool(alarms) and fall <= MARGIN,
            "per_class_after": after["class"],
            "per_group_after": after["group"],
            "budget_used_up": is_used_up,
            "note": "",
        }


def alarms_of(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the classes of which a federation's own alarm would tell, with these points held out."""
    measures = [
        HoldoutMeasure(generation=number, points=0, metrics={}, per_class=each["class"], at="")
        for number, each in enumerate((before, after))
    ]
    return list(ErasureEffect(before=measures[0], after=measures[1], margin=MARGIN).alarms)


def removed(member_N: npt.NDArray[np.bool_], ratio: float, skew: float | None, stream: str) -> npt.NDArray[np.int64]:
    """Return the rows that are erased: a share ``ratio`` of all, of which a share ``skew`` are members.

    ``skew`` None: drawn from all alike. Where there are not as many members, all of them go, and others instead.
    """
    order_N = keyed_order(stream, len(member_N))
    size = round(ratio * len(member_N))
    if skew is None:
        return order_N[:size]
    members, others = order_N[member_N[order_N]], order_N[~member_N[order_N]]
    wanted = min(round(skew * size), len(members))
    return np.concatenate([members[:wanted], others[: size - wanted]])


def _alone(setup: _Setup, method: str) -> Iterator[Row]:
    """A learner of all data points at once; each erasure starts from all of them."""
    learner, settings = setup.learner(method), setup.settings
    everybody = np.arange(len(setup.labels_N))
    state = learner.learn(_points(setup, everybody))
    before = setup.measured(partial(learner.probabilities, state))
    for skew in settings["skews"]:
        for ratio in settings["ratios"]:
            gone = np.array(setup.erased(ratio, skew))
            left = _points(setup, np.delete(everybody, gone))
            try:
                changed = learner.unlearn(state, _points(setup, gone), partial(_same, left))
            except Diverged:
                yield setup.row(method, ratio, skew, before, None)
                continue
            after = setup.measured(partial(learner.probabilities, changed))
            yield setup.row(method, ratio, skew, before, after, is_used_up=is_budget_used_up(method, state, changed))


def _same(points: ShardPoints) -> ShardPoints:
    return points


def _points(setup: _Setup, rows: npt.NDArray[np.int64]) -> ShardPoints:
    keys_N = rows.astype(np.uint64)
    return ShardPoints(
        features_NF=np.ascontiguousarray(setup.features_NF[rows]),
        labels_N=setup.labels_N[rows],
        keys_N=keys_N,
        subjects_N=keys_N,
        ends=(len(rows),),
    )


def _by_federation(setup: _Setup, method: str) -> Iterator[Row]:
    """A federation for each skew, which erases more and more: the bytes are those of one erasure of all."""
    settings = setup.settings
    for skew in settings["skews"]:
        with OwnFederation(
            setup.features_NF,
            setup.labels_N,
            classes=len(setup.data.classes),
            tables=_tables(settings, method),
            key=key_of_round(setup.turn),
        ) as federation:
            federation.train()
            before = setup.measured(federation.probabilities)
            erased: set[int] = set()
            for ratio in sorted(settings["ratios"]):
                gone = setup.erased(ratio, skew)
                federation.erase([row for row in gone if row not in erased])
                erased.update(gone)
                yield setup.row(method, ratio, skew, before, setup.measured(federation.probabilities))


def _tables(settings: Settings, method: str) -> dict[str, dict[str, Any]]:
    if method == "forest":
        model = {"learner": "forest", "arguments": {"trees": settings["trees"]}}
        return {"model": model, "partition": {"shards": 1, "slices": 1}}
    shards = {"one network": 1, "SISA, S = 5": 5, "SISA, S = 20": 20}[method]
    return {
        "model": {"factory": "shards.models:mlp", "arguments": {"hidden": [settings["hidden"]]}},
        "training": {"epochs": settings["network_epochs"], "batch_size": 16, "learning_rate": 0.1},
        "partition": {"shards": shards, "slices": 1 if shards == 1 else 5},
    }


METHODS: Final[Mapping[str, tuple[str, Callable[[_Setup, str], Iterator[Row]]]]] = {
    "full retrain": ("exact", _alone),
    "DeltaGrad": ("approximate", _alone),
    "ascent, rate 0.02": ("approximate", _alone),
    "ascent, rate 0.1": ("approximate", _alone),
    "Fisher scrubbing": ("approximate", _alone),
    "Sekhari": ("approximate", _alone),
    CERTIFIED: ("certified", _alone),
    "variational, EUBO": ("approximate", _alone),
    "variational, rKL": ("approximate", _alone),
    "one network": ("exact", _by_federation),
    "SISA, S = 5": ("exact", _by_federation),
    "SISA, S = 20": ("exact", _by_federation),
    "forest": ("exact", _by_federation),
}
"""By name, with the guarantee.

The first five are of softmax regression, the next four of logistic regressions, of each class against the rest, and
the next three of a network.
"""

_NAMES: Final = (
    *("retrain", "deltagrad", "ascent", "fast-ascent", "fisher", "sekhari", "certified", "eubo", "rkl"),
    *("network", "sisa-5", "sisa-20", "forest"),
)
SHORT: Final = dict(zip(METHODS, _NAMES, strict=True))
_SECONDS: Final = (2.0, 1.0, 1.0, 1.0, 1.0, 15.0, 90.0, 10.0, 15.0, 8.0, 12.0, 25.0, 10.0)
"""About, for the largest target."""
_WEIGHTS: Final = dict(zip(METHODS, _SECONDS, strict=True))
