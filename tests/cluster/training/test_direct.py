"""What a process does of a direct task, and what it leaves to another one."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.runtime.learners import learner_of
from cluster.training.actor import WorkerSetup
from cluster.training.worker import Worker
from cluster.training.workers import worker_setup
from coordinator.engine.tasks import Revisions, train_task
from shards.learners.torch.learner import TorchLearner
from shards.learners.torch.probe import probe
from shards.learners.trainer import ConstituentTrainer, SliceLearned, TrainTask
from shards.specification import ModelSettings, ShardId, TrainingSettings
from storage.digests import sha256
from storage.stores.memory import MemoryStore
from tests.doubles.federation import SmallFederation, specification_of, survivors
from tests.exactness.federations import federation_of, make_points, retrained

POINTS = make_points(4, 40, most_each=1)
MANY = make_points(5, 260, most_each=1)


def _erasing(learner: str, target: str, *, erased: int = 2, **arguments: Any) -> SmallFederation[Any]:
    """Return a federation of one shard from which subjects were just taken out of the slices."""
    points = POINTS if erased == 2 else MANY
    model = ModelSettings(learner=learner, arguments=arguments)
    classes = ("a", "b") if target == "class" else ()
    federation: SmallFederation[Any] = federation_of(
        specification_of(shards=1, slices=2, model=model, target=target, classes=classes)
    )
    federation.train(points)
    federation.accept(subjects=[each.subject for each in points[3 : 3 + erased]], request_id="er-1")
    federation.engine.remove_points()
    return federation


def _taken_out(federation: SmallFederation[Any], task: TrainTask, most: int) -> tuple[list[Any], TrainTask | None]:
    trainer: ConstituentTrainer[Any] = ConstituentTrainer(
        learner=learner_of(federation.specification, task.width),
        store=federation.store,
        new_name=federation.names,
        seconds=federation.clock.monotonic,
        revised=Revisions(federation.store),
    )
    taking, events = trainer.take_out(task, most), list[Any]()
    while True:
        try:
            events.append(next(taking))
        except StopIteration as end:
            return events, end.value


def test_more_points_than_agreed_are_left() -> None:
    """They are counted, as a correction changes many points and leaves as many as before."""
    federation = _erasing("ridge", "class")
    task = train_task(federation.state, ShardId(0), done=0, token=1)
    before = {info.key for info in federation.store.list("shards/")}
    assert _taken_out(federation, task, 1) == ([], task)
    assert {info.key for info in federation.store.list("shards/")} == before
    events, left = _taken_out(federation, task, 2)
    assert left is None
    fresh = retrained(
        federation.specification, survivors(POINTS, subjects=[POINTS[3].subject, POINTS[4].subject])
    ).state
    assert [event.digest for event in events] == [fresh.shards[0].chain[0].digest]


@pytest.mark.parametrize(("erased", "is_left"), [(100, False), (130, False), (131, True)])
def test_a_shard_is_learned_again_where_that_is_cheaper(erased: int, is_left: bool) -> None:
    """Sums over fewer points are made again; up to a hundred points go directly in any case. The bytes are the same."""
    federation = _erasing("ridge", "class", erased=erased)
    task = train_task(federation.state, ShardId(0), done=0, token=1)
    events, left = _taken_out(federation, task, 1000)
    assert (left is task, len(events)) == (is_left, 0 if is_left else 1)


def test_what_a_learner_cannot_do_directly_is_left() -> None:
    """With every data point a pivot, clusters are learned from nothing, which may take long: nothing is done here."""
    federation = _erasing("k_means", "cluster", clusters=4, pivots=100, iterations=2)
    task = train_task(federation.state, ShardId(0), done=0, token=1)
    assert _taken_out(federation, task, 100) == ([], task)


@pytest.mark.parametrize("learner", ["forest", "ridge"])
def test_a_task_that_was_superseded_is_left_as_it_is_now(learner: str) -> None:
    """Its checkpoint is deleted."""
    federation = _erasing(learner, "class")
    task = train_task(federation.state, ShardId(0), done=0, token=1)
    federation.accept(subjects=[POINTS[5].subject], request_id="er-2")
    federation.engine.remove_points()
    before = {info.key for info in federation.store.list("shards/")}
    events, left = _taken_out(federation, task, 100)
    assert events == []
    assert left == train_task(federation.state, ShardId(0), done=0, token=1)
    assert left != task
    assert {info.key for info in federation.store.list("shards/")} == before
    assert left is not None
    (event,), left = _taken_out(federation, left, 100)
    assert isinstance(event, SliceLearned)
    assert left is None


def test_a_learner_without_code_of_the_user_s_imports_nothing_from_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer's process, which has the keys, takes points out of such constituents by itself."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    setup = WorkerSetup(
        store=MemoryStore("own-path"),
        settings=sha256(b""),
        model=ModelSettings(learner="ridge"),
        training=specification_of(shards=1, slices=2).training,
        classes=2,
        slices=2,
        threads=1,
        device="cpu",
        target="class",
        import_folder=tmp_path,
    )
    assert Worker(setup).configuration(3).learner == "ridge"
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize("kernels", ["separate", "fused"])
def test_a_worker_has_the_probe_of_the_kernels_it_trains_with(
    kernels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers whose fused kernels compute differently have to differ; without them nothing changes."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    training = TrainingSettings(epochs=4, batch_size=3, learning_rate=0.1, kernels=kernels)
    specification = replace(specification_of(shards=1, slices=2, training=training), folder=tmp_path)
    setup = worker_setup(specification, MemoryStore("kernels"))
    assert Worker(setup).configuration(3).profile.probe == probe("cpu", kernels)


@pytest.mark.parametrize(("token", "engine"), [(1, "replay"), (None, "eager")])
def test_a_proof_trains_step_by_step(
    token: int | None, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``sisa verify`` trains a constituent again eagerly, regardless of the engine that has trained it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    training = TrainingSettings(epochs=4, batch_size=3, learning_rate=0.1, engine="replay")
    specification = specification_of(shards=1, slices=2, training=training)
    federation = federation_of(specification)
    federation.train(make_points(1, 30))
    asked: list[str] = []
    whole = TorchLearner._engine

    def noting(self: TorchLearner, *arguments: Any) -> Any:
        asked.append(self._engine_asked)
        return whole(self, *arguments)

    monkeypatch.setattr(TorchLearner, "_engine", noting)
    task = train_task(federation.state, ShardId(0), done=0, token=token)
    promised = task.lineages[0].configuration
    setup = WorkerSetup(
        store=federation.store,
        settings=promised.settings,
        model=specification.model,
        training=training,
        classes=2,
        slices=2,
        threads=1,
        device="cpu",
        target="class",
        import_folder=tmp_path,
    )
    worker = Worker(setup)
    monkeypatch.setattr(worker, "configuration", lambda *_: promised)
    found = [event.digest for event in worker.train(task) if isinstance(event, SliceLearned)]
    assert found == [each.digest for each in federation.state.shards[0].chain]
    assert asked == [engine] * 2
