"""Metrics handed to Ray, whose agent on each node exports them for Prometheus."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from ray.util.metrics import Gauge, Histogram

from cluster.coordinator_actor.log_lines import LogLines
from cluster.coordinator_actor.metrics import METRICS, REPLICA_METRICS, Gauges, Metric, ReplicaGauges
from cluster.coordinator_actor.observer import Observer
from cluster.runtime.system import SystemClock


class RayMeter:
    """Implements ``metrics.Meter``. Where Ray has no agent (a plain ``ray`` install) values go nowhere."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._gauges = {
            metric.name: Gauge(metric.name, metric.description, metric.labels)
            for metric in metrics
            if metric.kind == "gauge"
        }
        self._histograms = {
            metric.name: Histogram(metric.name, metric.description, list(metric.buckets), metric.labels)
            for metric in metrics
            if metric.kind == "histogram"
        }

    def set(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Take the current value of a gauge."""
        self._gauges[metric.name].set(value, tags=dict(labels))

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Take one more measurement of a histogram."""
        self._histograms[metric.name].observe(value, tags=dict(labels))


def observer_of(federation: str) -> Observer:
    """Return the observer of a federation's coordinator in this process, which Ray runs: lines go to its stdout."""
    clock = SystemClock()
    return Observer(Gauges(federation, RayMeter(METRICS), clock), LogLines(federation, clock, sys.stdout))


def replica_gauges_of(federation: str) -> ReplicaGauges:
    """Return the reporter for a replica of a federation's API in this process."""
    return ReplicaGauges(federation, RayMeter(REPLICA_METRICS), SystemClock())
