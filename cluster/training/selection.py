"""Selects the workers to use: those that compute the bits that the constituents were trained with. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from coordinator.engine.tasks import differing
from shards.lineage import Configuration, NumericsProfile, as_recorded, in_force
from storage.digests import digest_of

_MOST_NAMED = 5


def reproduces(stored: Configuration | None, present: Configuration) -> bool:
    """Return whether a worker of ``present`` may continue what was trained under ``stored``; None: every worker may.

    Fields that ``stored`` does not record are not compared.
    """
    return stored is None or in_force(stored, present) == stored


def select(stored: Configuration | None, found: Collection[Configuration]) -> Configuration | None:
    """Return the most frequent configuration in ``found`` that reproduces ``stored``; None if there is none.

    Workers with two such configurations may still compute different bits if ``stored`` does not record the difference.
    """
    counts = Counter(each for each in found if reproduces(stored, each))
    return max(counts, key=lambda each: (counts[each], digest_of(each.record())), default=None)


def other_nodes_may_match(stored: Configuration | None, found: Iterable[Configuration]) -> bool:
    """Return whether workers on other nodes may reproduce ``stored``, where none in ``found`` does.

    They may if only the numerics profile differs: settings and code do not depend on the node.
    """
    return stored is not None and any(
        (each.settings, each.model_code, each.seed) == (stored.settings, stored.model_code, stored.seed)
        and as_recorded(stored, each).profile != stored.profile
        for each in found
    )


def mismatched_nodes(
    wanted: Configuration | None, profiles: Mapping[str, Collection[NumericsProfile]]
) -> frozenset[str]:
    """Return the nodes in ``profiles`` on which no worker had the profile of ``wanted``; with None there are none."""
    if wanted is None:
        return frozenset()
    return frozenset(
        node
        for node, seen in profiles.items()
        if not any(reproduces(wanted, replace(wanted, profile=profile)) for profile in seen)
    )


def unused_text(used: Configuration, other: Configuration, nodes: Collection[str], all_nodes: Iterable[Any]) -> str:
    """Return a message why workers of ``other`` on ``nodes`` are not used; ``all_nodes`` is ``ray.nodes()``."""
    named = differing(used, other, "{name}: {now} instead of {was}")
    return f"workers on {nodes_text(nodes, all_nodes)} are not used because they differ in {'; '.join(named)}"


def nodes_text(nodes: Collection[str], all_nodes: Iterable[Any]) -> str:
    """Return the nodes with their addresses; ``all_nodes`` is ``ray.nodes()``."""
    addresses = {each["NodeID"]: each["NodeManagerAddress"] for each in all_nodes}
    named = [f"{addresses.get(node, 'a lost machine')} (node {node[:12]})" for node in sorted(nodes)]
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return ", ".join(named[:_MOST_NAMED]) + more
