"""The search itself finds planted values in every form."""

from __future__ import annotations

import secrets
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.residue.markers import EVERYWHERE, draw_markers, files_under, laid_open, traces


def test_there_are_24_markers() -> None:
    """The markers are as many as they say, and no two have a form in common."""
    markers = draw_markers()
    forms = [form for marker in markers.values() for form in set(marker.forms)]
    assert len(EVERYWHERE) == len(markers) == 24
    assert len(forms) == len(set(forms))
    assert min(map(len, forms)) >= 8


@pytest.mark.parametrize("name", EVERYWHERE)
def test_what_is_planted_is_found(tmp_path: Path, name: str) -> None:
    """Every form of a value is found in a file of other bytes, and a text also in a file's name."""
    marker = draw_markers()[name]
    for number, form in enumerate(marker.forms):
        (tmp_path / f"{number}.bin").write_bytes(secrets.token_bytes(100) + form + secrets.token_bytes(100))
    (tmp_path / "other").write_bytes(secrets.token_bytes(100_000))
    assert len(traces(marker, files_under(tmp_path))) == len(marker.forms)
    if isinstance(marker.value, str):
        (tmp_path / f"{marker.value}.txt").touch()
        assert len(traces(marker, files_under(tmp_path))) == len(marker.forms) + 1


def test_what_is_compressed_is_found(tmp_path: Path) -> None:
    """A value in a compressed column, and one in a dictionary that nothing refers to, are found in a file laid open."""
    markers = draw_markers()
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000, pa.int8()), pa.array(["x", markers["memo"].value]))
    numbers = pa.array([markers["number"].value] * 1_000)
    pq.write_table(pa.table({"words": words, "numbers": numbers}), tmp_path / "file", compression="zstd")
    payload = laid_open((tmp_path / "file").read_bytes())
    assert traces(markers["number"], {"file": payload})
    assert traces(markers["memo"], {"file": payload})
