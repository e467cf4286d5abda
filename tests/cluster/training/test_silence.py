"""Messages about workers that do not report."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from cluster.config.specification import ClusterSettings
from cluster.training import silence
from cluster.training.silence import Place, awaited_workers, hushed

NODES = [{"NodeID": "afar", "NodeManagerAddress": "10.0.0.2"}]


def test_a_stopped_worker_is_reported() -> None:
    """A worker on this node is named, with a remedy, only if it is suspended, not if it is at work."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        places = [Place("here", process.pid), Place("here", os.getpid())]
        assert hushed(places, "here", NODES, again=1) == []
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        reported = (
            f"the worker in process {process.pid} is stopped (SIGSTOP): 'kill -CONT {process.pid}' lets it continue,"
            f" after 'kill -9 {process.pid}' another one takes its place"
        )
        assert [hushed(places, "here", NODES, again=again) for again in (1, 2, 3)] == [[reported]] * 3
        process.kill()
    assert hushed(places[:1], "here", NODES, again=1) == []


def test_workers_on_other_nodes_are_named_now_and_then() -> None:
    """A worker on another node may be at work on a long slice, so messages about it become rarer and rarer."""
    reported = [hushed([Place("afar", 7)], "here", NODES, again=again) for again in range(1, 10)]
    assert [bool(each) for each in reported] == [True, True, False, True, False, False, False, True, False]
    said = "no word from process 7 on 10.0.0.2 (node afar): wait, if a slice may take so long; if it is stopped there"
    assert reported[0] == [f"{said}, end it"]


def test_workers_that_start_wait_for_no_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """That no processor is free says nothing where they have theirs: Ray knows whether somebody waits for one."""
    monkeypatch.setattr(silence, "waited_for", lambda *_: "waiting for workers: 0 CPUs are free")
    monkeypatch.setattr(silence, "is_short", lambda: True)
    assert awaited_workers(ClusterSettings(), frozenset()) == "waiting for workers: 0 CPUs are free"
    monkeypatch.setattr(silence, "is_short", lambda: False)
    assert "they have their processors" in (awaited_workers(ClusterSettings(), frozenset()) or "")
