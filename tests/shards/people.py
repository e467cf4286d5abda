"""Small data sets for the tests of the data side."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from pyarrow import feather

from shards.data.sources import open_source
from shards.points import PointBlock
from shards.routing import AS_GIVEN, NOBODY, Naming, PartitionKey, point_digest, subject_digest
from shards.slices.ingest import IngestResult, IngestTask, ingest
from shards.specification import DataSettings, PartitionSettings
from shards.tombstones import NOTHING, DigestSet
from storage.objects import ObjectStore
from storage.stores.memory import MemoryStore

KEY = PartitionKey(b"a key for tests only, 32 bytes!!")
PARTITION = PartitionSettings(shards=3, slices=2)

_numbers = itertools.count()


def fresh_store() -> MemoryStore:
    """Return an empty store of its own."""
    return MemoryStore(f"data-side-{next(_numbers)}")


def fresh_names() -> Callable[[], str]:
    """Return a function that returns a new object name at every call."""
    return lambda: f"{next(_numbers):08x}"


def settings(**changes: object) -> DataSettings:
    """Return the settings that fit ``people``."""
    values: dict[str, object] = {
        "train": "people.parquet",
        "id": "id",
        "subject": "person",
        "label": "label",
        "features": ("x*",),
        "classes": ("no", "yes"),
    }
    return DataSettings(**(values | changes))  # type: ignore[arg-type]


def people(points: int = 40, seed: int = 5, dtype: str = "uint8") -> pa.Table:
    """Return a table of data points, about three for each person, with four features."""
    generator = np.random.default_rng(seed)
    columns: dict[str, pa.Array] = {
        "id": pa.array([f"point-{number}" for number in range(points)], pa.string()),
        "person": pa.array([f"person-{number // 3}" for number in range(points)], pa.string()),
        "label": pa.array([("no", "yes")[number % 2] for number in range(points)], pa.string()),
    }
    for position in range(4):
        columns[f"x{position}"] = pa.array(generator.integers(0, 256, points).astype(dtype))
    return pa.table(columns)


def messages(points: int = 40, seed: int = 5, dtype: str = "uint8") -> pa.Table:
    """Return ``people`` with a column of recipients, who are persons of other data points; every fourth has none."""
    recipients = [None if number % 4 == 3 else f"person-{(number * 5) // 3 % 17}" for number in range(points)]
    return people(points, seed, dtype).append_column("recipient", pa.array(recipients, pa.string()))


def replaced(
    table: pa.Table, name: str, values: Sequence[object] | pa.Array, kind: pa.DataType | None = None
) -> pa.Table:
    """Return the table with one column replaced."""
    array = values if isinstance(values, pa.Array) else pa.array(values, kind)
    return table.set_column(table.column_names.index(name), name, array)


def write(table: pa.Table, path: Path) -> Path:
    """Write the table in the format of the path's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = "".join(path.suffixes)
    if ending in {".parquet", ".pq"}:
        pq.write_table(table, path, row_group_size=16)
    elif ending == ".feather":
        feather.write_feather(table, str(path), chunksize=7)
    elif ending == ".arrow":
        with pa.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table, max_chunksize=9)
    elif ending == ".ipc":
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table)
    else:
        with pa.output_stream(path, compression="detect") as output:
            pacsv.write_csv(table, output)
    return path


@dataclass(frozen=True, slots=True)
class FixedTombstones:
    """Tombstones that can be sent to other processes."""

    digests: DigestSet

    def __call__(self) -> DigestSet:
        """Return the tombstones."""
        return self.digests


def ingest_file(
    path: Path,
    data: DataSettings | None = None,
    *,
    store: ObjectStore | None = None,
    partition: PartitionSettings = PARTITION,
    tombstones: DigestSet = NOTHING,
    buffer_bytes: int | None = None,
    names: Callable[[], str] | None = None,
    naming: Naming = AS_GIVEN,
) -> IngestResult:
    """Ingest a file, folder or glob into ``store`` (default: a new one)."""
    task = IngestTask(
        source=open_source(str(path), path.parent),
        data=data or settings(),
        partition=partition,
        key=KEY,
        naming=naming,
        store=store or fresh_store(),
        tombstones=FixedTombstones(tombstones),
        new_name=names or fresh_names(),
    )
    return ingest(task, buffer_bytes)


def block(
    numbers: Sequence[int], features: int = 4, dtype: str = "uint8", per_person: int = 3, further: int = 0
) -> PointBlock:
    """Return data points whose content is derived from their numbers; every fourth has no ``further`` subjects."""
    points = b"".join(point_digest(KEY, f"point-{number}") for number in numbers)
    subjects = b"".join(subject_digest(KEY, f"person-{number // per_person}") for number in numbers)
    others = b"".join(
        NOBODY if number % 4 == 3 else subject_digest(KEY, f"person-{number // per_person + 1 + position}")
        for number in numbers
        for position in range(further)
    )
    values = [[(7 * number + 31 * position) % 251 for position in range(features)] for number in numbers]
    return PointBlock(
        points_N=np.frombuffer(points, dtype="V16"),
        subjects_N=np.frombuffer(subjects, dtype="V16"),
        labels_N=np.array([number % 2 for number in numbers], dtype=np.int32),
        features_NF=np.array(values, dtype=dtype).reshape(len(numbers), features),
        further_NK=np.frombuffer(others, dtype="V16").reshape(len(numbers), further),
    )


def points(*numbers: int) -> DigestSet:
    """Return the digests of data points of ``block`` or ``people``."""
    return DigestSet.of(points=[point_digest(KEY, f"point-{number}") for number in numbers])


def subjects(*numbers: int) -> DigestSet:
    """Return the digests of persons of ``block`` or ``people``."""
    return DigestSet.of(subjects=[subject_digest(KEY, f"person-{number}") for number in numbers])
