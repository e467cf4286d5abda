"""Alerts fire, each for what it is there for and for nothing else: evaluated by Prometheus' own promtool.

Two federations are watched, with the series that a real scrape had (``scrape.txt``). One of them meets with something;
that one is named, and the other one is not.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cluster.coordinator_actor.metrics import METRICS, REPLICA_METRICS
from tests.deploy_files.scraped import RECORDED, Series, labels_of, series
from tests.deploy_files.test_dashboard import ALERTS, PANELS

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed; Debian's package 'prometheus' has it"
)

_STEP = 1200
"""Seconds from one scrape to the next. Rules are looked at when there is one: five minutes later Prometheus would take
the series for ended."""
_HOUR, _DAY = 3600, 86400
_NOW = 7 * _DAY + 20 * _HOUR
"""When the rules are looked at; promtool's time begins at 0."""
_THEN = _NOW - 2 * _STEP
"""When something happens."""
_COORDINATOR = {name for metric in METRICS for name in metric.exported}
_REPLICA = {name for metric in REPLICA_METRICS for name in metric.exported}


def _always(value: float) -> str:
    return f"{value:g}x{(_NOW // _STEP) + 100}"


def _clock(until: int = _NOW + _HOUR) -> str:
    """Return a moment that is always now."""
    return f"0+{_STEP}x{until // _STEP}"


def _since(moment: int, before: float, after: float) -> str:
    return f"{before:g}x{moment // _STEP} {after:g}x{(_NOW - moment) // _STEP + 100}"


def _growing(start: float, by: float) -> str:
    """Return a value that is ``start`` at first, and ``by`` more now."""
    return f"{start:g}+{by / (_NOW // _STEP):.0f}x{_NOW // _STEP + 100}"


WELL: Mapping[str, str] = {
    "ray_sisa_shown_timestamp_seconds": _clock(),
    "ray_sisa_api_ready_timestamp_seconds": _clock(),
    "ray_sisa_token_expires_timestamp_seconds": _always(_NOW + 60 * _DAY),
    "ray_sisa_next_due_timestamp_seconds": _always(_NOW + 20 * _DAY),
    "ray_sisa_last_purge_timestamp_seconds": _always(_DAY),
    "ray_sisa_oldest_unsafe_timestamp_seconds": _always(0),
    "ray_sisa_constituents_tainted": _always(0),
    "ray_sisa_coordinator_troubled": _always(0),
    "ray_sisa_store_bytes": _always(2e9),
    "ray_sisa_store_objects": _always(20_000),
    "ray_serve_proxy_status": _always(2),
    "ray_serve_application_status": _always(6),
}
"""Values of a federation that is well; the others count or are 3."""


@dataclass(frozen=True, slots=True)
class Case:
    """What happens to one of two federations, and the alerts that fire forty minutes later."""

    what: str
    alerts: Mapping[str, Mapping[str, str]]
    """By name, with labels beside the severity."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Of metrics of the federation ``one``."""
    ends: frozenset[str] = frozenset()
    """Metrics of the federation ``one`` that nobody tells any more."""
    both: bool = False
    """Whether it happens to the other one as well."""


_ONE = {"federation": "one"}
CASES = [
    Case("nothing", {}),
    Case("a constituent is tainted", {"SisaTaintedConstituent": _ONE}, {"ray_sisa_constituents_tainted": _always(1)}),
    Case(
        "a request is not safe",
        {"SisaRequestNotSafe": _ONE},
        {"ray_sisa_oldest_unsafe_timestamp_seconds": _always(_NOW - 1200)},
    ),
    Case("a request is overdue", {"SisaRequestOverdue": _ONE}, {"ray_sisa_next_due_timestamp_seconds": _always(_THEN)}),
    Case(
        "a request is due soon",
        {"SisaRequestDueSoon": _ONE},
        {"ray_sisa_next_due_timestamp_seconds": _always(_NOW + _DAY)},
    ),
    Case("no request is open", {}, {"ray_sisa_next_due_timestamp_seconds": _always(0)}),
    Case(
        "the coordinator is in trouble",
        {"SisaCoordinatorTroubled": _ONE},
        {"ray_sisa_coordinator_troubled": _since(_THEN, 0, 1)},
    ),
    Case("one of two coordinators dies", {"SisaCoordinatorSilent": _ONE}, ends=frozenset(_COORDINATOR)),
    Case(
        "a coordinator hangs",
        {"SisaCoordinatorSilent": _ONE},
        {"ray_sisa_shown_timestamp_seconds": _clock(_THEN) + f" {_THEN}x30"},
    ),
    Case(
        "both coordinators die",
        {"SisaCoordinatorSilent": _ONE, "SisaCoordinatorGone": {}},
        ends=frozenset(_COORDINATOR),
        both=True,
    ),
    Case("all replicas die", {"SisaApiSilent": _ONE}, ends=frozenset(_REPLICA)),
    Case(
        "no replica can answer any more",
        {"SisaApiSilent": _ONE},
        {"ray_sisa_api_ready_timestamp_seconds": _clock(_THEN) + f" {_THEN}x30"},
    ),
    Case(
        "no replica ever could answer",
        {"SisaApiSilent": _ONE},
        {"ray_sisa_api_ready_timestamp_seconds": _always(0)},
    ),
    Case(
        "Serve's controller is gone",
        {"SisaServeSilent": {"application": "sisa-one"}},
        ends=frozenset({"ray_serve_application_status", "ray_serve_proxy_status"}),
    ),
    Case(
        "a proxy is unhealthy",
        {"SisaProxyUnhealthy": {"node_ip_address": "10.0.0.1"}},
        {"ray_serve_proxy_status": _since(_THEN, 2, 3)},
    ),
    Case(
        "a token expires",
        {"SisaTokenExpires": {**_ONE, "role": "erase"}},
        {"ray_sisa_token_expires_timestamp_seconds": _always(_NOW + 3 * _DAY)},
    ),
    Case("there is no token", {}, {"ray_sisa_token_expires_timestamp_seconds": _always(0)}),
    Case("the store grows in bytes", {"SisaStoreGrows": _ONE}, {"ray_sisa_store_bytes": _growing(2e9, 3e9)}),
    Case("the store grows in objects", {"SisaStoreGrows": _ONE}, {"ray_sisa_store_objects": _growing(2e4, 3e4)}),
    Case("a small store grows", {}, {"ray_sisa_store_bytes": _growing(2e6, 8e6)}),
    Case(
        "the store grows with its data points",
        {},
        {"ray_sisa_store_bytes": _growing(2e9, 3e9), "ray_sisa_points": _growing(1e6, 1e6)},
    ),
    Case("the journal is not shortened", {"SisaJournalGrows": _ONE}, {"ray_sisa_journal_entries": _always(2000)}),
    Case("constituents abstain", {"SisaConstituentsAbstain": _ONE}, {"ray_sisa_constituents_serving": _always(2)}),
]
_ROLE = "erase"
"""The role whose token expires where one does: of the others there is none."""


def _watched(federation: str) -> Iterator[Series]:
    """Yield the recorded series, as they would be of a federation of this name on nodes of its own."""
    address = {"one": "10.0.0.1", "two": "10.0.0.2"}[federation]
    for name, labels in series(RECORDED):
        changed = {"federation": federation, "application": f"sisa-{federation}"}
        own = {**labels, **{each: value for each, value in changed.items() if each in labels}}
        yield Series(name, {label: address if value == "10.0.0.1" else value for label, value in own.items()})


def _input(case: Case, expressions: str) -> Iterator[dict[str, str]]:
    """Yield the series that the expressions ask for, with what happens."""
    for federation in ("one", "two"):
        is_met = case.both or federation == "one"
        for name, labels in _watched(federation):
            if name not in expressions:
                continue
            values = WELL.get(name, f"0+3x{_NOW // _STEP + 100}" if name.endswith(_COUNTS) else _always(3))
            if is_met:
                values = case.values.get(name, values)
            if labels.get("role", _ROLE) != _ROLE:
                values = _always(0)
            if is_met and name in case.ends:
                values = _cut(values)
            listed = ",".join(f'{label}="{value}"' for label, value in labels.items())
            yield {"series": f"{name}{{{listed}}}", "values": values}


_COUNTS = ("_bucket", "_count", "_sum")


def _cut(values: str) -> str:
    """Return the values up to ``_THEN``, and that there are no more."""
    start, _, _ = values.partition("x")
    return f"{start}x{_THEN // _STEP} stale"


def _promtool(folder: Path, tests: list[dict[str, Any]]) -> str:
    """Return what promtool says of the tests; empty: all hold."""
    (folder / "rules.json").write_text(json.dumps({"groups": [{"name": "sisa", "rules": ALERTS}]}), encoding="utf-8")
    asked = {"rule_files": ["rules.json"], "evaluation_interval": f"{_STEP}s", "tests": tests}
    (folder / "tests.json").write_text(json.dumps(asked), encoding="utf-8")
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "test", "rules", "tests.json"], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _expected(case: Case, rule: Mapping[str, Any]) -> list[dict[str, Any]]:
    wanted = case.alerts.get(rule["alert"])
    if wanted is None:
        return []
    labels = {**rule["labels"], **wanted}
    each = [labels, {**labels, "federation": "two"}] if case.both and "federation" in labels else [labels]
    return [{"exp_labels": labels, "exp_annotations": rule["annotations"]} for labels in each]


@needs_promtool
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_alerts_fire_for_what_they_are_there_for(case: Case, tmp_path: Path) -> None:
    """The alerts of the case fire, for the federation that it concerns; all other alerts stay silent."""
    looked_at = [
        {"eval_time": f"{_NOW // 60}m", "alertname": rule["alert"], "exp_alerts": _expected(case, rule)}
        for rule in ALERTS
    ]
    test = {"interval": f"{_STEP}s", "input_series": list(_input(case, str(ALERTS))), "alert_rule_test": looked_at}
    assert _promtool(tmp_path, [test]) == ""


@needs_promtool
def test_every_panel_shows_something(tmp_path: Path) -> None:
    """Each query of the dashboard is one that Prometheus evaluates, and finds series in what was scraped."""
    asked = []
    for panel in PANELS:
        for target in panel["targets"]:
            query = target["expr"].replace("$federation", ".*").replace("$__rate_interval", "1h")
            asked.append(
                {
                    "expr": f"count({query} >= 0) > bool 1",
                    "eval_time": f"{_NOW // 60}m",
                    "exp_samples": [{"labels": "{}", "value": 1}],
                }
            )
    test = {"interval": f"{_STEP}s", "input_series": list(_input(CASES[0], str(PANELS))), "promql_expr_test": asked}
    assert _promtool(tmp_path, [test]) == ""


def test_every_alert_is_made_to_fire() -> None:
    """There is no alert that no case is about."""
    assert {name for case in CASES for name in case.alerts} == {rule["alert"] for rule in ALERTS}


def test_what_was_scraped_is_what_is_reported() -> None:
    """The recorded scrape has all metrics of coordinator and replicas, with their labels, and no others."""
    recorded = {name: labels for name, labels in labels_of(RECORDED).items() if name.startswith("ray_sisa_")}
    assert recorded.keys() == _COORDINATOR | _REPLICA
    for metric in (*METRICS, *REPLICA_METRICS):
        for name in metric.exported:
            assert set(metric.labels) <= recorded[name], name
