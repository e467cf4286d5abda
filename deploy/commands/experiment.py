"""``sisa experiment``: the laboratory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.commands.shared import AsJson, finish
from deploy.views.output import Outcome

_LIST = "list"


def experiment(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An experiment, or list.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Where the results go; default: experiments/NAME.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A small grid, in minutes.")] = False,
    data_folder: Annotated[
        Path | None, typer.Option("--data-folder", metavar="FOLDER", help="Where the files of MNIST are.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run an experiment of the survey on real data, or go on with it: figures, plots and what each method proves.

    Every part of the grid is written when it is computed. After an interruption the same command goes on.
    """

    def action() -> Outcome:
        from deploy.laboratory import experiments_outcome

        return experiments_outcome() if name == _LIST else _run(name, out, quick, data_folder, as_json)

    finish(action, as_json)


def _run(name: str, out: Path | None, quick: bool, data_folder: Path | None, as_json: bool) -> Outcome:
    from cluster.experiments.catalog import find_experiment
    from cluster.experiments.runner import run_experiment
    from cluster.runtime.system import SystemClock
    from deploy.laboratory import results_outcome, show_progress, show_remark
    from deploy.plots import check_plotting, draw

    chosen = find_experiment(name)
    check_plotting()
    folder = Path("experiments") / (f"{name}-quick" if quick else name) if out is None else out
    found = run_experiment(
        chosen,
        chosen.settings(quick),
        folder,
        clock=SystemClock(),
        data_folder=data_folder,
        on_done=show_progress(as_json),
        remark=show_remark,
    )
    figures = [
        {"name": figure.name, "title": figure.title}
        | {kind: str(folder / "figures" / file) for kind, file in draw(figure, folder / "figures").items()}
        for figure in found.report.figures
    ]
    return results_outcome(name, found, folder, figures)
