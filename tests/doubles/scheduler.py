"""A cooperative scheduler: one thread runs at a time, and a random source chooses the next.

Threaded code therefore runs in one order, drawn from a seed and the same in every run. A thread yields where it calls
``step`` (a simulated store does so at every operation) and where it waits for a lock. Real locks would block all
threads while their holder waits for its turn; ``lock`` and ``condition`` replace them.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from types import TracebackType

from tests.doubles.stores.faulty_store import Crash


class Stopped(BaseException):
    """The run is over and each thread unwinds. No ``except`` in the product may catch it."""


class Deadlock(AssertionError):
    """All threads wait for each other."""


@dataclass(slots=True, eq=False)
class _Runner:
    """One thread and its turn."""

    name: str
    work: Callable[[], None]
    is_dead: Callable[[], bool]
    """Whether the thread's process has died."""
    turn: threading.Lock = field(default_factory=threading.Lock)
    until: Callable[[], bool] | None = None
    """The condition it waits for; None when it does not wait."""
    sleeps_until: int = 0
    """The step at which it continues at the latest."""

    def is_able(self, now: int) -> bool:
        return (self.sleeps_until <= now and (self.until is None or self.until())) or self.is_dead()


class CooperativeScheduler:
    """The threads of one run: ``spawn`` adds them, ``run`` runs them until all have ended."""

    def __init__(self, random: Random, stride: int) -> None:
        """``stride``: average number of steps of a thread before the next thread is drawn."""
        self._random = random
        self._stride = stride
        self._left = 1
        self._runners: list[_Runner] = []
        self._current: _Runner | None = None
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self.steps = 0
        """Number of steps so far."""
        self.switches = 0
        """Number of switches to another thread so far."""

    @property
    def name(self) -> str:
        """Name of the running thread; empty before the start."""
        return self._current.name if self._current else ""

    def spawn(self, name: str, work: Callable[[], None], is_dead: Callable[[], bool] = lambda: False) -> None:
        """Add a thread, which starts when it is first drawn. Once ``is_dead`` holds, ``Crash`` is raised in it."""
        runner = _Runner(name, work, is_dead)
        runner.turn.acquire()
        self._runners.append(runner)
        # Not threading.Thread, whose start() waits until the thread runs, which is not needed here.
        _thread.start_new_thread(self._live, (runner,))

    def run(self) -> None:
        """Run until all threads have ended. Raises what a thread raised, and ``Deadlock`` when all wait."""
        if self._runners:
            self._over.clear()
            self._switch(None)
            self._over.wait()
        if self._failure is not None:
            raise self._failure

    def step(self) -> None:
        """Count a step and perhaps switch to another thread."""
        self.steps += 1
        self._left -= 1
        if self._left <= 0:
            self._left = self._random.randrange(1, 2 * self._stride)
            self._yield()

    def wait(self, until: Callable[[], bool]) -> None:
        """Return once ``until`` holds; other threads run in the meantime."""
        me = self._current
        if me is None:  # there is only one thread
            assert until()
            return
        while not until():
            me.until = until
            try:
                self._yield()
            finally:
                me.until = None

    def sleep(self, steps: int) -> None:
        """Let other threads make ``steps`` steps, or fewer if they all wait or have ended."""
        me = self._current
        if me is None:
            return
        me.sleeps_until = self.steps + steps
        try:
            self._yield()
        finally:
            me.sleeps_until = 0

    def lock(self) -> Lock:
        """Return a replacement for ``threading.RLock``."""
        return Lock(self)

    def condition(self) -> Condition:
        """Return a replacement for ``threading.Condition``."""
        return Condition(self)

    @property
    def holder(self) -> object:
        """The running thread."""
        return self._current

    def _yield(self) -> None:
        me = self._current
        if me is None:
            return
        if self._failure is not None:
            raise Stopped
        self._switch(me)
        if self._failure is not None:
            raise Stopped
        if me.is_dead():
            raise Crash

    def _switch(self, me: _Runner | None) -> None:
        """Switch to a thread that can run, and wait for the next turn of ``me``."""
        chosen = self._draw()
        if chosen is me:
            return
        self.switches += 1
        self._current = chosen
        chosen.turn.release()
        if me is not None:
            me.turn.acquire()

    def _draw(self) -> _Runner:
        able = self._able()
        if not able:
            self._failure = Deadlock(f"all wait: {[each.name for each in self._runners]}")
            able = self._runners
        return able[self._random.randrange(len(able))] if len(able) > 1 else able[0]

    def _able(self) -> list[_Runner]:
        if self._failure is not None:
            return self._runners
        if able := [each for each in self._runners if each.is_able(self.steps)]:
            return able
        return [each for each in self._runners if each.sleeps_until]

    def _live(self, runner: _Runner) -> None:
        runner.turn.acquire()
        try:
            if self._failure is None:
                runner.work()
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001  ``run`` raises it
            self._failure = self._failure or error
        self._runners.remove(runner)
        if self._runners:
            self._current = None
            chosen = self._draw()
            self._current = chosen
            chosen.turn.release()
        else:
            self._current = None
            self._over.set()


class Lock:
    """A reentrant lock; a thread that waits for it lets others run."""

    def __init__(self, scheduler: CooperativeScheduler) -> None:
        self._baton = scheduler
        self._owner: object = None
        self._depth = 0

    def acquire(self) -> bool:
        """Acquire the lock once it is free."""
        me = self._baton.holder
        if self._depth and self._owner is not me:
            self._baton.wait(lambda: not self._depth)
        self._owner = me
        self._depth += 1
        return True

    def release(self) -> None:
        """Release the lock once; it is free after as many releases as acquisitions."""
        self._depth -= 1

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Condition(Lock):
    """A lock that is released while waiting for a condition. Waiters check their condition, so none is notified.

    Its holder must not yield in any other way.
    """

    def wait_for(self, until: Callable[[], bool]) -> bool:
        """Return once ``until`` holds."""
        depth, self._depth = self._depth, 0
        try:
            self._baton.wait(lambda: not self._depth and until())
        finally:
            self._owner, self._depth = self._baton.holder, depth
        return True

    def notify_all(self) -> None:
        """Do nothing: waiters check their condition themselves."""
