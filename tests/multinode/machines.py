"""Machines of a Ray cluster as their systemd units start them, each with an address of its own: 127.0.0.2 and so on.

What is changed of a unit are paths and ports, how large a node is, and that nobody reads Ray's logs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

from tests.deploy_files.units import Unit, read_unit
from tests.multinode.nodes import children_of
from tests.multinode.patience import until
from tests.ray.commands import ROOT


@dataclass(slots=True)
class Machine:
    """One machine, or its loss."""

    unit: Unit
    changes: Mapping[str, str]
    """What stands in the unit, and what here in its place."""
    options: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    """Where it writes what it says, as the journal would have it."""
    _is_lost: Event = field(default_factory=Event)
    _supervisor: Thread | None = None
    _process: int = 0

    def start(self) -> None:
        """Start what the unit starts, again and again wherever it ends, as systemd does; return when it is up."""
        self._is_lost.clear()
        self._supervisor = Thread(target=self._supervise, name="supervisor")
        self._supervisor.start()
        until(lambda: self.is_up, "a node to start")

    def fail(self) -> None:
        """End everything on the machine by SIGKILL, for good."""
        if self._supervisor is None:
            return
        self._is_lost.set()
        while self._supervisor.is_alive():
            for process in _all_of(self._process):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            self._supervisor.join(0.1)

    @property
    def is_up(self) -> bool:
        """Whether its part of Ray runs."""
        return self._log.exists() and b"Ray runtime started" in self._log.read_bytes()

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _supervise(self) -> None:
        words = [self._changed(word) for word in self.unit.command]
        assert words.pop(0) == "/opt/sisa/bin/ray"
        given = {name: self._changed(value) for name, value in self.unit.environment.items()}
        while not self._is_lost.is_set():
            if "--head" in words:
                # Ray takes the nodes, which are on this machine here, for a head that runs, if this file says where.
                (Path(self.environment["RAY_TMPDIR"]) / "ray" / "ray_current_cluster").unlink(missing_ok=True)
            with self._log.open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "ray.scripts.scripts", *words, *self.options],
                    env={**os.environ, **given, **self.environment, "PYTHONPATH": str(ROOT)},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self._process = process.pid
            process.wait()

    def _changed(self, text: str) -> str:
        for before, after in self.changes.items():
            text = text.replace(before, after)
        return text


def _all_of(process: int) -> list[int]:
    try:
        children = children_of(process)
    except FileNotFoundError:
        children = []
    return [process, *(each for child in children for each in _all_of(child))]


def head_and_nodes(folder: Path, ports: Mapping[str, int], environment: Mapping[str, str]) -> dict[str, Machine]:
    """Return the head, and two nodes, not yet started; ``ports``: of ``head``, and of the nodes' proxies by name."""
    machines = {}
    for number, name in enumerate(("head", "one", "two"), start=2):
        own = folder / name
        (own / "spill").mkdir(parents=True)
        changes = {
            "${SISA_HEAD}": f"127.0.0.2:{ports['head']}",
            "--port=6379": f"--port={ports['head']}",
            "--metrics-export-port=8080": "--metrics-export-port=0",
            "/run/sisa-spill": str(own / "spill"),
            "/var/lib/sisa-gcs": str(own / "gcs"),
            "/etc/sisa/auth_token": environment["RAY_AUTH_TOKEN_PATH"],
        }
        options = (
            f"--node-ip-address=127.0.0.{number}",
            "--object-store-memory=80000000",
            "--include-log-monitor=false",
            "--include-dashboard=false" if name == "head" else "--num-cpus=2",
        )
        given = dict(environment)
        if name != "head":
            given["RAY_SERVE_WORKER_PROXY_HTTP_PORT"] = str(ports[name])
        unit = read_unit("sisa-head" if name == "head" else "sisa-node")
        machines[name] = Machine(unit, changes, options, given, own)
    return machines
