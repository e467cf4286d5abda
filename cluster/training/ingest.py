"""Ingest on the cluster: tasks read fragments of the source, on any nodes with processors.

Through Ray go only the fragments' names and the records of what was written, never a data point: what Ray keeps on a
disk would outlive every erasure. A task that dies is repeated under another name; a sweep deletes what it left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cluster.config.specification import ClusterSettings
from cluster.runtime.nodes import check_nodes, processors, processors_of
from cluster.runtime.task_pool import RayCrew
from cluster.training.workers import Workers
from coordinator.ports import Ingestion
from shards.data.fragments import payload_bytes
from shards.slices.ingest import IngestTask, buffer_within, ingest
from shards.slices.parallel_ingest import ParallelIngest
from storage.errors import Invalid

LARGE_BYTES: Final = 2 << 30
"""Data files of at least this size are read by many tasks, unless the settings give their number."""

LEAST_FRAGMENT_BYTES: Final = 64 << 20
"""Smaller fragments are combined, because each fragment ends with a small part of every slice."""

MOST_FRAGMENT_BYTES: Final = 1 << 30
"""Larger fragments are divided if their format allows, because a whole fragment is read again when its task dies."""

_RAY_MB: Final = 70
"""Memory that Ray itself takes in each process, out of the task's share."""

_FRAGMENTS_PER_TASK: Final = 4
"""Several, so that all tasks finish at about the same time."""


def ingestion_of(
    task: IngestTask, settings: ClusterSettings, workers: Workers, remark: Callable[[str], None]
) -> Ingestion:
    """Return the reader of the task's source: small data are read in this process, large data by tasks on the cluster.

    The slices are the same either way. ``remark`` is called with messages for people. Raises ``Invalid`` when
    ``ingest_workers`` is set and some node does not see the files, ``Unavailable`` when no node has the labels; what is
    returned raises as ``shards.slices.ingest.ingest`` does, and ``Unavailable`` when tasks keep dying.
    """
    source = task.source
    wanted = settings.ingest_workers
    in_memory = any(file.path is None and file.remote is None for file in source.files)
    if in_memory or wanted == 1 or (wanted is None and payload_bytes(source) < LARGE_BYTES):
        return ingest
    workers.join()
    labels = settings.labels
    tasks = wanted or (processors_of(labels) if labels else processors())
    if tasks < 2:
        return ingest
    try:
        check_nodes(source, task.store, task.new_name, labels)
    except Invalid as error:
        if wanted is not None:
            raise
        remark(f"{error.message}, so this one reads them all. {error.remedy}")
        return ingest
    workers.release()  # they are idle, and the tasks need their processors
    share = payload_bytes(source) // (_FRAGMENTS_PER_TASK * tasks)
    fragment_bytes = max(LEAST_FRAGMENT_BYTES, min(MOST_FRAGMENT_BYTES, share))
    buffer_bytes = buffer_within(task.data.ingest_memory_mb - _RAY_MB, source)
    return ParallelIngest(pool=RayCrew(tasks, remark, labels), fragment_bytes=fragment_bytes, buffer_bytes=buffer_bytes)
