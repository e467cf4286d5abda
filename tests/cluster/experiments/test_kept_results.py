"""The results in the documentation: of the grids as they are, and with the text that their rows have today."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from cluster.experiments.catalog import EXPERIMENTS
from cluster.experiments.results import ResultFolder

KEPT = Path(__file__).parents[3] / "docs" / "experiments"
VERSIONS = "Finished "
"""The line with the date, the versions and the processor, which are those of that run."""


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_kept_results_are_what_their_rows_say(name: str, tmp_path: Path) -> None:
    """Tables, sentences, checks and figures are made of the rows; nobody has changed one without the other."""
    experiment, kept = EXPERIMENTS[name], KEPT / name
    document = json.loads((kept / "results.json").read_text(encoding="utf-8"))
    settings = json.loads(json.dumps(experiment.settings(False)))
    assert document["settings"] == {"experiment": name, "release": document["settings"]["release"], **settings}
    report = experiment.report(settings, document["rows"])
    for computed, there in ((report.checks, document["checks"]), (report.figures, document["figures"])):
        assert leaves([asdict(each) for each in computed]) == nearly(leaves(there))
    drawn = {f"{figure['name']}.{kind}" for figure in document["figures"] for kind in ("png", "svg")}
    assert {file.name for file in (kept / "figures").iterdir()} == drawn
    ResultFolder(experiment, settings, tmp_path).write_results(document["rows"], report, document["finished_at"])
    assert lines(tmp_path / "results.md") == lines(kept / "results.md")


def test_every_kept_folder_is_of_an_experiment() -> None:
    """Every experiment also has a folder of kept results."""
    assert {folder.name for folder in KEPT.iterdir()} == set(EXPERIMENTS)


def leaves(document: Any) -> list[tuple[str, Any]]:
    """Return all values with where they are."""
    return list(_leaves(json.loads(json.dumps(document)), ""))


def nearly(found: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return what is equal to these values up to the last digits, which processors round in other ways."""
    return [
        (place, pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value)
        for place, value in found
    ]


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if parts is None:
        yield place, value
        return
    for name, each in parts:
        yield from _leaves(each, f"{place}/{name}")


def lines(file: Path) -> list[str]:
    """Return the lines that do not depend on when and where the experiment ran."""
    return [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith(VERSIONS)]
