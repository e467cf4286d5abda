"""Credentials by name: looked up in each process, in the file of its machine; only the name is ever passed on."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import storage.s3.client
from shards.data.remote_files import find_remote
from storage.errors import Invalid, Unavailable
from storage.objects import object_key
from storage.s3.client import S3Store
from tests.doubles.stores.website import WebsiteAnswer, running_website

Written = Callable[..., Path]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    """Returns the credentials file of this machine, having written so many profiles into it; nothing else is known."""
    path = tmp_path / "credentials"
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(storage.s3.client, "_CLIENTS", {})

    def write(*profiles: str) -> Path:
        lines = (f"[{name}]\naws_access_key_id = id-{name}\naws_secret_access_key = secret-{name}" for name in profiles)
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return write


def _identity(store: S3Store) -> str:
    """Return whose requests the store's are."""
    single: Any = storage.s3.client._clients(store)[1]
    key: str = single._request_signer._credentials.access_key
    return key


def test_each_profile_has_clients_of_its_own(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two stores of one server each use the credentials that they name, regardless of the environment."""
    written("north", "south")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of the environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "unused")
    north, south = (S3Store("bucket", "", "http://127.0.0.1:1", profile=name) for name in ("north", "south"))
    assert (_identity(north), _identity(south)) == ("id-north", "id-south")
    assert _identity(S3Store("bucket", "", "http://127.0.0.1:1")) == "of the environment"


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId"])
def test_renewed_credentials_are_used(written: Written, code: str) -> None:
    """Credentials that run out, or are replaced, while a process is at work end the requests made with them; the next
    request is made with those that stand in the file by then.
    """
    path = written("north")
    with running_website() as site:
        site.answer = WebsiteAnswer(400, f"<Error><Code>{code}</Code></Error>".encode())
        store = S3Store("bucket", "", site.address, profile="north")
        with pytest.raises((Unavailable, Invalid), match="credentials"):
            store.get(object_key("object"))
        path.write_text(path.read_text(encoding="utf-8").replace("id-north", "id-renewed"), encoding="utf-8")
        assert _identity(store) == "id-renewed"
        site.answer = WebsiteAnswer(200, headers={"ETag": '"tag"'})
        assert store.put_if_absent(object_key("object"), b"x")


def test_only_the_name_crosses(written: Written) -> None:
    """What is sent to another process holds the profile's name and no credentials, used before or not."""
    written("north")
    store = S3Store("bucket", "prefix", "http://127.0.0.1:1", profile="north")
    assert _identity(store) == "id-north"
    sent = pickle.dumps(store)
    assert b"secret-north" not in sent
    assert b"id-north" not in sent
    assert pickle.loads(sent) == store


@pytest.mark.parametrize("profiles", [(), ("south",)])
def test_a_machine_that_lacks_the_profile(profiles: tuple[str, ...], written: Written) -> None:
    """Where no such profile is known it is said, with the place to write it: no other credentials are tried."""
    path = written(*profiles)
    store = S3Store("bucket", "prefix", "http://127.0.0.1:1", profile="north")
    reported = (
        r"no usable credentials under the name of the profile \[profile=north store=s3://bucket/prefix"
        r" cause=ProfileNotFound\]\. Write the profile into .* that AWS_SHARED_CREDENTIALS_FILE names"
    )
    with pytest.raises(Invalid, match=reported):
        list(store.list(""))
    with pytest.raises(Invalid, match="under the name of the profile"):
        find_remote("s3://bucket/data", "http://127.0.0.1:1", lambda _: True, "north")
    assert path.exists()
    written("north")  # later, by somebody else: the process need not be restarted
    assert _identity(store) == "id-north"


def test_a_profile_without_keys(written: Written) -> None:
    """An empty profile is an error: other credentials are not used in its place."""
    written().write_text("[north]\nregion = eu-north-1\n", encoding="utf-8")
    with pytest.raises(Invalid, match="under the name of the profile.*cause=NoCredentialsError"):
        list(S3Store("bucket", "", "http://127.0.0.1:1", profile="north").list(""))
