"""The formats of slice files: with one subject a data point, and with several."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.points import PointBlock
from shards.slices.files import decode_part, encode_part
from tests.golden.regenerate_parts import BLOCKS, FOLDER


def columns(block: PointBlock) -> list[tuple[str, tuple[int, ...], bytes]]:
    """Return all that a block holds."""
    arrays = (block.points_N, block.subjects_N, block.labels_N, block.features_NF, block.further_NK)
    return [(array.dtype.str, array.shape, array.tobytes()) for array in arrays]


def written_by(payload: bytes) -> str:
    """Return which library wrote the file."""
    return str(pq.read_metadata(pa.BufferReader(payload)).created_by)


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_the_golden_part_is_read(name: str) -> None:
    """What the first release with this format wrote is read as it was meant."""
    assert columns(decode_part((FOLDER / name).read_bytes())) == columns(BLOCKS[name])


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_what_is_written_is_the_golden_part(name: str) -> None:
    """What this version writes has the same columns, values and metadata; the same bytes where pyarrow is the same."""
    golden, payload = (FOLDER / name).read_bytes(), encode_part(BLOCKS[name])
    tables = [pq.read_table(pa.BufferReader(each), use_threads=False) for each in (golden, payload)]
    assert tables[0].equals(tables[1], check_metadata=True)
    assert payload == golden or written_by(payload) != written_by(golden)


def test_every_golden_part_is_checked() -> None:
    """A test reads every golden file."""
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(BLOCKS)


def test_the_second_format_adds_one_column() -> None:
    """Further subjects are 16 bytes each in one column behind the others; all else is as in the first format."""
    first, second = (
        pq.read_table(FOLDER / name, use_threads=False) for name in ("part-v1-uint8.parquet", "part-v2.parquet")
    )
    assert second.schema.field("further").type == pa.binary(32)
    assert second.drop_columns(["further"]).equals(first)
    metadata = [table.schema.metadata for table in (first, second)]
    assert [each.pop(b"format") for each in metadata] == [b"sisa/part/1", b"sisa/part/2"]
    assert metadata[0] == metadata[1]
