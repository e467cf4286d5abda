"""Ray itself: starting or joining it, asking what it has, leaving it."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import ray
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.exceptions import RayError

from cluster.config.specification import ClusterSettings
from cluster.runtime.contact import check_cluster, make_token, no_answer
from cluster.runtime.head import is_reachable
from cluster.runtime.labels import labels_in_words, nodes_with, place_in_words, require_nodes
from cluster.runtime.process import own_termination
from shards.learners.torch.staging import PURPOSE
from shards.lineage import WORKERS_HASH_SEED
from storage.errors import Invalid, Unavailable
from storage.private_folder import PrivateFolder, remove_left_over

LOCAL: Final = "local"
"""The address for a Ray that is started on this machine."""

_STARTS: Final = 3
"""How often Ray is started on this machine: it gives itself up after 30 seconds, which a busy machine may need."""

_HASH_SEED: Final = {"PYTHONHASHSEED": WORKERS_HASH_SEED}

_SPILL: list[PrivateFolder] = []
"""Spill folder of the local cluster that this process started. While it has one, workers inherit our environment."""


def join_ray(settings: ClusterSettings) -> bool:
    """Make this process part of the Ray cluster that the settings name; return whether a local one was started.

    A process that is already part of a cluster stays in it. A local cluster gets all labels that the settings ask for,
    so that the same specification runs on one machine. Raises ``Unavailable`` when the cluster cannot be reached,
    ``Invalid`` when it refuses this process's token.
    """
    if ray.is_initialized():
        return False
    # No report about a privacy system leaves the machine.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's own future default, chosen now: leave the accelerators' environment alone for workers that use none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    is_own = settings.address == LOCAL
    if is_own:
        os.environ.update(_HASH_SEED)  # the processes of a local cluster inherit it
        make_token()
    elif "://" not in settings.address:
        check_cluster(settings.address)
    for left in reversed(range(_STARTS)):
        try:
            _init(settings, is_own=is_own)
            break
        except Exception as error:
            leave_ray()
            if not left or not is_own or type(error) is not Exception:  # Ray's, when its processes start too slowly
                raise _not_started(settings, error) from error
    return is_own


def _init(settings: ClusterSettings, *, is_own: bool) -> None:
    with own_termination():
        ray.init(
            address=settings.address,
            include_dashboard=False if is_own else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_spilling_directory=_spill_folder() if is_own else None,
            labels=dict(settings.labels) if is_own else None,
        )


def waiting_for_ray(settings: ClusterSettings) -> str:
    """Return the message shown while this process waits to join Ray."""
    if settings.address == LOCAL:
        return "waiting for Ray to start on this machine, which takes long where it is busy; interrupting is safe"
    return f"waiting for the Ray cluster at {settings.address} to answer: see 'ray status' there; interrupting is safe"


def _not_started(settings: ClusterSettings, error: Exception) -> Unavailable:
    if settings.address == LOCAL:
        return Unavailable(
            f"Ray did not start on this machine: {type(error).__name__}",
            "Try again when the machine is less busy. Ray also needs some GB of memory, and room for temporary files in"
            " a folder with a short path.",
        )
    return no_answer(settings.address, type(error).__name__)


def worker_environment() -> dict[str, Any]:
    """Return the options that give an actor's process the workers' hash seed (E14).

    They are empty on a local cluster that this process started, whose processes inherit the seed: starting a process
    with its own environment takes a second longer.
    """
    return {} if _SPILL else {"runtime_env": {"env_vars": _HASH_SEED}}


def is_to_start_ray(settings: ClusterSettings) -> bool:
    """Return whether ``join_ray`` would start a local Ray."""
    return settings.address == LOCAL and not ray.is_initialized()


def worker_count(settings: ClusterSettings, tasks: int, avoided: Collection[str] = ()) -> int:
    """Return how many workers to start for ``tasks`` tasks; 0 only where all suitable nodes are ``avoided``.

    Raises ``Invalid`` when no node can ever hold a worker, where Ray would wait silently; ``Unavailable`` when no node
    has the labels, since one may still join.
    """
    nodes = require_nodes(settings.labels)
    places = {node["NodeID"]: _fitting(settings, node["Resources"]) for node in nodes}
    if not sum(places.values()):
        lack, remedy = lacking(settings, [node["Resources"] for node in nodes])
        wanted = f"{settings.cpus_per_worker:g} CPUs and {settings.gpus_per_worker:g} GPUs"
        raise Invalid(f"no node can hold a worker of {wanted}: {lack}", remedy)
    left = sum(count for node, count in places.items() if node not in avoided)
    return min(left, max(1, min(tasks, settings.workers or tasks)))


def lacking(settings: ClusterSettings, nodes: Sequence[Mapping[str, float]]) -> tuple[str, str]:
    """Return the reason why none of ``nodes`` can hold a worker, and the remedy.

    >>> lacking(ClusterSettings(gpus_per_worker=1), [{"CPU": 8.0}, {"CPU": 16.0}])[0]
    'none of 2 nodes has a GPU'
    """
    such = f" with the labels {labels_in_words(settings.labels)}" if settings.labels else ""
    cpus = max((resources.get("CPU", 0) for resources in nodes), default=0)
    gpus = max((resources.get("GPU", 0) for resources in nodes), default=0)
    if not nodes:
        return "the cluster has no node", "Start one, or wait until one has joined."
    if settings.gpus_per_worker and not gpus:
        return (
            f"none of {len(nodes)} nodes{such} has a GPU",
            "Add a node with one, or set [cluster] gpus_per_worker = 0 and retrain on processors.",
        )
    if settings.cpus_per_worker <= cpus and settings.gpus_per_worker <= gpus:
        return (
            f"each of {len(nodes)} nodes{such} has too few of one or the other",
            "Lower [cluster] cpus_per_worker or gpus_per_worker, or add a node that has both.",
        )
    return (
        f"the largest of {len(nodes)}{such} has {cpus:g} CPUs and {gpus:g} GPUs",
        "Lower [cluster] cpus_per_worker or gpus_per_worker, or add a node.",
    )


def _fitting(settings: ClusterSettings, resources: Mapping[str, float]) -> int:
    fits = resources.get("CPU", 0) / settings.cpus_per_worker
    if settings.gpus_per_worker:
        fits = min(fits, resources.get("GPU", 0) / settings.gpus_per_worker)
    return int(fits)


def waited_for(settings: ClusterSettings, avoided: Collection[str] = ()) -> str | None:
    """Return a description of what workers that do not start wait for; None if nothing can be seen from here.

    They must not run on nodes that are ``avoided``. Ray itself would never say anything.
    """
    wanted = settings.cpus_per_worker
    if not settings.labels and not avoided:
        free = ray.available_resources().get("CPU", 0)
        waiting = f"waiting for workers: {free:g} CPUs are free in the cluster, a worker takes {wanted:g}"
        return waiting if free < wanted else None
    nodes = [node["Resources"] for node in nodes_with(settings.labels, avoided)]
    kinds = [f"with the labels {labels_in_words(settings.labels)}"] if settings.labels else []
    such = " ".join(kinds + ["whose workers compute the same bits"] * bool(avoided))
    if not (room := sum(_fitting(settings, resources) for resources in nodes)):
        place = place_in_words(settings.labels) if settings.labels else "a node of the same kind"
        return f"waiting for {place}: no node {such} can hold a worker"
    return f"waiting for workers: nodes {such} hold {room} at once, of all federations together"


def does_head_answer() -> bool:
    """Return whether something listens at the head's address; a question to a head that is away blocks for a minute."""
    return is_reachable(ray.get_runtime_context().gcs_address)


def is_joined() -> bool:
    """Return whether this process is part of a Ray cluster."""
    return ray.is_initialized()


def is_short() -> bool:
    """Return whether anything on the cluster waits for processors, by the demand that Ray's autoscaler sees.

    The answer is True if the demand is unknown. The number of free processors would not show it: a worker that is
    starting already holds its own.
    """
    try:
        demands = get_cluster_status(ray.get_runtime_context().gcs_address).resource_demands
    except (OSError, RuntimeError, RayError):
        return True
    return bool(demands.ray_task_actor_demand)


def leave_ray() -> None:
    """Leave the Ray cluster; if it is a local one that this process started, end it."""
    ray.shutdown()
    _remove_spilled()
    remove_left_over(PURPOSE)  # those of workers that were killed


def _spill_folder() -> str:
    """Return a private folder for objects that do not fit into memory.

    Ray's own choice can be read by every user of the machine and outlives a killed Ray. Workers hand Ray neither data
    points nor parameters, so nothing personal should ever be spilled; this is a second line of defence.
    """
    _SPILL.append(PrivateFolder("spill"))
    return str(_SPILL[-1].path)


def _remove_spilled() -> None:
    while _SPILL:
        _SPILL.pop().remove()
