"""A Ray head on this machine that outlives the process that starts it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from storage.errors import Unavailable
from storage.stores.lock import held

_LOOPBACK: Final = "127.0.0.1"
_PORTS: Final = range(6380, 8000)
"""Below the ports that Ray gives to workers."""

_START_SECONDS: Final = 60.0
_PATIENCE_SECONDS: Final = 3 * _START_SECONDS
_STOP_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.1
_CONNECT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A Ray head."""

    address: str
    process: int
    """Its process id; Ray's other processes end with it."""


def start_head(labels: Mapping[str, str]) -> Head:
    """Start a Ray head with these labels on a free port, with token authentication and without a dashboard.

    Heads of one user start one after another: a port that is free stays so until the head listens there, and a head
    that answers is the one that was started. Raises ``Unavailable`` when it does not come up, or others take too long.
    """
    with _alone():
        return _started(labels)


@contextmanager
def _alone() -> Iterator[None]:
    lock = Path(tempfile.gettempdir()) / f"sisa-head-{os.getuid()}.lock"
    with ExitStack() as stack:
        try:
            stack.enter_context(held(lock, _PATIENCE_SECONDS))
        except BlockingIOError as error:
            raise Unavailable("another Ray head is being started on this machine", "Try again in a minute.") from error
        except OSError as error:
            raise Unavailable(
                f"no Ray head can be started: the lock file {lock} cannot be used ({type(error).__name__})",
                "Have the file removed, or set TMPDIR to a folder of your own.",
            ) from error
        yield


def _started(labels: Mapping[str, str]) -> Head:
    port = _free_port()
    process = subprocess.Popen(  # noqa: S603  our own interpreter, fixed words
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *("--port", str(port), "--node-ip-address", _LOOPBACK),
            # Commands do not read what workers print, which the log monitor would send them.
            *("--include-dashboard=false", "--include-log-monitor=false", "--disable-usage-stats"),
            *("--labels", ",".join(f"{name}={value}" for name, value in labels.items())),
        ],
        # Our workers start with an environment of their own, which no process that Ray starts beforehand has.
        env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_prestart_worker_first_driver": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # so that an interrupt of the command does not reach the head
    )
    head = Head(address=f"{_LOOPBACK}:{port}", process=process.pid)
    until = monotonic() + _START_SECONDS
    while not is_reachable(head.address):
        if process.poll() is not None or monotonic() > until:
            process.kill()
            raise Unavailable(
                "a Ray head could not be started on this machine",
                "Try 'ray start --head' to see why, or name a cluster in [cluster] address.",
            )
        sleep(_LOOK_SECONDS)
    return head


def stop_head(process: int, address: str) -> None:
    """End the head and all of its processes, until nothing listens at its address; do nothing if it is gone."""
    if not _is_head(process):
        return
    os.kill(process, signal.SIGTERM)
    until = monotonic() + _STOP_SECONDS
    while _is_head(process):
        if monotonic() > until:
            os.kill(process, signal.SIGKILL)
        sleep(_LOOK_SECONDS)
    while is_reachable(address) and monotonic() < until + _STOP_SECONDS:  # its other processes end a moment later
        sleep(_LOOK_SECONDS)


def is_reachable(address: str) -> bool:
    """Return whether something listens at ``address``, host and port."""
    host, _, port = address.rpartition(":")
    try:
        with closing(socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS)):
            return True
    except (OSError, ValueError):
        return False


def _is_head(process: int) -> bool:
    """Return whether the process is a Ray head: another process may have reused its id."""
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"start" in words and b"--head" in words


def _free_port() -> int:
    for port in _PORTS:
        with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as candidate:
            try:
                candidate.bind((_LOOPBACK, port))
            except OSError:
                continue
            return port
    raise Unavailable("no port is free for a Ray head", "End processes that listen on ports 6380 to 7999.")
