"""Joining Ray: what fails at its start ends in a sentence, and SIGTERM stays this process's own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import ray

from cluster.config.specification import ClusterSettings
from cluster.runtime import session
from cluster.training import workers
from cluster.training.workers import Workers
from storage.errors import Unavailable
from storage.stores.memory import MemoryStore
from tests.cluster.runtime.test_labels import PINNED
from tests.doubles.federation import specification_of


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What is done at Ray's start, one act a start; handlers of SIGTERM are put back after the test."""
    acts: list[Any] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: acts.pop(0)())
    monkeypatch.setattr(session, "_spill_folder", lambda: "/nowhere")
    monkeypatch.setattr(session, "check_cluster", lambda _: None)
    before = signal.getsignal(signal.SIGTERM)
    yield acts
    signal.signal(signal.SIGTERM, before)


def _fails(error: Exception) -> Any:
    def act() -> None:
        raise error

    return act


def _takes_signals() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))


def _is_ended() -> None:
    _takes_signals()
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("error", [Exception("timed out"), OSError("full"), RuntimeError("x"), ImportError("y")])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ClusterSettings(),
            r"Ray did not start on this machine: {}\. Try again when the machine is less busy",
        ),
        (ClusterSettings(address="10.0.0.1:6379"), "the Ray cluster does not answer: {}"),
    ],
)
def test_whatever_ray_raises_at_its_start_is_a_sentence(
    begun: list[Any], settings: ClusterSettings, message: str, error: Exception
) -> None:
    """Any error at Ray's start becomes a message with a remedy, a bare ``Exception`` after a slow start included."""
    begun.extend([_fails(error)] * session._STARTS)
    with pytest.raises(Unavailable, match=message.format(type(error).__name__)):
        session.join_ray(settings)


def test_a_ray_that_starts_too_slowly_is_started_again(begun: list[Any]) -> None:
    """Ray gives its own start up after 30 seconds, which a busy machine may need: another attempt may be in time."""
    came: list[str] = []
    begun.extend([_fails(Exception("timed out")), lambda: came.append("up")])
    assert session.join_ray(ClusterSettings())
    assert came == ["up"]


def test_sigterm_stays_this_process_own(begun: list[Any]) -> None:
    """Ray's handlers end Ray before the process; ours is back when Ray is up, and has what came meanwhile."""
    came: list[int] = []
    signal.signal(signal.SIGTERM, own := lambda number, _: came.append(number))
    begun.append(_takes_signals)
    session.join_ray(PINNED)
    assert signal.getsignal(signal.SIGTERM) is own
    begun.append(_is_ended)
    with pytest.raises(SystemExit, match="15"):
        session.join_ray(PINNED)
    assert (signal.getsignal(signal.SIGTERM), came) == (own, [signal.SIGTERM])


def test_without_a_handler_of_ones_own_there_are_rays(begun: list[Any]) -> None:
    """A program that says nothing of SIGTERM gets what Ray does for it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    begun.append(_takes_signals)
    session.join_ray(PINNED)
    assert callable(signal.getsignal(signal.SIGTERM))


def test_a_slow_start_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """While Ray is being joined, a message says what the command waits for, and that interrupting is safe."""
    reported: list[str] = []

    @contextmanager
    def meanwhile(tell: Callable[[str], None], what: str) -> Iterator[None]:
        tell(what)
        yield

    monkeypatch.setattr(workers, "reporting_wait", meanwhile)
    monkeypatch.setattr(workers, "join_ray", lambda _: bool(reported) and False)
    for address, heard in (("local", "Ray to start on this machine"), ("10.0.0.1:6379", "cluster at 10.0.0.1:6379")):
        specification = replace(specification_of(shards=1, slices=1), cluster=ClusterSettings(address=address))
        Workers(specification, MemoryStore("nobody"), reported.append).pool()
        assert heard in reported[-1]
        assert reported[-1].endswith("interrupting is safe")
