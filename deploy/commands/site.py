"""The commands ``sisa site ...``: what is asked of a site through the federation that it is part of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.commands.shared import DEFAULT_CONFIG, AsJson, Config, with_sites
from deploy.views.output import Outcome

if TYPE_CHECKING:
    from cluster.sites.federation import SiteFederation

sites = typer.Typer(
    name="site",
    rich_markup_mode=None,
    help="Erase at a site of a federation of several, or withdraw a whole site.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="SITE", help="The site, by its name in the specification.")]


@sites.command()
def erase(
    site: Name,
    subject: Annotated[
        list[str] | None, typer.Option("--subject", metavar="NAME", help="A subject to erase; may be repeated.")
    ] = None,
    id_: Annotated[
        list[str] | None, typer.Option("--id", metavar="NAME", help="A data point to erase; may be repeated.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="A text file, one subject a line.")
    ] = None,
    file_of: Annotated[
        str, typer.Option("--file-of", metavar="KIND", help="What the file's lines name: subjects or ids.")
    ] = "subjects",
    request_id: Annotated[
        str | None, typer.Option("--request-id", metavar="ID", help="The same id is the same request.")
    ] = None,
    hold: Annotated[str | None, typer.Option("--hold", metavar="REASON", help="Submit it paused.")] = None,
    include_similar: Annotated[
        bool,
        typer.Option("--include-similar", help="Erase subjects whose names differ only in case or spacing, too."),
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is complete.")] = False,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Erase people or data points at one site: ids are matched within a site, and mean nothing at another one.

    A site that is away accepts nothing, and the command says so: submit again when it is back.
    """

    def action(federation: SiteFederation) -> Outcome:
        from deploy.views.erasure import check_told, named
        from deploy.views.sites import erase_at_site

        check_told(request_id, hold)
        return erase_at_site(
            federation,
            site,
            named(subject or [], id_ or [], [], file, file_of),
            request_id=request_id,
            hold=hold,
            wait=wait,
            include_similar=include_similar,
        )

    with_sites(action, config, as_json)


@sites.command()
def withdraw(
    site: Name,
    reason: Annotated[
        str, typer.Option("--reason", metavar="REASON", help="Why, in a line, without personal data: it is kept.")
    ],
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Take a whole site out, for good: no answer uses its constituents any more, then all that it holds is erased.

    The second part is done when the site can be reached: now, or by the next 'sisa train', or by this command again.
    """

    def action(federation: SiteFederation) -> Outcome:
        from deploy.views.sites import withdraw_site

        return withdraw_site(federation, site, reason)

    with_sites(action, config, as_json)
