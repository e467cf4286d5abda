"""The commands that only read: ``sisa log``, ``sisa doctor``, ``sisa plan``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from deploy.commands.shared import DEFAULT_CONFIG, AsJson, Config, fields, with_federation
from deploy.views.output import Outcome

if TYPE_CHECKING:
    from cluster.federation import Federation
    from cluster.sites.federation import SiteFederation


_MOST: Final = 4096
"""Shards, and slices of a shard."""


def log(
    check: Annotated[bool, typer.Option("--check", help="Recompute the whole log.")] = False,
    earlier: Annotated[
        Path | None,
        typer.Argument(metavar="CHECKPOINT", help="An earlier checkpoint or a receipt; the log has to continue it."),
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
    optimise: Annotated[
        bool, typer.Option("--optimise", help="Recommend S and R, from what steps and requests cost on this machine.")
    ] = False,
    requests_per_month: Annotated[
        float | None,
        typer.Option("--requests-per-month", metavar="NUMBER", help="With --optimise: erasure requests to expect."),
    ] = None,
    points_per_request: Annotated[
        float | None,
        typer.Option(
            "--points-per-request", metavar="NUMBER", help="With --optimise: data points per request. Default: 1."
        ),
    ] = None,
    months: Annotated[
        float | None,
        typer.Option(
            "--months", metavar="NUMBER", help="With --optimise: how long to keep the federation. Default: 12."
        ),
    ] = None,
    price_cpu_hour: Annotated[
        float | None,
        typer.Option(
            "--price-cpu-hour", metavar="PRICE", help="With --optimise: the price of an hour of one processor."
        ),
    ] = None,
    price_gib_month: Annotated[
        float | None,
        typer.Option(
            "--price-gib-month", metavar="PRICE", help="With --optimise: the price of a GiB stored for a month."
        ),
    ] = None,
    tries: Annotated[
        list[str] | None,
        typer.Option(
            "--try",
            metavar="SxR",
            help="With --optimise: train S shards of R slices, measure accuracy, delete all of it; may be repeated.",
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            metavar="NUMBER",
            help="With --try: how much accuracy, compared with the best, may be given up to save costs. Default: 0.01.",
        ),
    ] = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Forecast what training and erasing will cost: time, storage, speed-up over a full retrain.

    With --optimise, recommend how many shards and slices to take.
    Data that are not trained on yet are read first, and everything that training would refuse is listed.
    """
    asked = {
        "requests_per_month": requests_per_month,
        "points_per_request": points_per_request,
        "months": months,
        "price_cpu_hour": price_cpu_hour,
        "price_gib_month": price_gib_month,
        "tries": tries,
        "tolerance": tolerance,
    }
    wish = {name: value for name, value in asked.items() if value not in (None, [])}
    if optimise:
        others = {"--shards": shards, "--slices": slices, "--points": points, "--requests": requests - 1 or None}
        _optimised(wish, [name for name, value in others.items() if value is not None], config, as_json)
    if wish:
        option = "--try" if "tries" in wish else f"--{next(iter(wish)).replace('_', '-')}"
        raise typer.BadParameter(f"{option} belongs to --optimise: add that, or leave it out")

    def action(federation: Federation) -> Outcome:
        from deploy.views.diagnosis import refused_data
        from deploy.views.text import forecast_text

        if points is None and (refused := refused_data(federation)):
            return refused
        found = federation.plan(shards=shards, slices=slices, requests=requests, points=points)
        return Outcome(data=forecast_fields(found), text=forecast_text(found))

    with_federation(action, config, as_json)


def _optimised(wish: dict[str, Any], others: list[str], config: Path, as_json: bool) -> NoReturn:
    """Recommend numbers of shards and slices; ``others`` are given options that belong to the plain forecast."""
    if others:
        raise typer.BadParameter(f"{others[0]} asks about one partition, and --optimise compares them: leave one out")
    if "requests_per_month" not in wish:
        raise typer.BadParameter("--optimise needs --requests-per-month: how many erasure requests to expect")
    tries = [_layout(text) for text in wish.pop("tries", [])]

    def action(federation: Federation) -> Outcome:
        from cluster.writer.optimising import Wish
        from coordinator.decisions.optimise import Layout
        from deploy.views.diagnosis import refused_data
        from deploy.views.plans.optimisation import optimised_fields, optimised_text

        asked = Wish(**wish, tries=tuple(Layout(shards, slices) for shards, slices in tries))
        asked.demand(federation.specification)  # raises before data are read
        if refused := refused_data(federation):
            return refused
        found = federation.optimise(asked)
        return Outcome(data=optimised_fields(found), text=optimised_text(found))

    with_federation(action, config, as_json)


def _layout(text: str) -> tuple[int, int]:
    """Return the numbers of shards and slices in a text such as ``20x10``."""
    found = re.fullmatch(r"([0-9]{1,4})[x×X]([0-9]{1,4})", text.strip())
    shards, slices = (int(each) for each in found.groups()) if found else (0, 0)
    if not 1 <= shards <= _MOST or not 1 <= slices <= _MOST:
        raise typer.BadParameter(
            f"--try takes shards and slices as SxR, each from 1 to {_MOST}, such as 20x10; got {text!r}"
        )
    return shards, slices


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
