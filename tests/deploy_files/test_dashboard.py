"""Dashboard and alerts: they ask for metrics that exist, and say where to read on."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import pytest

from cluster.coordinator_actor.metrics import METRICS, REPLICA_METRICS
from tests.deploy_files.manifests import KUBERAY, ROOT, load, problems
from tests.deploy_files.scraped import RECORDED, labels_of

DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "sisa-ray.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
ALERTS: list[dict[str, Any]] = [
    rule
    for document in load(KUBERAY / "monitoring" / "alerts.yaml")
    for group in document["spec"]["groups"]
    for rule in group["rules"]
]
EXPORTED = labels_of(RECORDED)
ADDED = {"namespace"}
"""Labels that Prometheus adds to what it scrapes from pods."""
EXPRESSIONS = {
    **{f"{panel['title']} {target['refId']}": str(target["expr"]) for panel in PANELS for target in panel["targets"]},
    **{str(rule["alert"]): str(rule["expr"]) for rule in ALERTS},
}


def _metrics(expression: str) -> set[str]:
    return set(re.findall(r"\bray_\w+", expression))


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS.keys())
def test_what_is_asked_for_exists(expression: str) -> None:
    """Every metric of a panel or an alert is one that was scraped."""
    assert _metrics(expression)
    assert _metrics(expression) <= EXPORTED.keys()


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS.keys())
def test_expressions_are_well_formed(expression: str) -> None:
    """Brackets close, only labels that a metric has are asked for, and series of an older process are folded in."""
    for opening, closing in ("()", "{}", "[]"):
        assert expression.count(opening) == expression.count(closing)
    labels = frozenset().union(*(EXPORTED[name] for name in _metrics(expression)))
    asked = re.findall(r"by \(([\w, ]+)\)", expression)
    assert {label.strip() for group in asked for label in group.split(",")} <= labels | ADDED
    assert asked or expression.startswith("absent(")


def test_every_metric_is_on_the_dashboard() -> None:
    """What is exported is also shown."""
    shown = {name for panel in PANELS for target in panel["targets"] for name in _metrics(target["expr"])}
    reported = (*METRICS, *REPLICA_METRICS)
    assert [metric.name for metric in reported if not shown & set(metric.exported)] == []


def test_panels_have_room() -> None:
    """Panels have numbers of their own, a description each, and do not overlap on the 24 columns."""
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert all(panel["description"] for panel in PANELS)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in PANELS)
    for one, other in combinations((panel["gridPos"] for panel in PANELS), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below


def test_the_dashboard_is_for_any_prometheus() -> None:
    """Its source of data is chosen by who imports it, and federations by those there are."""
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "federation"}
    for panel in PANELS:
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert '{federation=~"$federation"}' in target["expr"]


def test_what_must_not_be_wakes_somebody() -> None:
    """A tainted constituent and a request that is not safe are pages; every alert names a section of the runbook."""
    pages = {rule["alert"] for rule in ALERTS if rule["labels"]["severity"] == "page"}
    assert {"SisaTaintedConstituent", "SisaRequestNotSafe"} <= pages
    (tainted,) = [rule for rule in ALERTS if rule["alert"] == "SisaTaintedConstituent"]
    assert "for" not in tainted
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs" / "operations.md").read_text(encoding="utf-8"), re.MULTILINE)
    for rule in ALERTS:
        section = re.fullmatch(r'docs/operations\.md, "(.+)"', rule["annotations"]["runbook"])
        assert section is not None
        assert section.group(1) in headings
    (document,) = load(KUBERAY / "monitoring" / "alerts.yaml")
    assert problems(document, "PrometheusRule") == []
