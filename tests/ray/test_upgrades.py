"""Upgrades as docs/upgrades.md describes them, also without 'sisa stop', and the way back; the package is replaced.

The other release is the same code under another name: what is tried is who refuses whom, in which words, and that
nothing that was accepted is lost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from cluster.coordinator_actor.record import read_record
from cluster.runtime.head import _is_head, is_reachable
from tests.doubles.user_folder import MARKED, CommandResult, UserFolder
from tests.ray.commands import ROOT
from tests.ray.several_commands import several_commands

pytestmark = [pytest.mark.ray, pytest.mark.slow]

OLD: Final = "9.1.0"
NEW: Final = "9.2.0"
PERSON: Final = "secret-person-001"

SETTINGS: Final[dict[str, Any]] = {"erasure__batch_window_seconds": 0.0, "cluster__workers": 1}


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine on which the package is installed in a folder, and how the commands ended that were run there."""

    home: UserFolder
    package: Path
    ended: dict[str, CommandResult]

    def install(self, release: str) -> None:
        """Put a release in the place of the one that was there, while its processes run."""
        folder = self.package / "sisa_ray-9.dist-info"
        folder.mkdir(parents=True, exist_ok=True)
        reported = f"Metadata-Version: 2.1\nName: sisa-ray\nVersion: {release}\n"
        (folder / "METADATA").write_text(reported, encoding="utf-8")

    def run(self, commands: Mapping[str, Sequence[str]]) -> None:
        """Run commands, by the names of their steps, in one process of the release that is installed now."""
        further = {"PYTHONPATH": f"{self.package}:{ROOT}"}
        with several_commands(self.home.folder, further, one_ray=False) as there:
            for step, words in commands.items():
                self.ended[step] = there.run(*words, "--json")


@dataclass(frozen=True, slots=True)
class OwnHead:
    """The Ray head that 'sisa launch' starts on this machine, as seen while it ran and after 'sisa stop'."""

    was_reachable: bool
    environment: Sequence[bytes]
    command_line: Sequence[bytes]
    is_left: bool


def _stop_what_is_left(machine: Machine) -> None:
    if read_record(machine.home.objects) is not None:
        machine.run({"stop after a failure": ["stop"]})


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """One federation through an upgrade in which 'sisa stop' was forgotten, and back again with it."""
    home = UserFolder(tmp_path_factory.mktemp("upgraded")).fill(**SETTINGS)
    machine = Machine(home, tmp_path_factory.mktemp("place"), {})
    old = Machine(home, tmp_path_factory.mktemp("elsewhere"), machine.ended)
    with ExitStack() as at_end:
        at_end.callback(_stop_what_is_left, machine)
        for each in (machine, old):
            each.install(OLD)
        machine.run({"launch": ["launch"]})
        head = read_record(home.objects)
        assert head is not None
        assert head.head is not None
        process = Path("/proc") / str(head.head)
        seen = (
            is_reachable(head.address),
            (process / "environ").read_bytes().split(b"\0"),
            (process / "cmdline").read_bytes().split(b"\0"),
        )
        machine.install(NEW)
        old.run({"train by an old command": ["train"]})
        machine.run({"launch by a new command": ["launch"], "stop": ["stop"]})
        own_head = OwnHead(*seen, is_left=is_reachable(head.address) or _is_head(head.head))
        machine.run(
            {
                "launch again": ["launch"],
                "train": ["train"],
                "erase": ["erase", "--subject", MARKED, "--request-id", "er-1", "--wait"],
                "stop for the way back": ["stop"],
            }
        )
        machine.install(OLD)
        machine.run({"launch on the way back": ["launch"]})
        machine.install(NEW)
        machine.run({"status by a new command": ["status"], "erase by a new command": ["erase", "--subject", PERSON]})
        machine.install(OLD)
        machine.run(
            {
                "erase on the way back": ["erase", "--subject", PERSON, "--request-id", "er-2", "--wait"],
                "verify on the way back": ["verify"],
                "stop at the end": ["stop"],
            }
        )
    return {"own head": own_head} | {
        step: {"code": ended.code, **json.loads(ended.out or "{}")} for step, ended in machine.ended.items()
    }


def test_launch_starts_a_ray_and_stop_ends_it(story: Mapping[str, Any]) -> None:
    """With address = "local" the head asks for a token, has no dashboard, and is gone after 'sisa stop'."""
    head: OwnHead = story["own head"]
    assert head.was_reachable
    assert b"RAY_AUTH_MODE=token" in head.environment
    assert {b"--include-dashboard=false", b"--include-log-monitor=false"} <= {*head.command_line}
    assert not head.is_left


def test_workers_of_a_package_that_was_replaced_are_refused(story: Mapping[str, Any]) -> None:
    """The coordinator's code is the old one, its new workers' is not: both are named, and nothing is trained."""
    assert story["launch"]["code"] == 0
    reported = story["train by an old command"]
    assert (reported["code"], reported["error"]["kind"]) == (4, "conflict")
    assert f"[worker={NEW} started_by={OLD} machine=" in reported["error"]["message"]
    assert "'sisa stop' and 'sisa launch'" in reported["error"]["remedy"]


def test_new_commands_and_an_old_coordinator(story: Mapping[str, Any]) -> None:
    """They send it nothing, and name both; the status is read, and shows both."""
    for step in ("erase by a new command", "launch by a new command"):
        assert story[step]["code"] == 4
        assert f"[coordinator={OLD} command={NEW}]" in story[step]["error"]["message"]
    assert story["status by a new command"]["data"]["releases"] == {"command": NEW, "coordinator": OLD}


def test_stop_and_launch_end_it(story: Mapping[str, Any]) -> None:
    """'sisa stop' ends a coordinator of any release; after 'sisa launch' all is done by the new one."""
    assert story["stop"]["data"]["stopped"]
    assert story["launch again"]["data"]["releases"] == {"command": NEW, "coordinator": NEW}
    assert story["train"]["code"] == 0
    assert (story["erase"]["code"], story["erase"]["data"]["state"]) == (0, "complete")


def test_the_way_back(story: Mapping[str, Any]) -> None:
    """As long as the store is of a format that the older release reads, it continues with that, and finds what was
    done.
    """
    assert story["stop for the way back"]["data"]["stopped"]
    assert story["launch on the way back"]["data"]["releases"] == {"command": OLD, "coordinator": OLD}
    reported = story["erase on the way back"]
    assert (reported["code"], reported["data"]["state"]) == (0, "complete")
    assert story["verify on the way back"]["data"]["exact"]
    assert story["stop at the end"]["data"]["stopped"]
