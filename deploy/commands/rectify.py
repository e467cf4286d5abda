"""The command ``sisa rectify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from deploy.commands.shared import CHOICE, DEFAULT_CONFIG, AsJson, Config, HoldReason, RequestId, Wait, with_federation
from deploy.views.output import Outcome

if TYPE_CHECKING:
    from cluster.federation import Federation
    from cluster.sites.federation import SiteFederation


def rectify(
    file: Annotated[
        Path,
        typer.Option("--file", metavar="FILE", help="The corrected rows, with the columns of the training data."),
    ],
    request_id: RequestId = None,
    hold: HoldReason = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what it would cost, and which rows are unknown.")
    ] = False,
    wait: Wait = False,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Correct data points: submit their right values, as one request, and carry it out.

    The values are checked and stored, encrypted, before the request is accepted. It is carried out like an erasure,
    and 'sisa request' pauses, extends or withdraws it. Correct the source, too: until then training keeps the corrected
    values and says so.
    """

    def action(federation: Federation) -> Outcome:
        from deploy.views.erasure import check_given
        from deploy.views.rectification import correction_price, rectify

        if CHOICE.get().site is not None:
            _refuse_sites()
        check_given(request_id, hold)
        if dry_run:
            return correction_price(federation.price_correction(file), file)
        return rectify(federation, file, request_id=request_id, hold=hold, wait=wait)

    def together(_: SiteFederation) -> Outcome:
        _refuse_sites()

    with_federation(action, config, as_json, together)


def _refuse_sites() -> NoReturn:
    from storage.errors import Invalid

    raise Invalid(
        "a federation of several sites cannot carry out corrections",
        "Correct the rows in the site's source and run 'sisa train' there, or erase the data points with 'sisa erase"
        " --id' and add them under new ids.",
    )
