"""A coordinator's reports to monitoring: metrics and log lines. No Ray in here."""

from __future__ import annotations

from typing import Final

from cluster.coordinator_actor.log_lines import LogLines
from cluster.coordinator_actor.metrics import Gauges
from cluster.coordinator_actor.store_size import StoreSize
from coordinator.ports import Notice, RequestMoved
from coordinator.state import FederationState
from storage.errors import SisaError

REPORT_SECONDS: Final = 5.0
"""How often metrics are reported; Prometheus asks for them less often than that."""


class Observer:
    """Receives a coordinator's notices, errors and state, and has no influence on its work."""

    def __init__(self, gauges: Gauges, lines: LogLines) -> None:
        self._gauges = gauges
        self._lines = lines

    def hear(self, notice: Notice) -> None:
        """Record progress."""
        self._lines.hear(notice)
        if isinstance(notice, RequestMoved):  # by the next report the request may have left the state
            self._gauges.measure(notice.request)

    def trouble(self, error: SisaError) -> None:
        """Record what keeps the coordinator from going on."""
        self._lines.trouble(error)

    def show(self, state: FederationState, *, journal_entries: int, troubled: bool, size: StoreSize | None) -> None:
        """Report the current state."""
        self._gauges.show(state, journal_entries=journal_entries, troubled=troubled, size=size)
