"""``sisa predict --url`` sends the bytes of images that a data file names by their paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.client import Client, RemoteAnswers
from deploy.views import remote
from deploy.views.remote import remote_predict
from shards.data.messages import points_of_table
from shards.specification import DataSettings
from storage.errors import Invalid

pytest.importorskip("PIL.Image")

DATA = DataSettings(
    train="t",
    id="name",
    label="l",
    features=("photo", "note"),
    classes=("a", "b"),
    encode={"photo": {"image": [3, 4, 5]}, "note": {"words": 8}},
)


class Server(Client):
    """Takes data points as a server does, and answers with the brightness of the image."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1", "token")
        self.asked: list[int] = []

    def predict(self, data: Any) -> RemoteAnswers:
        """Raise what the client of a server raises."""
        try:
            batches = list(points_of_table(data, DATA, 3 * 4 * 5 + 8))
        except Invalid as error:
            raise Invalid(error.message, error.remedy) from None
        self.asked.append(data.num_rows)
        bright = np.concatenate([each.features_NF[:, :60].mean(axis=1) for each in batches])
        answers = pa.table({"name": data.column("name"), "prediction": pa.array(bright)})
        return RemoteAnswers(generation=1, constituents=2, shards=2, table=answers)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a folder with seven images, and a table that names them, whose ids are paths as well."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    names = [f"photos/{number}.png" for number in range(7)]
    for number, name in enumerate(names):
        Image.new("RGB", (5, 4), (30 * number,) * 3).save(tmp_path / name)
    pq.write_table(pa.table({"name": names, "photo": names, "note": ["a.png"] * 7}), tmp_path / "asked.parquet")
    return tmp_path


def test_images_are_sent_in_place_of_their_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those of the columns that the server takes for images, in parts that fit into a request, in order."""
    monkeypatch.setattr(remote, "_IMAGES_A_REQUEST", 3)
    server = Server()
    remote_predict(server, "asked.parquet", folder / "out.parquet")
    assert server.asked == [3, 3, 1]
    found = pq.read_table(folder / "out.parquet")
    assert found.column("name").to_pylist() == [f"photos/{number}.png" for number in range(7)]
    assert found.column("prediction").to_pylist() == [30.0 * number for number in range(7)]


@pytest.mark.parametrize("path", ["photos/none.png", "../elsewhere.png"])
def test_an_image_that_cannot_be_read_is_named_by_its_row(folder: Path, path: str) -> None:
    """A path that leads out of the folder is not followed."""
    (folder.parent / "elsewhere.png").write_bytes((folder / "photos" / "0.png").read_bytes())
    table = pq.read_table(folder / "asked.parquet")
    photos = [*table.column("photo").to_pylist()[:-1], path]
    pq.write_table(table.set_column(1, "photo", pa.array(photos)), folder / "asked.parquet")
    with pytest.raises(Invalid, match="names an image file that cannot be read") as caught:
        remote_predict(Server(), "asked.parquet", folder / "out.parquet")
    assert caught.value.context == {"column": "photo", "row": 7}
