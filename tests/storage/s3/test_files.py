"""Other people's files on real S3 servers: found, read as they were found, refused in plain words."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from storage.errors import Conflict, Invalid, SisaError, Unavailable
from storage.s3.files import BucketFile, BucketFiles, bucket_files
from tests.doubles.stores.fault_proxy import Action, FaultProxy, Rule, fault_proxy
from tests.doubles.stores.s3_servers import plain_client

pytestmark = [pytest.mark.s3, pytest.mark.usefixtures("no_waiting")]

BODY = bytes(range(256)) * 3


@pytest.fixture(params=["seaweedfs", "moto"])
def endpoint(request: pytest.FixtureRequest) -> str:
    """A server."""
    return str(request.getfixturevalue(f"{request.param}_endpoint"))


@pytest.fixture
def folder(endpoint: str) -> Iterator[str]:
    """A folder of the bucket ``plain`` with some files, whose names no store of ours would have."""
    prefix = f"files/{secrets.token_hex(6)}"
    client = plain_client(endpoint)
    for name in ("a b.csv", "sub/ä.csv", "a b.csv.bak"):
        client.put_object(Bucket="plain", Key=f"{prefix}/{name}", Body=BODY)
    yield prefix
    client.close()


def _found(files: BucketFiles, name: str) -> BucketFile:
    found = files.find(name)
    assert found is not None
    return found


def test_files_are_found_by_name_and_by_prefix(endpoint: str, folder: str) -> None:
    """A name finds that file alone; a prefix all files below it, page by page."""
    files = bucket_files("plain", endpoint)
    assert _found(files, f"{folder}/a b.csv").payload_bytes == len(BODY)
    assert files.find(f"{folder}/a b") is None
    assert files.find(f"{folder}/sub") is None
    names = sorted(each.name.removeprefix(folder) for each in files.under(f"{folder}/"))
    assert names == ["/a b.csv", "/a b.csv.bak", "/sub/ä.csv"]


def test_a_file_is_read_whole_and_in_pieces(endpoint: str, folder: str) -> None:
    """Every piece is that of the file, from its first byte to its last."""
    files = bucket_files("plain", endpoint)
    file = _found(files, f"{folder}/sub/ä.csv")
    for start, end in ((0, len(BODY)), (0, 1), (5, 300), (len(BODY) - 1, len(BODY))):
        assert files.read(file, start, end) == BODY[start:end]


@pytest.mark.parametrize("end", [len(BODY), 5])
def test_a_changed_file_is_not_mixed(end: int, endpoint: str, folder: str) -> None:
    """A file that was replaced, or deleted, since it was found is not read."""
    files, client = bucket_files("plain", endpoint), plain_client(endpoint)
    name = f"{folder}/a b.csv"
    file = _found(files, name)
    client.put_object(Bucket="plain", Key=name, Body=BODY[::-1])
    with pytest.raises(Conflict, match=r"replaced or deleted while it was read \[file=s3://plain/files/.*\]"):
        files.read(file, 0, end)
    client.delete_object(Bucket="plain", Key=name)
    client.close()
    with pytest.raises(Conflict, match="replaced or deleted while it was read"):
        files.read(file, 0, end)


def test_a_missing_bucket_is_named(endpoint: str) -> None:
    """A bucket that does not exist is not reported as a bucket without files."""
    with pytest.raises(Invalid, match=rf"no such bucket \[bucket=no-such-bucket server={endpoint} .*'endpoint'"):
        bucket_files("no-such-bucket", endpoint).find("a.csv")


@pytest.mark.parametrize("setting", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_credentials_are_named(monkeypatch: pytest.MonkeyPatch, seaweedfs_endpoint: str, setting: str) -> None:
    """Wrong credentials are refused with the way to correct them, and never shown."""
    monkeypatch.setenv(setting, "wrongsecret")
    _forget_clients(monkeypatch)
    with pytest.raises(Invalid, match="server does not accept these credentials.*AWS_ACCESS_KEY_ID") as raised:
        bucket_files("plain", seaweedfs_endpoint).find("a.csv")
    assert "wrongsecret" not in str(raised.value)


def test_missing_credentials_are_named(monkeypatch: pytest.MonkeyPatch, seaweedfs_endpoint: str) -> None:
    """On a machine without credentials the error names the places where they are looked for."""
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    _forget_clients(monkeypatch)
    with pytest.raises(Invalid, match=r"no usable credentials for the data's server.*AWS_PROFILE"):
        bucket_files("plain", seaweedfs_endpoint).find("a.csv")


def _forget_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.s3.client._CLIENTS", {})


def test_a_server_out_of_reach_is_named(aws_environment: None) -> None:
    """If no server answers, the error says so, with the address."""
    with pytest.raises(Unavailable, match=r"the data's server cannot be reached \[.*http://127\.0\.0\.1:1 .*endpoint"):
        bucket_files("plain", "http://127.0.0.1:1").find("a.csv")


@pytest.mark.parametrize("action", ["truncates", "resets_before", "busy", "fails_before", "flips_a_bit"])
def test_a_fault_on_the_way_is_repaired_or_reported(action: Action, seaweedfs_endpoint: str) -> None:
    """After one fault the request is repeated; if all fail, an error is raised. Wrong bytes are never returned."""
    name = f"files/{secrets.token_hex(6)}.csv"
    client = plain_client(seaweedfs_endpoint)
    client.put_object(Bucket="plain", Key=name, Body=BODY)
    client.close()
    with fault_proxy(seaweedfs_endpoint) as proxy:
        files = bucket_files("plain", proxy.endpoint)
        file = _found(files, name)
        _strike(proxy, action, 1)
        assert files.read(file, 0, len(BODY)) == BODY
        assert proxy.struck == [action]
        _strike(proxy, action, 100)
        with pytest.raises(SisaError, match="do not arrive whole|cannot be reached|overloaded or failing") as raised:
            files.read(file, 0, len(BODY))
        assert isinstance(raised.value, Unavailable)


def _strike(proxy: FaultProxy, action: Action, times: int) -> None:
    proxy.plan(*(Rule(method="GET", pattern="files/", action=action, nth=nth) for nth in range(1, times + 1)))
