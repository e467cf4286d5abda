"""``sisa status`` on one request, and over time."""

from __future__ import annotations

import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from cluster.federation import Federation
from coordinator.requests import RequestState
from coordinator.status import FederationStatus
from deploy.output import Outcome, plain
from deploy.text import requests_text, status_text
from storage.errors import Invalid

_REFRESH_SECONDS = 1.0


def request_outcome(status: FederationStatus, request_id: str) -> Outcome:
    """Return one request's status. Raises ``Invalid`` when there is no such request."""
    for request in status.requests:
        if request.request_id == request_id:
            passed = [state.value for state in RequestState if state.value in request.times]
            times = "\n".join(f"  {request.times[state]}  {state}" for state in passed)
            return Outcome(data=plain(request), text=f"{requests_text([request])}\n{times}")
    raise Invalid("there is no such erasure request", "'sisa status' lists them all", request=request_id)


def watch_status(federation: Federation) -> None:
    """Show the status again and again, until interrupted."""
    with Live(console=Console(), auto_refresh=False) as live:
        try:
            while True:
                live.update(Text(status_text(federation.status())), refresh=True)
                time.sleep(_REFRESH_SECONDS)
        except KeyboardInterrupt:
            return
