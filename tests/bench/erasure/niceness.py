"""How far workers may compete: requests beside busy workers, and workers beside another busy process.

    python -m tests.bench.erasure.niceness [REQUESTS]

A coordinator on a Ray of its own retrains on as many workers as the machine has processors, while requests come one
after another. For each niceness of workers: how long after its acknowledgement a request's points are withdrawn, and
which share of a processor a worker gets beside as many other tasks of Ray that compute.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from cluster.config.specification import FederationSpecification
from cluster.coordinator_actor.actor import RemoteWriter
from cluster.writer.stores import open_objects
from cluster.writer.writer import drafted, writer_setup
from coordinator.ports import Notice, RequestMoved, TrainingStarted
from coordinator.requests import ErasureRequest, RequestState
from deploy.demo_data import write_digits
from deploy.views.tables import table
from tests.bench.erasure.batches import specification_in
from tests.bench.erasure.on_ray import Running, processor_seconds, running

STEPS: Final = (0, 10)
"""Beyond the niceness that Ray gives its workers, and the coordinator."""
_SHARE_SECONDS: Final = 10.0


def main() -> None:
    """Measure, and print a table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    print(f"{os.cpu_count()} processors, as many workers; from the acknowledgement to the withdrawal")
    header = ("niceness", "requests", "median ms", "p99 ms", "worst ms", "a worker's share of a processor")
    for steps in STEPS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            made = specification_in(folder, write_digits(folder / "data"), epochs=4000, slices=2)
            cluster = replace(made.cluster, niceness=steps, workers=os.cpu_count())
            partition = replace(made.partition, shards=2 * (os.cpu_count() or 1))
            line = _measured(replace(made, cluster=cluster, partition=partition), steps, count)
            print(table(header, [line]), flush=True)


def _measured(specification: FederationSpecification, steps: int, count: int) -> tuple[str, ...]:
    with running(specification) as at_work:
        watch: list[Notice] = []
        writer = RemoteWriter(at_work.handle, open_objects(specification), watch.append)
        training = writer._hear(None, 0.0)
        at_work.handle.train.remote()  # takes minutes
        while not any(isinstance(each, TrainingStarted) for each in watch):
            training = writer._tell(writer._hear(training.upto, 1.0))
        waits = [_withdrawn(writer, specification, number) for number in range(count)]
        share = _share(at_work)
    found = (median(waits), quantiles(waits, n=100, method="inclusive")[98], max(waits))
    return (f"+{steps}", f"{count}", *(f"{value * 1000:.0f}" for value in found), f"{share:.2f}")


def _withdrawn(writer: RemoteWriter, specification: FederationSpecification, number: int) -> float:
    """Return the seconds from a request's acknowledgement until this process receives notice of the withdrawal."""
    setup = writer_setup(specification, listener=lambda _: None)
    request, names = drafted(setup, subjects=[f"person-{number:04d}"], ids=(), request_id=f"er-{number}", held="")
    heard = writer._hear(None, 0.0)
    writer.accept(request, names)
    acknowledged = time.perf_counter()
    while True:
        heard = writer._hear(heard.upto, 1.0, until_idle=False)
        for notice in heard.notices:
            if isinstance(notice, RequestMoved) and _is_withdrawn(notice.request, request.request_id):
                return time.perf_counter() - acknowledged


def _is_withdrawn(request: ErasureRequest, request_id: str) -> bool:
    return request.request_id == request_id and request.state is not RequestState.ACCEPTED


def _share(at_work: Running) -> float:
    """Return the mean share of a processor that a worker gets beside as many other Ray tasks."""
    import ray

    parent = _parent(at_work.process)
    found = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    found = [process for process in found if _is_worker(process) and _parent(process) == parent]
    compute = ray.remote(num_cpus=0)(_compute)
    others = [compute.remote(_SHARE_SECONDS + 5) for _ in found]
    time.sleep(5)  # until they have started
    before = [processor_seconds(process) for process in found]
    began = time.perf_counter()
    time.sleep(_SHARE_SECONDS)
    seconds = time.perf_counter() - began
    spent = [processor_seconds(process) - was for process, was in zip(found, before, strict=True)]
    ray.get(others)
    return sum(spent) / seconds / len(found)


def _compute(seconds: float) -> None:
    """Compute for so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def _parent(process: int) -> int:
    """Return a process's parent: all processes of one Ray have the same."""
    return int(Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])


def _is_worker(process: int) -> bool:
    try:
        return b"ray::WorkerShell" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


if __name__ == "__main__":
    main()
