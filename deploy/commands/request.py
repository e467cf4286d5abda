"""The commands ``sisa request ...``: pause, extend, withdraw or show erasure requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deploy.commands.shared import DEFAULT_CONFIG, AsJson, Config, Url, with_either, with_federation
from deploy.views.output import Outcome

if TYPE_CHECKING:
    from cluster.client import Client
    from cluster.federation import Federation

requests = typer.Typer(
    name="request",
    rich_markup_mode=None,
    help="Pause, release, extend, withdraw, show or list erasure requests.",
    no_args_is_help=True,
)

Request = Annotated[str, typer.Argument(metavar="REQUEST", help="The erasure request, by its id.")]
Reason = Annotated[
    str,
    typer.Option("--reason", metavar="REASON", help="Why, in one line, without personal data: it is kept and shown."),
]


@requests.command()
def hold(
    request: Request, reason: Reason, config: Config = DEFAULT_CONFIG, url: Url = None, as_json: AsJson = False
) -> None:
    """Pause a request, such as for a legal hold, before any of it is removed; its due date moves by the pause."""

    def action(federation: Federation) -> Outcome:
        from deploy.views.erasure import changed_outcome

        return changed_outcome(federation.hold(request, reason), federation.status())

    def afar(client: Client) -> Outcome:
        from deploy.views.remote import remote_request

        return remote_request(client.hold(request, reason))

    with_either(action, afar, config, url, as_json)


@requests.command()
def release(request: Request, config: Config = DEFAULT_CONFIG, url: Url = None, as_json: AsJson = False) -> None:
    """End a request's pause and carry it out; its due date moves by the length of the pause."""

    def action(federation: Federation) -> Outcome:
        from deploy.views.erasure import carried_out

        return carried_out(federation, request, lambda: federation.release_request(request))

    def afar(client: Client) -> Outcome:
        from deploy.views.remote import remote_request

        return remote_request(client.release(request))

    with_either(action, afar, config, url, as_json)


@requests.command()
def extend(
    request: Request,
    days: Annotated[
        int, typer.Option("--days", metavar="DAYS", help="How many days later it is due; once, at most extension_days.")
    ],
    reason: Reason,
    config: Config = DEFAULT_CONFIG,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Move a request's due date, once and before it is overdue, with the reason on record."""

    def action(federation: Federation) -> Outcome:
        from deploy.views.erasure import changed_outcome

        return changed_outcome(federation.extend(request, days, reason), federation.status())

    def afar(client: Client) -> Outcome:
        from deploy.views.remote import remote_request

        return remote_request(client.extend(request, days, reason))

    with_either(action, afar, config, url, as_json)


@requests.command()
def cancel(
    request: Request, reason: Reason, config: Config = DEFAULT_CONFIG, url: Url = None, as_json: AsJson = False
) -> None:
    """Withdraw a request, before any of it is removed."""

    def action(federation: Federation) -> Outcome:
        from deploy.views.erasure import changed_outcome

        return changed_outcome(federation.cancel(request, reason), federation.status())

    def afar(client: Client) -> Outcome:
        from deploy.views.remote import remote_request

        return remote_request(client.cancel(request, reason))

    with_either(action, afar, config, url, as_json)


@requests.command()
def show(request: Request, config: Config = DEFAULT_CONFIG, url: Url = None, as_json: AsJson = False) -> None:
    """Show everything known about a request: states, pauses, extension, expected and actual cost."""

    def action(federation: Federation) -> Outcome:
        from deploy.views.watching import request_outcome

        return request_outcome(federation, request)

    def afar(client: Client) -> Outcome:
        from deploy.views.remote import remote_request

        return remote_request(client.request(request))

    with_either(action, afar, config, url, as_json)


@requests.command(name="list")
def list_(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """List every erasure request ever accepted, including those that ended long ago."""

    def action(federation: Federation) -> Outcome:
        from deploy.views.watching import requests_outcome

        return requests_outcome(federation.requests())

    with_federation(action, config, as_json)
