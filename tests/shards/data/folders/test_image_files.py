"""Image files that a table names, and folders of images: found, named in errors, and part of the inventory."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.data.inventory import inventory
from shards.data.prediction_files import feature_batches
from shards.data.readers import Wanted
from shards.data.sources import Source, open_source, passed_over_text
from shards.routing import AS_GIVEN
from shards.slices.survey import find_faults
from shards.specification import DataSettings
from storage.errors import Invalid
from tests.shards.people import ingest_file, people, settings

Image = pytest.importorskip("PIL.Image")

DATA = settings(features=("photo",), encode={"photo": {"image": [3, 2, 2]}})
TREE = replace(DATA, subject=None, features=("image",), encode={"image": {"image": [3, 2, 2]}}, classes=("cat", "dog"))


def image(value: int, size: int = 2) -> bytes:
    """Return a small image of one colour."""
    sink = io.BytesIO()
    Image.new("RGB", (size, size), (value, value, value)).save(sink, "PNG")
    return sink.getvalue()


def fill(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write the files."""
    for name, payload in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(payload)
    return folder


def pets(folder: Path) -> Path:
    """Write a folder of images, by label."""
    return fill(
        folder / "pets", {f"{label}/{number}.png": image(number) for label in ("cat", "dog") for number in range(4)}
    )


def labelled(folder: Path, cells: list[Any], kind: pa.DataType | None = None) -> Source:
    """Return a table of people with these photos as a source."""
    pq.write_table(people(len(cells)).append_column("photo", pa.array(cells, kind)), folder / "table.parquet")
    return replace(open_source("table.parquet", folder), encoding=DATA.encoders)


def pixels(source: Source, data: DataSettings = DATA) -> list[float]:
    """Return the first pixel of each image."""
    return [float(row[0]) for batch in feature_batches(source, data, 12) for row in batch.features_NF]


def test_a_folder_of_images_is_a_table(tmp_path: Path) -> None:
    """Each image is a data point, labelled by its folder and named by its path; hidden files and others are not."""
    folder = fill(pets(tmp_path), {"dog/notes.txt": b"no image"})
    fill(folder, {".cache/x.png": image(9), "dog/deep/er.PNG": image(8)})
    source = open_source("pets", tmp_path)
    (batch,) = source.batches(Wanted(texts=("id", "label", "image"), numbers=()), 99)
    assert batch.column("label").to_pylist() == ["cat"] * 4 + ["dog"] * 5
    assert batch.column("id").to_pylist() == batch.column("image").to_pylist()
    assert batch.column("id").to_pylist()[-1] == "dog/deep/er.PNG"
    assert pixels(source, TREE) == [0, 1, 2, 3, 0, 1, 2, 3, 8]
    assert ingest_file(folder, TREE).points == 9


def test_a_folder_with_a_table_is_the_table(tmp_path: Path) -> None:
    """The images beside it are named by it, and so are not reported as passed over."""
    fill(tmp_path, {"photos/1.png": image(1)})
    labelled(tmp_path, ["photos/1.png"])
    source = open_source(".", tmp_path)
    assert [file.name for file in source.files] == ["table.parquet"]
    assert passed_over_text(source) == ""


def test_images_without_a_folder_have_no_label(tmp_path: Path) -> None:
    """They can be predicted, and not be trained on."""
    folder = fill(tmp_path / "new", {"1.png": image(1), "2.png": image(2)})
    assert pixels(open_source("new", tmp_path), TREE) == [1, 2]
    with pytest.raises(Invalid, match=r"a data point has no label \(null\) \[file=.*new/1\.png column=label row=1\]"):
        ingest_file(folder, TREE)


@pytest.mark.parametrize(
    ("payload", "fact"),
    [(b"no image", "an image that cannot be decoded"), (image(1, size=3), "an image of 3 x 3 pixels, expected 2 x 2")],
)
def test_errors_name_the_image_of_a_folder(tmp_path: Path, payload: bytes, fact: str) -> None:
    """Its rows are nowhere to be seen."""
    folder = fill(pets(tmp_path), {"dog/3.png": payload})
    with pytest.raises(Invalid, match=rf"{fact} \[file=.*pets/dog/3\.png column=image row=1\]"):
        ingest_file(folder, TREE)
    (fault,) = find_faults(open_source("pets", tmp_path), TREE, AS_GIVEN)
    assert str(fault).startswith("pets/dog/3.png, column 'image', row 1: ")


@pytest.mark.parametrize("name", ["../secret.png", "photos/../../secret.png", "{}/secret.png"])
def test_images_outside_of_the_tables_folder_are_refused(tmp_path: Path, name: str) -> None:
    """A table decides about nothing but its own folder."""
    fill(tmp_path, {"secret.png": image(5), "here/photos/1.png": image(1)})
    source = labelled(tmp_path / "here", ["photos/1.png", name.format(tmp_path)])
    with pytest.raises(Invalid, match=r"an image file outside of the data file's folder .*column=photo row=2"):
        pixels(source)
    inside = labelled(tmp_path / "here", ["photos/1.png", "photos/../photos/1.png", f"{tmp_path}/here/photos/1.png"])
    assert pixels(inside) == [1, 1, 1]


def test_a_changed_image_is_news(tmp_path: Path) -> None:
    """It is noticed under the same name and with the same table; if the table contains the bytes, the table changes."""
    fill(tmp_path, {"1.png": image(1), "2.png": image(2), "other.png": image(3)})
    source = labelled(tmp_path, ["1.png", "2.png"])
    before = inventory(source)
    assert inventory(source) == before
    assert before != inventory(replace(source, encoding=settings().encoders))
    fill(tmp_path, {"other.png": image(4)})
    assert inventory(source) == before
    fill(tmp_path, {"2.png": image(4)})
    assert inventory(source) != before
    fill(tmp_path, {"2.png": image(2)})
    assert inventory(source) == before
    (tmp_path / "2.png").unlink()
    assert inventory(source) != before


def test_a_changed_image_of_a_folder_is_news(tmp_path: Path) -> None:
    """The inventory also changes when an image is moved to another folder."""
    source = replace(open_source("pets", pets(tmp_path).parent), encoding=TREE.encoders)
    before = inventory(source)
    assert before[0].name == "pets"
    fill(tmp_path / "pets", {"dog/3.png": image(7)})
    assert inventory(source) != before
    fill(tmp_path / "pets", {"dog/3.png": image(3)})
    assert inventory(source) == before
    (tmp_path / "pets/dog/3.png").rename(tmp_path / "pets/cat/9.png")
    assert inventory(replace(open_source("pets", tmp_path), encoding=TREE.encoders)) != before


def test_images_given_as_bytes_leave_the_inventory_as_it_was(tmp_path: Path) -> None:
    """So stores that were trained on them read nothing again."""
    for cells, kind in (
        ([image(1)], pa.binary()),
        ([{"bytes": image(1), "path": "1.png"}], None),
    ):
        source = labelled(tmp_path, cells, kind)
        assert inventory(source) == inventory(replace(source, encoding=settings().encoders))
