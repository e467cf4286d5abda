"""``sisa experiment``: one JSON object, names, progress, ends of every kind."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.config.specification import ClusterSettings
from cluster.experiments import runner
from cluster.experiments.catalog import EXPERIMENTS
from cluster.runtime.session import join_ray
from deploy.commands.cli import main
from deploy.laboratory import show_progress, show_remarks
from storage.stores.lock import held
from tests.cluster.experiments.crew import NearCrew
from tests.cluster.experiments.toy import COMPUTED, TOY
from tests.doubles.user_folder import run

ROWS = [{"size": size, "double": 2 * size, "per_class": {"a": 0.5}, "failed": None} for size in (1, 2)]


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Any], None]:
    """Have the toy in the catalog, and its cells in this process; return what changes their crew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(EXPERIMENTS, TOY.name, TOY)
    monkeypatch.setattr(runner, "join_ray", lambda _: False)
    monkeypatch.setattr(runner, "processors", lambda: 1)
    COMPUTED.clear()

    def take(pool: Any) -> None:
        monkeypatch.setattr(runner, "RayCrew", lambda *_, **__: pool)

    take(NearCrew())
    return take


def test_results_are_one_object(crew: Any) -> None:
    """Rows, figures, checks and their folder; progress goes to stderr, with the share that is done."""
    said = run("experiment", "toy", "--quick", "--json")
    assert said.code == 0, said.err
    data = said.data
    assert data.keys() == {"name", "settings", "rows", "figures", "checks", "folder"}
    assert (data["name"], data["rows"], data["folder"]) == ("toy", ROWS, "experiments/toy-quick")
    assert data["settings"] == {"sizes": [1, 2], "seed": 7}
    (check,) = data["checks"]
    assert (check["what"], check["ours"], check["holds"]) == ("four", 5.0, False)
    (figure,) = data["figures"]
    assert figure == {
        "name": "sizes",
        "title": "Sizes and their doubles",
        "png": "experiments/toy-quick/figures/sizes.png",
        "svg": "experiments/toy-quick/figures/sizes.svg",
    }
    assert Path(figure["png"]).read_bytes().startswith(b"\x89PNG")
    first, second = said.err.splitlines()
    assert first.startswith("size-2: done; 67% of the grid, about ")
    assert first.endswith(" left")
    assert second == "size-1: done; 100% of the grid"


def test_people_are_told_where_the_results_are_and_what_differs(crew: Any) -> None:
    """The same command again computes nothing, and says the same."""
    said = run("experiment", "toy", "--out", "here")
    assert said.code == 0, said.err
    assert said.out.splitlines() == [
        "toy: 4 rows in here",
        "Read here/results.md.",
        "0 of 1 figures are as expected.",
        "  differs: four: 5, not 4 (exact)",
    ]
    again = run("experiment", "toy", "--out", "here")
    assert (again.code, again.out) == (0, said.out)
    assert again.err == "4 of 4 cells are in the folder already\n"
    assert len(COMPUTED) == 4


def test_experiments_are_listed(crew: Any) -> None:
    """The list is printed as text and as JSON."""
    assert {"name": "toy", "summary": "Doubles sizes."} in run("experiment", "list", "--json").data["experiments"]
    assert "Doubles sizes." in run("experiment", "list").out


@pytest.mark.parametrize(
    ("words", "message", "remedy"),
    [
        ((), "no experiment is named", "Take list, or one of"),
        (("tyo",), "there is no experiment 'tyo'", "Did you mean toy?"),
        (("TOY",), "there is no experiment 'TOY'", "Did you mean toy?"),
        (("zzzz",), "there is no experiment 'zzzz'", "toy."),
    ],
)
def test_a_name_that_is_not_known_is_refused(words: tuple[str, ...], message: str, remedy: str, crew: Any) -> None:
    """The nearest one is named, else all of them; nothing is written."""
    said = run("experiment", *words, "--json")
    assert (said.code, said.error["kind"], said.error["message"]) == (2, "invalid", message)
    assert remedy in said.error["remedy"]
    assert not Path("experiments").exists()


def test_without_matplotlib_the_extra_is_named(crew: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is raised before anything is computed."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = run("experiment", "toy", "--json")
    assert (said.code, said.error["message"]) == (2, "plots need matplotlib, which is not installed")
    assert "sisa-ray[lab]" in said.error["remedy"]
    assert not COMPUTED


def test_an_interrupt_keeps_what_is_done(crew: Any) -> None:
    """The remedy is to run the same command, which goes on."""
    crew(NearCrew(1))
    said = run("experiment", "toy", "--quick", "--json")
    assert (said.code, said.error["kind"]) == (1, "interrupted")
    assert said.error["message"] == "interrupted; finished cells are kept [folder=experiments/toy-quick]"
    assert said.error["remedy"] == "Run the same command again: it continues from there."
    crew(NearCrew())
    again = run("experiment", "toy", "--quick", "--json")
    assert again.data["rows"] == ROWS
    assert COMPUTED == ["size-2", "size-1"]


class Terminating(NearCrew):
    """Gets SIGTERM after a cell."""

    def __call__(self, act: Any, things: Any, new_name: Any, on_result: Any, /, *shared: Any, **more: Any) -> list[Any]:
        """Do the first thing."""
        on_result(act(things[0], new_name(), *shared))
        signal.raise_signal(signal.SIGTERM)
        return []


def test_sigterm_has_its_own_code(crew: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The message is the same, and finished cells are kept."""
    crew(Terminating())
    with pytest.raises(SystemExit, match="^143$"):
        main(["experiment", "toy", "--quick"])
    assert "Run the same command again" in capsys.readouterr().err
    assert [file.name for file in Path("experiments/toy-quick/cells").iterdir()] == ["size-2.json"]


def test_a_folder_of_others_is_refused(crew: Any) -> None:
    """One with results of other settings, and one in which another process works."""
    assert run("experiment", "toy", "--quick", "--out", "here").code == 0
    said = run("experiment", "toy", "--out", "here", "--json")
    assert (said.code, said.error["kind"]) == (4, "conflict")
    assert "results of other settings: sizes is [1, 2] there, and [1, 2, 3, 4] here" in said.error["message"]
    with held(Path("here/.lock")):
        said = run("experiment", "toy", "--quick", "--out", "here", "--json")
    assert (said.code, said.error["message"]) == (4, "another process computes results in this folder [folder=here]")


def test_a_disk_that_is_full_for_a_picture_is_named(crew: Any) -> None:
    """The error names the picture, and all rows are kept."""
    figures = Path("here/figures")
    figures.mkdir(parents=True)
    (figures / "sizes.png").symlink_to("/dev/full")
    said = run("experiment", "toy", "--quick", "--out", "here", "--json")
    assert (said.code, said.error["kind"]) == (5, "unavailable")
    assert said.error["message"] == "there is no room for the results [folder=here/figures]"
    assert json.loads(Path("here/results.json").read_text())["rows"] == ROWS


def test_a_cell_that_fails_shows_where_on_demand(
    crew: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names it; with SISA_TRACEBACK=1 stderr has the traceback."""
    Path("data").mkdir()
    Path("data/size-1").write_text("fail")
    words = ["experiment", "toy", "--quick", "--data-folder", "data"]
    said = run(*words, "--json")
    assert (said.code, said.error["message"]) == (1, "a cell failed with ZeroDivisionError [cell=size-1]")
    assert "SISA_TRACEBACK=1" in said.error["remedy"]
    assert "The cells that are done are kept" in said.error["remedy"]
    assert "Traceback" not in said.err
    monkeypatch.setenv("SISA_TRACEBACK", "1")
    with pytest.raises(SystemExit, match="^1$"):
        main(words)
    assert "in _meet" in capsys.readouterr().err


def test_another_cluster_is_asked_by_its_address(crew: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--address`` goes to Ray as ``[cluster] address`` does."""
    seen: list[ClusterSettings] = []
    monkeypatch.setattr(runner, "join_ray", seen.append)
    assert run("experiment", "toy", "--quick", "--address", "10.0.0.1:6379").code == 0
    assert [settings.address for settings in seen] == ["10.0.0.1:6379"]


def test_a_cluster_that_does_not_answer_is_named(crew: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the option that gave its address."""
    monkeypatch.setattr(runner, "join_ray", join_ray)
    said = run("experiment", "toy", "--quick", "--address", "127.0.0.1:1", "--json")
    assert (said.code, said.error["kind"]) == (5, "unavailable")
    assert "nothing listens at " in said.error["message"]
    assert said.error["remedy"].startswith("Check --address")


def test_the_time_left_is_that_of_the_weights(capsys: pytest.CaptureFixture[str]) -> None:
    """A quarter took a minute: three are left."""
    moments = iter([0.0, 60.0])
    show_progress(lambda: next(moments))(runner.CellDone(name="first", share=0.5, left_share=0.75))
    assert capsys.readouterr().err == "first: done; 50% of the grid, about 3 min left\n"


def test_a_remark_that_comes_again_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Such as that all processors are at work, while a cell takes an hour."""
    tell = show_remarks()
    for text in ("waiting", "waiting", "lost", "waiting"):
        tell(text)
    assert capsys.readouterr().err.splitlines() == ["waiting", "lost", "waiting"]
