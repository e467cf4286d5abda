"""The commands that only read: ``sisa log``, ``sisa doctor``, ``sisa plan``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.commands.shared import DEFAULT_CONFIG, AsJson, Config, fields, with_federation
from deploy.views.output import Outcome

if TYPE_CHECKING:
    from cluster.federation import Federation
    from cluster.sites.federation import SiteFederation


def log(
    check: Annotated[bool, typer.Option("--check", help="Recompute the whole log.")] = False,
    earlier: Annotated[
        Path | None,
        typer.Argument(metavar="CHECKPOINT", help="An earlier checkpoint, or a receipt, that the log has to continue."),
    ] = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Recompute the receipts' log and prove that it continues an earlier checkpoint."""
    del check  # the command always checks; the option only says so

    def action(federation: Federation | SiteFederation) -> Outcome:
        from deploy.views.handed_over import read_log_checkpoint
        from deploy.views.receipts import log_outcome

        return log_outcome(federation.registrar.check_log(read_log_checkpoint(earlier) if earlier else None))

    with_federation(action, config, as_json, action)


def doctor(
    rows: Annotated[
        Path | None,
        typer.Option(
            "--rows",
            metavar="FILE",
            help="Write which rows of the sources still hold erased people: file,row,why (CSV).",
        ),
    ] = None,
    clean: Annotated[
        Path | None,
        typer.Option(
            "--clean", metavar="FOLDER", help="Write copies of these sources without these rows into this folder."
        ),
    ] = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Check installation, store, data, Ray and model before work starts; name sources that still hold erased people.

    The data are read as training reads them, and everything that training would refuse is listed.
    """

    def action(federation: Federation) -> Outcome:
        from deploy.views.diagnosis import diagnose

        return diagnose(federation, rows_in=rows, copies_in=clean)

    with_federation(action, config, as_json)


def plan(
    shards: Annotated[
        int | None, typer.Option("--shards", metavar="NUMBER", min=1, max=4096, help="Another S.")
    ] = None,
    slices: Annotated[
        int | None, typer.Option("--slices", metavar="NUMBER", min=1, max=4096, help="Another R.")
    ] = None,
    requests: Annotated[
        int, typer.Option("--requests", metavar="NUMBER", min=1, help="K: erasures served as one batch.")
    ] = 1,
    points: Annotated[
        int | None,
        typer.Option("--points", metavar="NUMBER", min=1, help="Another number of data points; the data are not read."),
    ] = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Forecast what training and erasing will cost: time, storage, speed-up over a full retrain.

    Data that are not trained on yet are read first, and everything that training would refuse is listed.
    """

    def action(federation: Federation) -> Outcome:
        from deploy.views.diagnosis import refused_data
        from deploy.views.text import forecast_text

        if points is None and (refused := refused_data(federation)):
            return refused
        found = federation.plan(shards=shards, slices=slices, requests=requests, points=points)
        return Outcome(data=forecast_fields(found), text=forecast_text(found))

    with_federation(action, config, as_json)


def forecast_fields(found: Any) -> dict[str, Any]:
    """Return a plan as the command's JSON: one flat object."""
    flat = fields(found)
    partition = flat["partition"]
    return {
        "shards": partition["shards"],
        "slices": partition["slices"],
        "workers": flat["workers"],
        **flat["basis"],
        **flat["forecast"],
        "storage_bytes": found.forecast.storage_bytes,
    }
