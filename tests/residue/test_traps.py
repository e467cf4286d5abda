"""Libraries may carry erased values along: one test shows that each trap is real, another that we avoid it.

``tests/shards/slices/test_files.py`` tests that a part contains only its own points, and that a rewritten slice
contains no erased ones.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from shards.learners.torch.checkpoint import decode_checkpoint, encode_checkpoint
from shards.points import PointBlock
from shards.slices.files import encode_part
from tests.doubles.lineages import lineage_of
from tests.residue.markers import Marker, draw_markers, laid_open, traces

POINTS = 100


@pytest.fixture
def text() -> Marker:
    """A text about the erased person."""
    return draw_markers()["memo"]


@pytest.fixture
def pixels() -> Marker:
    """The features of the erased person."""
    return draw_markers()["features"]


def _as_ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    payload: bytes = sink.getvalue().to_pybytes()
    return payload


def _as_parquet(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    payload: bytes = sink.getvalue().to_pybytes()
    return payload


def _block(features: bytes) -> PointBlock:
    """Return points whose last one has these features."""
    numbers = np.arange(POINTS * len(features), dtype=np.uint8).reshape(POINTS, len(features))
    numbers[-1] = np.frombuffer(features, dtype=np.uint8)
    digests = np.arange(POINTS * 16, dtype=np.uint8).view("V16")
    return PointBlock(
        points_N=digests, subjects_N=digests, labels_N=np.arange(POINTS, dtype=np.int32) % 3, features_NF=numbers
    )


def _first(block: PointBlock, count: int) -> PointBlock:
    """Return a view of the first points."""
    return PointBlock(
        points_N=block.points_N[:count],
        subjects_N=block.subjects_N[:count],
        labels_N=block.labels_N[:count],
        features_NF=block.features_NF[:count],
    )


def _written(block: PointBlock) -> dict[str, bytes]:
    """Return the points as a slice file and as a message to another process."""
    return {"file": laid_open(encode_part(block)), "message": pickle.dumps(block)}


@pytest.mark.parametrize("write", [_as_ipc, _as_parquet], ids=["ipc", "parquet"])
def test_a_filtered_dictionary_keeps_what_was_filtered_out(write: Any, text: Marker) -> None:
    """Arrow writes a column's whole dictionary, including the erased entry that no row uses any longer."""
    table = pa.table({"name": pa.array(["x"] * POINTS + [text.value]).dictionary_encode()})
    survivors = table.filter(pc.not_equal(table["name"], text.value))
    assert survivors.num_rows == POINTS
    assert traces(text, {"file": laid_open(write(survivors))})


def test_a_part_has_no_dictionary(pixels: Marker) -> None:
    """No column of a slice file is encoded by a dictionary, in the file's pages or in its schema."""
    payload = encode_part(_block(pixels.value))
    metadata = pq.read_metadata(pa.BufferReader(payload))
    columns = [metadata.row_group(0).column(number) for number in range(metadata.num_columns)]
    assert not any("DICTIONARY" in encoding for column in columns for encoding in column.encodings)
    assert not any(column.has_dictionary_page for column in columns)
    assert not any(pa.types.is_dictionary(field.type) for field in metadata.schema.to_arrow_schema())


def test_a_slice_of_a_table_carries_the_rest(text: Marker) -> None:
    """A view of a few rows, pickled as Ray would send it, holds the erased value of a row that is not in it."""
    table = pa.table({"name": ["x"] * POINTS + [text.value]})
    assert traces(text, {"message": pickle.dumps(table.slice(0, 1))})


def test_a_view_of_points_carries_nothing(pixels: Marker) -> None:
    """A view of points, written as a slice file or pickled as a message, holds no other point's features."""
    block = _block(pixels.value)
    assert traces(pixels, _written(block)) == ["file", "message"]
    assert traces(pixels, _written(_first(block, POINTS - 1))) == []


def test_statistics_hold_values(text: Marker) -> None:
    """By default a Parquet file's footer contains the smallest and the largest value of a column in plain form."""
    table = pa.table({"name": ["a", text.value, "z"]})
    plain = _as_parquet(table.slice(1, 1), compression="zstd", use_dictionary=False)
    end = plain[-int.from_bytes(plain[-8:-4], "little") - 8 :]
    assert traces(text, {"end": end})


def test_a_part_has_no_statistics(pixels: Marker) -> None:
    """A slice file's footer has no statistics, page index or filter, so it reveals nothing about any value."""
    payload = encode_part(_block(pixels.value))
    metadata = pq.read_metadata(pa.BufferReader(payload))
    columns = [metadata.row_group(0).column(number) for number in range(metadata.num_columns)]
    assert [column.statistics for column in columns] == [None] * 4
    assert not any(column.has_column_index or column.has_offset_index for column in columns)
    end = payload[-int.from_bytes(payload[-8:-4], "little") - 8 :]
    assert traces(pixels, {"end": end}) == []
    assert b"max" not in end


class _Views(nn.Module):
    """A model whose parameter and buffer are views of larger tensors."""

    def __init__(self, whole: torch.Tensor) -> None:
        super().__init__()
        self.parameter = nn.Parameter(whole[:2])
        self.register_buffer("buffer", whole[2:4])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return outputs that depend on the parameter, so that it gets a gradient."""
        return features * self.parameter.sum()


def _whole(pixels: Marker) -> torch.Tensor:
    """Return a tensor whose end holds the marker."""
    whole = torch.zeros(POINTS, len(pixels.value))
    whole[-1] = torch.tensor(list(pixels.value), dtype=torch.float32)
    return whole


def test_a_saved_view_carries_its_storage(pixels: Marker) -> None:
    """``torch.save`` writes the whole storage of a view, the erased part of it too."""
    buffer = io.BytesIO()
    torch.save(_whole(pixels)[:2], buffer)
    assert traces(pixels, {"file": buffer.getvalue()})
    assert traces(pixels, {"file": save({"all": _whole(pixels)})})


_OPTIMIZERS: dict[str, Callable[[Iterator[nn.Parameter]], Optimizer]] = {
    "momentum_buffer": partial(SGD, lr=0.1, momentum=0.9),
    "exp_avg": Adam,
}
"""Optimizers, each by the name of a tensor in its state."""


@pytest.mark.parametrize("entry", _OPTIMIZERS)
def test_a_checkpoint_is_its_tensors_and_nothing_more(entry: str, pixels: Marker) -> None:
    """A checkpoint of views, including the optimizer's, contains only the views and not the rest of their tensors."""
    whole, larger = _whole(pixels), _whole(pixels)
    model = _Views(whole)
    optimizer = _OPTIMIZERS[entry](model.parameters())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    state = optimizer.state[model.parameter]
    larger[:2] = state[entry]
    state[entry] = larger[:2]
    payload = encode_checkpoint(model, optimizer, lineage_of())
    assert traces(pixels, {"checkpoint": payload}) == []
    assert sum(tensor.numel() for tensor in decode_checkpoint(payload).values()) <= 4 * 2 * len(pixels.value) + 1
    assert len(payload) < 3_000 < whole.numel() * whole.element_size()
