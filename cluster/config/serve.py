"""The table ``[serve]``: where the HTTP API listens, and how much it takes from one caller."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from storage.errors import Invalid

_PREFIX = re.compile(r"/|(/[A-Za-z0-9._~-]+)+")
_HOST = re.compile(r"[A-Za-z0-9.:_-]{1,253}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """The table ``[serve]``. None of it decides a result."""

    host: str = "127.0.0.1"
    """Address to listen at. The default is reached from this machine alone; TLS is for a proxy in front of it."""
    port: int = 8000
    """TCP port, 1 .. 65535."""
    prefix: str = "/"
    """Path of the API; several federations on one Ray cluster need one each."""
    replicas: int = 1
    """Processes that answer, each with all constituents in memory; 1 .. 1000."""
    cpus_per_replica: float = 0.0
    """Processors that Ray reserves for a replica. 0: it shares them, so that serving never keeps an erasure from being
    retrained."""
    refresh_seconds: float = 1.0
    """How often a replica looks for a new generation and for revoked tokens when nobody asks; above 0, at most 60.
    An erasure does not wait for it: every answer is confirmed against the store."""
    max_body_bytes: int = 32 * 1024 * 1024
    """Largest body of a request; 1 KiB .. 1 GiB."""
    body_seconds: float = 10.0
    """How long a body may take to arrive, plus 1 s for each 64 KiB of it, and how long a body may wait for its turn;
    0.01 .. 3600. The default suits callers on a working network; a body that stalls is given up after this time."""
    max_points: int = 100_000
    """Most data points in one request for predictions; 1 .. 10,000,000. Each takes 4 bytes per feature in memory."""
    max_names: int = 100_000
    """Most subjects and ids in one erasure request; 1 .. 10,000,000."""
    requests_per_minute: int = 6_000
    """Most requests per minute with one token, counted by each replica; all of a minute's may arrive together. 1 or
    more."""
    lookups_per_minute: int = 30
    """Most look-ups per minute with one token, counted by each replica, each of up to 100 names; 1 or more. Without
    this limit the holder of a token could find out who is in the federation by trying names."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be {least:,} .. {most:,}, got {value}"
            for name, least, most, value in (
                ("port", 1, 65_535, self.port),
                ("replicas", 1, 1_000, self.replicas),
                ("max_body_bytes", 1024, 1 << 30, self.max_body_bytes),
                ("max_points", 1, 10_000_000, self.max_points),
                ("max_names", 1, 10_000_000, self.max_names),
                ("requests_per_minute", 1, 1_000_000_000, self.requests_per_minute),
                ("lookups_per_minute", 1, 1_000_000_000, self.lookups_per_minute),
            )
            if not least <= value <= most
        ]
        if not _HOST.fullmatch(self.host):
            problems.append(f"host must be an address or a name, got {self.host!r}")
        if not _PREFIX.fullmatch(self.prefix):
            problems.append(f"prefix must be '/' or like '/name', got {self.prefix!r}")
        if not (math.isfinite(self.cpus_per_replica) and self.cpus_per_replica >= 0):
            problems.append(f"cpus_per_replica must be 0 or more, got {self.cpus_per_replica}")
        if not 0 < self.refresh_seconds <= 60:
            problems.append(f"refresh_seconds must be above 0 and at most 60, got {self.refresh_seconds}")
        if not 0.01 <= self.body_seconds <= 3600:
            problems.append(f"body_seconds must be 0.01 .. 3600, got {self.body_seconds}")
        if problems:
            raise Invalid("; ".join(f"[serve] {problem}" for problem in problems))

    @property
    def url(self) -> str:
        """Where the API is reached from this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104  it is read here, not set
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}{self.prefix.rstrip('/')}"
