"""The process that all others here are forked from: everything is imported, nothing is started.

So a life begins in a few milliseconds. It has one thread of Python's and no Ray: what forks well.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Final, Literal, NoReturn

import numpy as np
import torch

from shards.measures import class_measures
from storage.transparency import packs
from tests.kills.command_runs import CommandRun, carry_out, run_from_json

ROOT: Final = Path(__file__).resolve().parents[2]

_LATE: Final = (
    "cluster.federation",
    "cluster.coordinator_actor.launch",
    "deploy.views.erasure",
    "deploy.views.progress",
    "deploy.views.text",
    "deploy.views.watching",
    "numpy.ctypeslib",
    "numpy.ma",
    "numpy.rec",
    "pyarrow.compute",
    "pyarrow.parquet",
    "rich.live",
    "rich.progress",
    "shards.models",
    "sklearn.metrics",
    "torch._dynamo",
)

End = Literal["killed", "stopped", "ended", "failed"]
"""How a process ended: by SIGKILL, not yet (it sleeps), by itself, or by an error outside the product."""


@dataclass(frozen=True, slots=True)
class ForkServer:
    """The test's end of it."""

    orders: IO[str]
    replies: IO[str]

    def begin(self, run_: CommandRun) -> tuple[int, End]:
        """Fork a process that lives ``run_``; return its number, and its end, or that it was stopped."""
        return self._ask({"run": run_.to_json()})

    def resume(self, process: int) -> End:
        """Let a stopped process go on to its end."""
        return self._ask({"resume": process})[1]

    def run(self, run_: CommandRun) -> dict[str, Any]:
        """Return what a process has to say that nothing strikes."""
        _, end = self.begin(run_)
        assert end == "ended", f"{run_}: {end}"
        return answer_of(run_)

    def _ask(self, order: dict[str, Any]) -> tuple[int, End]:
        self.orders.write(json.dumps(order) + "\n")
        self.orders.flush()
        reply = json.loads(self.replies.readline())
        return reply["process"], reply["end"]


def answer_of(run_: CommandRun) -> dict[str, Any]:
    """Return what the process wrote down at its end."""
    answer: dict[str, Any] = json.loads(run_.answer.read_text(encoding="utf-8"))
    return answer


@contextmanager
def fork_server() -> Iterator[ForkServer]:
    """Start the process; at the end of the block it is ended, together with processes that still sleep."""
    command = [sys.executable, "-m", "tests.kills.fork_server"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        yield ForkServer(process.stdin, process.stdout)


def _serve(orders: IO[str], replies: IO[str]) -> None:
    asleep: set[int] = set()
    for line in orders:
        order = json.loads(line)
        if "run" in order:
            process = _fork(run_from_json(order["run"]))
        else:
            process = order["resume"]
            asleep.discard(process)
            os.kill(process, signal.SIGCONT)
        end = _wait(process)
        if end == "stopped":
            asleep.add(process)
        replies.write(json.dumps({"process": process, "end": end}) + "\n")
        replies.flush()
    for process in asleep:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def _fork(run_: CommandRun) -> int:
    run_.answer.unlink(missing_ok=True)
    process = os.fork()
    if process == 0:
        _run_and_end(run_)
    return process


def _run_and_end(run_: CommandRun) -> NoReturn:
    """Be the forked process: even after an error it does not return into its parent's loop."""
    status = 1
    try:
        os.dup2(2, 1)  # what the parent says there is for the test
        carry_out(run_)
        status = 0
    finally:
        if status:
            traceback.print_exc()
        os._exit(status)


def _wait(process: int) -> End:
    _, status = os.waitpid(process, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        return "stopped"
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return "killed"
    return "ended" if status == 0 else "failed"


def _warm_up() -> None:
    """Import what the product and its libraries import only when they first need it, and start no thread."""
    for module in _LATE:
        import_module(module)
    torch.set_num_threads(1)
    class_measures(("a", "b"), np.array([0, 1], np.int32), np.full((2, 2), 0.5))  # its first use looks for plugins
    packs.TILE_ENTRIES = 2  # type: ignore[misc]  # so that the second receipt of a story is packed with the first
    gc.freeze()  # a forked child that collects garbage would copy all memory for nothing


if __name__ == "__main__":
    _warm_up()
    _serve(sys.stdin, sys.stdout)
