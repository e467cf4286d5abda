"""A user's own model at whose gate workers wait: closed by a test, it stops those who come to some place in their work.

The bytes are those of ``shards.models:mlp``: what waits, or dies while it waits, changes none of them. The code is the
same in every folder, so that what one of them has rehearsed and trained can be copied to others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

from tests.doubles.rehearsed import stand_in
from tests.doubles.user_folder import MARKER, SETTINGS, UserFolder
from tests.multinode.patience import until

MODULE = "gated_net"

SOURCE = f"""
import os
import selectors
import sys
from pathlib import Path

import torch

from shards.learners.trainer import ConstituentTrainer
from shards.models import mlp

HERE = Path(FOLDER).resolve()
MARKED = torch.tensor(list({MARKER!r}), dtype=torch.float32)
keep = ConstituentTrainer._learned
met = set()


def wait_at(*places):
    waiting = HERE / f"waiting-{{os.getpid()}}"
    for place in places:
        if (HERE / f"place-{{place}}").exists() and not waiting.exists():
            # Opened first: from the moment at which this process is seen to wait, opening the gate lets it go on.
            pipe = os.open(HERE / "pipe", os.O_RDONLY | os.O_NONBLOCK)
            try:
                (HERE / f"place-{{place}}").rename(waiting)
                with selectors.PollSelector() as opened:
                    opened.register(pipe, selectors.EVENT_READ)
                    opened.select()  # until a writer has opened and closed the pipe
            except FileNotFoundError:  # somebody else has it
                pass
            finally:
                os.close(pipe)


def learn(module, arguments):
    if module.training and "ray" in sys.modules:  # not in a rehearsal
        (HERE / f"learner-{{os.getpid()}}-of-{{os.getppid()}}").touch()
        wait_at(*range(9))
        if ((arguments[0] * 255.0 - MARKED).abs() < 0.5).all(dim=1).any():
            met.add("marked")
            wait_at("marked")


def keep_and_tell(self, *learned):
    if met:
        wait_at("keeping")
    try:
        return keep(self, *learned)
    finally:
        (HERE / f"through-{{os.getpid()}}").touch()


def net(inputs, classes, hidden):
    model = mlp(inputs, classes, hidden=hidden)
    model.register_forward_pre_hook(learn)
    return model


ConstituentTrainer._learned = keep_and_tell
"""

Place = Literal["anywhere", "marked", "keeping"]
"""Where workers wait: when they begin to learn anything; before they learn the marked points; before they keep what
they learned from them, after their last check that it is still wanted.
"""

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held(Generic[_Result]):
    """A call in progress, whose workers may be waiting at the gate."""

    workers: tuple[int, ...]
    """Their processes."""
    answer: Future[_Result]


class Gate:
    """The gate of one federation."""

    def __init__(self, home: UserFolder, **changes: object) -> None:
        """Put the model next to the specification and name it there. The gate is open."""
        self._folder = home.folder
        source = f"FOLDER = {str(stand_in(home, MODULE))!r}\n{SOURCE}"  # the model itself runs in a copy of its folder
        (home.folder / f"{MODULE}.py").write_text(source, encoding="utf-8")
        os.mkfifo(home.folder / "pipe")
        arguments = SETTINGS["model.arguments"]
        self.settings = {"model__factory": f"{MODULE}:net", "model__arguments": arguments, **changes}
        home.specify(**self.settings)

    def close(self, place: Place, workers: int) -> None:
        """Let the next ``workers`` that come there wait."""
        for reported in self._reported("*-*"):
            reported.unlink()
        for name in range(workers) if place == "anywhere" else [place]:
            (self._folder / f"place-{name}").touch()

    def open(self) -> None:
        """Let waiting workers continue; it does not matter if one has died meanwhile."""
        with suppress(OSError):  # nobody reads
            os.close(os.open(self._folder / "pipe", os.O_WRONLY | os.O_NONBLOCK))

    def is_through(self, worker: int) -> bool:
        """Whether a worker has kept, or has not been let keep, anything since the gate was closed."""
        return (self._folder / f"through-{worker}").exists()

    def learners(self) -> dict[int, int]:
        """Return the processes that have learned anything since the gate was closed, each with its raylet."""
        words = (reported.name.split("-") for reported in self._reported("learner-*"))
        return {int(pid): int(raylet) for _, pid, _, raylet in words}

    @contextmanager
    def during(self, call: Callable[[], _Result], place: Place = "marked", workers: int = 1) -> Iterator[Held[_Result]]:
        """Close the gate and call; once workers wait there, do the body; then wait for the call to end."""
        self.close(place, workers)
        with ThreadPoolExecutor(1, thread_name_prefix="during") as pool:
            answer = pool.submit(call)
            try:
                until(lambda: self._is_full() or (answer.done() and answer.exception()), "workers at the gate")
                if not self._is_full():
                    answer.result()  # raises
                yield Held(workers=self._waiting(), answer=answer)
            except BaseException:  # the call is waited for: nobody may be left at the gate, or come there later
                for each in self._reported("place-*"):
                    each.unlink(missing_ok=True)
                self.open()
                raise

    def next_after(self, blow: Callable[[], object], place: Place = "marked") -> int:
        """Close the gate again, end the waiting worker with ``blow``, and return the process that replaces it."""
        self.close(place, 1)
        blow()
        until(self._is_full, "another worker at the gate")
        (worker,) = self._waiting()
        return worker

    def _waiting(self) -> tuple[int, ...]:
        return tuple(int(reported.name.rpartition("-")[2]) for reported in self._reported("waiting-*"))

    def _is_full(self) -> bool:
        return bool(self._reported("waiting-*")) and not self._reported("place-*")

    def _reported(self, pattern: str) -> list[Path]:
        return sorted(self._folder.glob(pattern))
