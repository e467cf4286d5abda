"""A task pool on Ray: applies one function to many items in tasks, and repeats tasks that die.

Its processes load neither torch nor this system's coordinator, so that they need little more memory than their data.
"""

from __future__ import annotations

import resource
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.release import Sent, refusal_in
from cluster.runtime.guard import check_rooms
from cluster.runtime.labels import Labels, check_here, labels_in_words, nodes_with, place_in_words, selecting
from storage.errors import SisaError, StoreFull, Unavailable
from storage.objects import NewName

MOST_DEATHS: Final = 3
"""An item is given up after this many of its tasks have died."""

PATIENCE_SECONDS: Final = 20.0
"""After this long without any result, a message says what the tasks wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a crew's tasks do, in words."""

    does: str
    """The verb in the singular, as in "a task that reads data"."""
    do: str
    """The verb in the plural, as in "tasks that read data"."""
    doing: str
    """The verb's participle, as in "reading data: nothing is done yet"."""
    remedy: str
    """What to do when tasks keep dying."""
    grace_seconds: float = 30.0
    """How long cancelled tasks may take to remove what they wrote; 0: they write nothing."""


READING: Final = Work(
    does="reads data",
    do="read data",
    doing="reading data",
    remedy="Check Ray's logs, and the memory: [cluster] ingest_workers tasks run at once, and each may take [data]"
    " ingest_memory_mb.",
)

_Thing = TypeVar("_Thing")
_Result = TypeVar("_Result")
_Shared = ParamSpec("_Shared")


def perform(*sent: Sent[Any]) -> Any:
    """Call the first of the given values with the others; a crash leaves no core dump of the data read (E12).

    They are sent separately, because Ray keeps large arguments in its object store: small ones, such as a key, stay
    out of it.
    """
    check_rooms()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    act, *arguments = (each.opened("task") for each in sent)
    return act(*arguments)


def there(labels: Labels, act: Callable[..., Any], thing: object, name: str, *shared: object) -> Any:
    """Process one item on a node that has the labels; on any other node raise ``InvariantBroken`` first."""
    check_here(labels)
    return act(thing, name, *shared)


_remote: Any = ray.remote  # its types know functions of a fixed number of arguments
perform_task = _remote(num_cpus=1, max_retries=0)(perform)


class RayCrew:
    """Tasks of one processor each, up to ``tasks`` at once. Implements ``shards.slices.parallel_ingest.TaskPool``."""

    def __init__(
        self, tasks: int, remark: Callable[[str], None], labels: Labels | None = None, work: Work = READING
    ) -> None:
        """``remark`` is called with messages for people; tasks run only on nodes with all ``labels``."""
        self._tasks = tasks
        self._remark = remark
        self._labels = labels or {}
        self._work = work

    def __call__(
        self,
        act: Callable[Concatenate[_Thing, str, _Shared], _Result],
        things: Sequence[_Thing],
        new_name: NewName,
        on_result: Callable[[_Result], None],
        /,
        *shared: _Shared.args,
        **more: _Shared.kwargs,
    ) -> list[_Result]:
        """Return ``act`` of each item; see ``TaskPool``. Raises ``Unavailable`` when tasks keep dying."""
        assert not more
        task = perform_task.options(scheduling_strategy="SPREAD", **selecting(self._labels))
        checked = partial(there, self._labels, act) if self._labels else act
        shift = _Shift(
            submit=lambda index: task.remote(*map(Sent, (checked, things[index], new_name(), *shared))),
            on_result=on_result,
            remark=self._remark,
            labels=self._labels,
            work=self._work,
            tasks=self._tasks,
            waiting=deque((index, 0) for index in range(len(things))),
        )
        results: list[_Result] = shift.results()
        return results


def cause_of(error: RayError, work: Work = READING) -> BaseException:
    """Return the error to raise for a failed task: its own error, where that is one of ours."""
    if (refused := refusal_in(str(error), "a node where data are read")) is not None:
        return refused
    if not isinstance(error, RayTaskError):
        return Unavailable(f"tasks that {work.do} died {MOST_DEATHS} times in a row", work.remedy)
    if isinstance(error.cause, SisaError):
        return error.cause
    # Without the error's text, which may quote what was read.
    return SisaError(
        f"a task that {work.does} failed with {type(error.cause).__name__}",
        "See its traceback, which is the cause of this error.",
    )


@dataclass(slots=True, kw_only=True)
class _Shift:
    """One run of a task pool: items by number, each with the number of its tasks that died."""

    submit: Callable[[int], Any]
    """Starts a task for a thing, with a name of its own."""
    on_result: Callable[[Any], None]
    remark: Callable[[str], None]
    labels: Labels
    work: Work
    tasks: int
    waiting: deque[tuple[int, int]]
    running: dict[Any, tuple[int, int]] = field(default_factory=dict)
    done: dict[int, Any] = field(default_factory=dict)
    failed: tuple[int, RayError] | None = None
    """The first of the items that failed so far, and its error."""

    def results(self) -> list[Any]:
        """Run all tasks and return their results; see ``TaskPool``."""
        with _given_up_at_end(self.running, self.work.grace_seconds):
            while self.waiting or self._is_awaited():
                while self.waiting and len(self.running) < self.tasks:
                    index, deaths = self.waiting.popleft()
                    self.running[self.submit(index)] = (index, deaths)
                self._receive(self._next())
        if self.failed is not None:
            raise cause_of(self.failed[1], self.work) from self.failed[1]
        return [self.done[index] for index in sorted(self.done)]

    def _is_awaited(self) -> bool:
        """Return whether any running task still matters: after a failure, only those before it in order do."""
        return any(self.failed is None or index < self.failed[0] for index, _ in self.running.values())

    def _next(self) -> Any:
        """Return a task that has ended."""
        while True:
            ready, _ = ray.wait(list(self.running), num_returns=1, timeout=PATIENCE_SECONDS)
            if ready:
                return ready[0]
            if (reason := self._waited_for()) is not None:
                self.remark(reason)

    def _waited_for(self) -> str | None:
        """Return a description of what tasks that do not end may wait for."""
        if self.labels and not nodes_with(self.labels):
            such = f"no node has the labels {labels_in_words(self.labels)}"
            return f"waiting for {place_in_words(self.labels)} to {self.work.do}: {such}"
        free = ray.available_resources().get("CPU", 0)
        if self.done or free >= 1:  # else at work, or waiting for processors: Ray does not say which
            return None
        return f"{self.work.doing}: nothing is done yet, and {free:g} CPUs are free in the cluster"

    def _receive(self, task: Any) -> None:
        index, deaths = self.running.pop(task)
        if self.failed is not None and index > self.failed[0]:
            return
        try:
            result = ray.get(task)
        except RayError as error:
            if _may_pass(error) and deaths + 1 < MOST_DEATHS:
                self.waiting.appendleft((index, deaths + 1))
                self.remark(f"a task that {self.work.does} was lost: another one does its work from the start")
            else:
                self._fail(index, error)
            return
        self.done[index] = result
        self.on_result(result)

    def _fail(self, index: int, error: RayError) -> None:
        """Record the failure, and cancel the tasks after it in order."""
        self.failed = index, error
        self.waiting = deque(each for each in self.waiting if each[0] < index)
        for task, (later, _) in self.running.items():
            if later > index:
                ray.cancel(task)


@contextmanager
def _given_up_at_end(running: dict[Any, tuple[int, int]], grace_seconds: float) -> Iterator[None]:
    """At the end cancel what still runs, and wait a while for it to remove what it wrote."""
    try:
        yield
    finally:
        for task in running:
            ray.cancel(task)
        if running and grace_seconds:
            ray.wait(list(running), num_returns=len(running), timeout=grace_seconds)


def _may_pass(error: RayError) -> bool:
    """Return whether another attempt may succeed: the task died, or something was unavailable."""
    if not isinstance(error, RayTaskError):
        return True
    return isinstance(error.cause, Unavailable) and not isinstance(error.cause, StoreFull)
