"""The commands ``sisa site ...``: acting on a site through the federation that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deploy.commands.shared import (
    DEFAULT_CONFIG,
    AsJson,
    Config,
    ErasedIds,
    ErasedSubjects,
    FileOf,
    HoldReason,
    IncludeSimilar,
    NamesFile,
    RequestId,
    Wait,
    with_sites,
)
from deploy.views.output import Outcome

if TYPE_CHECKING:
    from cluster.sites.federation import SiteFederation

sites = typer.Typer(
    name="site",
    rich_markup_mode=None,
    help="Erase at a site of a federation of several, or withdraw a whole site.",
    no_args_is_help=True,
)

SiteName = Annotated[str, typer.Argument(metavar="SITE", help="The site, by its name in the specification.")]


@sites.command()
def erase(
    site: SiteName,
    subject: ErasedSubjects = None,
    id_: ErasedIds = None,
    file: NamesFile = None,
    file_of: FileOf = "subjects",
    request_id: RequestId = None,
    hold: HoldReason = None,
    include_similar: IncludeSimilar = False,
    wait: Wait = False,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Erase people or data points at one site; names are looked up at that site alone.

    If the site cannot be reached, the command fails: submit the request again when the site is back.
    """

    def action(federation: SiteFederation) -> Outcome:
        from deploy.views.erasure import check_given, given_names
        from deploy.views.sites import erase_at_site

        check_given(request_id, hold)
        return erase_at_site(
            federation,
            site,
            given_names(subject or [], id_ or [], [], file, file_of),
            request_id=request_id,
            hold=hold,
            wait=wait,
            include_similar=include_similar,
        )

    with_sites(action, config, as_json)


@sites.command()
def withdraw(
    site: SiteName,
    reason: Annotated[
        str, typer.Option("--reason", metavar="REASON", help="Why, in one line, without personal data: it is kept.")
    ],
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Withdraw a whole site for good: answers no longer use its constituents, then all data that it holds is erased.

    Its data are erased when the site can be reached: now, by the next 'sisa train', or by repeating this command.
    """

    def action(federation: SiteFederation) -> Outcome:
        from deploy.views.sites import withdraw_site

        return withdraw_site(federation, site, reason)

    with_sites(action, config, as_json)
