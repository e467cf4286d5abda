"""Workers: a plain core, and the Ray actor around it."""

from __future__ import annotations

import os
import resource
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import ray

from cluster.runtime.guard import check_rooms
from cluster.runtime.labels import Labels, check_here
from cluster.runtime.user_code import make_importable
from coordinator.engine.tasks import check_configuration, revised_task
from shards.learners.protocol import Learner
from shards.learners.registry import open_learner
from shards.learners.torch.model_code import model_code_digest
from shards.learners.torch.performance import Request
from shards.learners.torch.rehearsal import rehearse_once
from shards.learners.torch.seeding import Device, check_numerics, set_numerics
from shards.learners.torch.user_modules import UserModules
from shards.learners.trainer import ConstituentTrainer, TrainingEvent, TrainTask
from shards.lineage import Configuration
from shards.specification import ModelSettings, ShardId, TrainingSettings
from storage.digests import Sha256
from storage.objects import ObjectStore

_GIVING_WAY: Final = 10
"""How far a worker stands back: acknowledging, and withdrawing what is tainted, come before training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """All that a worker needs to know; crosses to other processes."""

    store: ObjectStore
    settings: Sha256
    """Digest of the settings that decide the constituents' bytes."""
    model: ModelSettings
    training: TrainingSettings
    classes: int
    slices: int
    threads: int
    device: Device
    import_folder: Path
    """Where the user's own model module may lie."""
    labels: Labels = field(default_factory=dict)
    """Of the nodes on which alone it may be at work."""


class Worker:
    """Trains constituents in this process, whose numerics it fixes for good.

    With ``modules`` every constituent gets modules of the user that were imported afresh.
    """

    def __init__(self, setup: WorkerSetup, modules: UserModules | None = None) -> None:
        check_rooms()
        make_importable(setup.import_folder)
        self._setup = setup
        self._profile = set_numerics(setup.threads, setup.device)
        self._modules = modules
        self._learners: dict[int, Learner[Any]] = {}
        self._rehearsed: set[int] = set()

    def configuration(self, width: int) -> Configuration:
        """Return what decides the bits here. Raises ``Invalid`` when the model does not fit ``width`` features."""
        self._learner(width).initial(ShardId(0))
        check_numerics(self._profile, self._setup.model.factory)
        return Configuration(
            settings=self._setup.settings,
            model_code=self._model_code,
            seed=self._setup.training.seed,
            profile=self._profile,
        )

    def rehearse(self, width: int) -> None:
        """Raise ``Invalid`` when another process would not repeat what the model makes of ``width`` features (E14)."""
        if width in self._rehearsed:
            return
        setup, configuration = self._setup, self.configuration(width)
        request = Request(
            model=setup.model,
            training=setup.training,
            inputs=width,
            classes=setup.classes,
            device=setup.device,
            threads=setup.threads,
            code=configuration.model_code,
        )
        rehearse_once(request, configuration, setup.store)
        self._rehearsed.add(width)

    @cached_property
    def _model_code(self) -> Sha256:
        # Once: what counts is the code that this process imported, not what the file holds later.
        return model_code_digest(self._setup.model)

    def train(self, task: TrainTask) -> Iterator[TrainingEvent]:
        """Do ``task``, yielding what happens.

        Raises ``Conflict`` when this worker would produce other bits than the task's lineages promise (E7), ``Invalid``
        when another process would not repeat what is to be kept (E14).
        """
        if self._modules is not None:
            self._modules.forget(self._setup.model.factory)
        check_configuration(task.lineages[0].configuration, self.configuration(task.width))
        if task.token is not None:
            self.rehearse(task.width)
        trainer: ConstituentTrainer[Any] = ConstituentTrainer(
            learner=self._learner(task.width),
            store=self._setup.store,
            names=new_name,
            clock=time.monotonic,
            revised=partial(revised_task, self._setup.store),
        )
        return trainer.train(task)

    def _learner(self, width: int) -> Learner[Any]:
        if width not in self._learners:
            self._learners[width] = open_learner(
                model=self._setup.model,
                training=self._setup.training,
                inputs=width,
                classes=self._setup.classes,
                slices=self._setup.slices,
                device=self._setup.device,
            )
        return self._learners[width]


def new_name() -> str:
    """Return a name that was never used before: 128 random bits."""
    return secrets.token_hex(16)


def leave_no_core() -> None:
    """See to it that a crash of this process writes nothing of its memory to a disk."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def keep_silent() -> None:
    """See to it that what this process knows of people stays in its memory (E12).

    It leaves no core dump, and no word of a model's own code reaches Ray's log files, which outlive every erasure:
    what a model prints, warns of and logs is dropped. What the interpreter itself says of a crash is still written.
    """
    leave_no_core()
    nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  open as long as the process lives
    os.dup2(nowhere.fileno(), 1)
    sys.stdout = sys.stderr = nowhere


class WorkerShell:
    """The actor: decodes nothing, decides nothing."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup

    @cached_property
    def _worker(self) -> Worker:
        # Made at the first call: an error here comes back as itself, one in __init__ as a dead actor.
        keep_silent()
        check_here(self._setup.labels)
        os.nice(_GIVING_WAY)
        return Worker(self._setup, UserModules())

    @ray.method
    def configuration(self, width: int) -> Configuration:
        """See ``Worker.configuration``."""
        return self._worker.configuration(width)

    @ray.method
    def rehearse(self, width: int) -> None:
        """See ``Worker.rehearse``."""
        self._worker.rehearse(width)

    @ray.method(num_returns="streaming")
    def train(self, task: TrainTask) -> Iterator[TrainingEvent]:
        """See ``Worker.train``."""
        yield from self._worker.train(task)


WorkerActor = ray.remote(WorkerShell)
