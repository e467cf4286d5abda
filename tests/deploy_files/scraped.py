"""A recorded scrape of the metrics, ``scrape.txt``, from a federation with a coordinator and one replica.

Names of hosts and processes were shortened; the rest is what ``GET /metrics`` returned on a Ray node.
``tests/serving/test_on_ray_serve.py`` checks that a node still exports the same metrics.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

RECORDED = (Path(__file__).parent / "scrape.txt").read_text(encoding="utf-8")

_parser: Any = import_module("prometheus_client.parser")


class Series(NamedTuple):
    """One series, without its value."""

    name: str
    labels: dict[str, str]


def series(text: str) -> list[Series]:
    """Return the series of an exposition text."""
    families = _parser.text_string_to_metric_families(text)
    return [Series(sample.name, dict(sample.labels)) for family in families for sample in family.samples]


def label_names(text: str) -> dict[str, set[frozenset[str]]]:
    """Return the distinct sets of label names among each metric's series."""
    found: dict[str, set[frozenset[str]]] = {}
    for each in series(text):
        found.setdefault(each.name, set()).add(frozenset(each.labels))
    return found


def labels_of(text: str) -> dict[str, frozenset[str]]:
    """Return all label names that occur on each metric's series."""
    return {name: frozenset().union(*sets) for name, sets in label_names(text).items()}
