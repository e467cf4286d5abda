"""What the outside world gives: many things at once, time that never goes back, a word about what takes long."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cluster.runtime.process import reporting_wait
from cluster.runtime.system import SteadyClock, many_at_once
from coordinator.receipts.issuer import Registrar
from storage.each import Each, in_turn
from storage.errors import Unavailable
from storage.stores.local import LocalStore
from tests.coordinator.receipts.facts import evidence_of
from tests.doubles.time_and_names import CountingNames, VirtualClock

BOTH: tuple[Each, ...] = (in_turn, many_at_once)


@pytest.mark.parametrize("each", BOTH)
def test_results_come_in_order(each: Each) -> None:
    """Whichever is done first, each result stands where its thing stood; of nothing comes nothing."""
    assert each(lambda number: number * number, range(100)) == [number * number for number in range(100)]
    assert each(str, []) == []
    assert each(str, [1]) == ["1"]


@pytest.mark.parametrize("each", BOTH)
def test_an_error_comes_out(each: Each) -> None:
    """An error of one is that of all, and nothing is under way any more when it comes."""

    def act(number: int) -> int:
        if number == 7:
            raise Unavailable("out of reach", "Wait.")
        return number

    before = threading.active_count()
    with pytest.raises(Unavailable, match=r"out of reach\. Wait\."):
        each(act, range(20))
    assert threading.active_count() == before


def test_things_are_done_at_once() -> None:
    """Eight wait together: none of them could go on alone."""
    together = threading.Barrier(8)
    assert sorted(many_at_once(lambda _: together.wait(60), range(8))) == list(range(8))


def test_receipts_issued_many_at_once_are_those_issued_in_turn(tmp_path: Path) -> None:
    """How receipts are written changes none of them, nor the log."""
    batch = [evidence_of(f"r{number}") for number in range(40)]
    store = LocalStore(str(tmp_path))
    registrar = Registrar(store, VirtualClock(), CountingNames("log"), each=many_at_once)
    bundles = registrar.issue_all(batch)
    assert [bundle.index for bundle in bundles] == list(range(40))
    assert len({bundle.checkpoint for bundle in bundles}) == 1
    again = Registrar(store, VirtualClock(), CountingNames("log"))
    assert again.issue_all(batch) == bundles
    assert again.check_all([each.request_id for each in batch]).broken == ()


@dataclass(slots=True)
class SetClock:
    """A clock that a test sets. Implements ``coordinator.ports.Clock``."""

    time: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    passed: float = 0.0

    def now(self) -> datetime:
        """Return what it was set to."""
        return self.time

    def monotonic(self) -> float:
        """Return how long it has run."""
        return self.passed


def test_a_clock_that_is_set_back_is_reported_once() -> None:
    """Time continues from the latest one seen, at the pace of real seconds, until the clock has caught up."""
    reported = list[str]()
    below = SetClock()
    clock, start = SteadyClock(below, reported.append), below.time
    assert clock.now() == start
    below.time, below.passed = start - timedelta(days=1), 5.0
    assert clock.now() == start
    below.passed = 7.5
    assert clock.now() == start + timedelta(seconds=2.5)
    assert clock.machine() == below.time
    assert len(reported) == 1
    assert "86,400 seconds behind" in reported[0]
    below.time = start + timedelta(hours=1)
    assert clock.now() == below.time


def test_no_time_falls_behind_the_record() -> None:
    """What others have recorded counts as seen; clocks that differ by a second are no matter."""
    reported = list[str]()
    below = SetClock()
    clock, start = SteadyClock.of(SteadyClock(below, reported.append)), below.time
    clock.saw(None)
    clock.saw(start + timedelta(seconds=1))
    clock.saw(start)
    assert clock.now() == start + timedelta(seconds=1)
    assert reported == []


def test_what_takes_long_is_reported_until_it_is_over() -> None:
    """While something starts it is said what is waited for, and since when; afterwards nothing more, not by an error
    either.
    """
    said: list[str] = []
    thrice = threading.Event()

    def tell(text: str) -> None:
        said.append(text)
        if len(said) >= 3:
            thrice.set()

    def start() -> None:
        thrice.wait()
        raise Unavailable("it did not start", "Try again")

    with pytest.raises(Unavailable, match="did not start"), reporting_wait(tell, "waiting for Ray", 0.01):
        start()
    assert said[:3] == ["waiting for Ray; 0.01 seconds now", "waiting for Ray; 0.02 seconds now", said[2]]
    assert not any(thread.name == "sisa-waiting" for thread in threading.enumerate())
    with reporting_wait(tell, "waiting for what is there at once"):
        pass
    assert not any("at once" in each for each in said)
