"""Messages about workers that do not report: they may be starting, at work on a long slice, or suspended."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import ray

from cluster.config.specification import ClusterSettings
from cluster.runtime.session import is_short, waited_for
from cluster.training.selection import nodes_text
from storage.stores.lock import is_stopped


class Place(NamedTuple):
    """Where a worker is."""

    node: str
    process: int


def own_place(_: object) -> Place:
    """Return the place of the calling process."""
    return Place(ray.get_runtime_context().get_node_id(), os.getpid())


def awaited_workers(settings: ClusterSettings, avoided: frozenset[str]) -> str | None:
    """Return a message what workers that have not started wait for; None if nothing can be seen from here."""
    if is_short():
        return waited_for(settings, avoided)
    return "waiting for workers to start: they have their processors, and a busy machine takes its time"


def hushed(known: Sequence[Place], here: str, nodes: Sequence[Any], *, again: int) -> list[str]:
    """Return messages about workers at ``known`` places that are silent for the ``again``-th time.

    On this node, ``here``, the messages name the workers that are suspended. For other nodes they name all silent
    workers, at growing intervals, since a slice may simply be long; ``nodes`` is ``ray.nodes()``.
    """
    stopped = [place.process for place in known if place.node == here and is_stopped(place.process)]
    remarks = [
        f"the worker in process {process} is stopped (SIGSTOP): 'kill -CONT {process}' lets it continue, after"
        f" 'kill -9 {process}' another one takes its place"
        for process in stopped
    ]
    afar = [place for place in known if place.node != here]
    if afar and again & (again - 1) == 0:  # 1, 2, 4, 8, ...
        where = ", ".join(f"process {place.process} on {nodes_text([place.node], nodes)}" for place in afar)
        remarks.append(f"no word from {where}: wait, if a slice may take so long; if it is stopped there, end it")
    return remarks
