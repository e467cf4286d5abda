"""Experiments: rows are kept as they are computed, an interrupted one goes on, other settings are refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from cluster.experiments.experiment import (
    Cell,
    Check,
    Experiment,
    Figure,
    Panel,
    Report,
    Row,
    Section,
    Series,
    Settings,
    Table,
)
from cluster.experiments.runner import CellDone, Finished, run_experiment
from deploy.plots import draw
from storage.errors import Conflict, Corrupt, Invalid
from storage.stores.lock import held
from tests.cluster.experiments.crew import NearCrew
from tests.doubles.time_and_names import VirtualClock

COMPUTED: list[str] = []


def _settings(quick: bool) -> Settings:
    return {"sizes": [1, 2] if quick else [1, 2, 3, 4], "seed": 7}


def _cells(settings: Settings) -> list[Cell]:
    return [Cell(name=f"size-{size}", arguments={"size": size}, weight=size) for size in settings["sizes"]]


def _run(cell: Cell, settings: Settings, data_folder: Path | None) -> list[Row]:
    COMPUTED.append(cell.name)
    size = cell.arguments["size"]
    return [{"size": size, "double": 2 * size, "per_class": {"a": 0.5}, "failed": float("nan")}]


def _report(settings: Settings, rows: Sequence[Row]) -> Report:
    sizes = [row["size"] for row in rows]
    line = Series(name="double", x=sizes, y=[row["double"] for row in rows], spread=[0.1] * len(rows))
    text = Series(name="as text", x=[str(size) for size in sizes], y=[row["failed"] for row in rows])
    panels = [
        Panel(title="left", x="size", y="double", series=[line], log_x=True),
        Panel(title="right", x="size", y="failed", series=[text, text], kind="bars"),
    ]
    return Report(
        sections=[Section(title="Sizes", text="All of them.", table=Table(columns=["size"], rows=[["1"]]))],
        figures=[Figure(name="sizes", title="Sizes and their doubles", panels=panels)],
        checks=[Check(what="four", ours=5.0, expected=4.0, tolerance="exact", holds=False, source="arithmetic")],
    )


def _datasets(settings: Settings) -> Sequence[str]:
    return ("mnist",) if settings["seed"] == 8 else ()


TOY = Experiment(
    name="toy",
    summary="Doubles sizes.",
    columns=("size", "double", "per_class", "failed"),
    settings=_settings,
    cells=_cells,
    run=_run,
    report=_report,
    datasets=_datasets,
)


def run(folder: Path, *, quick: bool = False, most: int | None = None, done: list[CellDone] | None = None) -> Finished:
    """Run the experiment, and note which cells were computed."""
    COMPUTED.clear()
    heard = [] if done is None else done
    return run_experiment(
        TOY, _settings(quick), folder, clock=VirtualClock(), on_done=heard.append, crew=lambda *_: NearCrew(most)
    )


def test_results_are_written_in_every_form(tmp_path: Path) -> None:
    """JSON has everything, CSV the rows, Markdown tables, figures and what differs; no number is NaN."""
    found = run(tmp_path)
    document = json.loads((tmp_path / "results.json").read_text())
    assert (
        document["rows"]
        == found.rows
        == [{"size": size, "double": 2 * size, "per_class": {"a": 0.5}, "failed": None} for size in (1, 2, 3, 4)]
    )
    release = document["environment"]["release"]
    assert document["settings"] == {"experiment": "toy", "release": release, **_settings(quick=False)}
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert [row["double"] for row in rows] == ["2", "4", "6", "8"]
    assert rows[0]["per_class"] == '{"a": 0.5}'
    text = (tmp_path / "results.md").read_text()
    assert "![Sizes and their doubles](figures/sizes.svg)" in text
    assert "| four | 5 | 4 | exact | **no** | arithmetic |  |" in text


def test_an_interrupted_experiment_goes_on(tmp_path: Path) -> None:
    """Cells that were computed are not computed again; the longest come first."""
    with pytest.raises(KeyboardInterrupt, match="^$"):
        run(tmp_path, most=2)
    assert COMPUTED == ["size-4", "size-3"]
    done: list[CellDone] = []
    found = run(tmp_path, done=done)
    assert COMPUTED == ["size-2", "size-1"]
    assert [row["size"] for row in found.rows] == [1, 2, 3, 4]
    assert [round(each.share, 2) for each in done] == [0.9, 1.0]
    assert [round(each.left_share, 2) for each in done] == [0.33, 0.0]
    run(tmp_path)
    assert COMPUTED == []


def test_a_folder_with_other_settings_is_refused(tmp_path: Path) -> None:
    """With what differs; its results stay."""
    run(tmp_path)
    with pytest.raises(Conflict, match=r"results of other settings: sizes is \[1, 2, 3, 4\] there, and \[1, 2\] here"):
        run(tmp_path, quick=True)
    (tmp_path / "settings.json").unlink()
    with pytest.raises(Conflict, match="the folder has rows, but no settings"):
        run(tmp_path)


def test_a_folder_serves_one_process(tmp_path: Path) -> None:
    """Another one that works there is named, not waited for."""
    with held(tmp_path / ".lock"), pytest.raises(Conflict, match="another process computes results in this folder"):
        run(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """It is not taken for a cell that was never computed: it may be somebody's only copy."""
    run(tmp_path)
    (tmp_path / "cells" / "size-2.json").write_text("{")
    with pytest.raises(Corrupt, match="a file of results cannot be read"):
        run(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file stands where the folder is to be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Invalid, match="the folder for the results cannot be made"):
        run(tmp_path / "file" / "inner")


def test_a_data_set_that_is_missing_is_found_first(tmp_path: Path) -> None:
    """Before anything is computed or written."""
    settings = {**_settings(False), "seed": 8}
    with pytest.raises(Invalid, match="the data set mnist is not on this machine"):
        run_experiment(TOY, settings, tmp_path / "out", clock=VirtualClock(), crew=lambda *_: NearCrew())
    assert not (tmp_path / "out").exists()


def test_figures_are_drawn_twice_alike(tmp_path: Path) -> None:
    """As PNG and SVG, the same bytes each time, also where values are missing or names are texts."""
    rows: list[Row] = [{"size": 1, "double": 2, "failed": None}, {"size": 10, "double": 4, "failed": 1.0}]
    figure = _report({}, rows).figures[0]
    files = [draw(figure, tmp_path / side) for side in ("left", "right")]
    assert files == [{"png": "sizes.png", "svg": "sizes.svg"}] * 2
    for name in files[0].values():
        first, second = ((tmp_path / side / name).read_bytes() for side in ("left", "right"))
        assert first == second
        assert len(first) > 1000
