"""What all commands share: options, opening the federation, and ending with an exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from cluster.config.file import require
from deploy.settings import read_environment
from deploy.views.output import Outcome, json_value, run

if TYPE_CHECKING:
    from cluster.client import Client
    from cluster.config.sites import SiteSettings, SitesSpecification
    from cluster.config.specification import FederationSpecification
    from cluster.federation import Federation
    from cluster.sites.federation import SiteFederation

Config = Annotated[
    Path, typer.Option("--config", metavar="FILE", help="The federation's specification.", show_default=True)
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL", help="Ask the server there, as the bearer of SISA_TOKEN; needs no specification."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]

ErasedSubjects = Annotated[
    list[str] | None, typer.Option("--subject", metavar="NAME", help="A subject to erase; may be repeated.")
]
ErasedIds = Annotated[
    list[str] | None, typer.Option("--id", metavar="NAME", help="A data point to erase; may be repeated.")
]
NamesFile = Annotated[Path | None, typer.Option("--file", metavar="FILE", help="A text file, one subject per line.")]
FileOf = Annotated[
    str, typer.Option("--file-of", metavar="KIND", help="What the lines of the file are: subjects or ids.")
]
RequestId = Annotated[
    str | None,
    typer.Option("--request-id", metavar="ID", help="Repeating the command with the same id changes nothing."),
]
HoldReason = Annotated[
    str | None, typer.Option("--hold", metavar="REASON", help="Submit it paused, for example for a legal hold.")
]
IncludeSimilar = Annotated[
    bool, typer.Option("--include-similar", help="Erase subjects whose names differ only in case or spacing, too.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until it is complete.")]

DEFAULT_CONFIG: Final = Path("sisa.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The options ``--site`` and ``--simulate``, for federations of several sites."""

    site: str | None = None
    """Act as this site, on its own store."""
    simulate: bool = False
    """Have all sites on this machine, in folders."""

    @property
    def is_made(self) -> bool:
        """Whether one of the options is given."""
        return self.site is not None or self.simulate


_NOTHING: Final = Choice()

CHOICE: Final = ContextVar("CHOICE", default=_NOTHING)
"""The choice for the running command."""


def read_chosen(config: Path) -> FederationSpecification:
    """Return the specification in ``config``, or of the site in it that was chosen. Raises as ``read_sites`` does."""
    from cluster.config.sites import has_sites
    from cluster.config.specification import read_specification

    if has_sites(config):
        return read_all_sites(config).site(_chosen_site(config)).specification
    _refuse_choice(config)
    return read_specification(config)


def read_all_sites(config: Path) -> SitesSpecification:
    """Return the specification of several sites in ``config``, simulated if that was chosen."""
    from cluster.config.sites import read_sites
    from cluster.sites.simulation import simulated

    specification = read_sites(config)
    return simulated(specification) if CHOICE.get().simulate else specification


def site_settings(config: Path) -> SiteSettings | None:
    """Return the own settings of the chosen site in ``config``; None if the federation has no sites."""
    from cluster.config.sites import has_sites

    return read_all_sites(config).site(_chosen_site(config)).settings if has_sites(config) else None


def is_of_all_sites(config: Path) -> bool:
    """Return whether ``config`` has several sites, and none was chosen. Raises ``Invalid`` where there is no file."""
    require(config)
    from cluster.config.sites import has_sites

    return has_sites(config) and CHOICE.get().site is None


def with_federation(
    action: Callable[[Federation], Outcome],
    config: Path,
    as_json: bool,
    together: Callable[[SiteFederation], Outcome] | None = None,
) -> NoReturn:
    """Run ``action`` on the federation that ``config`` describes, with progress on stderr.

    If it has several sites and none was chosen, run ``together`` on all of them, if that is given.
    """

    def whole() -> Outcome:
        require(config)
        import cluster
        from deploy.views.progress import listening

        with listening() as listener:
            if together is not None and is_of_all_sites(config):
                from cluster.sites.federation import connect_sites

                with connect_sites(read_all_sites(config), listener=listener) as sites:
                    return together(sites)
            with cluster.connect(read_chosen(config), listener=listener) as federation:
                return action(federation)

    finish(whole, as_json)


def with_sites(action: Callable[[SiteFederation], Outcome], config: Path, as_json: bool) -> NoReturn:
    """Do ``action`` on the federation of several sites that ``config`` describes, with progress on stderr."""

    def whole() -> Outcome:
        require(config)
        from cluster.sites.federation import connect_sites
        from deploy.views.progress import listening

        with listening() as listener, connect_sites(read_all_sites(config), listener=listener) as federation:
            return action(federation)

    finish(whole, as_json)


def with_either(
    action: Callable[[Federation], Outcome],
    afar: Callable[[Client], Outcome],
    config: Path,
    url: str | None,
    as_json: bool,
    together: Callable[[SiteFederation], Outcome] | None = None,
) -> NoReturn:
    """Run ``afar`` on the HTTP API at ``url`` if that is given, and otherwise do as ``with_federation``.

    ``afar`` loads neither Ray nor torch, and takes its token from the environment.
    """
    if url is None:
        with_federation(action, config, as_json, together)
    if CHOICE.get().simulate:
        raise typer.BadParameter("--simulate needs a specification, and --url asks a server")
    if config != DEFAULT_CONFIG:
        raise typer.BadParameter("--config names a federation and --url a server: give one of the two")

    def whole() -> Outcome:
        from deploy.views.remote import open_client

        with open_client(url, read_environment().token) as client:
            return afar(client)

    finish(whole, as_json)


def _chosen_site(config: Path) -> str:
    from storage.errors import Invalid

    site = CHOICE.get().site
    if site is None:
        raise Invalid(
            f"{config.name} has several sites, and this command acts on one of them",
            "Write 'sisa --site NAME' before the command, where that site's store is.",
            file=str(config),
        )
    return site


def _refuse_choice(config: Path) -> None:
    from storage.errors import Invalid

    if CHOICE.get().is_made:
        raise Invalid(
            f"{config.name} has no sites, and --site or --simulate was given",
            "Leave it out, or write the sites as tables [[site]].",
            file=str(config),
        )


def refuse_site(why: str) -> None:
    """Raise ``Invalid`` when a site is chosen where none can be."""
    from storage.errors import Invalid

    if CHOICE.get().site is not None:
        raise Invalid(f"--site cannot be used here: {why}", "Leave it out, or ask the site's own server.")


@contextmanager
def telling(what: str) -> Iterator[None]:
    """While the block runs, print on stderr from time to time what it waits for, and since when."""
    from cluster.runtime.process import reporting_wait
    from coordinator.ports import Remark
    from deploy.views.progress import listening

    with listening() as listener, reporting_wait(lambda text: listener(Remark(text=text)), what):
        yield


def finish(action: Callable[[], Outcome], as_json: bool) -> NoReturn:
    """Run ``action``, print its outcome, and exit with its code."""
    raise typer.Exit(run(action, as_json=as_json, tracebacks=read_environment().tracebacks))


def fields(value: Any) -> dict[str, Any]:
    """Return a result's fields, ready for JSON."""
    found: dict[str, Any] = json_value(value)
    return found
