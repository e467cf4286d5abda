"""A cluster that is gone, or refuses this process's token, is reported at once and by name; tokens are private."""

from __future__ import annotations

import socket
import stat
from pathlib import Path
from typing import NoReturn

import pytest
from ray.exceptions import AuthenticationError, RpcError

from cluster.runtime import contact
from cluster.runtime.contact import check_cluster, check_token_file, make_token
from storage.errors import Invalid, Unavailable

ENVIRONMENT = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS")


@pytest.fixture(autouse=True)
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a user's token, which is not there yet."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(contact, "ensure_token_if_auth_enabled", lambda **_: None)
    return tmp_path / ".ray" / "auth_token"


@pytest.fixture
def door() -> str:
    """An address at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize("is_named", [True, False])
def test_a_cluster_that_is_gone(door: str, is_named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing listens any more, Ray is not asked, whether the address was given or found."""
    monkeypatch.setenv("RAY_ADDRESS", door)
    monkeypatch.setattr(contact, "GcsClient", None)
    with pytest.raises(Unavailable, match=r"the Ray cluster does not answer: nothing listens at .*If its head is gone"):
        check_cluster(door if is_named else "auto")


def test_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error distinguishes an invalid address from one where no cluster runs."""
    with pytest.raises(Unavailable, match="does not answer: it is not an address"):
        check_cluster("here")

    def found(_: str) -> NoReturn:
        raise ConnectionError

    monkeypatch.setattr(contact, "canonicalize_bootstrap_address_or_die", found)
    with pytest.raises(Unavailable, match="does not answer: none runs on this machine"):
        check_cluster("auto")


def _raising(error: Exception) -> type:
    class Client:
        def __init__(self, address: str) -> None:
            raise error

    return Client


def test_a_refused_token_is_called_so(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says where the refused token comes from, without showing it."""
    monkeypatch.setattr(contact, "is_reachable", lambda _: True)
    monkeypatch.setattr(contact, "GcsClient", _raising(AuthenticationError("no")))
    words = "refuses this process's token: it has"
    with pytest.raises(Invalid, match=rf"{words} none .*Put the token of the cluster's head"):
        check_cluster("10.0.0.1:6379")
    make_token()
    with pytest.raises(Invalid, match=f"{words} the one in {token}"):
        check_cluster("10.0.0.1:6379")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    with pytest.raises(Invalid, match=f"{words} the one in the environment variable RAY_AUTH_TOKEN"):
        check_cluster("10.0.0.1:6379")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(Invalid, match=f"{words} none, for RAY_AUTH_MODE is 'disabled'"):
        check_cluster("10.0.0.1:6379")


def test_a_cluster_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is open and an answer that does not come are not a token's fault."""
    monkeypatch.setattr(contact, "is_reachable", lambda _: True)
    monkeypatch.setattr(contact, "GcsClient", _raising(RpcError("timed out")))
    with pytest.raises(Unavailable, match=r"does not answer: RpcError at 10\.0\.0\.1:6379"):
        check_cluster("10.0.0.1:6379")


def test_a_token_is_made_once_for_its_owner_alone(token: Path) -> None:
    """Nobody else has rights to the file, and a token that is there stays."""
    assert check_token_file() == "none"
    make_token()
    made = token.read_text(encoding="ascii")
    assert len(made) == 64
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    make_token()
    assert token.read_text(encoding="ascii") == made
    assert [each.name for each in token.parent.iterdir()] == ["auth_token"]
    assert check_token_file() == f"the one in {token}, which is its owner's alone"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_token_that_others_have_rights_to(token: Path, mode: int) -> None:
    """The doctor names the file and the remedy."""
    make_token()
    token.chmod(mode)
    with pytest.raises(Invalid, match=f"others than its owner have rights .*'chmod 600 {token}'"):
        check_token_file()


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_a_token_that_is_given_needs_no_other(token: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment says which token, none is made."""
    monkeypatch.setenv(name, "/nowhere")
    make_token()
    assert not token.exists()
