"""How trees grow: level by level, the nodes of a level together.

Shape legend: J nodes.
"""

from __future__ import annotations

from shards.learners.forest.choosing import Chooser
from shards.learners.forest.nodes import Nodes, join_nodes
from shards.learners.forest.rows import Places, Rows


def grown(chooser: Chooser, rows: Rows, places: Places) -> Nodes:
    """Return the nodes that grow in these places and below them. They depend only on which rows each place has."""
    levels = []
    while True:
        nodes = chooser.choose(rows, places)
        levels.append(nodes)
        is_split_J = nodes.attribute_M >= 0
        if not is_split_J.any():
            return join_nodes(levels)
        places = places.take(is_split_J).children(rows, splits_of(nodes))


def splits_of(nodes: Nodes) -> Nodes:
    """Return those that are split."""
    return nodes.take((nodes.attribute_M >= 0).nonzero()[0])
