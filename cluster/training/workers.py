"""A federation's workers: on Ray, started when they are first needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from cluster.config.specification import ClusterSettings, FederationSpecification, bit_settings, settings_record
from cluster.runtime.guard import check_folder
from cluster.runtime.labels import check_own_place
from cluster.runtime.process import reporting_wait
from cluster.runtime.session import is_to_start_ray, join_ray, leave_ray, waiting_for_ray
from cluster.training.actor import WorkerSetup
from cluster.training.near import NearPool
from cluster.training.pool import RayPool
from coordinator.ports import WorkerPool
from shards.learner_kinds.kinds import LEARNERS
from shards.learners.measuring import MeasureTask
from shards.learners.torch.staging import declared_files
from shards.lineage import Configuration
from shards.measures import Measures
from storage.digests import Sha256
from storage.errors import SisaError
from storage.objects import ObjectStore


@contextmanager
def one_ray(settings: ClusterSettings) -> Iterator[None]:
    """Join Ray once for all federations within the block, each of which would otherwise start and end a local one."""
    started = join_ray(settings)
    try:
        yield
    finally:
        if started:
            leave_ray()


class Pool(WorkerPool, Protocol):
    """A worker pool that rehearses a model, and that can be closed."""

    def rehearse(self, width: int) -> Sha256 | None:
        """Return the digest of the model's manifest of code for ``width`` features; see ``Worker.rehearse``.

        To be called after ``configuration``.
        """
        ...

    def measure(self, task: MeasureTask) -> Measures:
        """Return the measures of an ensemble on hold-out points; to be called after ``configuration``."""
        ...

    def close(self) -> None:
        """Stop all workers; later work starts new ones."""
        ...


class Workers:
    """The pool of one federation. Making one starts nothing."""

    def __init__(
        self, specification: FederationSpecification, store: ObjectStore, remark: Callable[[str], None]
    ) -> None:
        """``remark`` is called with messages about the workers."""
        self._specification = specification
        self._store = store
        self._remark = remark
        self._pool: Pool | None = None
        self._near: NearPool | None = None
        self._started_ray = False

    def pool(self) -> Pool:
        """Return the pool. It joins Ray: at once, or, where points are taken out directly, when a worker is needed."""
        model = self._specification.model
        if not model.is_whole or self._specification.cluster.labels or not LEARNERS[model.learner].is_same_anywhere:
            return self.join()
        if self._near is None:
            check_folder(self._specification.folder)
            from cluster.training.worker import Worker  # noqa: PLC0415  it loads every learner

            self._near = NearPool(Worker(worker_setup(self._specification, self._store)), self.join)
        return self._near

    def prepare(self, width: int, tasks: int, stored: Configuration | None) -> None:
        """Let workers for ``tasks`` tasks start, and return at once; callers that use the workers get any errors.

        It does nothing where a few points are taken out without a worker.
        """
        with suppress(SisaError):
            pool = self.pool()
            if isinstance(pool, RayPool):
                pool.prepare(width, tasks, stored)

    def join(self) -> Pool:
        """Return the pool of workers, joining Ray at the first call."""
        if self._pool is None:
            check_folder(self._specification.folder)
            with reporting_wait(self._remark, waiting_for_ray(self._specification.cluster)):
                self._started_ray = join_ray(self._specification.cluster)
            self._pool = RayPool(
                worker_setup(self._specification, self._store), self._specification.cluster, self._remark
            )
        return self._pool

    def check_own_place(self) -> None:
        """Raise unless this process may read the federation's data: with labels, only a node that has them may.

        This joins Ray, unless the process would start a local one, which gets these labels. Raises as
        ``cluster.runtime.labels.check_own_place`` does, and ``Unavailable`` when Ray cannot be reached.
        """
        settings = self._specification.cluster
        if settings.labels and not is_to_start_ray(settings):
            join_ray(settings)
            check_own_place(settings.labels)

    def release(self) -> None:
        """Release the workers and their processors; later work starts new ones."""
        if self._pool is not None:
            self._pool.close()

    def close(self) -> None:
        """Release the workers, and end Ray if it was started here."""
        self.release()
        self._pool = None
        if self._started_ray:
            leave_ray()
            self._started_ray = False


def worker_setup(specification: FederationSpecification, store: ObjectStore) -> WorkerSetup:
    """Return what the workers of a federation need to know."""
    return WorkerSetup(
        store=store,
        settings=bit_settings(settings_record(specification)),
        model=specification.model,
        training=specification.training,
        classes=len(specification.data.predicted.names),
        target=specification.data.target,
        slices=specification.partition.slices,
        threads=specification.cluster.threads_per_worker,
        device="cuda" if specification.cluster.gpus_per_worker else "cpu",
        import_folder=specification.folder,
        files=tuple(declared_files(specification.folder, specification.model.files)),
        niceness=specification.cluster.niceness,
        labels=specification.cluster.labels,
        shape=specification.data.input_shape,
    )
