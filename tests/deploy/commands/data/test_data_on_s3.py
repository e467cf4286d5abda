"""The command with its data in a bucket."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

import cluster.doctor
from tests.doubles.stores.s3_servers import plain_client
from tests.doubles.user_folder import MARKED, Columns, UserFolder, small_points, without

pytestmark = pytest.mark.s3


@pytest.fixture(params=["seaweedfs", "moto"])
def endpoint(request: pytest.FixtureRequest) -> str:
    """A server."""
    return str(request.getfixturevalue(f"{request.param}_endpoint"))


def _put(endpoint: str, name: str, path: Path) -> None:
    client = plain_client(endpoint)
    client.put_object(Bucket="plain", Key=name, Body=path.read_bytes())
    client.close()


def _parts(home: UserFolder, endpoint: str, columns: Columns) -> str:
    """Put the columns into a bucket as two Parquet files; return the folder."""
    folder = f"data/{secrets.token_hex(6)}"
    for part in (0, 1):
        half = {name: values[part * 60 : part * 60 + 60] for name, values in columns.items()}
        _put(endpoint, f"{folder}/part-{part}.parquet", home.write("half.parquet", half))
    (home.folder / "half.parquet").unlink()
    return folder


def test_data_in_a_bucket_train_the_same_constituents(home: UserFolder, endpoint: str) -> None:
    """From a bucket come byte for byte the constituents that come from local files, and the same answers."""
    expected = home.json("train").digests
    answers = home.json("evaluate", "train.parquet").data
    folder = _parts(home, endpoint, small_points())
    (home.folder / "train.parquet").unlink()
    home.specify(store="./other", data__train=f"s3://plain/{folder}/*.parquet", data__endpoint=endpoint)
    first = home.json("train")
    assert (first.code, first.digests) == (0, expected), first.err
    assert home.json("evaluate", f"s3://plain/{folder}").data == answers
    said = home.json("predict", f"s3://plain/{folder}/part-0.parquet", "--out", "out.csv")
    assert (said.code, said.data["points"]) == (0, 60)
    again = home.json("train")
    assert (again.digests, again.data["generation"]) == (expected, first.data["generation"])


def test_a_replaced_file_is_read_again(home: UserFolder, moto_endpoint: str) -> None:
    """Data that change in the bucket are trained on, without those who were erased; data that go stop nothing."""
    folder = _parts(home, moto_endpoint, small_points())
    home.specify(data__train=f"s3://plain/{folder}", data__endpoint=moto_endpoint)
    assert home.json("train").code == 0
    assert home.json("erase", "--subject", MARKED).code == 0
    gone = without(small_points(), ids=small_points()["id"][:3])
    _put(moto_endpoint, f"{folder}/part-0.parquet", home.write("half.parquet", {k: v[:57] for k, v in gone.items()}))
    said = home.json("train")
    fresh = UserFolder(home.folder / "fresh")
    fresh.folder.mkdir()
    assert said.digests == fresh.fill(without(gone, subjects=[MARKED])).json("train").digests
    client = plain_client(moto_endpoint)
    for part in (0, 1):
        client.delete_object(Bucket="plain", Key=f"{folder}/part-{part}.parquet")
    client.close()
    again = home.json("train")
    assert (again.code, again.digests) == (0, said.digests)
    assert "there is no such file or folder" in again.err
    assert "continuing with the data ingested before" in again.err


def test_store_and_data_may_share_a_bucket(home: UserFolder, moto_endpoint: str) -> None:
    """One endpoint serves both; a folder that holds the store, too, gives none of its objects as data."""
    folder = _parts(home, moto_endpoint, small_points())
    home.specify(store=f"s3://plain/{folder}/store", endpoint=moto_endpoint, data__train=f"s3://plain/{folder}")
    first = home.json("train")
    assert first.code == 0, first.err
    assert home.json("train").digests == first.digests
    home.specify(store=f"s3://plain/{folder}/store", endpoint=moto_endpoint, data__train=f"s3://plain/{folder}/store")
    said = home.json("train")
    assert said.code == 0
    assert "a store's own files are not data" in said.err


def test_the_doctor_looks_into_the_bucket(
    home: UserFolder, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor reads data in a bucket, and names the files there that still hold erased people."""
    monkeypatch.setattr(cluster.doctor, "worker_count", lambda _settings, tasks: tasks)
    folder = _parts(home, moto_endpoint, small_points())
    home.specify(data__train=f"s3://plain/{folder}", data__endpoint=moto_endpoint)
    assert home.json("train").code == 0
    assert home.json("erase", "--subject", MARKED).code == 0
    checks = {each["check"]: each for each in home.json("doctor").data["checks"]}
    assert checks["data"]["message"] == "2 files, 16 features"
    assert f"s3://plain/{folder}/part-0.parquet (2 data points)" in checks["erased in sources"]["message"]


def test_init_describes_data_in_a_bucket(home: UserFolder, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``sisa init s3://…`` finds the server where boto3 does, and drafts what can be trained."""
    folder = _parts(home, moto_endpoint, small_points())
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto_endpoint)
    monkeypatch.setattr("storage.s3.client._CLIENTS", {})
    home.config.unlink()
    said = home.json("init", f"s3://plain/{folder}/*.parquet")
    assert said.code == 0, said.err
    text = home.config.read_text(encoding="utf-8")
    assert f'train    = "s3://plain/{folder}/*.parquet"\n# endpoint = ' in text
    trained = home.json("train")
    assert (trained.code, len(trained.data["constituents"])) == (0, 1)


@pytest.mark.parametrize(
    ("train", "code", "texts"),
    [
        ("s3://plain/nothing/here.parquet", 2, ("there is no such file or folder: s3://plain/nothing/here.parquet",)),
        ("s3://plain/nothing/*.parquet", 2, ("no file matches: s3://plain/nothing/*.parquet",)),
        ("s3://no-such-bucket/a.parquet", 2, ("there is no such bucket", "bucket=no-such-bucket", "endpoint")),
        ("s3://Bad_Bucket/a.parquet", 2, ("a bucket's name has", "Bad_Bucket")),
    ],
)
def test_what_is_not_there_is_named(
    train: str, code: int, texts: tuple[str, ...], home: UserFolder, endpoint: str
) -> None:
    """A missing file, a pattern without match, a missing bucket: the error names it, and nothing is stored."""
    home.specify(data__train=train, data__endpoint=endpoint)
    said = home.refused("train", code=code)
    for text in texts:
        assert text in said.error["message"] + said.error["remedy"]


def test_wrong_credentials_are_named(
    home: UserFolder, seaweedfs_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the data's server refuses the credentials, the error says so, and where they are searched for."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setattr("storage.s3.client._CLIENTS", {})
    home.specify(data__train="s3://plain/a.parquet", data__endpoint=seaweedfs_endpoint)
    said = home.refused("train")
    assert "the data's server does not accept these credentials" in said.error["message"]
    assert "AWS_ACCESS_KEY_ID" in said.error["remedy"]


def test_a_server_out_of_reach_is_reported_as_such(home: UserFolder, aws_environment: None) -> None:
    """A server that gives no answer may be back: try again."""
    home.specify(data__train="s3://plain/a.parquet", data__endpoint="http://127.0.0.1:1")
    said = home.refused("train", code=5)
    assert "the data's server cannot be reached" in said.error["message"]
