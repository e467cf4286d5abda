"""Where work may be done: on nodes of the cluster that have all of the federation's labels, and on no others.

Ray places work by a label selector, never with a fallback: work that no node can take waits, and a message says for
what. A process that Ray has placed checks its own node's labels before it touches anything.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import ray

from storage.errors import Invalid, InvariantBroken, Unavailable

Labels = Mapping[str, str]
"""Labels of Ray's nodes; empty: any node will do."""


_NODE: Final = "ray.io/node-id"
"""A label that Ray gives to every node."""


def selecting(labels: Labels, avoided: Collection[str] = ()) -> dict[str, Any]:
    """Return the options by which Ray places an actor, a task or a replica on a node that has the labels.

    Nodes whose ids are in ``avoided`` are excluded.

    >>> selecting({"site": "north"}), selecting({})
    ({'label_selector': {'site': 'north'}}, {})
    >>> selecting({}, {"b2", "a1"})
    {'label_selector': {'ray.io/node-id': '!in(a1,b2)'}}
    """
    selector = dict(labels)
    if avoided:
        selector[_NODE] = f"!in({','.join(sorted(avoided))})"
    return {"label_selector": selector} if selector else {}


def labels_in_words(labels: Labels) -> str:
    """Return the labels as people read them.

    >>> labels_in_words({"zone": "b", "site": "north"})
    'site=north zone=b'
    """
    return " ".join(f"{name}={value}" for name, value in sorted(labels.items()))


def place_in_words(labels: Labels) -> str:
    """Return a description of what work waits for when no node has the labels.

    >>> place_in_words({"zone": "b", "site": "north"}), place_in_words({"zone": "b"})
    ('site north', 'a node with zone=b')
    """
    return f"site {labels['site']}" if "site" in labels else f"a node with {labels_in_words(labels)}"


def nodes_with(labels: Labels, avoided: Collection[str] = ()) -> list[dict[str, Any]]:
    """Return ``ray.nodes``' records of the nodes that are alive, have all of the labels and are not ``avoided``."""
    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in avoided]
    return [node for node in nodes if labels.items() <= node.get("Labels", {}).items()]


def require_nodes(labels: Labels) -> list[dict[str, Any]]:
    """Return the nodes that are alive and have all of the labels.

    Raises ``Unavailable`` when no node has the required labels: one may join, or come back.
    """
    nodes = nodes_with(labels)
    if labels and not nodes:
        raise Unavailable(
            f"no node of the cluster has the labels {labels_in_words(labels)}: waiting for {place_in_words(labels)}",
            "Start the node with these labels ('ray start --labels'), or wait until it is back. No other node does its"
            " work.",
        )
    return nodes


def check_here(labels: Labels) -> None:
    """Raise ``InvariantBroken`` unless this process, which Ray has placed, is on a node that has all of the labels."""
    if not _is_here(labels):
        raise InvariantBroken(
            f"a process of the federation was placed on a node without the labels {labels_in_words(labels)}; it touched"
            " nothing",
            "This is a bug: please report it, with the output of 'ray list nodes'.",
            node=ray.get_runtime_context().get_node_id(),
        )


def check_own_place(labels: Labels) -> None:
    """Raise unless this process, started by Ray or by hand, is on a node that has all of the labels.

    Raises ``Unavailable`` when no node has them, ``Invalid`` when only other nodes do.
    """
    if _is_here(labels):
        return
    require_nodes(labels)
    raise Invalid(
        f"this process is not on a node with the labels {labels_in_words(labels)}, and data are read nowhere else",
        "Run 'sisa launch', whose coordinator does the work on such a node, or run the command on one.",
    )


def _is_here(labels: Labels) -> bool:
    return not labels or labels.items() <= ray.get_runtime_context().get_node_labels().items()
