"""How far workers give way to other processes."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

import cluster.training.actor
from cluster.config.specification import ClusterSettings, settings_record
from cluster.release import Sent
from cluster.training.actor import WorkerShell
from cluster.training.workers import worker_setup
from storage.stores.memory import MemoryStore
from tests.doubles.federation import specification_of


@pytest.mark.parametrize("steps", [0, 7])
def test_a_worker_gives_way_by_the_setting_and_no_record_has_it(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker adds the setting to the niceness that Ray gave it; by default it competes like any worker of Ray."""
    added: list[int] = []
    monkeypatch.setattr(cluster.training.actor, "keep_silent", lambda: None)
    monkeypatch.setattr(cluster.training.actor, "check_here", lambda _: None)
    monkeypatch.setattr("cluster.training.actor.StagedFolder.enter", lambda _: None)
    monkeypatch.setattr(os, "nice", added.append)
    plain = specification_of(shards=1, slices=1)
    asked = replace(plain, cluster=replace(plain.cluster, niceness=steps))
    assert ClusterSettings().niceness == 0
    shell: Any = WorkerShell(Sent(worker_setup(asked, MemoryStore("nice"))))
    shell._worker  # noqa: B018  it is made when it is looked at
    assert added == [steps]
    assert settings_record(asked) == settings_record(plain)
