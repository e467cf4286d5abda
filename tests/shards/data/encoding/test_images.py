"""Images: from bytes and files to pixels, once, at ingest."""

from __future__ import annotations

import base64
import importlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.data.encoding import images
from shards.data.messages import points_of_table
from shards.data.prediction_files import feature_batches
from shards.data.sources import open_source, table_source
from shards.specification import DataSettings
from storage.errors import Invalid
from tests.shards.people import ingest_file, people, settings

Image = pytest.importorskip("PIL.Image")

SHAPE = (3, 4, 5)
PIXELS: npt.NDArray[np.uint8] = (np.arange(60) * 4).astype(np.uint8).reshape(4, 5, 3)


def png(pixels: npt.NDArray[np.uint8] = PIXELS) -> bytes:
    """Return an image as PNG, which loses nothing."""
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def photos(**options: Any) -> DataSettings:
    """Return the settings of people with a photo."""
    return settings(features=("photo",), encode={"photo": {"image": list(SHAPE), **options}})


def with_photos(cells: list[Any], kind: pa.DataType | None = None) -> pa.Table:
    """Return people with these photos."""
    return people(len(cells)).append_column("photo", pa.array(cells, kind))


def features(folder: Path, table: pa.Table, data: DataSettings | None = None) -> npt.NDArray[np.float32]:
    """Return the features of a file of people with photos."""
    pq.write_table(table, folder / "a.parquet")
    source = open_source("a.parquet", folder)
    return np.concatenate([batch.features_NF for batch in feature_batches(source, data or photos(), 60)])


EXPECTED = PIXELS.transpose(2, 0, 1).reshape(-1)
"""Channel by channel, row by row."""


def test_bytes_and_paths_give_the_same_pixels(tmp_path: Path) -> None:
    """An image is given as bytes, as a path relative to the data file, or as a structure of both."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(png())
    both = [{"bytes": None, "path": "photos/a.png"}, {"bytes": png(), "path": "elsewhere.png"}]
    for table in (
        with_photos([png(), png()], pa.binary()),
        with_photos(["photos/a.png", str(tmp_path / "photos" / "a.png")]),
        with_photos(both),
    ):
        assert features(tmp_path, table).tolist() == [EXPECTED.tolist()] * 2


def test_images_alone_are_stored_as_bytes(tmp_path: Path) -> None:
    """Pixels take a byte each in the store, and [data] scale divides them at load; with a scale of their own, four."""
    pq.write_table(with_photos([png()] * 6, pa.binary()), tmp_path / "a.parquet")
    assert ingest_file(tmp_path / "a.parquet", photos()).layout.dtype == "uint8"
    scaled = settings(features=("photo",), encode={"photo": {"image": list(SHAPE)}}, scale=255.0)
    table = with_photos([png()], pa.binary())
    own = features(tmp_path, table, photos(scale=255.0))
    np.testing.assert_allclose(features(tmp_path, table, scaled), own, rtol=1e-6)
    assert own.max() <= 1
    pq.write_table(with_photos([png()] * 6, pa.binary()), tmp_path / "a.parquet")
    assert ingest_file(tmp_path / "a.parquet", photos(scale=255.0)).layout.dtype == "float32"


def test_other_sizes_and_modes(tmp_path: Path) -> None:
    """Grey and transparent images are converted; another size is refused unless it is declared to be resized."""
    grey = png(PIXELS[:, :, 0])
    assert (
        features(tmp_path, with_photos([grey], pa.binary()))[0].reshape(SHAPE)[2].tolist() == PIXELS[:, :, 0].tolist()
    )
    large = png(np.full((8, 10, 3), 7, dtype=np.uint8))
    assert set(features(tmp_path, with_photos([large], pa.binary()), photos(resize=True))[0].tolist()) == {7.0}
    with pytest.raises(Invalid, match=r"an image of 8 x 10 pixels, expected 4 x 5 .*row=2.*resize = true"):
        features(tmp_path, with_photos([png(), large], pa.binary()))


@pytest.mark.parametrize(
    ("cells", "kind", "message"),
    [
        ([png(), b"\x89PNG no image"], pa.binary(), r"an image that cannot be decoded .*column=photo row=2"),
        ([png(), png()[:50]], pa.binary(), r"an image that cannot be decoded .*row=2"),
        ([png(), None], pa.binary(), r"has no value \(null\).*row=2"),
        (["nowhere.png"], pa.string(), r"an image file that cannot be read \(No such file or directory\).*row=1"),
        ([1], pa.int64(), r"must hold images as bytes, or paths of image files, its type is int64"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, cells: list[Any], kind: pa.DataType, message: str) -> None:
    """The error names column and row."""
    with pytest.raises(Invalid, match=message):
        features(tmp_path, with_photos(cells, kind))


def test_a_small_file_cannot_claim_a_huge_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image's size is looked at before it is decoded."""
    monkeypatch.setattr(images, "_MOST_PIXELS", 19)
    with pytest.raises(Invalid, match=r"an image of more than 19 pixels .*row=1"):
        features(tmp_path, with_photos([png()], pa.binary()))


def test_a_text_in_a_request_is_never_a_path(tmp_path: Path) -> None:
    """In a message an image is bytes, or Base64 where JSON holds it: files of the server are not the sender's."""
    (tmp_path / "a.png").write_bytes(png())
    (batch,) = points_of_table(pa.table({"photo": [base64.b64encode(png()).decode()]}), photos(), 60)
    assert batch.features_NF.tolist() == [EXPECTED.tolist()]
    (batch,) = points_of_table(pa.table({"photo": [png()]}), photos(), 60)
    assert batch.features_NF.tolist() == [EXPECTED.tolist()]
    with pytest.raises(Invalid, match=r"a text is not Base64 .*column=photo row=1"):
        list(points_of_table(pa.table({"photo": [str(tmp_path / "a.png")]}), photos(), 60))


def test_a_table_in_memory_has_no_folder() -> None:
    """Paths in a frame are refused: it is not said where they begin."""
    with pytest.raises(Invalid, match=r"by its path, and there is no folder .*Give the image's bytes"):
        list(feature_batches(table_source(with_photos(["a.png"])), photos(), 60))


def test_pillow_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Pillow the error says how to install it."""

    def absent(_: str) -> Any:
        raise ModuleNotFoundError

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(Invalid, match=r"Pillow is not installed.*pip install 'sisa-ray\[images\]'"):
        features(tmp_path, with_photos([png()], pa.binary()))
