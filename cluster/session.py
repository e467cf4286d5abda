"""Ray itself: started or found, asked what it has, left again."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Final

import ray

from cluster.specification import ClusterSettings
from cluster.spill import SpillFolder
from storage.errors import Invalid, Unavailable

_LOCAL: Final = "local"

_SPILL: list[SpillFolder] = []
"""Of the local cluster that this process started."""


def join_ray(settings: ClusterSettings) -> bool:
    """Make this process part of the Ray cluster that the settings name; return whether a local one was started.

    A process that is part of a cluster already stays in it. Raises ``Unavailable`` when the cluster cannot be reached.
    """
    if ray.is_initialized():
        return False
    # No report about a privacy system leaves the machine.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's own future default, chosen now: leave the accelerators' environment alone for workers that use none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray.init(
            address=settings.address,
            include_dashboard=False if settings.address == _LOCAL else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_spilling_directory=_spill_folder() if settings.address == _LOCAL else None,
        )
    except (OSError, RuntimeError, ValueError) as error:
        _remove_spilled()
        raise Unavailable(
            f"Ray did not start or answer: {type(error).__name__}",
            f"check [cluster] address = {settings.address!r}; 'local' needs no cluster, but room for temporary files in"
            " a folder with a short path",
        ) from error
    return settings.address == _LOCAL


def worker_count(settings: ClusterSettings, tasks: int) -> int:
    """Return how many workers to start for ``tasks`` tasks.

    Raises ``Invalid`` when no node can ever hold a worker: Ray would wait for one without a word.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    places = sum(_fitting(settings, resources) for resources in nodes)
    if not places:
        lack, remedy = lacking(settings, nodes)
        wanted = f"{settings.cpus_per_worker:g} CPUs and {settings.gpus_per_worker:g} GPUs"
        raise Invalid(f"no node can hold a worker of {wanted}: {lack}", remedy)
    return max(1, min(tasks, places, settings.workers or tasks))


def lacking(settings: ClusterSettings, nodes: Sequence[Mapping[str, float]]) -> tuple[str, str]:
    """Return what keeps every one of ``nodes`` from holding a worker, and what to do; both in words.

    >>> lacking(ClusterSettings(gpus_per_worker=1), [{"CPU": 8.0}, {"CPU": 16.0}])[0]
    'none of 2 nodes has a GPU'
    """
    cpus = max((resources.get("CPU", 0) for resources in nodes), default=0)
    gpus = max((resources.get("GPU", 0) for resources in nodes), default=0)
    if not nodes:
        return "the cluster has no node", "start one, or wait until one has joined"
    if settings.gpus_per_worker and not gpus:
        return (
            f"none of {len(nodes)} nodes has a GPU",
            "add a node with one, or set [cluster] gpus_per_worker = 0 and train anew on processors",
        )
    if settings.cpus_per_worker <= cpus and settings.gpus_per_worker <= gpus:
        return (
            f"each of {len(nodes)} nodes has too few of one or the other",
            "lower [cluster] cpus_per_worker or gpus_per_worker, or add a node that has both",
        )
    return (
        f"the largest of {len(nodes)} has {cpus:g} CPUs and {gpus:g} GPUs",
        "lower [cluster] cpus_per_worker or gpus_per_worker, or add a node",
    )


def _fitting(settings: ClusterSettings, resources: Mapping[str, float]) -> int:
    fits = resources.get("CPU", 0) / settings.cpus_per_worker
    if settings.gpus_per_worker:
        fits = min(fits, resources.get("GPU", 0) / settings.gpus_per_worker)
    return int(fits)


def leave_ray() -> None:
    """End this process's part in Ray, and the local cluster with it where this process started one."""
    ray.shutdown()
    _remove_spilled()


def _spill_folder() -> str:
    _SPILL.append(SpillFolder())
    return str(_SPILL[-1].path)


def _remove_spilled() -> None:
    while _SPILL:
        _SPILL.pop().remove()
