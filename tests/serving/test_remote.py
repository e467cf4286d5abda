"""The same commands against a server."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

import cluster
from cluster.client import Client
from deploy.views.erasure import Given, given_names
from deploy.views.remote import remote_erase, remote_predict, remote_receipt, remote_status
from storage.errors import Invalid, ObjectMissing
from storage.release import RELEASE
from tests.doubles.user_folder import MARKED, small_points
from tests.serving.world import World


@pytest.mark.parametrize("name", ["asked.parquet", "asked.csv", "asked.arrow"])
def test_predictions_of_a_file(world: World, url: str, tmp_path: Path, name: str) -> None:
    """A file of any format is answered as the command answers it on the spot, ids included."""
    file = world.home.write(name, {key: values[:30] for key, values in small_points().items()})
    with Client(url, world.tokens["predict"]) as client:
        outcome = remote_predict(client, str(file), tmp_path / "remote.parquet")
    assert outcome.data is not None
    assert (outcome.data["points"], outcome.data["generations"]) == (30, [1])
    with cluster.connect(world.home.config) as federation:
        federation.predict(str(file)).write(tmp_path / "here.parquet")
    assert pq.read_table(tmp_path / "remote.parquet").equals(pq.read_table(tmp_path / "here.parquet"))


def test_predictions_of_a_file_with_another_delimiter(world: World, url: str, tmp_path: Path) -> None:
    """Where no specification says how a CSV file is written, its delimiter is the one that is seen."""
    file = world.home.write("asked.csv", {key: values[:30] for key, values in small_points().items()})
    file.write_text(file.read_text().replace(",", ";"))
    with Client(url, world.tokens["predict"]) as client:
        outcome = remote_predict(client, str(file), tmp_path / "remote.parquet")
    assert outcome.data is not None
    assert outcome.data["points"] == 30


def given(*, subject: str = "", id_: str = "") -> Given:
    """Return one name as a command gives it."""
    return given_names([subject] if subject else [], [id_] if id_ else [], [], None, "subjects")


def test_an_erasure_from_afar(world: World, url: str) -> None:
    """A request is submitted, waited for, looked up and proven, without a specification."""
    with Client(url, world.tokens["erase"]) as client:
        outcome = remote_erase(client, given(subject=MARKED), request_id="er-1", hold=None, wait=True)
        assert outcome.data is not None
        assert outcome.data["state"] == "complete"
        assert "er-1 is complete" in remote_status(client, "er-1").text
        with pytest.raises(ObjectMissing, match="no such erasure request"):
            remote_status(client, "er-2")
        assert (
            remote_erase(client, given(id_="secret-id-0001"), request_id=None, hold="legal", wait=False).data
            is not None
        )
    with Client(url, world.tokens["audit"]) as client:
        assert remote_receipt(client, "er-1", quiet=True).text.startswith("{")
        assert "er-1" in (reported := remote_status(client, None)).text
        assert (reported.data or {})["releases"] == {"command": RELEASE, "server": RELEASE}
        assert "releases differ" not in reported.text


def test_a_file_that_does_not_fit(world: World, url: str, tmp_path: Path) -> None:
    """What the server refuses ends the command, and no file of answers is left behind."""
    file = world.home.write("bad.csv", {"id": [1, 2], "x00": [1, 2]})
    with Client(url, world.tokens["predict"]) as client, pytest.raises(Invalid, match="no column 'x01'"):
        remote_predict(client, str(file), tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()
    empty = world.home.write("empty.csv", {"id": [], "x00": []})
    with Client(url, world.tokens["predict"]) as client, pytest.raises(Invalid, match="no data point"):
        remote_predict(client, str(empty), tmp_path / "out.csv")
