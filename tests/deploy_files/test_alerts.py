"""Alerts fire, each for what it is there for and for nothing else: evaluated by Prometheus' own promtool.

Two federations are watched, with the series that a real scrape had (``scrape.txt``). One of them meets with something;
that one is named, and the other one is not.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
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

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


@dataclass(frozen=True, slots=True)
class Timeline:
    """When the series are scraped and the rules evaluated; promtool's time begins at 0."""

    step: int
    """Seconds from one scrape to the next. Rules are looked at when there is one: five minutes later Prometheus would
    take the series for ended."""
    now: int
    """When the alerts are checked."""

    @property
    def then(self) -> int:
        """When something happens."""
        return self.now - 2 * self.step

    @property
    def steps(self) -> int:
        """The number of scrapes until now."""
        return self.now // self.step


_LONG = Timeline(step=_HOUR, now=7 * _DAY + 20 * _HOUR)
_LOOKS_BACK = frozenset({"SisaStoreGrows", "SisaConstituentsAbstain"})
"""Alerts that look back for days, or wait for one. A week in steps that the others need would be hundreds."""
_SHORT = Timeline(step=20 * _MINUTE, now=5 * _HOUR)

_COORDINATOR = {name for metric in METRICS for name in metric.exported}
_REPLICA = {name for metric in REPLICA_METRICS for name in metric.exported}

Values = Callable[[Timeline], str]
"""The values of a series, as promtool writes them."""


def _always(value: float) -> Values:
    return lambda time: f"{value:g}x{time.steps + 100}"


def _moment(from_now: float) -> Values:
    """Return a moment that stays where it is: so many seconds from now."""
    return lambda time: f"{time.now + from_now:g}x{time.steps + 100}"


def _clock(time: Timeline) -> str:
    """Return a moment that is always now."""
    return f"0+{time.step}x{(time.now + _HOUR) // time.step}"


def _stopped_clock(time: Timeline) -> str:
    """Return a moment that was always now until something happened."""
    return f"0+{time.step}x{time.then // time.step} {time.then}x30"


def _since_then(before: float, after: float) -> Values:
    return lambda time: f"{before:g}x{time.then // time.step} {after:g}x102"


def _growing(start: float, by: float) -> Values:
    """Return a value that is ``start`` at first, and ``by`` more now."""
    return lambda time: f"{start:g}+{by / time.steps:.0f}x{time.steps + 100}"


WELL: Mapping[str, Values] = {
    "ray_sisa_shown_timestamp_seconds": _clock,
    "ray_sisa_api_ready_timestamp_seconds": _clock,
    "ray_sisa_token_expires_timestamp_seconds": _moment(60 * _DAY),
    "ray_sisa_next_due_timestamp_seconds": _moment(20 * _DAY),
    "ray_sisa_last_purge_timestamp_seconds": _moment(-_HOUR),
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
    """What happens to one of two federations, and the alerts that fire two scrapes later."""

    what: str
    alerts: Mapping[str, Mapping[str, str]]
    """By name, with labels beside the severity."""
    values: Mapping[str, Values] = field(default_factory=dict)
    """Values of the metrics of federation ``one``."""
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
        {"ray_sisa_oldest_unsafe_timestamp_seconds": _moment(-20 * _MINUTE)},
    ),
    Case(
        "a request is overdue",
        {"SisaRequestOverdue": _ONE},
        {"ray_sisa_next_due_timestamp_seconds": _moment(-40 * _MINUTE)},
    ),
    Case(
        "a request is due soon",
        {"SisaRequestDueSoon": _ONE},
        {"ray_sisa_next_due_timestamp_seconds": _moment(_DAY)},
    ),
    Case("no request is open", {}, {"ray_sisa_next_due_timestamp_seconds": _always(0)}),
    Case(
        "the coordinator is in trouble",
        {"SisaCoordinatorTroubled": _ONE},
        {"ray_sisa_coordinator_troubled": _since_then(0, 1)},
    ),
    Case("one of two coordinators dies", {"SisaCoordinatorSilent": _ONE}, ends=frozenset(_COORDINATOR)),
    Case(
        "a coordinator hangs",
        {"SisaCoordinatorSilent": _ONE},
        {"ray_sisa_shown_timestamp_seconds": _stopped_clock},
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
        {"ray_sisa_api_ready_timestamp_seconds": _stopped_clock},
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
        {"ray_serve_proxy_status": _since_then(2, 3)},
    ),
    Case(
        "a token expires",
        {"SisaTokenExpires": {**_ONE, "role": "erase"}},
        {"ray_sisa_token_expires_timestamp_seconds": _moment(3 * _DAY)},
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


def _input(case: Case, expressions: str, time: Timeline) -> Iterator[dict[str, str]]:
    """Yield the series that the expressions ask for, with what happens."""
    for federation in ("one", "two"):
        is_met = case.both or federation == "one"
        for name, labels in _watched(federation):
            if name not in expressions:
                continue
            values = WELL.get(name, _counting if name.endswith(_COUNTS) else _always(3))(time)
            if is_met and name in case.values:
                values = case.values[name](time)
            if labels.get("role", _ROLE) != _ROLE:
                values = _always(0)(time)
            if is_met and name in case.ends:
                values = _cut(values, time)
            listed = ",".join(f'{label}="{value}"' for label, value in labels.items())
            yield {"series": f"{name}{{{listed}}}", "values": values}


_COUNTS = ("_bucket", "_count", "_sum")


def _counting(time: Timeline) -> str:
    return f"0+3x{time.steps + 100}"


def _cut(values: str, time: Timeline) -> str:
    """Return the values until something happens, and that there are no more."""
    start, _, _ = values.partition("x")
    return f"{start}x{time.then // time.step} stale"


def _asked(
    folder: Path, name: str, case: Case, time: Timeline, rules: Sequence[Mapping[str, Any]], **tests: object
) -> str:
    """Write a file of tests of the rules, with the series that rules and tests ask for; return its name."""
    (folder / f"{name}-rules.json").write_text(
        json.dumps({"groups": [{"name": "sisa", "rules": rules}]}), encoding="utf-8"
    )
    series_of_all = list(_input(case, f"{rules}{tests}", time))
    asked = {
        "rule_files": [f"{name}-rules.json"],
        "evaluation_interval": f"{time.step}s",
        "tests": [{"interval": f"{time.step}s", "input_series": series_of_all, **tests}],
    }
    (folder / f"{name}.json").write_text(json.dumps(asked), encoding="utf-8")
    return f"{name}.json"


def _promtool(folder: Path, files: Sequence[str]) -> str:
    """Return what promtool says of the files of tests; empty: all hold."""
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "test", "rules", *files], cwd=folder, capture_output=True, text=True, check=False, timeout=120
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
    files = []
    for name, time in (("short", _SHORT), ("long", _LONG)):
        rules = [rule for rule in ALERTS if (rule["alert"] in _LOOKS_BACK) == (time is _LONG)]
        looked_at = [
            {"eval_time": f"{time.now // _MINUTE}m", "alertname": rule["alert"], "exp_alerts": _expected(case, rule)}
            for rule in rules
        ]
        assert looked_at
        files.append(_asked(tmp_path, name, case, time, rules, alert_rule_test=looked_at))
    assert _promtool(tmp_path, files) == ""


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
                    "eval_time": f"{_SHORT.now // _MINUTE}m",
                    "exp_samples": [{"labels": "{}", "value": 1}],
                }
            )
    assert _promtool(tmp_path, [_asked(tmp_path, "panels", CASES[0], _SHORT, [], promql_expr_test=asked)]) == ""


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
