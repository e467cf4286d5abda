"""Scheduled threads run in one order, drawn from the seed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from tests.doubles.scheduler import CooperativeScheduler, Deadlock
from tests.doubles.stores.faulty_store import Crash


def _baton(seed: int = 1, stride: int = 3) -> CooperativeScheduler:
    return CooperativeScheduler(Random(seed), stride)  # noqa: S311  the same order for the same seed


def _steps(scheduler: CooperativeScheduler, name: str, done: list[str]) -> Callable[[], None]:
    def work() -> None:
        for _ in range(20):
            scheduler.step()
            done.append(name)

    return work


def _order(seed: int) -> list[str]:
    scheduler, done = _baton(seed), list[str]()
    for name in "abc":
        scheduler.spawn(name, _steps(scheduler, name, done))
    scheduler.run()
    assert scheduler.switches > 5
    return done


def test_the_order_depends_only_on_the_seed() -> None:
    """Equal seeds give equal orders of steps, different seeds different ones, and no step is lost."""
    assert _order(1) == _order(1)
    assert _order(1) != _order(2)
    assert sorted(_order(1)) == sorted("abc" * 20)


def test_a_lock_is_held_by_one() -> None:
    """A held lock is not given to another thread, even if its holder yields; the holder may acquire it again."""
    scheduler, inside = _baton(), list[str]()
    lock = scheduler.lock()

    def work(name: str) -> None:
        for _ in range(10):
            with lock, lock:
                inside.append(name)
                scheduler.step()
                inside.append(name)

    for name in "ab":
        scheduler.spawn(name, lambda name=name: work(name))  # type: ignore[misc]
    scheduler.run()
    assert [*inside[::2]] == [*inside[1::2]]
    assert set(inside) == {"a", "b"}


def test_waiting_and_sleeping_threads_continue() -> None:
    """A waiting thread continues once its condition holds; a sleeping one when no other thread can run."""
    scheduler, done = _baton(), list[str]()

    def waits() -> None:
        scheduler.wait(lambda: "done" in done)
        done.append("waited")

    def sleeps() -> None:
        scheduler.sleep(1_000)
        done.append("done")

    scheduler.spawn("waits", waits)
    scheduler.spawn("sleeps", sleeps)
    scheduler.run()
    assert done == ["done", "waited"]


def test_a_deadlock_is_reported() -> None:
    """If all threads wait for each other, the run ends and names them."""
    scheduler = _baton()
    for name in ("one", "other"):
        scheduler.spawn(name, lambda: scheduler.wait(lambda: False))
    with pytest.raises(Deadlock, match="all wait: .*one.*other"):
        scheduler.run()


def test_threads_of_a_dead_process_crash() -> None:
    """``Crash`` is raised in a thread whose process died, at its next turn, even while it waits."""
    scheduler, done = _baton(), list[str]()

    def waits() -> None:
        try:
            scheduler.wait(lambda: False)
        except Crash:
            done.append("crashed")

    scheduler.spawn("waits", waits, lambda: "killed" in done)
    scheduler.spawn("kills", lambda: done.append("killed"))
    scheduler.run()
    assert done == ["killed", "crashed"]


def test_an_error_ends_all_threads() -> None:
    """The run raises what a thread raised, and no other thread continues."""
    scheduler, done = _baton(), list[str]()

    def fails() -> None:
        raise ValueError("as planned")

    scheduler.spawn("endless", _steps(scheduler, "a", done))
    scheduler.spawn("fails", fails)
    with pytest.raises(ValueError, match="as planned"):
        scheduler.run()
    assert len(done) < 20
