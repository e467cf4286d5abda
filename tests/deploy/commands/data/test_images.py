"""Images of a user, from ``init`` to ``verify``: in a table, named by one, and in folders by label."""

from __future__ import annotations

import importlib
import io
import tomllib
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sisa
from cluster.sources import find_leftovers
from deploy.initialise import draft_specification
from storage.errors import Invalid
from tests.doubles.user_folder import UserFolder

Image = pytest.importorskip("PIL.Image")

POINTS: Final = 40


def image(number: int, height: int = 4, width: int = 5, mode: str = "RGB") -> bytes:
    """Return a small image; those with odd numbers are brighter."""
    sink = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 90, (height, width, 3)) + 120 * (number % 2)
    Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(sink, "PNG")
    return sink.getvalue()


def table(photos: list[Any], **more: list[Any]) -> pa.Table:
    """Return data points with these photos."""
    numbers = range(len(photos))
    columns = {"id": [f"p{n}" for n in numbers], "user_id": [f"u{n // 2}" for n in numbers], "photo": photos, **more}
    return pa.table(columns | {"label": [n % 2 for n in numbers]})


def write_images(folder: Path, name: str = "{number}.png") -> list[str]:
    """Write images into the folder; return their names."""
    names = [name.format(number=number, label=("dark", "light")[number % 2]) for number in range(POINTS)]
    for number, each in enumerate(names):
        (folder / each).parent.mkdir(parents=True, exist_ok=True)
        (folder / each).write_bytes(image(number))
    return names


def drafted(folder: Path, photos: list[Any], **more: list[Any]) -> dict[str, Any]:
    """Return what ``init`` drafts for the table [data]."""
    pq.write_table(table(photos, **more), folder / "points.parquet")
    data: dict[str, Any] = tomllib.loads(draft_specification("points.parquet", folder).text)["data"]
    return data


@pytest.mark.parametrize("how", ["bytes", "paths", "both"])
def test_images_are_drafted(tmp_path: Path, how: str) -> None:
    """With the size that they have, as bytes, as paths and as ``datasets`` writes them."""
    names = write_images(tmp_path)
    payloads = [image(number) for number in range(POINTS)]
    both = [{"bytes": payload, "path": None} for payload in payloads]
    photos: dict[str, list[Any]] = {"bytes": payloads, "paths": names, "both": both}
    data = drafted(tmp_path, photos[how])
    assert (data["features"], data["encode"]) == (["photo"], {"photo": {"image": [3, 4, 5]}})
    assert data["scale"] == 255.0


def test_images_beside_other_features_have_a_scale_of_their_own(tmp_path: Path) -> None:
    """Because [data] scale would divide the others, too."""
    data = drafted(tmp_path, write_images(tmp_path), age=[n % 9 for n in range(POINTS)])
    assert data["encode"]["photo"] == {"image": [3, 4, 5], "scale": 255.0}
    assert data["features"] == ["photo", "age"]
    assert "scale" not in data


@pytest.mark.parametrize(
    ("photos", "encoder"),
    [
        ([image(number, 4 + number, 9) for number in range(20)], {"image": [3, 14, 9], "resize": True}),
        ([image(number, 130, 260) for number in range(20)], {"image": [3, 32, 64], "resize": True}),
        ([image(number, mode="L") for number in range(20)], {"image": [1, 4, 5]}),
        ([b"no image", *(image(number) for number in range(19))], {"image": [3, 4, 5]}),
    ],
    ids=["of several sizes", "large", "grey", "one is damaged"],
)
def test_what_is_seen_decides_the_draft(tmp_path: Path, photos: list[bytes], encoder: dict[str, Any]) -> None:
    """Several sizes, or large ones, become one small size; grey images have one channel."""
    assert drafted(tmp_path, photos)["encode"] == {"photo": encoder}


def test_what_cannot_be_looked_at_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason: no image among the bytes, files that are not there, or no Pillow."""
    ages = [n % 9 for n in range(20)]
    for photos in ([b"text"] * 20, [f"nowhere/{number}.png" for number in range(20)]):
        pq.write_table(table(photos, age=ages), tmp_path / "points.parquet")
        text = draft_specification("points.parquet", tmp_path).text
        assert '# left out of features: "photo" (images, none of the first 20 of which can be read)' in text

    def absent(_: str) -> Any:
        raise ModuleNotFoundError

    monkeypatch.setattr(importlib, "import_module", absent)
    pq.write_table(table([image(number) for number in range(20)], age=ages), tmp_path / "points.parquet")
    text = draft_specification("points.parquet", tmp_path).text
    assert '"photo" (images cannot be decoded: Pillow is not installed' in text


def test_a_folder_of_images_from_draft_to_proof(home: UserFolder) -> None:
    """``sisa init FOLDER`` is trained as it stands, one image is erased, and one that changes is read again."""
    write_images(home.folder, "pets/{label}/{number}.png")
    assert home.json("init", "pets", "--config", "pets.toml").code == 0
    own = ("--config", "pets.toml")
    first = home.json("train", *own)
    assert sum(each["points"] for each in first.data["constituents"]) == POINTS
    assert home.json("train", *own).digests == first.digests
    assert home.json("evaluate", "pets", *own).data["points"] == POINTS
    (home.folder / "pets/dark/2.png").write_bytes(image(77))
    assert home.json("train", *own).digests != first.digests
    (home.folder / "pets/dark/2.png").write_bytes(image(2))
    assert home.json("train", *own).digests == first.digests
    assert home.json("erase", "--id", "dark/4.png", *own).data["points"] == 1
    assert home.json("verify", *own).data["exact"]
    assert sum(each["points"] for each in home.json("train", *own).data["constituents"]) == POINTS - 1
    with sisa.connect("pets.toml") as federation:
        specification, store = federation.specification, federation.store
        state = federation.reading.current()
    assert find_leftovers(specification, store, state, rows_in=Path("rows.csv")) is not None
    assert Path("rows.csv").read_text(encoding="utf-8").split() == ["file,row,why", "pets/dark/4.png,1,subject"]
    with pytest.raises(Invalid, match=r"a folder of images is not copied .*Delete the images that --rows lists\."):
        find_leftovers(specification, store, state, copies_in=Path("clean"))


def test_a_table_of_paths_from_draft_to_proof(home: UserFolder) -> None:
    """Paths begin in the folder of the table, also for predictions; in a table in memory they begin nowhere."""
    names = write_images(home.folder / "data", "photos/{number}.png")
    pq.write_table(table(names), home.folder / "data/labels.parquet")
    assert home.json("init", "data/labels.parquet", "--config", "photos.toml").code == 0
    with sisa.connect("photos.toml") as federation:
        assert federation.train().points == POINTS
        assert federation.evaluate("data/labels.parquet").accuracy > 0.9
        assert federation.erase(subjects=["u3"]).points == 2
        assert federation.verify().holds
        with pytest.raises(Invalid, match="by its path, and there is no folder in which to look for it"):
            federation.predict(table(names)).table()
        given = table([image(number) for number in range(4)])
        assert federation.predict(given).table()["prediction"].to_pylist() == ["0", "1", "0", "1"]
