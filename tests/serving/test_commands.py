"""The commands around serving: making, listing and revoking tokens; immediate errors when serving cannot start."""

from __future__ import annotations

import json
import socket
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from ray.exceptions import ActorDiedError
from typer.testing import CliRunner

from cluster.config.serve import ServeSettings
from cluster.config.specification import read_specification
from cluster.runtime.system import SystemClock
from cluster.serving.deployment import application
from cluster.tokens import Role, TokenRegister, known_token
from deploy.commands.serve import serve, tokens
from storage.errors import Conflict, Unavailable
from tests.doubles.user_folder import UserFolder
from tests.serving.world import ROLES

APP = typer.Typer()
APP.add_typer(tokens)
APP.command()(serve)


@pytest.fixture
def home(tmp_path: Path) -> UserFolder:
    """A folder whose federation was never trained."""
    return UserFolder(tmp_path).fill()


def said(home: UserFolder, *words: str) -> tuple[int, dict[str, Any]]:
    """Return how a command ended and its envelope."""
    done = CliRunner().invoke(APP, [*words, "--config", str(home.config), "--json"])
    return done.exit_code, json.loads(done.stdout)


def test_a_token_is_shown_once(home: UserFolder) -> None:
    """What 'create' shows is a token; 'list' shows all of them without it; 'revoke' ends it."""
    code, made = said(home, "token", "create", "--role", "erase", "--days", "2", "--note", "for the desk")
    assert code == 0
    text = made["data"]["token"]
    record = known_token(TokenRegister(home.objects, SystemClock()).records(), text)
    assert record is not None
    assert (record.role, record.note) == ("erase", "for the desk")
    code, listed = said(home, "token", "list")
    assert code == 0
    assert [each["token_id"] for each in listed["data"]["tokens"]] == [record.token_id]
    assert text.rpartition("_")[2] not in json.dumps(listed)
    assert record.digest not in json.dumps([made, listed])
    code, revoked = said(home, "token", "revoke", record.token_id)
    assert code == 0
    assert revoked["data"]["revoked_at"]


def test_people_read_the_same(home: UserFolder) -> None:
    """Without --json the token is all there is on stdout, with words about it on stderr, and the list is a table."""
    run = CliRunner().invoke
    config = ["--config", str(home.config)]
    assert run(APP, ["token", "list", *config]).stdout == "no token was made yet\n"
    shown = run(APP, ["token", "create", "--role", "predict", *config])
    assert known_token(TokenRegister(home.objects, SystemClock()).records(), shown.stdout.removesuffix("\n"))
    assert "a token that may predict until 20" in shown.stderr
    assert run(APP, ["token", "create", "--role", "predict", "--json", *config]).stderr == ""
    assert "predict" in run(APP, ["token", "list", *config]).stdout


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("token", "create", "--role", "admin"), "one of predict, erase, audit, officer, federate"),
        (("token", "create", "--role", "predict", "--days", "0"), "above 0"),
        (("token", "revoke", "nobody"), "there is no such token"),
    ],
)
def test_bad_tokens_are_wrong_usage(home: UserFolder, words: tuple[str, ...], text: str) -> None:
    """An invalid role, lifetime or id ends with exit code 2 and a message."""
    code, found = said(home, *words)
    assert code == 2
    assert text in found["error"]["message"]


@pytest.mark.parametrize("role", ROLES)
def test_every_role_is_in_the_help(home: UserFolder, role: Role) -> None:
    """The help of 'token create' names each role, and a token of each can be made."""
    shown = CliRunner().invoke(APP, ["token", "create", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).stdout
    assert role in shown
    code, made = said(home, "token", "create", "--role", role)
    assert (code, made["data"]["role"]) == (0, role)


def test_serving_needs_its_packages(home: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra 'serve' the command says what to install, before it starts anything."""
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    code, found = said(home, "serve")
    assert code == 2
    assert "sisa-ray[serve]" in found["error"]["remedy"]


def test_a_port_that_is_taken_is_named(home: UserFolder) -> None:
    """If another program listens at the port, the error says so before anything is started."""
    from cluster.serving.deployment import _refuse_taken

    with socket.create_server(("127.0.0.1", 0)) as taken:
        home.specify(serve__port=taken.getsockname()[1])
        with pytest.raises(Conflict, match="cannot listen at 127.0.0.1: Address already in use"):
            _refuse_taken(read_specification(home.config).serve)


@pytest.mark.parametrize("error", [TimeoutError("HTTP proxies not available after 60s."), ActorDiedError()])
def test_proxies_that_do_not_start_are_reported(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """What Serve raises where its proxies take too long or die at their start becomes a message with a remedy."""
    from cluster.serving import deployment

    def start(**_: object) -> None:
        raise error

    monkeypatch.setattr(deployment, "serve", SimpleNamespace(status=lambda: SimpleNamespace(proxies={}), start=start))
    monkeypatch.setattr(deployment, "_refuse_taken", lambda _: None)
    with pytest.raises(Unavailable, match="Ray Serve did not start: .*Try again when the machine is less busy"):
        deployment._start(ServeSettings())


def test_a_serve_config_file_makes_the_same_application(home: UserFolder) -> None:
    """What KubeRay's manifest names gives the application of the specification that it names."""
    made = application({"config": str(home.config)})
    deployment = made._bound_deployment
    assert deployment.name == "replica"
    assert deployment.num_replicas == 1
    assert deployment.max_ongoing_requests == 2048
    specification = read_specification(home.config)
    keyless = replace(specification, partition=replace(specification.partition, key=None))
    (sent,) = deployment.init_args
    assert sent.opened("replica") == (keyless, None), "the key is read from the store"
