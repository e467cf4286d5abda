"""Group commit: everything once, in order, many at a time, and nobody left waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from storage.errors import Fenced, InvariantBroken, OutcomeUnknown
from storage.objects import ObjectStore
from storage.registers.group_commit import GroupCommit
from storage.registers.journal import START, Journal
from tests.doubles.stores.faulty_store import Crash, Fault, FaultyStore


class Watched(threading.Condition):
    """A condition that says when a thread waits on it, and may interrupt one when it is woken."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = threading.Semaphore(0)
        self.interrupted: set[int] = set()
        self.strike = threading.Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait, or be interrupted as by Ctrl-C."""
        self.waiting.release()
        if threading.get_ident() in self.interrupted:
            super().wait(timeout)
            self.release()
            self.strike.acquire()
            self.acquire()
            raise KeyboardInterrupt
        return super().wait(timeout)


class Stage:
    """A group commit whose every batch waits to be let through: so the test decides who meets whom."""

    def __init__(self, most: int = 100, answer: Callable[[list[int]], list[str]] | None = None) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.answer = answer or (lambda items: [f"done {item}" for item in items])
        self.group = GroupCommit[int, str](self.perform, most)
        self.changed = Watched()
        self.group._changed = self.changed

    def perform(self, items: Sequence[int]) -> list[str]:
        """Record the batch, wait to be let through, answer."""
        self.batches.append(list(items))
        self.entered.release()
        self.gate.acquire()
        return self.answer(list(items))

    @contextmanager
    def crowd(self, count: int) -> Iterator[list[Future[str]]]:
        """Submit 0, which is being performed, and 1 to ``count`` - 1, which wait in this order."""
        with ThreadPoolExecutor(count) as pool:
            futures = [pool.submit(self.group.submit, 0)]
            self.entered.acquire()
            for item in range(1, count):
                futures.append(pool.submit(self.group.submit, item))
                self.changed.waiting.acquire()
            try:
                yield futures
            finally:
                for _ in range(count):
                    self.gate.release()


def numbers(start: int, stop: int) -> list[int]:
    """From start up to, not including, stop."""
    return list(range(start, stop))


def test_a_single_submitter_is_served_at_once() -> None:
    """With one thread every item is a batch of its own, performed by that thread within submit."""
    calls: list[tuple[int, list[int]]] = []

    def perform(items: Sequence[int]) -> list[int]:
        calls.append((threading.get_ident(), list(items)))
        return [item * 2 for item in items]

    group = GroupCommit[int, int](perform, 10)
    assert [group.submit(item) for item in (1, 2, 3)] == [2, 4, 6]
    assert calls == [(threading.get_ident(), [item]) for item in (1, 2, 3)]


def test_who_comes_meanwhile_shares_the_next_batch() -> None:
    """All that were handed in while a batch was performed are the next one, in their order, each with its result."""
    stage = Stage()
    with stage.crowd(8) as futures:
        pass
    assert stage.batches == [[0], numbers(1, 8)]
    assert [future.result() for future in futures] == [f"done {item}" for item in range(8)]


@pytest.mark.parametrize("most", [1, 2, 3, 7])
def test_a_batch_holds_at_most_so_many(most: int) -> None:
    """What does not fit waits for the batch after, first come, first served."""
    stage = Stage(most)
    with stage.crowd(8) as futures:
        pass
    waiting = numbers(1, 8)
    assert stage.batches == [[0], *(waiting[start : start + most] for start in range(0, 7, most))]
    assert [future.result() for future in futures] == [f"done {item}" for item in range(8)]


@pytest.mark.parametrize("most", [0, -1])
def test_a_batch_of_nothing_is_a_bug(most: int) -> None:
    """A group commit that could perform nothing is refused when it is made."""
    with pytest.raises(InvariantBroken, match=rf"at least one item \[most={most}\]"):
        GroupCommit[int, int](list, most)


def test_the_leader_is_one_of_its_batch() -> None:
    """A batch is performed by a thread whose own item is in it: what strikes a thread strikes its own work."""
    threads: list[tuple[int, list[int]]] = []
    own: dict[int, int] = {}

    def answer(items: list[int]) -> list[str]:
        threads.append((threading.get_ident(), items))
        return [str(item) for item in items]

    stage = Stage(2, answer)

    def submit(item: int) -> None:
        own[threading.get_ident()] = item
        stage.group.submit(item)

    with ThreadPoolExecutor(5) as pool:
        pool.submit(submit, 0)
        stage.entered.acquire()
        for item in range(1, 5):
            pool.submit(submit, item)
            stage.changed.waiting.acquire()
        for _ in range(5):
            stage.gate.release()
    assert [own[thread] for thread, _ in threads] == [0, 1, 3]
    assert [items for _, items in threads] == [[0], [1, 2], [3, 4]]


@pytest.mark.parametrize("error", [OutcomeUnknown("the fact"), Fenced("the fact"), Crash(), KeyboardInterrupt()])
def test_a_failure_is_everyones_in_the_batch(error: BaseException) -> None:
    """An exception of any kind from perform reaches every submitter of that batch; the batches around it succeed."""

    def answer(items: list[int]) -> list[str]:
        if 1 in items:
            raise error
        return [f"done {item}" for item in items]

    stage = Stage(3, answer)
    with stage.crowd(8) as futures:
        pass
    assert stage.batches == [[0], [1, 2, 3], [4, 5, 6], [7]]
    assert [future.exception() for future in futures] == [None, error, error, error, None, None, None, None]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_of_results_is_a_bug(count: int) -> None:
    """When perform returns more or fewer results than items, every submitter of the batch gets an error."""
    stage = Stage(answer=lambda items: ["done"] * (count if len(items) == 2 else 1))
    with stage.crowd(3) as futures:
        pass
    assert futures[0].result() == "done"
    for future in futures[1:]:
        with pytest.raises(InvariantBroken, match=rf"as many results as items \[items=2 results={count}\]"):
            future.result()


def test_a_result_may_be_an_exception() -> None:
    """An exception that perform returns is handed over, not raised: some of a batch may be refused and others not."""
    refused = ValueError("refused")
    group = GroupCommit[int, int | ValueError](lambda items: [refused if item < 0 else item for item in items], 4)
    assert group.submit(-1) is refused
    assert group.submit(1) == 1


def test_after_a_failure_the_same_thread_goes_on() -> None:
    """A single submitter that met a failure submits again and is served."""
    faults: list[type[BaseException]] = [Crash]

    def perform(items: Sequence[int]) -> Sequence[int]:
        if faults:
            raise faults.pop()
        return items

    group = GroupCommit[int, int](perform, 4)
    with pytest.raises(Crash, match=r"^$"):
        group.submit(1)
    assert group.submit(1) == 1


@pytest.mark.parametrize("interrupted", [1, 2, 4])
def test_an_interrupted_submitter_keeps_no_one_waiting(interrupted: int) -> None:
    """A thread that is interrupted in the queue leaves it: its item is not performed, all others are, even when it
    would have been the one to lead.
    """
    stage = Stage(2)

    def submit(item: int) -> str:
        if item == interrupted:
            stage.changed.interrupted.add(threading.get_ident())
        return stage.group.submit(item)

    with ThreadPoolExecutor(5) as pool:
        futures = [pool.submit(submit, 0)]
        stage.entered.acquire()
        for item in range(1, 5):
            futures.append(pool.submit(submit, item))
            stage.changed.waiting.acquire()
        with stage.changed:
            stage.changed.notify_all()
        stage.changed.strike.release()
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            futures[interrupted].result()
        for _ in range(5):
            stage.gate.release()
    others = [item for item in range(5) if item != interrupted]
    assert [futures[item].result() for item in others] == [f"done {item}" for item in others]
    assert stage.batches == [[0], others[1:3], others[3:]]


def test_an_interrupted_first_wakes_the_next() -> None:
    """A thread that is interrupted just when it is to lead wakes the others: one of them had looked and waits again."""
    stage = Stage()

    def submit(item: int) -> str:
        if item == 1:
            stage.changed.interrupted.add(threading.get_ident())
        return stage.group.submit(item)

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(submit, 0)]
        stage.entered.acquire()
        for item in (1, 2):
            futures.append(pool.submit(submit, item))
            stage.changed.waiting.acquire()
        stage.gate.release()
        stage.changed.waiting.acquire()  # 2 was woken, saw that 1 is the first, and waits again
        stage.changed.strike.release()
        stage.gate.release()
    assert isinstance(futures[1].exception(), KeyboardInterrupt)
    assert [futures[item].result() for item in (0, 2)] == ["done 0", "done 2"]
    assert stage.batches == [[0], [2]]


def test_many_threads_many_items() -> None:
    """16 threads with 200 items each: every item once, each thread's in its order, never two batches at once."""
    performed: list[int] = []
    batches: list[int] = []
    inside = threading.Lock()

    def perform(items: Sequence[int]) -> list[int]:
        assert inside.acquire(blocking=False)
        performed.extend(items)
        batches.append(len(items))
        inside.release()
        return [-item for item in items]

    group = GroupCommit[int, int](perform, 5)
    start = threading.Barrier(16)

    def submit(thread: int) -> list[int]:
        start.wait()
        return [group.submit(thread * 1000 + step) for step in range(200)]

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(submit, range(16)))
    for thread, result in enumerate(results):
        items = [thread * 1000 + step for step in range(200)]
        assert result == [-item for item in items]
        assert [item for item in performed if item // 1000 == thread] == items
    assert sum(batches) == len(performed) == 3200
    assert max(batches) <= 5


def test_a_journal_under_a_group_commit_holds_all_in_order(store: ObjectStore) -> None:
    """16 threads share the entries of one journal: each record is there once, in the entry and at the index that its
    submitter got back.
    """
    journal, place = Journal(store), START

    def perform(records: Sequence[int]) -> list[tuple[int, int]]:
        nonlocal place
        place = journal.append(records, after=place, token=1, nonce=f"n{place.number}")
        return [(place.number, index) for index in range(len(records))]

    group = GroupCommit[int, tuple[int, int]](perform, 8)
    with ThreadPoolExecutor(16) as pool:
        reported = dict(zip(range(160), pool.map(group.submit, range(160)), strict=True))
    entries = journal.read(START)
    held = {record: (entry.number, index) for entry in entries for index, record in enumerate(entry.records)}
    assert held == reported
    assert sum(len(entry.records) for entry in entries) == 160
    assert max(len(entry.records) for entry in entries) <= 8


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_of_the_journal_strikes_one_batch(store: ObjectStore, when: str) -> None:
    """A crash at a durable write reaches every submitter of that batch; what follows is appended after it."""
    faulty = FaultyStore(store)
    journal, place = Journal(faulty), START

    def answer(records: list[int]) -> list[str]:
        nonlocal place
        place = journal.append(records, after=place, token=1, nonce=f"n{records[0]}")
        return [str(place.number)] * len(records)

    stage = Stage(2, answer)
    with stage.crowd(5) as futures:
        faulty.plan(Fault(when=when, operation="put_if_absent", nth=2, error=Crash))  # type: ignore[arg-type]
    assert [type(future.exception()) for future in futures[:3]] == [type(None), Crash, Crash]
    entries = Journal(store).read(START)
    if when == "before":
        assert [entry.records for entry in entries] == [(0,), (3, 4)]
        assert [future.result() for future in futures[3:]] == ["2", "2"]
    else:
        assert [entry.records for entry in entries] == [(0,), (1, 2)]
        assert ["another entry" in str(future.exception()) for future in futures[3:]] == [True, True]
