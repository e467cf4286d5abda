"""The resident coordinator: many callers, one writer, nothing kept that the store does not have."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest

import cluster.training.workers
from cluster.config.specification import FederationSpecification, read_specification
from cluster.coordinator_actor.resident import Heard, Resident
from cluster.writer.drafting import readmission_of
from cluster.writer.writer import draft, drafted, writer_setup, writing
from coordinator.engine.ledger import read_state
from coordinator.interventions import Cancel, Extend, Hold, Release
from coordinator.ports import Listener, Notice, RequestMoved, TrainingStarted
from coordinator.requests import ErasureRequest, RequestState
from coordinator.state import servable
from shards.learners.trainer import SliceLearned
from storage.errors import Conflict, Invalid, OutcomeUnknown, Unavailable
from storage.stores.local import LocalStore
from tests.doubles.stores.forgetful_disk import ForgetfulDisk
from tests.doubles.user_folder import MARKED, UserFolder
from tests.doubles.workers.local_workers import LocalWorkers

PATIENCE_SECONDS = 60.0
"""How long a failing test waits; one that passes does not."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UserFolder:
    """A folder whose federation trains in this process."""
    monkeypatch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
    monkeypatch.setattr(cluster.training.workers, "join_ray", lambda _: False)
    return UserFolder(tmp_path).fill(erasure__batch_window_seconds=0.0)


class _Watched(Resident):
    """A coordinator whose notices a test can wait for."""

    def __init__(self, specification: FederationSpecification, also: Listener = lambda _: None) -> None:
        def both(notice: Notice, listener: Listener) -> None:
            listener(notice)
            also(notice)

        super().__init__(lambda listener: writer_setup(specification, listener=lambda notice: both(notice, listener)))

    def erase(self, *subjects: str, request_id: str, held: str = "") -> ErasureRequest:
        """Accept a request for these subjects."""
        return self.accept(*drafted(self._setup, subjects=subjects, ids=(), request_id=request_id, held=held))

    def until_idle(self) -> list[Notice]:
        """Return all notices until the coordinator is idle."""
        notices: list[Notice] = []
        heard = self.hear(0, 0.0)
        while True:
            notices += heard.notices
            if heard.idle:
                return notices
            heard = self.hear(heard.upto, PATIENCE_SECONDS)


@pytest.fixture
def resident(home: UserFolder) -> Iterator[_Watched]:
    """A coordinator that has trained."""
    made = _Watched(read_specification(home.config))
    made.train()
    yield made
    made.stop()


def test_a_request_is_carried_out_by_itself(resident: _Watched) -> None:
    """Once accepted a request needs nobody: it is removed, retrained, purged and has its receipt."""
    accepted = resident.erase(MARKED, request_id="er-1")
    assert accepted.state is RequestState.ACCEPTED
    notices = resident.until_idle()
    assert resident.request("er-1").state is RequestState.COMPLETE
    moves = [notice.request.state for notice in notices if isinstance(notice, RequestMoved)]
    assert moves[0] is RequestState.ACCEPTED
    assert moves[-1] is RequestState.COMPLETE
    assert resident.verify(None).holds


def test_a_writer_that_is_not_sure_is_replaced(resident: _Watched, home: UserFolder, tmp_path: Path) -> None:
    """If it is unknown whether a request was accepted, the caller gets that error and the coordinator restarts by
    itself: the next caller is served, and the same request, submitted again, is accepted durably.
    """
    with ForgetfulDisk(home.store).mounted() as disk:
        disk.fault = lambda _number, call, path: (
            OSError(errno.EIO, "") if (call, path) == ("fsync", "journal") else None
        )
        with pytest.raises(OutcomeUnknown, match="could not be synced"):
            resident.erase(MARKED, request_id="er-1")
        disk.fault = lambda _number, _call, _path: None
        assert until_served(lambda: resident.erase(MARKED, request_id="er-1")).request_id == "er-1"
        state = read_state(LocalStore(str(disk.left(tmp_path / "left"))))
        assert state is not None
        assert state.request("er-1") is not None
        resident.until_idle()
    assert resident.request("er-1").state is RequestState.COMPLETE


def until_served(act: Callable[[], ErasureRequest]) -> ErasureRequest:
    """Ask until the coordinator has restarted, as a caller does that follows the error's remedy."""
    until = monotonic() + PATIENCE_SECONDS
    while monotonic() < until:
        with suppress(Unavailable):
            return act()
    return act()


def test_what_finds_nothing_and_who_comes_back_is_stated_by_itself(resident: _Watched) -> None:
    """Statements need nobody either: they are signed as soon as the coordinator has nothing more urgent to do."""
    resident.erase("nobody", request_id="er-1")
    resident.erase(MARKED, request_id="er-2")
    resident.until_idle()
    names = draft(resident._setup, subjects=[MARKED], ids=(), request_id=None, held="").names
    readmission = readmission_of(names, "back-1", "a new contract", resident._setup.clock.now())
    assert resident.readmit(readmission, names).subjects == 1
    resident.until_idle()
    state = resident.state()
    assert [(each.request_id, each.state.value) for each in state.requests] == [
        ("er-1", "refused"),
        ("er-2", "complete"),
    ]
    assert {*(each.receipt for each in state.requests), *(each.receipt for each in state.readmissions)} == {0, 1, 2}
    assert resident.verify(None).receipts.checked == 3


def test_callers_at_the_same_time_are_all_served(resident: _Watched) -> None:
    """Requests of many threads are accepted once each, share retrains, and all end."""
    barrier = threading.Barrier(8)

    def ask(number: int) -> None:
        barrier.wait()
        for request_id in (f"er-{number}", f"er-{number}", "er-shared"):
            subject = "secret-person-000" if request_id == "er-shared" else f"secret-person-{number + 1:03d}"
            resident.erase(subject, request_id=request_id)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    resident.until_idle()
    requests = resident.state().requests
    assert sorted(request.request_id for request in requests) == sorted([*(f"er-{n}" for n in range(8)), "er-shared"])
    assert {request.state for request in requests} == {RequestState.COMPLETE}
    assert resident.verify(None).holds


def test_what_is_tainted_is_withdrawn_while_other_work_goes_on(home: UserFolder) -> None:
    """A request that comes in the middle of training is in quarantine before the next slice is learned (E10)."""
    home.specify(training__epochs=12, erasure__batch_window_seconds=0.0)
    is_learning, is_safe = threading.Event(), threading.Event()
    floors: list[int] = []

    def listen(notice: Notice) -> None:
        match notice:
            case SliceLearned() if made.state().request("er-1") and not is_learning.is_set():
                is_learning.set()
                assert is_safe.wait(PATIENCE_SECONDS)
            case RequestMoved(request=request) if request.request_id == "er-2" and not is_safe.is_set():
                if request.state is RequestState.QUARANTINED:
                    floors.append(made.state().floor)
                    is_safe.set()

    made = _Watched(read_specification(home.config), listen)
    made.train()
    made.erase("secret-person-001", request_id="er-1")
    assert is_learning.wait(PATIENCE_SECONDS)
    made.erase("secret-person-000", request_id="er-2")
    assert is_safe.wait(PATIENCE_SECONDS)
    made.until_idle()
    assert {request.state for request in made.state().requests} == {RequestState.COMPLETE}
    assert floors > [1]
    assert made.verify(None).holds
    made.stop()


def test_a_held_request_waits(resident: _Watched) -> None:
    """A request that arrives paused is carried out once it is released, and can be cancelled until then."""
    resident.erase(MARKED, request_id="er-1", held="legal hold 17")
    resident.erase("secret-person-000", request_id="er-2", held="legal hold 17")
    resident.until_idle()
    assert resident.request("er-1").shown is RequestState.WAITING
    assert resident.intervene("er-1", Extend(days=10, reason="many requests")).extension
    resident.intervene("er-2", Cancel(reason="withdrawn by the person"))
    resident.intervene("er-1", Release())
    resident.until_idle()
    assert resident.request("er-1").state is RequestState.COMPLETE
    assert resident.request("er-2").state is RequestState.CANCELLED
    with pytest.raises(Conflict, match="complete already"):
        resident.intervene("er-1", Hold(reason="too late"))


def test_another_coordinator_waits_for_the_lock(home: UserFolder, resident: _Watched) -> None:
    """A second coordinator says what it waits for, and takes over when the first one ends."""
    second = _Watched(read_specification(home.config))
    with pytest.raises(Conflict, match="'sisa launch'"):
        second.state()
    resident.erase(MARKED, request_id="er-1")
    resident.until_idle()
    resident.stop()
    while True:
        try:
            assert second.request("er-1").state is RequestState.COMPLETE
            break
        except Conflict:
            second.hear(10**9, PATIENCE_SECONDS) if second._trouble is None else second._pause()
    second.stop()


def test_what_cannot_be_trained_is_reported(home: UserFolder) -> None:
    """An error that only a person can fix reaches the caller, and the coordinator continues once it is fixed."""
    made = _Watched(read_specification(home.config))
    source = (home.folder / "train.parquet").read_bytes()
    (home.folder / "train.parquet").unlink()
    with pytest.raises(Invalid, match=r"train\.parquet"):
        made.train()
    (home.folder / "train.parquet").write_bytes(source)
    made.train()
    assert len(servable(made.state())) == 3
    made.stop()
    with pytest.raises(Unavailable, match="stopping"):
        made.train()


def test_nothing_is_lost_with_the_process(home: UserFolder, resident: _Watched) -> None:
    """A request that was accepted and not carried out is carried out by the next coordinator."""
    resident.erase(MARKED, request_id="er-1", held="wait")
    resident.stop()
    with writing(resident._setup, "train") as writer:
        writer.intervene("er-1", Release())
    following = _Watched(read_specification(home.config))
    following.state()
    following.until_idle()
    assert following.request("er-1").state is RequestState.COMPLETE
    following.stop()


def test_a_retrain_after_its_window_is_work(home: UserFolder) -> None:
    """While a batch retrains after its window, a listener does not find the coordinator idle."""
    home.specify(erasure__batch_window_seconds=0.1)
    is_trained, begun, go_on = threading.Event(), threading.Event(), threading.Event()

    def hold(notice: Notice) -> None:
        if isinstance(notice, TrainingStarted) and is_trained.is_set():
            begun.set()
            go_on.wait(PATIENCE_SECONDS)

    made = _Watched(read_specification(home.config), hold)
    made.train()
    is_trained.set()
    made.erase(MARKED, request_id="er-1")
    assert begun.wait(PATIENCE_SECONDS)
    assert not made.hear(None, 0.0).idle
    go_on.set()
    made.until_idle()
    assert made.request("er-1").state is RequestState.COMPLETE
    made.stop()


@pytest.mark.parametrize(("window_seconds", "prepared"), [(30.0, 1), (3600.0, 0)])
def test_workers_start_while_a_short_window_runs(
    window_seconds: float, prepared: int, home: UserFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retrain that begins in seconds finds its workers; one that waits for an hour leaves others the processors."""
    home.specify(erasure__batch_window_seconds=window_seconds)
    tasks: list[int] = []
    monkeypatch.setattr(LocalWorkers, "prepare", lambda _, __, count, ___: tasks.append(count))
    made = _Watched(read_specification(home.config))
    made.train()
    made.erase(MARKED, request_id="er-1")
    made.until_idle()
    made.stop()
    assert tasks[:1] == [1] * prepared


def test_who_waits_for_news_is_not_reported_that_nothing_is_to_do(home: UserFolder) -> None:
    """In a batch window the coordinator is idle; a listener for notices alone gets the next one, and nothing before."""
    home.specify(erasure__batch_window_seconds=3600.0)
    made = _Watched(read_specification(home.config))
    made.train()
    made.erase(MARKED, request_id="er-1")
    made.until_idle()
    assert made.request("er-1").state is RequestState.QUARANTINED
    upto = made.hear(None, 0.0).upto
    assert made.hear(upto, PATIENCE_SECONDS).idle
    heard: list[Heard] = []
    listener = threading.Thread(target=lambda: heard.append(made.hear(upto, PATIENCE_SECONDS, until_idle=False)))
    listener.start()
    made.erase("secret-person-002", request_id="er-2")
    listener.join()
    assert [notice.request.request_id for notice in heard[0].notices if isinstance(notice, RequestMoved)] == ["er-2"]
    made.stop()
