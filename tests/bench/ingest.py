"""What ingest costs beside pyarrow: ``python -m tests.bench.ingest [PAIRS] [MEBIBYTES]``.

The yardstick is pyarrow alone: it reads the same file in the same batches, keeps all columns as they are, and writes
them again as Parquet with zstd, without dictionaries and statistics, as parts of slices are written; beside it, the
same without compression. Ours reads it, hashes names and contents, divides the data points over 5 × 5 slices, and
records them in an encrypted store in a local folder. Figures are processor time of all threads, user and system.

Then what takes the time, with one process; and how the processor time changes with the number of processes.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

import shards.routing
import shards.slices.contents
import shards.slices.files
import shards.slices.ingest
import storage.encryption.store
import storage.stores.durability
import storage.stores.local
from deploy.views.tables import table
from shards.data.readers import Wanted
from shards.data.sources import Source, open_source
from shards.slices.ingest import IngestResult, IngestTask, ingest
from shards.slices.parallel_ingest import ParallelIngest
from shards.specification import DataSettings, PartitionSettings
from shards.tombstones import DigestSet
from storage.encryption.store import SealedStore
from storage.stores.local import LocalStore
from tests.doubles.federation import KEY, NAMING

_PER_PERSON: Final = 5
_BATCH: Final = 65_536
_KINDS: Final = {"parquet": "Parquet", "list": "Parquet, one column of lists", "csv": "CSV"}
_CASES: Final = (("parquet", 34), ("parquet", 200), ("list", 34), ("list", 200), ("csv", 34), ("csv", 200))
_RATIOS: Final = ("ratio to zstd", "range", "ratio to plain", "range")
_NUMBERS: Final = count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table to be read, in a file."""

    name: str
    path: Path
    data: DataSettings
    points: int


@dataclass(slots=True)
class Spent:
    """Processor seconds by what they were spent for; what is within another part counts there alone."""

    seconds: dict[str, float] = field(default_factory=dict)
    _inside: list[float] = field(default_factory=list)

    def counted(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``act``, counted under ``name``."""

        def counting(*arguments: Any, **named: Any) -> Any:
            began = time.process_time()
            self._inside.append(0.0)
            try:
                return act(*arguments, **named)
            finally:
                spent = time.process_time() - began
                self.seconds[name] = self.seconds.get(name, 0.0) + spent - self._inside.pop()
                if self._inside:
                    self._inside[-1] += spent

        return counting


_PARTS: Final[tuple[tuple[str, Any, str], ...]] = (
    ("features and labels as arrays", shards.slices.ingest._Reading, "_features"),
    ("features and labels as arrays", shards.slices.ingest._Reading, "_labels"),
    ("digests of ids (BLAKE2b)", shards.slices.ingest, "point_digests"),
    ("names of subjects, and their digests", shards.routing.KnownSubjects, "digests"),
    ("digests of contents (BLAKE2b)", shards.slices.contents, "content_digests"),
    ("parts to Parquet (zstd)", shards.slices.files, "encode_part"),
    ("parts from Parquet", shards.slices.files, "decode_part"),
    ("ids that occur twice", shards.slices.ingest, "repeat_in_slices"),
    ("SHA-256 of objects", shards.slices.files, "sha256"),
    ("SHA-256 of objects", storage.encryption.store, "sha256"),
    ("SHA-256 of objects", storage.stores.local, "sha256"),
    ("encryption (AES-GCM)", storage.encryption.store, "encrypt"),
    ("encryption (AES-GCM)", storage.encryption.store, "decrypt"),
    ("fsync", storage.stores.durability, "_sync"),
    ("files and keyrings of the store", SealedStore, "put_if_absent"),
    ("files and keyrings of the store", SealedStore, "get"),
)


@dataclass(frozen=True, slots=True)
class ProcessPool:
    """A ``TaskPool`` of processes of this machine, which adds up their processor time."""

    executor: ProcessPoolExecutor
    seconds: list[float]

    def __call__(
        self,
        act: Callable[..., Any],
        things: Sequence[Any],
        new_name: Callable[[], str],
        on_result: Callable[[Any], None],
        /,
        *shared: Any,
        **more: Any,
    ) -> list[Any]:
        """Do everything, and return the results in order."""
        waiting = [self.executor.submit(_measured, act, thing, new_name(), shared, more) for thing in things]
        results = []
        for each in waiting:
            result, seconds = each.result()
            self.seconds.append(seconds)
            on_result(result)
            results.append(result)
        return results


def _measured(act: Callable[..., Any], thing: Any, name: str, shared: Any, more: Any) -> tuple[Any, float]:
    began = time.process_time()
    return act(thing, name, *shared, **more), time.process_time() - began


def _name() -> str:
    return f"n{next(_NUMBERS)}"


def cpu_seconds(act: Callable[[], object]) -> float:
    """Return the processor time that ``act`` takes."""
    started = time.process_time()
    act()
    return time.process_time() - started


def write_table(folder: Path, kind: str, width: int, mebibytes: int) -> Table:
    """Write a table of ``width`` float32 features, with five data points for each person.

    ``kind`` is ``parquet`` or ``csv``, with a column for each feature, or ``list``: Parquet with one column of lists.
    """
    row_bytes = 24 + 4 * width
    points = (mebibytes << 20) // row_bytes
    generator = np.random.default_rng(width)
    order_N = generator.permutation(points)
    columns: dict[str, pa.Array] = {
        "id": pa.array(order_N),
        "person": pa.array([f"person-{n // _PER_PERSON:07d}@example.org" for n in order_N.tolist()]),
        "label": pa.array([f"class {n % 10}" for n in order_N.tolist()]),
    }
    features = generator.standard_normal((width, points), np.float32).round(2)
    if kind == "list":
        columns["x"] = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), width)
    else:
        columns |= {f"x{n}": pa.array(values) for n, values in enumerate(features)}
    made, path = pa.table(columns), folder / f"{kind}-{row_bytes}.{'csv' if kind == 'csv' else 'parquet'}"
    if kind == "csv":
        pacsv.write_csv(made, path)
    else:
        pq.write_table(made, path, compression="none", use_dictionary=False, row_group_size=_BATCH)
    return Table(
        name=f"{_KINDS[kind]}, {row_bytes} bytes a row",
        path=path,
        data=DataSettings(
            train=path.name,
            id="id",
            subject="person",
            label="label",
            features=("x*",),
            classes=tuple(f"class {n}" for n in range(10)),
        ),
        points=points,
    )


def rewrite(read: Table, folder: Path, compression: str) -> None:
    """Read the table with pyarrow, and write it again."""
    target = folder / f"{_name()}.parquet"
    batches: Iterator[pa.RecordBatch]
    if read.path.suffix == ".csv":
        csv = pacsv.open_csv(read.path)
        schema, batches = csv.schema, iter(csv)
    else:
        file = pq.ParquetFile(read.path)
        schema, batches = file.schema_arrow, file.iter_batches(_BATCH)
    with pq.ParquetWriter(
        target, schema, compression=compression, use_dictionary=False, write_statistics=False
    ) as writer:
        for batch in batches:
            writer.write_batch(batch)
    target.unlink()


def ingest_into(read: Table, folder: Path, act: Callable[[IngestTask], IngestResult] = ingest) -> IngestResult:
    """Ingest the table into an encrypted store of its own."""
    store = SealedStore(inner=LocalStore(root=str(folder / _name())))
    task = IngestTask(
        source=_source(read),
        data=read.data,
        partition=PartitionSettings(shards=5, slices=5),
        key=KEY,
        naming=NAMING,
        store=store,
        tombstones=DigestSet,
        new_name=_name,
    )
    return act(task)


def _source(read: Table) -> Source:
    return open_source(read.path.name, read.path.parent)


@contextmanager
def counting(spent: Spent) -> Iterator[None]:
    """Count what the parts of an ingest take, within the block."""
    with ExitStack() as stack:
        for name, owner, attribute in _PARTS:
            stack.enter_context(patch.object(owner, attribute, _method(spent, name, owner, attribute)))
        yield


def _method(spent: Spent, name: str, owner: Any, attribute: str) -> Callable[..., Any]:
    counted = spent.counted(name, getattr(owner, attribute))

    def method(*arguments: Any, **named: Any) -> Any:
        return counted(*arguments, **named)

    return method


def compare(read: Table, folder: Path, pairs: int) -> tuple[str, ...]:
    """Return a line of the first table: ours over pyarrow's, one after the other in each pair."""
    ours, plain, bare = [], [], []
    for _ in range(pairs):
        plain.append(cpu_seconds(partial(rewrite, read, folder, "zstd")))
        ours.append(cpu_seconds(partial(ingest_into, read, folder)))
        bare.append(cpu_seconds(partial(rewrite, read, folder, "none")))
    micros = (f"{median(each) / read.points * 1e6:.2f}" for each in (ours, plain, bare))
    return read.name, f"{read.points:,}", *micros, *_ratio(ours, plain), *_ratio(ours, bare)


def _ratio(ours: Sequence[float], others: Sequence[float]) -> tuple[str, str]:
    """Return the median of the pairs' ratios, and their range."""
    ratios = [mine / other for mine, other in zip(ours, others, strict=True)]
    return f"{median(ratios):.2f}", f"{min(ratios):.2f}-{max(ratios):.2f}"


def divided(read: Table, folder: Path, pairs: int) -> list[tuple[str, str]]:
    """Return the microseconds a row of each part of an ingest, and what none of them covers."""
    found: dict[str, list[float]] = {}
    for _ in range(pairs):
        spent = Spent()
        with counting(spent):
            total = cpu_seconds(partial(ingest_into, read, folder))
        spent.seconds["reading the file, dividing, sorting, and the rest"] = total - sum(spent.seconds.values())
        for name, seconds in spent.seconds.items():
            found.setdefault(name, []).append(seconds)
    return [(name, f"{median(each) / read.points * 1e6:.2f}") for name, each in found.items()]


def scaled(read: Table, folder: Path, pairs: int) -> list[tuple[int, str, str, str]]:
    """Return for one and two processes the processor time a row, its range, and rows a second and process."""
    found: dict[int, list[tuple[float, float]]] = {}
    for _ in range(pairs):
        for processes in (1, 2):
            found.setdefault(processes, []).append(_with_processes(read, folder, processes))
    lines = []
    for processes, each in found.items():
        micros = sorted(cpu / read.points * 1e6 for cpu, _ in each)
        rows = median(read.points / wall / processes for _, wall in each)
        lines.append((processes, f"{median(micros):.2f}", f"{micros[0]:.2f}-{micros[-1]:.2f}", f"{rows:,.0f}"))
    return lines


def _with_processes(read: Table, folder: Path, processes: int) -> tuple[float, float]:
    """Return processor time and wall time of an ingest by so many processes, which stand ready."""
    seconds: list[float] = []
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as executor:
        list(executor.map(time.sleep, [1.0] * processes))
        list(executor.map(_warm, [read] * processes))
        act = ParallelIngest(pool=ProcessPool(executor, seconds), fragment_bytes=read.path.stat().st_size // 8)
        began, own = time.perf_counter(), time.process_time()
        ingest_into(read, folder, act)
        return sum(seconds) + time.process_time() - own, time.perf_counter() - began


def _warm(read: Table) -> int:
    """Import what an ingest needs."""
    return len(next(_source(read).batches(Wanted(texts=("id",), numbers=()), 1)).columns)


def main(pairs: int = 5, mebibytes: int = 64) -> None:
    """Measure and print tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables = [write_table(folder, kind, width, mebibytes) for kind, width in _CASES]
        heads = ("µs of processor time a row", "rows", "ingest", "pyarrow, zstd", "pyarrow, plain", *_RATIOS)
        print(table(heads, [compare(each, folder, pairs) for each in tables]), flush=True)
        for each in tables[:2]:
            print(f"\n{table((each.name, 'µs a row'), divided(each, folder, pairs))}", flush=True)
        print(
            f"\n{table(('processes', 'µs a row', 'range', 'rows a second and core'), scaled(tables[1], folder, pairs))}"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
