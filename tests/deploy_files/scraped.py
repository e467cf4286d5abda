"""What the product exported when it was asked: ``scrape.txt``, from a federation with a coordinator and one replica.

Names of hosts and processes were made shorter; the rest is as ``GET /metrics`` on a Ray node answered it.
``tests/serving/test_on_ray_serve.py`` holds that it still answers so.
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
    """Return of each metric the sets of labels that its series have."""
    found: dict[str, set[frozenset[str]]] = {}
    for each in series(text):
        found.setdefault(each.name, set()).add(frozenset(each.labels))
    return found


def labels_of(text: str) -> dict[str, frozenset[str]]:
    """Return of each metric all labels that its series have."""
    return {name: frozenset().union(*sets) for name, sets in label_names(text).items()}
