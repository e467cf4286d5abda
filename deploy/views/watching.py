"""``sisa status`` on one request, and over time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.live import Live
from rich.text import Text

from coordinator.status import FederationStatus, RequestStatus
from deploy.views.erasure import request_data, request_if_known
from deploy.views.output import Outcome, json_value
from deploy.views.text import releases_text, request_text, requests_text, status_text
from storage.errors import Invalid

if TYPE_CHECKING:
    from cluster.federation import Federation

_REFRESH_SECONDS = 1.0


class Watched(Protocol):
    """A federation, here or at a server."""

    def status(self) -> FederationStatus:
        """Return its current status."""
        ...


def request_outcome(federation: Federation, request_id: str) -> Outcome:
    """Return everything known of one request. Raises ``Invalid`` when there is no such request, or no federation."""
    status, request = federation.status(), request_if_known(federation, request_id)
    if request is None:
        federation.require_begun()
        raise Invalid(
            "there is no such erasure request", "Run 'sisa request list' to see all of them.", request=request_id
        )
    return Outcome(data=request_data(request, status), text=request_text(request, status))


def status_outcome(status: FederationStatus, releases: Mapping[str, str]) -> Outcome:
    """Return a federation's status, and the release of each process."""
    return Outcome(
        data={**json_value(status), "releases": releases}, text=status_text(status) + releases_text(releases)
    )


def requests_outcome(requests: Sequence[RequestStatus]) -> Outcome:
    """Return all erasure requests there ever were."""
    text = requests_text(requests) if requests else "no erasure request was ever accepted"
    return Outcome(data={"requests": [request_data(each, None) for each in requests]}, text=text)


def watch_status(federation: Watched) -> None:
    """Show the status again and again, until interrupted."""
    with Live(console=Console(), auto_refresh=False) as live:
        try:
            while True:
                live.update(Text(status_text(federation.status())), refresh=True)
                time.sleep(_REFRESH_SECONDS)
        except KeyboardInterrupt:
            return
