"""The commands ``sisa serve`` and ``sisa token ...``: the HTTP API, and who may use it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.commands.shared import (
    CHOICE,
    DEFAULT_CONFIG,
    AsJson,
    Config,
    finish,
    is_of_all_sites,
    read_all_sites,
    read_chosen,
    site_settings,
    telling,
)
from deploy.views.output import Outcome, json_value
from storage.release import RELEASE

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.serving.deployment import Serving
    from cluster.tokens import TokenRecord, TokenRegister

tokens = typer.Typer(
    name="token", rich_markup_mode=None, help="Make, list and revoke tokens for the HTTP API.", no_args_is_help=True
)


def serve(
    stop: Annotated[bool, typer.Option("--stop", help="End serving; the coordinator stays at work.")] = False,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Serve predictions and erasure requests over HTTP, on the Ray cluster of the federation's coordinator.

    If no coordinator is running, one is launched. The API keeps running after the command ends: 'sisa serve' updates it
    to the current specification, and 'sisa serve --stop' ends it. [serve] sets its address, by default this machine's
    own.
    """
    finish((lambda: _stopped(config)) if stop else (lambda: _served(config)), as_json)


@tokens.command()
def create(
    role: Annotated[
        str,
        typer.Option(
            "--role",
            metavar="ROLE",
            help="predict, erase (submits erasure requests, reads its own), audit (reads all, changes nothing) or "
            "officer (submits, intervenes, reads all); at a site also federate, for the federation's own server.",
        ),
    ],
    days: Annotated[
        float, typer.Option("--days", metavar="DAYS", help="The token expires after this many days.")
    ] = 90.0,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="For whom or what, without personal data.")] = "",
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it on stdout, once: only its digest is kept.

    To replace one, make another and revoke the old one.
    """

    def action() -> Outcome:
        made = _register(config, check=True).create(role, days=days, note=note)
        if not as_json:  # stdout gets the token alone, for a file or a variable
            sys.stderr.write(f"shown this once: a token that may {role} until {made.record.expires_at}\n")
        return Outcome(data={"token": made.text, **_fields(made.record)}, text=made.text)

    finish(action, as_json)


@tokens.command("list")
def list_(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """List all tokens ever made, without their secrets."""

    def action() -> Outcome:
        from deploy.views.tables import table

        records = _register(config).records()
        lines = [
            (each.token_id, each.role, each.created_at, "revoked" if each.revoked_at else each.expires_at, each.note)
            for each in records
        ]
        shown = table(("token", "role", "made", "good until", "note"), lines) if lines else "no token was made yet"
        return Outcome(data={"tokens": [_fields(each) for each in records]}, text=shown)

    finish(action, as_json)


@tokens.command()
def revoke(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="The token's id, as 'sisa token list' shows it.")],
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Revoke a token for good; replicas refuse it within [serve] refresh_seconds."""

    def action() -> Outcome:
        record = _register(config, check=True).revoke(token)
        return Outcome(data=_fields(record), text=f"token {record.token_id} is revoked since {record.revoked_at}")

    finish(action, as_json)


def _served(config: Path) -> Outcome:
    require_serve()
    if is_of_all_sites(config):
        from cluster.serving.sites_deployment import serve_sites

        sites = read_all_sites(config)
        return _serving(sites.name, serve_sites(sites))
    from cluster.serving.deployment import serve_federation

    specification = read_chosen(config)
    with telling(f"waiting for the coordinator and the replicas of {specification.name} to start"):
        serving = serve_federation(specification, site_settings(config))
    return _serving(specification.name, serving)


def _serving(name: str, serving: Serving) -> Outcome:
    sisa = f"sisa --site {site}" if (site := CHOICE.get().site) else "sisa"
    text = (
        f"{name} is served at {serving.url} by {serving.replicas} replica{'s' * (serving.replicas > 1)}"
        f" of release {RELEASE}\n"
        f"its methods: {serving.url}/docs; tokens: '{sisa} token create'; to end it: '{sisa} serve --stop'"
    )
    return Outcome(data={"federation": name, **json_value(serving), "release": RELEASE}, text=text)


def _stopped(config: Path) -> Outcome:
    require_serve()
    if is_of_all_sites(config):
        from cluster.serving.sites_deployment import stop_serving_sites

        sites = read_all_sites(config)
        name, was_served = sites.name, stop_serving_sites(sites)
    else:
        from cluster.serving.deployment import stop_serving

        specification = read_chosen(config)
        name, was_served = specification.name, stop_serving(specification)
    text = f"{name} is no longer served" if was_served else f"{name} was not served"
    return Outcome(data={"federation": name, "stopped": was_served}, text=text)


def require_serve() -> None:
    """Raise ``Invalid`` when the packages that serve are not installed."""
    from importlib.util import find_spec

    from storage.errors import Invalid

    if missing := [name for name in ("fastapi", "uvicorn", "aiohttp") if find_spec(name) is None]:
        raise Invalid(f"{missing[0]} is not installed, which serving needs", "Run pip install 'sisa-ray[serve]'.")


def _register(config: Path, *, check: bool = False) -> TokenRegister:
    """Return the register of tokens. With ``check`` raise ``Conflict`` when the store is a copy of another one."""
    from cluster.runtime.system import SystemClock
    from cluster.tokens import TokenRegister
    from cluster.writer.place import check_place
    from deploy.commands.launch import store_of

    _, store = store_of(config)
    if check:
        check_place(store)
    return TokenRegister(store, SystemClock())


def _fields(record: TokenRecord) -> dict[str, Any]:
    """Return the fields of a token that may be shown: all but its digest, which only the register uses."""
    shown: dict[str, Any] = json_value(record)
    del shown["digest"]
    return shown
