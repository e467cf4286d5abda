"""A caller of the coordinator waits only for troubles that pass by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayTaskError

from cluster.coordinator_actor import actor as coordinator
from cluster.coordinator_actor.actor import RemoteWriter, patiently
from cluster.coordinator_actor.resident import Heard
from coordinator.ports import Notice, RequestMoved
from coordinator.requests import RequestState
from coordinator.settings import BatchUntil
from storage.errors import Conflict, Fenced, OutcomeUnknown, Unavailable, WriterBusy
from storage.stores.memory import MemoryStore
from tests.coordinator.records import request_of

AWAY = ActorUnavailableError("connection refused", None)
BUSY = WriterBusy("the lease of the one before runs on", "wait")


def _raised(error: Exception) -> RayTaskError:
    """Return the error as it comes back from the actor's process."""
    return RayTaskError("accept", "its traceback", error)


@pytest.fixture(autouse=True)
def answers(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What the next calls give; an error is raised. No time passes between them."""
    planned: list[object] = []

    def get(_: object, timeout: float | None) -> object:
        answer = planned.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(coordinator, "_RETRY_SECONDS", 0.0)
    return planned


@pytest.mark.parametrize("troubles", [[AWAY, ActorDiedError()], [_raised(BUSY)] * 3, [AWAY, _raised(BUSY), AWAY]])
def test_what_passes_is_waited_for(troubles: Sequence[Exception], answers: list[object]) -> None:
    """The call is repeated while the coordinator restarts, and while it does not hold the writer lock yet."""
    answers += [*troubles, "answer"]
    assert patiently(object, (WriterBusy,)) == "answer"


def test_what_does_not_pass_is_raised_as_itself(answers: list[object]) -> None:
    """An error that is not named reaches the caller at once, as the coordinator raised it."""
    answers += [_raised(Conflict("this request id was used before", "Choose another")), "answer"]
    with pytest.raises(Conflict, match="this request id was used before"):
        patiently(object, (WriterBusy, Fenced))
    assert answers == ["answer"]


def test_a_coordinator_that_gives_no_answer_is_reported(answers: list[object]) -> None:
    """A process that is suspended gives no answer: the error says for how long, and what to do."""
    answers += [GetTimeoutError(), "answer"]
    with pytest.raises(Unavailable, match=r"no answer, 60 seconds now.*'kill -CONT'.*--request-id"):
        patiently(object, (WriterBusy,))
    assert answers == ["answer"]


@pytest.mark.parametrize(
    ("trouble", "match"), [(AWAY, "does not answer"), (_raised(BUSY), "the lease of the one before")]
)
def test_patience_has_an_end(trouble: Exception, match: str, answers: list[object]) -> None:
    """After some time the caller gets the error that kept it waiting."""
    answers += [trouble, trouble]
    with pytest.raises((Unavailable, WriterBusy), match=match):
        patiently(object, (WriterBusy,), patience_seconds=-1.0)
    assert len(answers) == 1


def _anything(*_: object) -> SimpleNamespace:
    """Return what stands for any method of the actor, and for what its calls give."""
    return SimpleNamespace(remote=_anything)


@pytest.mark.parametrize("trouble", [Fenced("overtaken", "wait"), OutcomeUnknown("cut off", "wait"), AWAY])
def test_who_only_waits_waits_for_more(trouble: Exception, answers: list[object]) -> None:
    """A caller that asks for a request's status waits for every error from which the coordinator recovers by itself;
    one that submits a request gets the error at once, unless the coordinator was only away.
    """
    handle = SimpleNamespace(request=_anything(), accept=_anything())
    writer: Any = RemoteWriter(handle, MemoryStore("patience"), lambda _: None)
    raised = trouble if trouble is AWAY else _raised(trouble)
    answers += [raised, "asked", raised, "submitted"]
    assert writer.request("er-1") == "asked"
    if trouble is AWAY:
        assert writer.accept(None, None) == "submitted"
        return
    with pytest.raises(type(trouble), match="overtaken|cut off"):
        writer.accept(None, None)


@pytest.mark.parametrize(("batch", "until_idle"), [("window", False), ("until_due", True)])
def test_who_waits_for_a_request_listens_for_what_it_waits_for(
    batch: BatchUntil, until_idle: bool, answers: list[object]
) -> None:
    """In a batch window the coordinator is idle: who waits for the end of a request waits for news, and does not ask
    again and again. Where a request waits for its due date, that all else is done is what is waited for.
    """
    waited: list[bool] = []

    def hear(_after: int | None, timeout_seconds: float, *, until_idle: bool = True) -> None:
        if timeout_seconds:
            waited.append(until_idle)

    handle = SimpleNamespace(request=_anything(), hear=SimpleNamespace(remote=hear))
    writer: Any = RemoteWriter(handle, MemoryStore("patience"), lambda _: None)
    nothing = Heard(notices=(), upto=3, idle=False)
    quarantined = replace(request_of("er-1"), state=RequestState.QUARANTINED)
    complete = replace(quarantined, state=RequestState.COMPLETE)
    answers += [nothing, quarantined, nothing, complete, replace(nothing, idle=True)]
    assert writer.carry_out("er-1", batch) == complete
    assert waited == [until_idle]


def test_the_last_notice_of_a_request_is_passed_on(answers: list[object]) -> None:
    """The state of a request is seen a moment before its notice: a command that waited for it gets the notice, too."""
    heard: list[Notice] = []
    handle = SimpleNamespace(request=_anything(), hear=SimpleNamespace(remote=lambda *_, **__: None))
    writer: Any = RemoteWriter(handle, MemoryStore("patience"), heard.append)
    complete = replace(request_of("er-1"), state=RequestState.COMPLETE)
    nothing = Heard(notices=(), upto=3, idle=False)
    last = RequestMoved(request=complete)
    answers += [nothing, complete, nothing, replace(nothing, notices=(last,), upto=4)]
    assert writer.carry_out("er-1", "window") == complete
    assert heard == [last]
    assert not answers
