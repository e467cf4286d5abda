"""Ingest stays within its memory limit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.doubles.stores.s3_servers import plain_client
from tests.volume import examples

LIMIT_MB = 256
REMOTE_LIMIT_MB = 320
FEATURES = 784
GROUP = 20_000
GROUPS = examples(10, few=6)
REMOTE_GROUPS = 6

# A separate process, because other tests have raised this one's peak. VmHWM, not ru_maxrss, which a child inherits from
# its parent.
CHILD = """
import itertools, sys
from pathlib import Path
from shards.slices.ingest import IngestTask, ingest
from shards.routing import PartitionKey
from shards.data.sources import open_source
from shards.specification import DataSettings, PartitionSettings
from shards.tombstones import NOTHING
from storage.stores.local import LocalStore

folder, limit = Path(sys.argv[1]), int(sys.argv[2])
names = itertools.count()
ingested = ingest(IngestTask(
    source=open_source(sys.argv[3], folder, endpoint=sys.argv[4] or None),
    data=DataSettings(train="big.parquet", id="id", subject="person", label="label", features=("x*",),
                      classes=tuple("0123456789"), ingest_memory_mb=limit),
    partition=PartitionSettings(shards=5, slices=5),
    key=PartitionKey(bytes(32)),
    store=LocalStore(root=str(folder / "store")),
    tombstones=lambda: NOTHING,
    new_name=lambda: f"{next(names):08x}",
))
status = Path("/proc/self/status").read_text()
print(ingested.points, status.partition("VmHWM:")[2].split()[0])
"""


def _write_big(path: Path, groups: int = GROUPS) -> None:
    columns = [("id", pa.int64()), ("person", pa.int64()), ("label", pa.int64())]
    schema = pa.schema([*columns, *((f"x{position}", pa.uint8()) for position in range(FEATURES))])
    noise = np.random.default_rng(1).integers(0, 256, (FEATURES, GROUP + GROUPS), dtype=np.uint8)
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for group in range(groups):
            ids = np.arange(group * GROUP, (group + 1) * GROUP)
            features = [pa.array(column[group : group + GROUP]) for column in noise]
            arrays = [pa.array(ids), pa.array(ids // 3), pa.array(ids % 10), *features]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


@pytest.mark.slow
@pytest.mark.volume
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_a_file_larger_than_the_limit_is_ingested_within_it(tmp_path: Path) -> None:
    """A file of hundreds of megabytes is ingested by a process that stays below its limit of 256 MiB."""
    _write_big(tmp_path / "big.parquet")
    assert (tmp_path / "big.parquet").stat().st_size > GROUPS * LIMIT_MB / 5 * 2**20  # in a soak twice the limit
    points, peak_kib = _ingested(tmp_path, LIMIT_MB, "big.parquet", "")
    assert points == GROUP * GROUPS
    assert peak_kib < LIMIT_MB << 10


@pytest.mark.slow
@pytest.mark.s3
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_a_large_file_in_a_bucket_is_ingested_within_the_limit(tmp_path: Path, seaweedfs_endpoint: str) -> None:
    """The limit holds for a larger file in a bucket whose row groups do not fit into memory."""
    _write_big(tmp_path / "big.parquet", REMOTE_GROUPS)
    assert (tmp_path / "big.parquet").stat().st_size > REMOTE_LIMIT_MB << 20
    client = plain_client(seaweedfs_endpoint)
    with (tmp_path / "big.parquet").open("rb") as file:
        client.put_object(Bucket="plain", Key="big/big.parquet", Body=file)
    points, peak_kib = _ingested(tmp_path, REMOTE_LIMIT_MB, "s3://plain/big/big.parquet", seaweedfs_endpoint)
    client.delete_object(Bucket="plain", Key="big/big.parquet")
    client.close()
    assert points == GROUP * REMOTE_GROUPS
    assert peak_kib < REMOTE_LIMIT_MB << 10


def _ingested(folder: Path, limit_mb: int, location: str, endpoint: str) -> tuple[int, int]:
    """Return the number of data points that a child process ingested, and its peak memory in KiB."""
    command = [sys.executable, "-c", CHILD, str(folder), str(limit_mb), location, endpoint]
    root = Path(__file__).parents[3]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert finished.returncode == 0, finished.stderr
    points, peak_kib = map(int, finished.stdout.split())
    return points, peak_kib
