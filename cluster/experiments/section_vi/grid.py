"""The grid of the survey's experiment: what is run on which data, and the cells in which it is computed.

A study is a part of the grid with one data set, one model and one recipe; the number of each of its rounds is the seed.
All of it is JSON, so that it can be compared with the settings of a folder of results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from cluster.experiments.experiment import Cell, Settings
from cluster.experiments.section_vi.removal import IID, SKEWED

SOFTMAX: Final = "softmax"
NET: Final = "net"
FOREST: Final = "forest"

SURVEY_RECIPE: Final[Mapping[str, Any]] = {"epochs": 80, "rate": 0.2, "later_rate": 0.1, "penalty": 0.001}
"""The survey's recipe, with full batches. The number of steps is inferred from its times."""
BATCH_RECIPE: Final[Mapping[str, Any]] = {
    "epochs": 32,
    "rate": 0.1,
    "later_rate": 0.1,
    "penalty": 0.005,
    "batch_size": 16384,
}
"""The recipe in a spreadsheet of DeltaGrad's authors: 128 steps on 60,000 data points."""
FULL_BATCH_RECIPE: Final[Mapping[str, Any]] = {"epochs": 120, "rate": 0.1, "later_rate": 0.1, "penalty": 0.005}
"""The recipe in another of their spreadsheets, with full batches."""
STOPPED_RECIPE: Final[Mapping[str, Any]] = {**SURVEY_RECIPE, "epochs": 42, "first_epochs": 40}
"""The survey's, stopped where the network is about as good as the survey's model."""

OFTEN: Final = (5, 10, 2)
"""DeltaGrad's period T0, burn-in j0 and history m: the paper's for convex models."""
CAREFUL: Final = (2, 10, 2)
"""The paper's for networks: every second step, and the first quarter of 42 steps."""
EXPLICIT: Final = (1, 10, 2)
"""Every step explicit: a full retrain."""

RATIOS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.3)
"""The survey's."""
TIMED_RATIOS: Final = (0.4, 0.5)
"""Beyond: for the cross-over."""


def settings_of(quick: bool) -> Settings:  # noqa: FBT001  experiments are asked so
    """Return the settings."""
    return {
        "skewed_class": 4,
        "skewed_share": 0.3,
        "main": "digits" if quick else "mnist",
        "descents": list(_quick_descents() if quick else _descents()),
        "federations": list(_quick_federations() if quick else _federations()),
    }


def _descents() -> Iterator[dict[str, Any]]:
    main = {IID: [*RATIOS, *TIMED_RATIOS], SKEWED: list(RATIOS)}
    few = {IID: [0.01, 0.3], SKEWED: [0.3]}
    yield _descent("mnist", SOFTMAX, SURVEY_RECIPE, rounds=range(3), cases=main, variants=[OFTEN], explicit=0.01)
    yield _descent("mnist", NET, STOPPED_RECIPE, cases={IID: [0.001], SKEWED: [0.3]}, variants=[CAREFUL])
    batched = {IID: [0.001, 0.01, 0.05, 0.1, 0.2]}
    many = [EXPLICIT, (2, 10, 2), OFTEN, (10, 10, 2)]
    yield _descent("mnist", SOFTMAX, BATCH_RECIPE, cases=batched, variants=many)
    yield _descent("mnist", SOFTMAX, FULL_BATCH_RECIPE, cases={IID: []}, variants=[])
    yield _descent("fashion-mnist", SOFTMAX, SURVEY_RECIPE, cases=few, variants=[OFTEN])
    yield _descent("digits", SOFTMAX, SURVEY_RECIPE, rounds=range(5), cases=few, variants=[OFTEN])


def _quick_descents() -> Iterator[dict[str, Any]]:
    main = {IID: [*RATIOS, *TIMED_RATIOS], SKEWED: list(RATIOS)}
    yield _descent("digits", SOFTMAX, SURVEY_RECIPE, rounds=range(3), cases=main, variants=[OFTEN], explicit=0.01)
    few = {IID: [0.3], SKEWED: [0.3]}
    yield _descent("digits", NET, STOPPED_RECIPE, cases=few, variants=[CAREFUL], explicit=0.3)


def _descent(
    dataset: str,
    model: str,
    recipe: Mapping[str, Any],
    *,
    cases: Mapping[str, list[float]],
    variants: Sequence[tuple[int, ...]],
    rounds: Sequence[int] = (0,),
    explicit: float | None = None,
) -> dict[str, Any]:
    """Return a study of gradient descent; ``explicit`` is the ratio at which every step is explicit as well."""
    return {
        "dataset": dataset,
        "model": model,
        "recipe": dict(recipe),
        "rounds": list(rounds),
        "cases": {name: list(ratios) for name, ratios in cases.items()},
        "variants": [list(variant) for variant in variants],
        "explicit": explicit,
    }


def _federations() -> Iterator[dict[str, Any]]:
    batch = {"epochs": 5, "batch_size": 32, "learning_rate": 0.05}
    ends = {IID: [0.001, 0.3], SKEWED: [0.3]}
    yield _sisa("mnist", SOFTMAX, batch, 5, rounds=range(3), counts=[1, 6], cases=ends)
    yield _sisa("mnist", SOFTMAX, batch, 50, counts=[1, 6, 20], cases={IID: [0.001, 0.01, 0.3]})
    yield _sisa("mnist", NET, batch, 5, counts=[1], cases={SKEWED: [0.3]})
    yield _forest("mnist", trees=5, counts=[1], cases=ends)


def _quick_federations() -> Iterator[dict[str, Any]]:
    batch = {"epochs": 5, "batch_size": 16, "learning_rate": 0.1}
    yield _sisa("digits", SOFTMAX, batch, 5, counts=[1, 3], cases={IID: [0.1, 0.3], SKEWED: [0.3]})
    yield _forest("digits", trees=5, counts=[1], cases={IID: [0.01, 0.3], SKEWED: [0.3]})


def _sisa(
    dataset: str,
    model: str,
    training: Mapping[str, Any],
    shards: int,
    *,
    counts: list[int],
    cases: Mapping[str, list[float]],
    rounds: Sequence[int] = (0,),
) -> dict[str, Any]:
    """Return a study of SISA; ``counts`` are numbers of data points that leave, beside the ratios."""
    network = {"factory": "shards.models:mlp", "arguments": {"hidden": [300], "activation": "relu"}}
    return {
        "dataset": dataset,
        "model": model,
        "rounds": list(rounds),
        "counts": counts,
        "cases": {name: list(ratios) for name, ratios in cases.items()},
        "tables": {
            "model": {"factory": "shards.models:logistic"} if model == SOFTMAX else network,
            "training": dict(training),
            "partition": {"shards": shards, "slices": 5},
        },
    }


def _forest(dataset: str, *, trees: int, counts: list[int], cases: Mapping[str, list[float]]) -> dict[str, Any]:
    """Return a study of exact forests."""
    return {
        "dataset": dataset,
        "model": FOREST,
        "rounds": [0],
        "counts": counts,
        "cases": {name: list(ratios) for name, ratios in cases.items()},
        "tables": {
            "model": {"learner": "forest", "arguments": {"trees": trees}},
            "partition": {"shards": 1, "slices": 1},
        },
    }


def datasets_of(settings: Settings) -> list[str]:
    """Return the data sets, each once."""
    return list(dict.fromkeys(study["dataset"] for kind in ("descents", "federations") for study in settings[kind]))


def cells_of(settings: Settings) -> list[Cell]:
    """Return a cell for each study and round."""
    cells = []
    for kind in ("descents", "federations"):
        for number, study in enumerate(settings[kind], start=1):
            cells += [
                Cell(
                    name=f"{kind}-{number}-{study['dataset']}-{study['model']}-{attempt}",
                    arguments={"kind": kind, "study": study, "round": attempt},
                    weight=_weight(kind, study),
                )
                for attempt in study["rounds"]
            ]
    return cells


_SIZES: Final = {"digits": 0.02}
"""Sizes of smaller data sets, relative to those of 60,000 data points."""
_STEP_SECONDS: Final = {SOFTMAX: 0.15, NET: 1.5}
"""Approximate time of a full-batch step on 60,000 data points."""
_ERASURE_SECONDS: Final = {SOFTMAX: 15, NET: 32, FOREST: 40}
"""Approximate time of training a federation of 60,000 data points, an erasure and a full retrain."""


def _weight(kind: str, study: Mapping[str, Any]) -> float:
    """Return about how many seconds a cell takes."""
    size, model = _SIZES.get(study["dataset"], 1.0), study["model"]
    cases: int = sum(map(len, study["cases"].values())) + len(study.get("counts", ()))
    if kind == "descents":
        retrains = 1 + cases * (1 + 0.5 * len(study["variants"]))
        steps: int = study["recipe"]["epochs"]
        return size * _STEP_SECONDS[model] * steps * retrains
    return size * cases * _ERASURE_SECONDS[model]
