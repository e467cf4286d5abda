"""Threads that pass a baton: only its holder runs, and a random source says who is next.

So code that is written for threads runs in one order, drawn from a seed and the same in every run. It passes the baton
where it calls ``step`` (a simulated store does at every operation) and where it waits for a lock. Locks of the real
kind would keep the baton from everyone while their holder waits for it: ``lock`` and ``condition`` take their place.
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
    """The run is over, for whatever reason: each thread unwinds. No ``except`` of ours may catch it."""


class Deadlock(AssertionError):
    """Everyone waits for someone else."""


@dataclass(slots=True, eq=False)
class _Runner:
    """One thread and its turn."""

    name: str
    work: Callable[[], None]
    is_dead: Callable[[], bool]
    """Whether the process died that it is part of."""
    turn: threading.Lock = field(default_factory=threading.Lock)
    until: Callable[[], bool] | None = None
    """What it waits for; None: nothing."""
    sleeps_until: int = 0
    """The step at which it goes on at the latest."""

    def is_able(self, now: int) -> bool:
        return (self.sleeps_until <= now and (self.until is None or self.until())) or self.is_dead()


class Baton:
    """The threads of one run. Made, given work by ``spawn``, and run to the end of all work by ``run``."""

    def __init__(self, random: Random, stride: int) -> None:
        """``stride``: how many steps a thread makes on average before another one is drawn."""
        self._random = random
        self._stride = stride
        self._left = 1
        self._runners: list[_Runner] = []
        self._current: _Runner | None = None
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self.steps = 0
        """How many steps were made."""
        self.switches = 0
        """How often the baton went to another thread."""

    @property
    def name(self) -> str:
        """Whose turn it is; empty before the start."""
        return self._current.name if self._current else ""

    def spawn(self, name: str, work: Callable[[], None], is_dead: Callable[[], bool] = lambda: False) -> None:
        """Add a thread; it starts when it is first drawn. Where ``is_dead`` says so, it meets a ``Crash``."""
        runner = _Runner(name, work, is_dead)
        runner.turn.acquire()
        self._runners.append(runner)
        # Not threading.Thread, which waits until the thread has begun: nobody needs to know before its turn.
        _thread.start_new_thread(self._live, (runner,))

    def run(self) -> None:
        """Run until all work is done. Raises what any of it raised, ``Deadlock`` when everyone waits."""
        if self._runners:
            self._over.clear()
            self._hand_on(None)
            self._over.wait()
        if self._failure is not None:
            raise self._failure

    def step(self) -> None:
        """Let others go first, perhaps."""
        self.steps += 1
        self._left -= 1
        if self._left <= 0:
            self._left = self._random.randrange(1, 2 * self._stride)
            self._pass()

    def wait(self, until: Callable[[], bool]) -> None:
        """Return once ``until`` holds; others run meanwhile."""
        me = self._current
        if me is None:  # there is only one thread
            assert until()
            return
        while not until():
            me.until = until
            try:
                self._pass()
            finally:
                me.until = None

    def sleep(self, steps: int) -> None:
        """Let others make so many steps; less when they have nothing left to do."""
        me = self._current
        if me is None:
            return
        me.sleeps_until = self.steps + steps
        try:
            self._pass()
        finally:
            me.sleeps_until = 0

    def lock(self) -> Lock:
        """Return what stands in for a ``threading.RLock``."""
        return Lock(self)

    def condition(self) -> Condition:
        """Return what stands in for a ``threading.Condition``."""
        return Condition(self)

    @property
    def holder(self) -> object:
        """Who has the baton."""
        return self._current

    def _pass(self) -> None:
        me = self._current
        if me is None:
            return
        if self._failure is not None:
            raise Stopped
        self._hand_on(me)
        if self._failure is not None:
            raise Stopped
        if me.is_dead():
            raise Crash

    def _hand_on(self, me: _Runner | None) -> None:
        """Give the baton to one of those who can go on, and wait for the next turn of ``me``."""
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
        except BaseException as error:  # noqa: BLE001  told to whoever runs this
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
    """A lock that its holder may take again; whoever waits for it lets others run."""

    def __init__(self, baton: Baton) -> None:
        self._baton = baton
        self._owner: object = None
        self._depth = 0

    def acquire(self) -> bool:
        """Take it, once it is free."""
        me = self._baton.holder
        if self._depth and self._owner is not me:
            self._baton.wait(lambda: not self._depth)
        self._owner = me
        self._depth += 1
        return True

    def release(self) -> None:
        """Give it back, as often as it was taken."""
        self._depth -= 1

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Condition(Lock):
    """A lock that can be left until something holds; nobody has to be notified, as everyone looks when it counts.

    Its holder must not pass the baton otherwise.
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
        """Do nothing: see above."""
