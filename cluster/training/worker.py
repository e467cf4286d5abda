"""The core of a worker: trains constituents in its process. It loads torch only for networks."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cluster.runtime.guard import check_rooms
from cluster.runtime.user_code import make_importable
from cluster.training.actor import WorkerSetup
from coordinator.engine.tasks import Revisions, check_configuration
from shards.learner_kinds.guarantees import recorded_guarantee
from shards.learners.measuring import MeasureTask, measure
from shards.learners.protocol import Learner
from shards.learners.registry import check_fixed, code_digest, fix_numerics, open_learner
from shards.learners.torch.confinement import ConfinedLearner, Confinement
from shards.learners.torch.staging import file_digest
from shards.learners.trainer import ConstituentTrainer, TrainingEvent, TrainTask
from shards.lineage import Configuration, in_force
from shards.measures import Measures
from shards.recipe.engines import EAGER
from shards.specification import ShardId, SliceIndex, is_shipped
from storage.digests import Sha256
from storage.objects import new_name

if TYPE_CHECKING:
    from shards.learners.torch.code_manifest import CodeManifest
    from shards.learners.torch.user_modules import UserModules

_CODE: Final = frozenset({".py", ".pyc", ".so"})
"""Suffixes of files that a worker without a staged folder takes for code."""


class Worker:
    """Trains constituents in this process, whose numerics it fixes for good.

    With ``modules`` the user's modules are imported again for every constituent, from their staged folder.
    """

    def __init__(self, setup: WorkerSetup, modules: UserModules | None = None) -> None:
        check_rooms()
        # Others run no code of the user's, and some of them run in the writer's process, which has the keys.
        if setup.model.recorded_learner is None:
            make_importable(setup.import_folder)
        self._setup = setup
        kernels = setup.training.kernels
        self._profile = fix_numerics(setup.model, setup.threads, setup.device, probed=True, kernels=kernels)
        self._modules = modules
        self._learners: dict[tuple[int, str], Learner[Any]] = {}
        self._manifests: dict[int, CodeManifest | None] = {}

    def configuration(self, width: int, stored: Configuration | None = None) -> Configuration:
        """Return what decides the bits here, with the manifest of code of ``stored`` if the same code is here.

        Raises ``Invalid`` when the model does not fit ``width`` features.
        """
        self._learner(width).initial(ShardId(0))
        check_fixed(self._setup.model, self._profile)
        present = Configuration(
            settings=self._setup.settings,
            model_code=self._model_code,
            seed=self._setup.training.seed,
            profile=self._profile,
            learner=self._setup.model.recorded_learner,
            guarantee=recorded_guarantee(self._setup.model.promise),
        )
        if stored is None or stored.code_manifest is None:
            return present
        promised = replace(present, code_manifest=stored.code_manifest)
        if in_force(stored, promised) != stored:
            return present
        manifest = self._recorded_manifest(width, stored)
        is_here = manifest is not None and manifest == manifest.present(self._setup.model.factory, self._files)
        return promised if is_here else present

    def rehearse(self, width: int) -> Sha256 | None:
        """Return the digest of the model's manifest of code for ``width`` features, rehearsing it if need be (E14).

        Returns None for the factories that come with this system. Raises ``Invalid`` when another process would not
        compute the same from the same data.
        """
        setup = self._setup
        if is_shipped(setup.model, setup.training):
            return None
        if width not in self._manifests:
            from shards.learners.torch.rehearsal import rehearsed  # noqa: PLC0415  it loads torch
            from shards.learners.torch.rehearsal_process import RehearsalRequest  # noqa: PLC0415  it loads torch

            request = RehearsalRequest(
                model=setup.model,
                training=setup.training,
                inputs=width,
                classes=setup.classes,
                device=setup.device,
                threads=setup.threads,
                target=setup.target,
                folder=str(setup.import_folder),
                staged=str(self._folder),
                files=tuple(self._files),
                shape=setup.shape,
            )
            self._manifests[width] = rehearsed(request, self.configuration(width), setup.store, self._files)
        manifest = self._manifests[width]
        return None if manifest is None else manifest.digest()

    def _recorded_manifest(self, width: int, configuration: Configuration) -> CodeManifest | None:
        if configuration.code_manifest is None:
            return None
        from shards.learners.torch.rehearsal import recorded_manifest  # noqa: PLC0415  it loads torch

        return recorded_manifest(width, configuration, self._setup.store)

    @cached_property
    def _model_code(self) -> Sha256:
        # Computed once, from the code that this process imported: the file may change later.
        return code_digest(self._setup.model, self._setup.training)

    def train(self, task: TrainTask) -> Iterator[TrainingEvent]:
        """Do ``task``, yielding its events.

        Raises ``OtherConditions`` when this worker would produce other bits than the task's lineages promise, or than
        the other workers (E7), ``Invalid`` when another process would not compute the same bits (E14).
        """
        return self._trainer(task).train(task)

    def epochs(self, width: int, slice_: SliceIndex) -> int:
        """Return how many epochs a slice takes."""
        return self._learner(width).epochs(slice_)

    def take_out(self, task: TrainTask, most: int) -> Generator[TrainingEvent, None, TrainTask | None]:
        """See ``ConstituentTrainer.take_out``. Raises as ``train`` does."""
        return self._trainer(task).take_out(task, most)

    def _trainer(self, task: TrainTask) -> ConstituentTrainer[Any]:
        if self._modules is not None:
            self._modules.forget(self._setup.model.factory)
        promised = task.lineages[0].configuration
        present = self.configuration(task.width, promised)
        check_configuration(promised, present)
        check_configuration(self._setup.companions, present)  # old lineages do not record all of it
        if task.token is not None:
            self.rehearse(task.width)
        manifest = self._manifests.get(task.width) or self._recorded_manifest(task.width, promised)
        if self._modules is not None and manifest is not None:
            self._modules.allow_only(manifest.modules)
        # A proof is not to repeat what training did, so it takes each step by itself.
        return ConstituentTrainer(
            learner=self._learner(task.width, EAGER if task.token is None else None),
            store=self._setup.store,
            new_name=new_name,
            seconds=time.monotonic,
            revised=Revisions(self._setup.store),
        )

    def forget_learned(self) -> None:
        """Drop the learners, with the data points and the recordings of steps that they hold."""
        self._learners.clear()

    def measure(self, task: MeasureTask) -> Measures:
        """Return the measures of an ensemble on hold-out points, which this process reads from the store.

        Raises ``OtherConditions`` when the code here is not that of the constituents.
        """
        check_configuration(task.configuration, self.configuration(task.width, task.configuration))
        return measure(task, self._learner(task.width), self._setup.store)

    def _learner(self, width: int, engine: str | None = None) -> Learner[Any]:
        """Return the learner of ``width`` features; ``engine``: another one than the setting."""
        training = self._setup.training
        training = training if engine is None else replace(training, engine=engine)
        known = (width, training.engine)
        if known not in self._learners:
            learner = open_learner(
                model=self._setup.model,
                training=training,
                inputs=width,
                classes=self._setup.classes,
                slices=self._setup.slices,
                device=self._setup.device,
                shape=self._setup.shape,
                target=self._setup.target,
            )
            if self._setup.model.recorded_learner is None:  # others run no code of the user's
                learner = ConfinedLearner(learner, self._confinement)
            self._learners[known] = learner
        return self._learners[known]

    @cached_property
    def _confinement(self) -> Confinement:
        declared = {self._folder / name for name in self._files}
        return Confinement(
            self._setup.model.factory,
            self._setup.import_folder,
            self._folder,
            self._modules.may_read
            if self._modules is not None
            else lambda file: file in declared or file.suffix in _CODE,
        )

    @property
    def _folder(self) -> Path:
        """The folder of the declared files in this process."""
        stage = self._modules.stage if self._modules is not None else None
        return self._setup.import_folder if stage is None else stage.path

    @cached_property
    def _files(self) -> dict[str, Sha256]:
        stage = self._modules.stage if self._modules is not None else None
        if stage is not None:
            return stage.files
        return {name: file_digest(self._setup.import_folder / name) for name in self._setup.files}
