"""The stage: federations as they are before a command is struck, how the undisturbed command ends, and one case."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

from tests.doubles.user_folder import duplicate
from tests.kills.command_runs import CommandRun
from tests.kills.fail_points import Kind, Strike
from tests.kills.fork_server import ForkServer, answer_of


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandCase:
    """A command that is struck, and what had been done before."""

    before: tuple[str, ...]
    command: str

    @property
    def request(self) -> str:
        """The request that the command makes; empty: it makes none."""
        return self.command.partition(" ")[2]


COMMAND_CASES: Final[Mapping[str, CommandCase]] = {
    "train": CommandCase(before=("fill",), command="train"),
    "erase": CommandCase(before=("fill", "train"), command="erase er-1"),
    "erase many": CommandCase(before=("fill", "train", "erase er-0"), command="erase er-2"),
    "erase nobody": CommandCase(before=("fill", "train", "erase er-0"), command="erase er-3"),
    "train again": CommandCase(before=("fill", "train", "erase er-0", "change"), command="train"),
    "erase alike": CommandCase(before=("fill", "train", "erase er-0"), command="erase er-5"),
    "readmit": CommandCase(before=("fill", "train", "erase er-0"), command="readmit re-0"),
    "train back": CommandCase(
        before=("fill", "train", "erase er-0", "readmit re-0", "change secret-person-005"), command="train"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """How a story's command ends that nothing strikes."""

    folder: Path
    """The federation before the command."""
    steps: tuple[Kind, ...]
    """The command's steps."""
    looks: int
    """How often the command looked at the store."""
    outcome: Mapping[str, Any]
    tainted: frozenset[str]
    """Digests of constituents that answered before and have seen what the command erases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseOutcome:
    """What became of a case."""

    kills: int
    found: Mapping[str, Any]
    """What the first reader saw after the last kill."""
    reported: tuple[str, ...]
    """The messages that the killed processes had shown to people."""
    answer: Mapping[str, Any]
    """The answer of the process that completed the work."""


@dataclass(slots=True)
class CaseRunner:
    """Folders under ``base``, and the process that lives are forked from."""

    fork_server: ForkServer
    base: Path
    _references: dict[str, Reference] = field(default_factory=dict)
    _afterwards: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    _numbers: count[int] = field(default_factory=count)

    def reference(self, name: str) -> Reference:
        """Return the story's reference, made once."""
        if name not in self._references:
            self._references[name] = self._undisturbed(COMMAND_CASES[name])
        return self._references[name]

    def copy(self, name: str) -> Path:
        """Return a new folder with the federation as it is before the case's command."""
        folder = self.base / f"case-{next(self._numbers)}"
        duplicate(self.reference(name).folder, folder)
        return folder

    def run(self, folder: Path, *commands: str, jump_seconds: float = 0.0) -> dict[str, Any]:
        """Run commands without any kill, each in its own process; return the last one's answer."""
        answer: dict[str, Any] = {}
        for command in commands:
            answer = self.fork_server.run(CommandRun(folder=str(folder), command=command, jump_seconds=jump_seconds))
            assert "error" not in answer, answer["error"]["trace"]
        return answer

    def afterwards(self, name: str, command: str) -> Mapping[str, Any]:
        """Return the outcome of ``command`` after the story's, where nothing strikes either; made once."""
        if (name, command) not in self._afterwards:
            folder = self.copy(name)
            self.run(folder, COMMAND_CASES[name].command)
            self._afterwards[name, command] = self.run(folder, f"recover {command}")["data"]["outcome"]
        return self._afterwards[name, command]

    def play(self, name: str, strikes: Sequence[Strike]) -> CaseOutcome:
        """Kill the story's command, and those that recover from it, one kill each; then let one process recover.

        One that is done before its blow ends the series.
        """
        case, folder = COMMAND_CASES[name], self.copy(name)
        recover, kills = f"recover {case.command}", 0
        for number, strike in enumerate(strikes):
            run_ = CommandRun(folder=str(folder), command=recover if number else case.command, strike=strike)
            _, end = self.fork_server.begin(run_)
            if end != "killed":
                assert end == "ended", end
                assert "error" not in (answer := answer_of(run_)), answer["error"]["trace"]
                break
            kills += 1
        last = CommandRun(folder=str(folder), command=recover)
        reported = tuple(last.reported.read_text(encoding="utf-8").splitlines()) if last.reported.exists() else ()
        data = self.run(folder, recover)["data"]
        shutil.rmtree(folder)
        return CaseOutcome(kills=kills, found=data["found"], reported=reported, answer=data)

    def _undisturbed(self, case: CommandCase) -> Reference:
        number = next(self._numbers)
        folder, other = self.base / f"before-{number}", self.base / f"undisturbed-{number}"
        folder.mkdir()
        self.run(folder, *case.before)
        duplicate(folder, other)
        calm = self.run(other, case.command)
        served = self.run(folder, "look")["data"]["served"]
        answer = self.run(other, f"recover {case.command}")["data"]
        return Reference(
            folder=folder,
            steps=tuple(calm["steps"]),
            looks=calm["looks"],
            outcome=answer["outcome"],
            tainted=frozenset(served) - frozenset(answer["found"]["served"]),
        )
