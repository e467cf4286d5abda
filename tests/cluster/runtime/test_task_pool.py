"""The crew's book-keeping without Ray: order, deaths, failures, and what is given up."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.exceptions import RayError, RayTaskError, TaskCancelledError, WorkerCrashedError

from cluster.release import Sent
from cluster.runtime import task_pool as crew
from cluster.runtime.task_pool import MOST_DEATHS, RayCrew, cause_of
from storage.errors import Invalid, SisaError, StoreFull, Unavailable


def _raised(cause: Exception) -> RayTaskError:
    return RayTaskError("perform", "a traceback", cause)


ENDS: dict[str, RayError | None] = {
    "done": None,
    "died": WorkerCrashedError(),
    "away": _raised(Unavailable("the store is away")),
    "wrong": _raised(Invalid("this is wrong")),
    "full": _raised(StoreFull("the disk is full")),
}
PASSING = ("died", "away")


@dataclass(slots=True)
class FakeRay:
    """Stands for the module ``ray``, and for the task: attempts end as planned, in a drawn order."""

    plan: Sequence[Sequence[str]]
    """How each thing's attempts end; the last end is that of all further ones."""
    choose: Any
    """Returns one of so many."""
    attempts: dict[int, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    running: dict[str, tuple[int, int]] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    ended: dict[str, tuple[int, int]] = field(default_factory=dict)
    most_at_once: int = 0

    def options(self, **_: object) -> FakeRay:
        """Return the task."""
        return self

    def remote(self, *sent: Sent[Any]) -> str:
        """Begin an attempt. Ray keeps large arguments, so each one is sent separately, and small ones are not kept."""
        act, thing, name, *shared = (each.opened("task") for each in sent)
        assert isinstance(name, str)
        assert (act, shared) == (abs, ["shared"])
        self.names.append(name)
        self.running[name] = (thing, self.attempts.get(thing, 0))
        self.attempts[thing] = self.attempts.get(thing, 0) + 1
        self.most_at_once = max(self.most_at_once, len(self.running))
        return name

    def wait(self, tasks: list[str], *, num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        """End as many as are waited for."""
        ready = []
        for _ in range(num_returns):
            open_ = [task for task in tasks if task not in ready]
            task = open_[self.choose(len(open_))]
            ready.append(task)
            self.ended[task] = self.running.pop(task)
        return ready, [task for task in tasks if task not in ready]

    def get(self, task: str) -> int:
        """Return the attempt's result, or raise its end."""
        thing, attempt = self.ended[task]
        if task in self.cancelled:
            raise TaskCancelledError
        ends = self.plan[thing]
        if error := ENDS[ends[min(attempt, len(ends) - 1)]]:
            raise error
        return thing * 10

    def cancel(self, task: str) -> None:
        """Give an attempt up."""
        self.cancelled.add(task)


@given(
    plan=st.lists(st.lists(st.sampled_from(list(ENDS)), min_size=1, max_size=4), max_size=8),
    tasks=st.integers(1, 4),
    data=st.data(),
)
def test_results_or_the_first_error(plan: list[list[str]], tasks: int, data: st.DataObject) -> None:
    """All results come in order, or the error of the first thing in order that fails, regardless of which task ends
    first. Each attempt has its own name; dead tasks are repeated a limited number of times; nothing is left running.
    """
    fake = FakeRay(plan, lambda count: data.draw(st.integers(0, count - 1)))
    numbers, reported, remarks = itertools.count(), list[int](), list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crew, "ray", fake)
        patch.setattr(crew, "perform_task", fake)

        def run() -> list[int]:
            things = list(range(len(plan)))
            return RayCrew(tasks, remarks.append)(abs, things, lambda: f"n{next(numbers)}", reported.append, "shared")  # type: ignore[arg-type]

        expected = [_end(ends) for ends in plan]
        failure = next((end for end in expected if end != "done"), None)
        if failure is None:
            assert run() == [index * 10 for index in range(len(plan))]
            assert sorted(reported) == [index * 10 for index in range(len(plan))]
        else:
            with pytest.raises(SisaError, match=str(cause_of(_as_error(failure)).args[0])):
                run()
    assert len(set(fake.names)) == len(fake.names)
    assert not fake.running
    assert fake.most_at_once <= tasks
    assert max(fake.attempts.values(), default=0) <= MOST_DEATHS


def _end(ends: Sequence[str]) -> str:
    """Return the final result of a thing whose attempts have these ends."""
    padded = [*ends, *([ends[-1]] * MOST_DEATHS)][:MOST_DEATHS]
    return next((end for end in padded if end not in PASSING), padded[-1])


def _as_error(end: str) -> RayError:
    error = ENDS[end]
    assert error is not None
    return error


def test_what_is_raised() -> None:
    """A task's own error is raised as itself; of any other only the kind, because its text may quote what was read."""
    own = Invalid("this is wrong", "Make it right.", row=3)
    assert cause_of(_raised(own)) is own
    reported = cause_of(_raised(ValueError("a cell's content")))
    assert str(reported) == (
        "a task that reads data failed with ValueError. See its traceback, which is the cause of this error."
    )
    assert isinstance(cause_of(WorkerCrashedError()), Unavailable)


def test_waiting_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message appears if nothing is done for long and no processor is free, but not later, or with free ones."""
    free = iter([0.0, 2.0])

    class Slow(FakeRay):
        silent = 2

        def wait(self, tasks: list[str], *, num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
            if Slow.silent:
                Slow.silent -= 1
                return [], tasks
            return FakeRay.wait(self, tasks, num_returns=num_returns, timeout=timeout)

        def available_resources(self) -> dict[str, float]:
            return {"CPU": next(free)}

    fake, remarks = Slow([["done"]], lambda _: 0), list[str]()
    monkeypatch.setattr(crew, "ray", fake)
    monkeypatch.setattr(crew, "perform_task", fake)
    assert RayCrew(1, remarks.append)(abs, [0], lambda: "n", lambda _: None, "shared") == [0]  # type: ignore[arg-type]
    assert remarks == ["reading data: nothing is done yet, and 0 CPUs are free in the cluster"]
