"""Which workers are used: such as compute alike, and as the federation's constituents were trained. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from coordinator.engine.tasks import differing
from shards.lineage import Configuration, NumericsProfile, as_recorded, in_force
from storage.digests import digest_of

_MOST_NAMED = 5


def repeats(stored: Configuration | None, present: Configuration) -> bool:
    """Return whether a worker of ``present`` would repeat what was trained under ``stored``; anything repeats None."""
    return stored is None or in_force(stored, present) == stored


def to_use(stored: Configuration | None, found: Collection[Configuration]) -> Configuration | None:
    """Return the configuration of the workers to use, of those found; None where none would repeat ``stored``.

    Of those that would it is the most frequent one. They may differ in what ``stored`` does not record.
    """
    counts = Counter(each for each in found if repeats(stored, each))
    return max(counts, key=lambda each: (counts[each], digest_of(each.record())), default=None)


def may_be_elsewhere(stored: Configuration | None, found: Iterable[Configuration]) -> bool:
    """Return whether workers on other nodes might repeat ``stored``, of which none that was found does.

    A node decides the numerics profile. Settings and code are the same everywhere, or a mistake.
    """
    return stored is not None and any(
        (each.settings, each.model_code, each.seed) == (stored.settings, stored.model_code, stored.seed)
        and as_recorded(stored, each).profile != stored.profile
        for each in found
    )


def unlike(wanted: Configuration | None, profiles: Mapping[str, Collection[NumericsProfile]]) -> frozenset[str]:
    """Return the nodes, of those with known ``profiles``, on which no worker computes as ``wanted`` says."""
    if wanted is None:
        return frozenset()
    return frozenset(
        node
        for node, known in profiles.items()
        if not any(repeats(wanted, replace(wanted, profile=profile)) for profile in known)
    )


def told(used: Configuration, other: Configuration, nodes: Collection[str], all_nodes: Iterable[Any]) -> str:
    """Return in words that workers of ``other`` on ``nodes`` are not used; ``all_nodes`` are as Ray tells of them."""
    named = differing(used, other, "{name}: {now} instead of {was}")
    return f"workers on {places(nodes, all_nodes)} are not used, they compute otherwise: {'; '.join(named)}"


def places(nodes: Collection[str], all_nodes: Iterable[Any]) -> str:
    """Return the nodes with their addresses, as people find them."""
    addresses = {each["NodeID"]: each["NodeManagerAddress"] for each in all_nodes}
    named = [f"{addresses.get(node, 'a lost machine')} (node {node[:12]})" for node in sorted(nodes)]
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return ", ".join(named[:_MOST_NAMED]) + more
