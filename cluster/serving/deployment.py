"""Ray Serve around the API: replicas that Serve starts, restarts and routes to.

A generation is not part of the deployment: each replica reads it from the store, at its start and whenever it changes.
So a new generation restarts nothing, and a replica that Serve restarts is as current as any other.
"""

from __future__ import annotations

import logging
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import RayServeException

from cluster.config.serve import ServeSettings
from cluster.config.sites import SiteSettings, read_sites
from cluster.config.specification import ClusterSettings, FederationSpecification, read_specification
from cluster.coordinator_actor.launch import (
    find_coordinator,
    is_at_work,
    launch_coordinator,
    namespace_of,
    stop_coordinator,
)
from cluster.coordinator_actor.log_lines import LogLines
from cluster.coordinator_actor.metrics import ReplicaGauges
from cluster.coordinator_actor.ray_metrics import replica_gauges_of
from cluster.coordinator_actor.record import note_release
from cluster.release import OtherRelease, Sent, refusal_in
from cluster.runtime.guard import check_rooms
from cluster.runtime.labels import check_here, selecting
from cluster.runtime.system import SystemClock
from cluster.serving.app import build_app
from cluster.serving.auth import Gate
from cluster.serving.erasures import Accepting
from cluster.serving.intake import ONGOING
from cluster.serving.service import open_service
from cluster.training.actor import keep_silent
from cluster.writer.identity import with_key_in_store
from cluster.writer.stores import open_objects
from storage.errors import Conflict, Corrupt, Invalid, Unavailable
from storage.location import is_on_s3
from storage.objects import ObjectStore

_HEALTH_SECONDS: Final = 5.0

_CONTROLLER: Final = {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60"}
"""Environment of Serve's controller. By default it ends a proxy that is not ready after 5 seconds, which happens on a
busy machine, and ``serve.start`` fails with it.
"""

logging.getLogger("ray.serve").setLevel(logging.WARNING)  # its other messages are of no use to the user of a command

_deployment: Any = serve.deployment  # its types take a class for a function that makes deployments


class ReplicaShell:
    """One replica as Serve knows it: it forwards each call."""

    def __init__(self, sent: Sent[tuple[FederationSpecification, SiteSettings | None]]) -> None:
        check_rooms()
        specification, site = sent.opened("replica")
        check_here(specification.cluster.labels)
        lines = log_lines(specification.name)
        store = open_objects(specification)
        self._service = open_service(specification, partial(_coordinator, store), site=site)
        self._app = build_app(self._service, lines, names_requests=False)
        self._gauges = replica_gauges_of(specification.name)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the API."""
        return self._app

    def check_health(self) -> None:
        """See ``check_replica``."""
        check_replica(self._service, self._gauges)


def application(arguments: dict[str, str]) -> serve.Application:
    """Return the application, for Serve config files: ``import_path: cluster.serving.deployment:application``.

    ``arguments`` are the file's ``args``: ``config``, the path of ``sisa.toml`` on the node where Serve's controller
    builds the application, and, for a file with several sites, ``site``: the name of the one to serve here.
    """
    config = Path(arguments["config"])
    if "site" not in arguments:
        return application_of(read_specification(config))
    site = read_sites(config).site(arguments["site"])
    return application_of(site.specification, site.settings)


def application_of(specification: FederationSpecification, site: SiteSettings | None = None) -> serve.Application:
    """Return the federation's application, ready to be run. Replicas read the partition key from the store."""
    specification = with_key_in_store(open_objects(specification), specification)
    place = place_of_replicas(specification.cluster, specification.store)
    bound: serve.Application = deployed(ReplicaShell, specification.serve, place).bind(Sent((specification, site)))
    return bound


def deployed(shell: type, settings: ServeSettings, place: dict[str, Any]) -> Any:
    """Return the deployment of ``shell`` with these settings, on the nodes that ``place`` selects."""
    return _deployment(serve.ingress()(shell)).options(
        name="replica",
        num_replicas=settings.replicas,
        max_ongoing_requests=ONGOING,
        health_check_period_s=_HEALTH_SECONDS,
        ray_actor_options={"num_cpus": settings.cpus_per_replica, **place},
        logging_config={"enable_access_log": False},
    )


class Checked(Protocol):
    """The part of a replica's service that its health check needs."""

    @property
    def gate(self) -> Gate:
        """The gate that its callers pass."""
        ...

    def check(self) -> None:
        """Raise when the replica cannot answer now."""
        ...


def check_replica(service: Checked, gauges: ReplicaGauges) -> None:
    """Report a replica's state to monitoring. Serve calls this every few seconds.

    Raises only for faults that a new replica would fix: a new one could not reach an unreachable store either.
    """
    is_ready = False
    with suppress(Unavailable, Corrupt, Invalid, Conflict):
        service.check()
        is_ready = True
    gauges.show(is_ready=is_ready, tokens=service.gate.tokens)


def log_lines(name: str) -> LogLines:
    """Return where a replica logs, and silence its other output, which nobody reads."""
    lines = LogLines(name, SystemClock(), os.fdopen(os.dup(1), "w", encoding="utf-8"))
    keep_silent()
    return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Where a federation is served."""

    url: str
    replicas: int
    launched: bool
    """Whether a coordinator had to be launched for it."""


def serve_federation(specification: FederationSpecification, site: SiteSettings | None = None) -> Serving:
    """Serve the federation on its coordinator's Ray cluster, launching the coordinator if it does not run.

    If the federation is already served, replicas under this specification replace the old ones, which answer until the
    new ones do. ``site`` holds its own settings if it is one of several sites.

    Raises ``Conflict`` when the port is taken or Serve listens elsewhere on this cluster, ``Unavailable`` when the
    replicas do not start, and as ``launch_coordinator`` does. A coordinator that this call launched is then ended.
    """
    store = open_objects(specification)
    is_launched = find_coordinator(store, lambda _: None, lambda _: None) is None
    if is_launched:
        launch_coordinator(specification)
    try:
        run_application(application_of(specification, site), namespace_of(specification, store), specification.serve)
    except BaseException:
        if is_launched:
            stop_coordinator(store)
        raise
    note_release(store, "server", is_there=True)
    return Serving(url=specification.serve.url, replicas=specification.serve.replicas, launched=is_launched)


def run_application(application: serve.Application, name: str, settings: ServeSettings) -> None:
    """Run an application on the Ray cluster that this process is part of; returns when its replicas answer.

    Raises ``Conflict`` when the port or the prefix is taken, ``Unavailable`` when the replicas do not start; a new
    application is then removed again.
    """
    is_new = name not in serve.status().applications
    _start(settings)
    try:
        serve.run(application, name=name, route_prefix=settings.prefix)
    except (RayServeException, RayTaskError) as error:
        raise Conflict(
            "Ray Serve refuses the application: most likely another one on this cluster has its prefix",
            "Give [serve] another prefix, or end the other application: see 'serve status'.",
            prefix=settings.prefix,
        ) from error
    except (RuntimeError, TimeoutError) as error:
        refused = _refusal(name, str(error))  # before the application, which holds the messages, is ended
        if is_new:
            end_application(name)
        if refused is not None:
            raise refused from error
        raise Unavailable(
            "the replicas did not start",
            "Check 'serve status' and Ray's logs, and that the store can be reached from the replicas' nodes.",
        ) from error


def _refusal(name: str, message: str) -> OtherRelease | None:
    """Return the error if replicas did not start because they run another release; Serve keeps their errors' texts."""
    application = serve.status().applications.get(name)
    kept = [each.message for each in application.deployments.values()] if application else []
    return refusal_in("\n".join([message, *kept]), "a node where a replica was started")


def stop_serving(specification: FederationSpecification) -> bool:
    """End serving, after the requests under way; return whether the federation was served.

    The coordinator stays at work, and so does Serve while it serves others.
    """
    store = open_objects(specification)
    if not is_at_work(store) and not ray.is_initialized():
        return False
    was_served = end_application(namespace_of(specification, store))
    note_release(store, "server", is_there=False)
    return was_served


def end_application(name: str) -> bool:
    """End an application after the requests under way; return whether there was one. Serve ends with the last."""
    served = serve.status().applications
    if name in served:
        serve.delete(name)
    if not served.keys() - {name}:
        serve.shutdown()
    return name in served


def _coordinator(store: ObjectStore) -> Accepting | None:
    try:
        return find_coordinator(store, lambda _: None, lambda _: None, "replica")
    except OtherRelease as error:  # the client is not to blame
        raise Unavailable(error.fact, error.remedy, **error.context) from error


def _start(settings: ServeSettings) -> None:
    """Have Serve listen where the settings say.

    Raises ``Conflict`` when something else does, ``Unavailable`` when Serve's proxies do not start.
    """
    is_running = bool(serve.status().proxies)
    if not is_running:
        _refuse_taken(settings)
    try:
        serve.start(
            proxy_location="EveryNode",
            http_options={"host": settings.host, "port": settings.port},
            logging_config={"enable_access_log": False},
            controller_options={"runtime_env": {"env_vars": _CONTROLLER}},
        )
    except (TimeoutError, RayActorError) as error:
        raise Unavailable(
            "Ray Serve did not start: its proxies were not ready in time",
            "Try again when the machine is less busy, and check 'serve status' and Ray's logs.",
        ) from error
    if is_running and not _is_open(settings):
        raise Conflict(
            "Ray Serve is at work on this cluster, and does not listen at the address of [serve]",
            "Give [serve] Serve's host and port, or end Serve with 'serve shutdown'.",
            port=settings.port,
        )


def _refuse_taken(settings: ServeSettings) -> None:
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise Conflict(
                f"the API cannot listen at {settings.host}: {error.strerror}",
                "Give [serve] another port, or end what listens there.",
                port=settings.port,
            ) from error


def _is_open(settings: ServeSettings) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104  read, not set
    try:
        socket.create_connection((host, settings.port), timeout=5).close()
    except OSError:
        return False
    return True


def place_of_replicas(cluster: ClusterSettings, store: str) -> dict[str, Any]:
    """Return where replicas have to run: on nodes with the labels, or else on this node if the store is a folder."""
    if cluster.labels:
        return selecting(cluster.labels)
    if is_on_s3(store) or not ray.is_initialized():
        return {}
    return {"resources": {f"node:{ray.util.get_node_ip_address()}": 0.001}}
