"""Experiments: rows are kept as they are computed, an interrupted one goes on, other settings are refused."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.experiments.experiment import Cell, Check, Report, Row, Section, Table
from cluster.experiments.runner import CellDone, Finished, run_experiment
from deploy.plots import draw
from storage.errors import Conflict, Corrupt, Invalid, SisaError, StoreFull
from storage.stores.lock import held
from tests.cluster.experiments.crew import NearCrew
from tests.cluster.experiments.toy import COMPUTED, TOY, report, settings
from tests.doubles.time_and_names import VirtualClock


def run(
    folder: Path,
    *,
    quick: bool = False,
    most: int | None = None,
    done: list[CellDone] | None = None,
    data_folder: Path | None = None,
    remarks: list[str] | None = None,
) -> Finished:
    """Run the experiment, and note which cells were computed."""
    COMPUTED.clear()
    return run_experiment(
        TOY,
        settings(quick),
        folder,
        clock=VirtualClock(),
        data_folder=data_folder,
        on_done=([] if done is None else done).append,
        remark=([] if remarks is None else remarks).append,
        crew=lambda *_: NearCrew(most),
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
    assert document["settings"] == {"experiment": "toy", "release": release, **settings(quick=False)}
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert [row["double"] for row in rows] == ["2", "4", "6", "8"]
    assert rows[0]["per_class"] == '{"a": 0.5}'
    text = (tmp_path / "results.md").read_text()
    assert "![Sizes and their doubles](figures/sizes.svg)" in text
    assert "0 of 1 figures are as expected: [see below](#beside-earlier-figures)." in text
    assert "| four | 5 | 4 | exact | **no** | arithmetic |  |" in text
    assert "| sizes | 1, 2, 3, 4 |" in text


def test_an_interrupted_experiment_goes_on(tmp_path: Path) -> None:
    """Cells that were computed are not computed again; the longest come first."""
    with pytest.raises(KeyboardInterrupt, match="^$"):
        run(tmp_path, most=2)
    assert COMPUTED == ["size-4", "size-3"]
    done: list[CellDone] = []
    remarks: list[str] = []
    found = run(tmp_path, done=done, remarks=remarks)
    assert remarks == ["2 of 4 cells are in the folder already"]
    assert COMPUTED == ["size-2", "size-1"]
    assert [row["size"] for row in found.rows] == [1, 2, 3, 4]
    assert [round(each.share, 2) for each in done] == [0.9, 1.0]
    assert [round(each.left_share, 2) for each in done] == [0.33, 0.0]
    run(tmp_path)
    assert COMPUTED == []


def test_a_folder_with_other_settings_is_refused(tmp_path: Path) -> None:
    """The error names what differs, and the folder's results stay."""
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


def test_damaged_settings_are_not_to_be_removed_alone(tmp_path: Path) -> None:
    """Rows without settings would be refused: what helps is another folder."""
    run(tmp_path)
    (tmp_path / "settings.json").write_text("")
    with pytest.raises(Corrupt, match=r"settings.json\]. Name another folder with --out, or remove this one"):
        run(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file stands where the folder is to be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Invalid, match="the folder for the results cannot be written: Not a directory"):
        run(tmp_path / "file" / "inner")


def test_a_data_set_that_is_missing_is_found_first(tmp_path: Path) -> None:
    """The error is raised before anything is computed or written."""
    other = {**settings(False), "seed": 8}
    with pytest.raises(Invalid, match="the data set mnist is not on this machine"):
        run_experiment(TOY, other, tmp_path / "out", clock=VirtualClock(), crew=lambda *_: NearCrew())
    assert not (tmp_path / "out").exists()


def test_figures_are_drawn_twice_alike(tmp_path: Path) -> None:
    """As PNG and SVG, the same bytes each time, also where values are missing or names are texts."""
    rows: list[Row] = [{"size": 1, "double": 2, "failed": None}, {"size": 10, "double": 4, "failed": 1.0}]
    figure = report({}, rows).figures[0]
    files = [draw(figure, tmp_path / side) for side in ("left", "right")]
    assert files == [{"png": "sizes.png", "svg": "sizes.svg"}] * 2
    for name in files[0].values():
        first, second = ((tmp_path / side / name).read_bytes() for side in ("left", "right"))
        assert first == second
        assert len(first) > 1000


@pytest.mark.parametrize("content", ["[]", "{}", '{"cell": "size-1", "rows": []}', '{"cell": "size-2", "rows": 3}'])
def test_a_file_of_something_else_is_named(content: str, tmp_path: Path) -> None:
    """The file is named even if it is valid JSON."""
    run(tmp_path)
    (tmp_path / "cells" / "size-2.json").write_text(content)
    with pytest.raises(Corrupt, match=r"a file of results cannot be read \[file=.*size-2.json\]"):
        run(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A folder stands where its lock is to be."""
    (tmp_path / ".lock").mkdir()
    with pytest.raises(Invalid, match="the folder for the results cannot be written: Is a directory"):
        run(tmp_path)


def test_a_full_disk_is_named_and_the_cells_are_kept(tmp_path: Path) -> None:
    """Nothing unfinished stays, and with room the run goes on."""
    with pytest.raises(KeyboardInterrupt, match="^$"):
        run(tmp_path, most=1)
    unfinished = tmp_path / "cells" / "size-3.json.partial"
    unfinished.symlink_to("/dev/full")
    with pytest.raises(StoreFull, match="no room for the results .*Make room for them. The cells that are done are"):
        run(tmp_path)
    assert not unfinished.is_symlink()
    run(tmp_path)
    assert COMPUTED == ["size-3", "size-2", "size-1"]


def test_content_is_on_the_disk_before_a_name_points_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut leaves empty files, and hours of work are refused as damaged."""
    synced: list[str] = []
    renamed: list[str] = []
    sync, replace_file = os.fsync, Path.replace

    def note_sync(descriptor: int) -> None:
        assert os.fstat(descriptor).st_size > 0
        synced.append(os.path.realpath(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    def note_replace(source: Path, target: Path) -> Path:
        renamed.append(str(source))
        assert synced == renamed
        return replace_file(source, target)

    monkeypatch.setattr("os.fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_replace)
    run(tmp_path.resolve())
    assert len(renamed) == 8  # settings, four cells, results in three forms


def test_a_cell_that_fails_is_named(tmp_path: Path) -> None:
    """With what happened, and that the others are kept; its traceback is among the causes."""
    (tmp_path / "size-2").write_text("fail")
    with pytest.raises(
        SisaError, match=r"a cell failed with ZeroDivisionError \[cell=size-2\]. SISA_TRACEBACK=1 .*The cells that are"
    ) as raised:
        run(tmp_path / "out", data_folder=tmp_path)
    assert isinstance(raised.value.__cause__, SisaError)
    assert isinstance(raised.value.__cause__.__cause__, ZeroDivisionError)
    assert {file.name for file in (tmp_path / "out" / "cells").iterdir()} == {"size-3.json", "size-4.json"}


@pytest.mark.parametrize(
    ("cells", "fact"),
    [
        ([Cell(name="Up", arguments={})], "a name that is not one of a file: 'Up'"),
        ([Cell(name="../up", arguments={})], "a name that is not one of a file: '../up'"),
        ([Cell(name="same", arguments={})] * 2, "two cells have the name 'same'"),
        ([Cell(name="light", arguments={}, weight=0)], "weight must be above 0, got 0"),
    ],
)
def test_a_grid_whose_rows_could_not_be_kept_is_refused(cells: list[Cell], fact: str, tmp_path: Path) -> None:
    """The grid is refused before anything is written."""
    with pytest.raises(Invalid, match=fact):
        run_experiment(replace(TOY, cells=lambda _: cells), settings(True), tmp_path / "out", clock=VirtualClock())
    assert not (tmp_path / "out").exists()


def test_values_of_numpy_are_compared_like_others() -> None:
    """A truth of NumPy is not the False of Python; what is not finite has no place in JSON."""
    ours: Any = np.float32(0.5)
    check = Check(what="", ours=ours, expected=np.nan, tolerance="", holds=ours < 0.2, source="")
    assert (check.ours, check.expected, check.holds) == (0.5, None, False)
    assert check.holds is False


def test_tables_stay_tables(tmp_path: Path) -> None:
    """Regardless of the texts in them; settings that are nested are JSON."""
    table = Table(columns=["a"], rows=[["one | two\nthree"]])
    toy = replace(TOY, report=lambda *_: Report(sections=[Section(title="T", table=table)]))
    given = {**settings(True), "nested": {"a": [1]}}
    run_experiment(toy, given, tmp_path, clock=VirtualClock(), crew=lambda *_: NearCrew())
    text = (tmp_path / "results.md").read_text()
    assert "| one \\| two three |" in text
    assert "| sizes | 1, 2 |" in text
    assert '| nested | `{"a": [1]}` |' in text
