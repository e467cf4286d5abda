"""The Ray actor around a worker, and a worker's setup: the only modules that processes which start workers load.

The worker itself, with its learner, is loaded in the actor's process alone: to load torch takes seconds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import ray

from cluster.release import Sent
from cluster.runtime.labels import Labels, check_here
from cluster.runtime.process import leave_no_core
from shards.encoding import InputShape
from shards.learners.measuring import MeasureTask
from shards.learners.torch.staging import StagedFolder
from shards.learners.trainer import TrainingEvent, TrainTask
from shards.lineage import Configuration, Device
from shards.measures import Measures
from shards.specification import ModelSettings, TrainingSettings
from storage.digests import Sha256
from storage.objects import ObjectStore

if TYPE_CHECKING:
    from cluster.training.worker import Worker
    from shards.learners.torch.user_modules import UserModules


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """Everything that a worker needs to know; sent to other processes."""

    store: ObjectStore
    settings: Sha256
    """Digest of the settings that decide the constituents' bytes."""
    model: ModelSettings
    training: TrainingSettings
    classes: int
    slices: int
    threads: int
    device: Device
    target: str
    import_folder: Path
    """The folder that may hold the user's own model module."""
    shape: InputShape | None = None
    """The form in which the model receives features; None: as a row of numbers."""
    files: tuple[str, ...] = ()
    """Names of the declared files in ``import_folder``. Their contents are sent along with the setup."""
    niceness: int = 0
    """Steps added to the niceness of the worker's process."""
    labels: Labels = field(default_factory=dict)
    """Labels of the only nodes on which the worker may run."""
    companions: Configuration | None = None
    """Configuration of the other workers; None: not known yet."""


def keep_silent() -> None:
    """Keep this process's personal data in its memory (E12).

    It leaves no core dump, and drops everything that a model's own code prints, warns of or logs, because Ray's log
    files outlive every erasure. The interpreter's own report of a crash is still written.
    """
    leave_no_core()
    nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  open as long as the process lives
    os.dup2(nowhere.fileno(), 1)
    sys.stdout = sys.stderr = nowhere


def _user_modules(model: ModelSettings, stage: StagedFolder) -> UserModules | None:
    """Return the user's modules if the learner runs the user's code."""
    if model.recorded_learner is not None:
        return None
    from shards.learners.torch.user_modules import UserModules  # noqa: PLC0415  it loads torch

    return UserModules(stage)


class WorkerShell:
    """The actor: forwards each call to a ``Worker``."""

    def __init__(self, sent: Sent[WorkerSetup], *contents: npt.NDArray[np.uint8]) -> None:
        """``contents`` are the bytes of the declared files, in the order of their names in the setup's ``files``."""
        self._sent = sent
        self._contents = contents

    @cached_property
    def _worker(self) -> Worker:
        # Made at the first call: an error here reaches the caller, one in __init__ would only kill the actor.
        keep_silent()
        setup = self._sent.opened("worker")
        check_here(setup.labels)
        os.nice(setup.niceness)
        from cluster.training.worker import Worker  # noqa: PLC0415  it loads the learners

        contents = {name: content.data for name, content in zip(setup.files, self._contents, strict=True)}
        stage = StagedFolder(setup.import_folder, contents)
        stage.enter()
        self._contents = ()
        return Worker(setup, _user_modules(setup.model, stage))

    @ray.method
    def configuration(self, width: int, stored: Configuration | None = None) -> Configuration:
        """See ``Worker.configuration``."""
        return self._worker.configuration(width, stored)

    @ray.method
    def rehearse(self, width: int) -> Sha256 | None:
        """See ``Worker.rehearse``."""
        return self._worker.rehearse(width)

    @ray.method
    def measure(self, task: MeasureTask) -> Measures:
        """See ``Worker.measure``."""
        return self._worker.measure(task)

    @ray.method(num_returns="streaming")
    def train(self, task: TrainTask) -> Iterator[TrainingEvent]:
        """See ``Worker.train``."""
        yield from self._worker.train(task)


WorkerActor = ray.remote(WorkerShell)
