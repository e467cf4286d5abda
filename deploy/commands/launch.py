"""The commands ``sisa launch``, ``sisa stop`` and ``sisa adopt``: a coordinator that outlives the command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.commands.shared import (
    DEFAULT_CONFIG,
    AsJson,
    Config,
    finish,
    is_of_all_sites,
    read_all_sites,
    read_chosen,
    telling,
)
from deploy.views.output import Outcome, json_value
from storage.release import RELEASE

if TYPE_CHECKING:
    from storage.encryption.store import SealedStore


def launch(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Start the federation's coordinator on its Ray cluster; other commands then hand their work to it.

    With [cluster] address = "local" a Ray of its own is started on this machine, and stays until 'sisa stop'.
    """

    def action() -> Outcome:
        if is_of_all_sites(config):
            return _launched_sites(config)
        from cluster.coordinator_actor.launch import launch_coordinator
        from cluster.coordinator_actor.record import releases_of
        from cluster.writer.stores import open_objects

        specification = read_chosen(config)
        with telling(f"waiting for the coordinator of {specification.name} to start"):
            launched = launch_coordinator(specification)
        releases = releases_of(open_objects(specification))
        text = (
            f"the coordinator of {specification.name} is at work on the Ray cluster at {launched.address}\n"
            f"its release is {releases['coordinator']}; other commands find it by the store; 'sisa stop' ends it"
        )
        if releases.get("server", RELEASE) != releases["coordinator"]:
            text += f"\nthe API is still served by release {releases['server']}: run 'sisa serve'"
        return Outcome(data={"federation": specification.name, **json_value(launched), "releases": releases}, text=text)

    finish(action, as_json)


def stop(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """End the coordinator after its current step. Another coordinator, or the next command that writes, continues."""

    def action() -> Outcome:
        if is_of_all_sites(config):
            return _stopped_sites(config)
        from cluster.coordinator_actor.launch import stop_coordinator
        from cluster.writer.stores import open_objects

        specification = read_chosen(config)
        was_there = stop_coordinator(open_objects(specification))
        text = f"the coordinator of {specification.name} is stopped" if was_there else "no coordinator was launched"
        return Outcome(data={"federation": specification.name, "stopped": was_there}, text=text)

    finish(action, as_json)


def adopt(
    reason: Annotated[
        str, typer.Option("--reason", metavar="REASON", help="Why, for the record; without personal data.")
    ],
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Turn a copy of a store into a separate federation. Until then, commands on the copy are refused.

    The original and its coordinator are not touched. End them first if the copy is to replace them.
    """

    def action() -> Outcome:
        from cluster.coordinator_actor.launch import adopt_copy
        from cluster.runtime.system import SystemClock
        from storage.objects import new_name

        name, store = store_of(config)
        adopted = adopt_copy(store, reason, SystemClock().now(), new_name())
        text = (
            f"this copy of {name} is a separate federation now, and no longer names the coordinator of the original\n"
            "it is recorded in the store, under control/adoptions; 'sisa launch' starts a coordinator"
        )
        return Outcome(data={"federation": name, **json_value(adopted)}, text=text)

    finish(action, as_json)


def store_of(config: Path) -> tuple[str, SealedStore]:
    """Return a federation's name and its store; for several sites, the federation's own store."""
    from cluster.config.sites import open_own_store
    from cluster.writer.stores import open_objects
    from storage.encryption.store import SealedStore

    if is_of_all_sites(config):
        sites = read_all_sites(config)
        return sites.name, SealedStore(open_own_store(sites))
    specification = read_chosen(config)
    return specification.name, open_objects(specification)


def _launched_sites(config: Path) -> Outcome:
    from cluster.sites.federation import connect_sites

    with connect_sites(read_all_sites(config)) as federation:
        by_site = federation.launch()
    return Outcome(data={"federation": federation.specification.name, "sites": by_site}, text=_lines(by_site))


def _stopped_sites(config: Path) -> Outcome:
    from cluster.sites.federation import connect_sites

    with connect_sites(read_all_sites(config)) as federation:
        by_site = federation.stop()
    return Outcome(data={"federation": federation.specification.name, "sites": by_site}, text=_lines(by_site))


def _lines(by_site: dict[str, str]) -> str:
    return "\n".join(f"site {site}: {words}" for site, words in by_site.items())
