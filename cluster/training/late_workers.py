"""A federation's workers, loaded when needed: commands that only read or record something load no Ray and no torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from cluster.config.specification import FederationSpecification
from shards.lineage import Configuration
from shards.slices.ingest import IngestResult, IngestTask
from storage.objects import ObjectStore

if TYPE_CHECKING:
    from cluster.training.workers import Pool, Workers


class LateWorkers:
    """``Workers`` that are loaded at the first call that needs them. Making one loads nothing."""

    def __init__(
        self, specification: FederationSpecification, store: ObjectStore, remark: Callable[[str], None]
    ) -> None:
        """``remark`` is called with messages about the workers."""
        self._specification = specification
        self._store = store
        self._remark = remark

    def pool(self) -> Pool:
        """See ``Workers.pool``."""
        return self._workers.pool()

    def prepare(self, width: int, tasks: int, stored: Configuration | None) -> None:
        """See ``Workers.prepare``."""
        self._workers.prepare(width, tasks, stored)

    def check_own_place(self) -> None:
        """See ``Workers.check_own_place``: without labels any place will do."""
        if self._specification.cluster.labels:
            self._workers.check_own_place()

    def release(self) -> None:
        """See ``Workers.release``."""
        if self._are_loaded:
            self._workers.release()

    def close(self) -> None:
        """See ``Workers.close``."""
        if self._are_loaded:
            self._workers.close()

    def ingest(self, task: IngestTask) -> IngestResult:
        """Read the task's source, here or on the cluster (``ingestion_of``). Implements ``Ingestion``."""
        from cluster.training.ingest import ingestion_of  # noqa: PLC0415  it loads Ray

        return ingestion_of(task, self._specification.cluster, self._workers, self._remark)(task)

    @property
    def _are_loaded(self) -> bool:
        return "_workers" in self.__dict__

    @cached_property
    def _workers(self) -> Workers:
        from cluster.training.workers import Workers  # noqa: PLC0415  it loads Ray and torch

        return Workers(self._specification, self._store, self._remark)
