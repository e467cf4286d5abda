"""How soon a replica can answer, and the memory it takes: ``python -m tests.bench.serving.start [megabytes]``.

The federation's twenty constituents have so many megabytes together. Its store is made in this process, whose training
is one step a constituent. Then new processes open it, as a replica does.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from cluster.config.specification import read_specification
from cluster.coordinator_actor.resident import Resident
from cluster.serving.service import Service, open_service
from cluster.training import workers
from cluster.writer.writer import writer_setup
from deploy.demo_data import write_digits
from deploy.views.tables import table
from storage.errors import Unavailable
from tests.doubles.demo_specification import demo_specification
from tests.doubles.workers.local_workers import LocalWorkers

SHARDS: Final = 20
REPEATS: Final = 3
_TOP: Final = 64
_PATIENCE_SECONDS: Final = 600.0


def main() -> None:
    """Measure; or, with a specification's path, be the replica that is measured."""
    given = sys.argv[1] if len(sys.argv) > 1 else "1000"
    if given.endswith(".toml"):
        _start(Path(given))
    else:
        report_start(int(given))


def report_start(megabytes: int) -> None:
    """Make a store, start replicas on it, and print how long they take; nothing for 0 megabytes."""
    if not megabytes:
        return
    with tempfile.TemporaryDirectory() as folder:
        file = _made(Path(folder), megabytes)
        found = [_measured(file) for _ in range(REPEATS)]
    names = ("imports s", "imports CPU s", "loading s", "loading CPU s", "weights MB", "memory before MB", "peak MB")
    print(
        table(
            ("a replica's start", "median", "all"),
            [
                (
                    name,
                    f"{median(each[name] for each in found):,.2f}",
                    ", ".join(f"{each[name]:,.2f}" for each in found),
                )
                for name in names
            ],
        )
    )
    beyond = median((each["peak MB"] - each["memory before MB"]) / each["weights MB"] for each in found)
    print(f"peak memory beyond that of the imports, over the weights: {beyond:.2f}")


def _made(folder: Path, megabytes: int) -> Path:
    hidden = round((megabytes * 1e6 / 4 / SHARDS) ** 0.5) - _TOP // 2
    data = write_digits(folder / "data")
    file = folder / "sisa.toml"
    text = demo_specification(
        scale=data.scale, epochs=1, batch_size=512, shards=SHARDS, slices=1, hidden=f"{hidden}, {hidden}"
    )
    file.write_text(text, encoding="utf-8")
    vars(workers).update(RayPool=LocalWorkers, join_ray=lambda _: False)
    specification = read_specification(file)
    coordinator = Resident(lambda listener: writer_setup(specification, listener=listener))
    coordinator.train()
    coordinator.stop()
    return file


def _measured(file: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.serving.start", str(file)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def _start(file: Path) -> None:
    """Open the federation as a replica does, answer one data point, and print what that took."""
    imported, before = time.process_time(), _megabytes("VmRSS")
    began = time.perf_counter()
    service = open_service(read_specification(file), lambda: None)
    _until_ready(service)
    loaded = time.perf_counter() - began
    used = time.process_time() - imported
    service.answering.ask(np.ones((1, 64), np.float32)).result()
    ensemble = service.standing.ensemble
    assert ensemble is not None
    weights = sum(each.nbytes for state in ensemble.constituents for each in state.model.parameters()) / 1e6
    service.close()
    started = time.clock_gettime(time.CLOCK_BOOTTIME) - _born()
    print(
        json.dumps(
            {
                "imports s": started - loaded,
                "imports CPU s": imported,
                "loading s": loaded,
                "loading CPU s": used,
                "weights MB": weights,
                "memory before MB": before,
                "peak MB": _megabytes("VmHWM"),
            }
        )
    )


def _until_ready(service: Service) -> None:
    """Return when the service answers. Raises its reason if it does not within ``_PATIENCE_SECONDS``."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            service.check()
        except Unavailable:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


def _born() -> float:
    """Return when this process began, in seconds since the machine did."""
    fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return int(fields[19]) / 100


def _megabytes(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


if __name__ == "__main__":
    main()
