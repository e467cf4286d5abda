"""The command ``sisa rectify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from deploy.commands.shared import DEFAULT_CONFIG, AsJson, Config, HoldReason, RequestId, Wait, with_federation
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
    values and says so. Of several sites each corrects the data points of its own people ('sisa --site NAME rectify').
    """

    def action(federation: Federation) -> Outcome:
        from deploy.views.erasure import check_given
        from deploy.views.rectification import correction_price, rectify

        check_given(request_id, hold)
        if dry_run:
            return correction_price(federation.price_correction(file), file)
        return rectify(federation, file, request_id=request_id, hold=hold, wait=wait)

    def together(_: SiteFederation) -> NoReturn:
        from storage.errors import Invalid

        raise Invalid(
            "the file holds values of people, which do not leave their site: each site carries out its own corrections",
            "Run 'sisa --site NAME rectify' for each site, where its store is, with the rows of its own people alone."
            " An id means a data point of that site only.",
        )

    with_federation(action, config, as_json, together)
