"""The commands for those who answer people: ``sisa report`` and ``sisa trace``."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.commands.shared import CHOICE, DEFAULT_CONFIG, AsJson, Config, Url, with_either
from deploy.views.output import Outcome

if TYPE_CHECKING:
    from cluster.client import Client
    from cluster.federation import Federation
    from cluster.letters.letter import PersonalPart
    from cluster.sites.federation import SiteFederation


def report(
    request: Annotated[str, typer.Argument(metavar="REQUEST", help="An erasure request, correction or readmission.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The letter, an HTML file to print or to send.")],
    salutation: Annotated[
        str,
        typer.Option("--salutation", metavar="TEXT", help="Such as 'Dear Ms Example'; by default there is none."),
    ] = "",
    salt: Annotated[
        str,
        typer.Option("--salt", metavar="SALT", help="The request's salt, so that the person can check the receipt."),
    ] = "",
    config: Config = DEFAULT_CONFIG,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Write the letter to the person who asked: what was found and removed, what is proven, how to check it.

    It checks the receipt first, and writes no letter if that is not genuine (exit code 3). Without a receipt it
    describes the state of the request. Nothing that you enter for the letter is kept.
    """

    def action(federation: Federation) -> Outcome:
        from deploy.views.people.letters import letter_outcome

        return letter_outcome(federation, request, out, *_given(salutation, salt))

    def afar(client: Client) -> Outcome:
        from deploy.views.people.letters import remote_letter

        return remote_letter(client, request, out, *_given(salutation, salt), CHOICE.get().site)

    def together(federation: SiteFederation) -> Outcome:
        from deploy.views.people.letters import letter_at_sites

        return letter_at_sites(federation, request, out, *_given(salutation, salt))

    with_either(action, afar, config, url, as_json, together)


def _given(salutation: str, salt: str) -> tuple[PersonalPart, datetime]:
    """Return the personal part of a letter, and its date. Raises ``Invalid`` when it cannot be printed."""
    from cluster.letters.letter import PersonalPart
    from cluster.runtime.system import SystemClock

    return PersonalPart(salutation=salutation, salt=salt), SystemClock().now()


def trace(
    subject: Annotated[list[str], typer.Option("--subject", metavar="NAME", help="A subject; may be repeated.")],
    config: Config = DEFAULT_CONFIG,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show where a person's data are: slices, checkpoints, requests, and the generations that may have known them.

    For an erased person it shows what the store may still have. Nothing is recorded, neither the names nor the look-up
    itself. With --url the token's role is officer, and each call counts as a look-up.
    """

    def action(federation: Federation) -> Outcome:
        from deploy.views.people.traces import trace_outcome

        return trace_outcome(federation.trace(subject), subject)

    def afar(client: Client) -> Outcome:
        from deploy.views.people.traces import trace_outcome

        return trace_outcome(client.trace(subject), subject)

    with_either(action, afar, config, url, as_json)
