"""Threads that pass a baton run in one order, drawn from the seed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from tests.doubles.baton import Baton, Deadlock
from tests.doubles.stores.faulty_store import Crash


def _baton(seed: int = 1, stride: int = 3) -> Baton:
    return Baton(Random(seed), stride)  # noqa: S311  the same order for the same seed


def _steps(baton: Baton, name: str, heard: list[str]) -> Callable[[], None]:
    def work() -> None:
        for _ in range(20):
            baton.step()
            heard.append(name)

    return work


def _order(seed: int) -> list[str]:
    baton, heard = _baton(seed), list[str]()
    for name in "abc":
        baton.spawn(name, _steps(baton, name, heard))
    baton.run()
    assert baton.switches > 5
    return heard


def test_the_order_is_the_seeds() -> None:
    """The same seed gives the same order of steps, another one another order, and no step is lost."""
    assert _order(1) == _order(1)
    assert _order(1) != _order(2)
    assert sorted(_order(1)) == sorted("abc" * 20)


def test_a_lock_is_held_by_one() -> None:
    """Nobody else gets what one holds, however often it passes the baton; its holder may take it again."""
    baton, inside = _baton(), list[str]()
    lock = baton.lock()

    def work(name: str) -> None:
        for _ in range(10):
            with lock, lock:
                inside.append(name)
                baton.step()
                inside.append(name)

    for name in "ab":
        baton.spawn(name, lambda name=name: work(name))  # type: ignore[misc]
    baton.run()
    assert [*inside[::2]] == [*inside[1::2]]
    assert set(inside) == {"a", "b"}


def test_who_waits_goes_on_in_time() -> None:
    """A thread that waits goes on once what it waits for holds; one that sleeps, when there is nobody else left."""
    baton, heard = _baton(), list[str]()

    def waits() -> None:
        baton.wait(lambda: "done" in heard)
        heard.append("waited")

    def sleeps() -> None:
        baton.sleep(1_000)
        heard.append("done")

    baton.spawn("waits", waits)
    baton.spawn("sleeps", sleeps)
    baton.run()
    assert heard == ["done", "waited"]


def test_when_everyone_waits_it_is_said() -> None:
    """Threads that wait for each other do not hang: the run ends and names them."""
    baton = _baton()
    for name in ("one", "other"):
        baton.spawn(name, lambda: baton.wait(lambda: False))
    with pytest.raises(Deadlock, match="all wait: .*one.*other"):
        baton.run()


def test_the_dead_get_no_further() -> None:
    """A thread whose process died meets a crash at its next turn, even while it waits."""
    baton, heard = _baton(), list[str]()

    def waits() -> None:
        try:
            baton.wait(lambda: False)
        except Crash:
            heard.append("crashed")

    baton.spawn("waits", waits, lambda: "killed" in heard)
    baton.spawn("kills", lambda: heard.append("killed"))
    baton.run()
    assert heard == ["killed", "crashed"]


def test_a_failure_ends_all() -> None:
    """What one thread raises is raised by the run, and no other thread goes on."""
    baton, heard = _baton(), list[str]()

    def fails() -> None:
        raise ValueError("as planned")

    baton.spawn("endless", _steps(baton, "a", heard))
    baton.spawn("fails", fails)
    with pytest.raises(ValueError, match="as planned"):
        baton.run()
    assert len(heard) < 20
