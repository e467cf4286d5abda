"""Zombies: writers that SIGSTOP suspends, and that continue after another writer has taken over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy.views.output import ExitCode
from tests.kills.command_cases import COMMAND_CASES, CaseRunner
from tests.kills.command_runs import CommandRun
from tests.kills.fail_points import Moment, Strike
from tests.kills.fork_server import answer_of
from tests.kills.table import FAIL_POINTS, FailPoint, differences

NEXT: Final = "erase er-4"
"""An additional command of the writer that takes over: an erasure that the zombie does not know."""

_ASLEEP: Final[Mapping[str, tuple[tuple[str, Moment], ...]]] = {
    "train": (
        ("start: fencing token claimed", "after"),
        ("start: fence entry appended", "before"),
        ("ingest: slice put", "before"),
        ("ingest: last slice put", "after"),
        ("event: ingested", "before"),
        ("training: checkpoint put", "before"),
        ("event: last checkpoint written, published", "before"),
        ("end: manifest", "before"),
    ),
    "erase": (
        ("start: fencing token claimed", "before"),
        ("event: request accepted", "before"),
        ("removal: slice without the points put", "before"),
        ("event: points removed, quarantined", "before"),
        ("event: points removed, quarantined", "after"),
        ("retraining: checkpoint put", "before"),
        ("event: last checkpoint written, published", "after"),
        ("purge: keyring without the tainted keys", "before"),
        ("purge: tainted slice deleted", "before"),
        ("purge: manifest", "before"),
        ("receipt: statement signed", "before"),
        ("log: entry", "before"),
        ("event: receipt issued", "before"),
        ("end: state before deleted", "before"),
    ),
    "erase many": (("request: names put", "before"),),
    "train again": (("ingest: slice put", "before"), ("purge: last slice deleted", "before")),
    "readmit": (("event: subjects readmitted", "before"), ("event: subjects readmitted", "after")),
}


_POINTS: Final = {(point.case_name, point.name): point for point in FAIL_POINTS}

SLEEPERS: Final = tuple(
    (_POINTS[case_name, name], moment) for case_name, places in _ASLEEP.items() for name, moment in places
)
"""Where they are stopped. The process that takes over completes the work, and truncates the journal more than once."""

PAIRS: Final = tuple(
    (_POINTS["erase", first], _POINTS["erase", second])
    for first, second in (
        ("start: fence entry appended", "event: points removed, quarantined"),
        ("event: points removed, quarantined", "removal: state before kept"),
        ("removal: slice without the points put", "retraining: checkpoint put"),
        ("retraining: checkpoint put", "purge: keyring without the tainted keys"),
        ("purge: tainted slice deleted", "log: entry"),
        ("receipt: statement signed", "receipt: bundle"),
    )
)
"""Pairs of steps: the first writer is stopped before the one, the writer that takes over before the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZombieOutcome:
    """How a zombie ended, and the federation before and after."""

    said: Mapping[str, Any]
    """Exit code and error of the zombie's command."""
    before: Mapping[str, Any]
    """What a reader saw before the zombie woke."""
    after: Mapping[str, Any]
    """What a reader saw when the zombie had ended."""
    outcome: Mapping[str, Any]
    """The federation's outcome after one more command."""


def run_zombie(
    runner: CaseRunner, folder: Path, command: str, strike: Strike, *, jump_seconds: float = 0.0
) -> ZombieOutcome:
    """Put the command to sleep, let another process take over and finish everything, and wake the command up.

    In a bucket, the clock of the process that takes over is moved ahead by ``jump_seconds``, so that the sleeper's
    lease has expired. In a folder, the operating system keeps the sleeper's lock, so the lock file is deleted, as
    happens when the folder is restored from a copy or moved.
    """
    zombie = CommandRun(folder=str(folder), command=f"sisa {command}", strike=strike, name="zombie")
    process, end = runner.fork_server.begin(zombie)
    assert end == "stopped", f"the fail point was not reached: {end}"
    try:
        if not jump_seconds:
            take_lock_away(folder)
        runner.run(folder, f"recover {command}", jump_seconds=jump_seconds)
        runner.run(folder, NEXT)
        before = runner.run(folder, f"look {NEXT.partition(' ')[2]}")["data"]
    finally:
        end = runner.fork_server.resume(process)
    assert end == "ended", end
    after = runner.run(folder, f"look {NEXT.partition(' ')[2]}")["data"]
    outcome = runner.run(folder, f"recover {NEXT}")["data"]["outcome"]
    return ZombieOutcome(said=answer_of(zombie)["data"], before=before, after=after, outcome=outcome)


def take_lock_away(folder: Path) -> None:
    """Delete the lock file of the folder's store, so that another writer can start while a sleeper holds the lock."""
    (folder / "federation" / ".locks" / "writer.lock").unlink(missing_ok=True)


def complaints(zombie_outcome: ZombieOutcome, expected: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the zombie did that it must not do; ``expected`` is the outcome without a zombie."""
    error = zombie_outcome.said.get("error", {"kind": "none", "message": ""})
    if (zombie_outcome.said["code"], error["kind"]) != (ExitCode.CONFLICT, "fenced"):
        yield f"the zombie ended with code {zombie_outcome.said['code']}, {error['kind']}: {error['message']}"
    if zombie_outcome.after["left_over"]:
        yield f"the zombie left behind: {zombie_outcome.after['left_over']}"
    yield from (
        f"the zombie changed what is there: {each}" for each in differences(zombie_outcome.before, zombie_outcome.after)
    )
    yield from differences(expected, zombie_outcome.outcome)


def try_sleeper(runner: CaseRunner, point: FailPoint, moment: Moment) -> None:
    """Stop the command at the fail point and wake it later. Raises ``AssertionError`` with everything found wrong."""
    command = COMMAND_CASES[point.case_name].command
    zombie_outcome = run_zombie(runner, runner.copy(point.case_name), command, point.strike(moment, "stop"))
    wrong = list(complaints(zombie_outcome, runner.afterwards(point.case_name, NEXT)))
    assert not wrong, "\n".join(wrong)


def wake_both(runner: CaseRunner, case_name: str, first: Strike, second: Strike) -> tuple[str, str]:
    """Stop a writer, let another one with the same command take over and stop it too, and wake them in that order.

    A writer that was superseded ends fenced, and the other one completes. Returns how each ended: ``fenced``; or
    ``done``, which a superseded writer also reports if it had nothing left to commit or had not begun; or ``busy``, if
    it was stopped before it asked for the writer lock and then does not get it. Raises ``AssertionError`` when anything
    is wrong.
    """
    command, folder = COMMAND_CASES[case_name].command, runner.copy(case_name)
    runs = [
        CommandRun(folder=str(folder), command=command, strike=strike, name=name)
        for name, strike in (("first", first), ("second", second))
    ]
    asleep = []
    for run_ in runs:
        take_lock_away(folder)
        process, end = runner.fork_server.begin(run_)
        asleep += [process] if end == "stopped" else []
    ends = [runner.fork_server.resume(process) for process in asleep]
    assert set(ends) <= {"ended"}, ends
    said = _how(runs[0]), _how(runs[1])
    outcome = runner.run(folder, f"recover {command}")["data"]["outcome"]
    wrong = list(differences(runner.reference(case_name).outcome, outcome))
    if not set(said) <= {"done", "fenced", "busy"} or "done" not in said:
        wrong.append(f"they ended {said}")
    assert not wrong, "\n".join(wrong)
    return said


def _how(run_: CommandRun) -> str:
    error = answer_of(run_).get("error")
    if error is None:
        return "done"
    if "holds the right to write" in error["message"]:
        return "busy"
    return "fenced" if error["kind"] == "fenced" else f"{error['kind']}: {error['message']}\n{error['trace']}"
