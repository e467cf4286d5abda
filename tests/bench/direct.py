"""What an erasure costs a running coordinator whose learner takes points out directly: work, and durable writes.

    python -m tests.bench.direct [TRAIN] [TREES] [FOLDER]

KDD Census-Income, one shard of ten slices, the coordinator's own thread with a worker in the same process, an encrypted
store in a local folder below FOLDER (default: where temporary files are). Fifteen people are erased one after another,
each from acceptance to *complete*; medians, in milliseconds. Durable writes are the calls of the local store that write
or delete: put, compare and swap, delete. Work is what the process computes beyond these, on processors; what it only
waits for, such as others that use the same processors, is in the elapsed time.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from statistics import median
from threading import Condition
from typing import Any, Final

import pyarrow.parquet as pq
import pytest

from cluster.config.specification import read_specification
from cluster.coordinator_actor.resident import Resident
from cluster.writer.writer import drafted, writer_setup
from coordinator.ports import Notice, RequestMoved
from coordinator.requests import RequestState
from deploy.views.tables import table
from storage.stores.local import LocalStore
from tests.doubles.workers.local_workers import without_ray
from tests.real.census import census, people, specification_text

_ERASED: Final = 15
_WRITES: Final = ("put_if_absent", "put_if_match", "get_durable", "delete", "delete_all", "remove_unfinished")


@dataclass(slots=True)
class Writes:
    """The local store's durable writes, of all threads together."""

    seconds: float = 0.0
    processor_seconds: float = 0.0
    calls: int = 0
    payload_bytes: int = 0
    checkpoint_bytes: int = 0
    _within: bool = False

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count what the local store does while the block runs. Writes of different threads follow each other."""
        with pytest.MonkeyPatch.context() as patch:
            for name in _WRITES:
                patch.setattr(LocalStore, name, self._timed(getattr(LocalStore, name)))
            yield

    def _timed(self, write: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(write)
        def timed(store: LocalStore, *arguments: Any) -> Any:
            if self._within:
                return write(store, *arguments)
            if len(arguments) > 1:
                self.payload_bytes += len(arguments[1])
                self.checkpoint_bytes += len(arguments[1]) if "/checkpoints/" in arguments[0] else 0
            self._within = True
            began, computed = time.perf_counter(), time.thread_time()
            try:
                return write(store, *arguments)
            finally:
                self.seconds += time.perf_counter() - began
                self.processor_seconds += time.thread_time() - computed
                self.calls += 1
                self._within = False

        return timed


@dataclass(slots=True)
class Complete:
    """A listener that knows when each request was complete."""

    _moments: dict[str, tuple[float, float]] = field(default_factory=dict)
    _changed: Condition = field(default_factory=Condition)

    def __call__(self, notice: Notice) -> None:
        """Record the moment of a completion."""
        match notice:
            case RequestMoved(request=request) if request.state is RequestState.COMPLETE:
                with self._changed:
                    self._moments[request.request_id] = time.perf_counter(), time.process_time()
                    self._changed.notify_all()

    def of(self, request_id: str) -> tuple[float, float]:
        """Wait for the completion, and return its moment and the processor time until then."""
        with self._changed:
            self._changed.wait_for(lambda: request_id in self._moments)
            return self._moments[request_id]


def measure(folder: Path, learner: str, arguments: str) -> tuple[Any, ...]:
    """Return the figures of one learner over the data in ``folder``."""
    file = folder / "sisa.toml"
    file.write_text(specification_text(learner, arguments, 10), encoding="utf-8")
    specification, complete = read_specification(file), Complete()
    with without_ray():
        resident = Resident(lambda listen: writer_setup(specification, listener=_both(listen, complete)))
        try:
            resident.train()
            setup = writer_setup(specification, listener=lambda _: None)
            rows = []
            for number in range(_ERASED + 1):
                name = f"p{number * 97}"
                request, names = drafted(setup, subjects=[name], ids=(), request_id=f"er-{number}", held="")
                writes = Writes()
                with writes.counted():
                    began, computed = time.perf_counter(), time.process_time()
                    resident.accept(request, names)
                    seconds, processor = complete.of(request.request_id)
                    work = processor - computed - writes.processor_seconds
                    sizes = writes.calls, writes.payload_bytes, writes.checkpoint_bytes
                    rows.append((work, writes.seconds, seconds - began, *sizes))
                    _await_idle(resident)
            state = sum(each.chain[-1].payload_bytes for each in resident.state().shards)
        finally:
            resident.stop()
    work, written, seconds, calls, size, checkpoint = (median(column) for column in zip(*rows[1:], strict=True))
    return (
        f"{learner} {arguments.removeprefix('arguments = ')}".strip(),
        *(f"{each * 1e3:.1f}" for each in (work, written, seconds)),
        f"{calls:.0f}",
        f"{size / 1e6:.3f}",
        f"{state / 1e6:.3f}",
        f"{checkpoint / state:.1%}",
    )


def _both(one: Callable[[Notice], None], other: Callable[[Notice], None]) -> Callable[[Notice], None]:
    def tell(notice: Notice) -> None:
        one(notice)
        other(notice)

    return tell


def _await_idle(resident: Resident) -> None:
    heard = resident.hear(None, 0.0)
    while not heard.idle:
        heard = resident.hear(heard.upto, 1.0)


def main() -> None:
    """Print the table."""
    rows, trees = (int(word) for word in [*sys.argv[1:3], "20000", "100"][:2])
    cases = [
        ("forest", f"arguments = {{ trees = {trees} }}"),
        ("forest", f"arguments = {{ trees = {trees}, share = 0.2 }}"),
        ("forest", f'arguments = {{ trees = {trees}, thresholds = "box" }}'),
        ("naive_bayes", ""),
        ("ridge", ""),
    ]
    header = (
        "learner",
        "work ms",
        "durable writes ms",
        "elapsed ms",
        "writes",
        "written MB",
        "checkpoint MB",
        "of it written",
    )
    lines = []
    for learner, arguments in cases:
        with tempfile.TemporaryDirectory(dir=sys.argv[3] if len(sys.argv) > 3 else None) as folder:
            pq.write_table(people(*census(rows)), Path(folder) / "train.parquet")
            lines.append(measure(Path(folder), learner, arguments))
    print(table(header, lines))


if __name__ == "__main__":
    main()
