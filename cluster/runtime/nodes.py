"""The cluster's nodes: their processors, and whether they see the same files as this one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.release import Sent
from cluster.runtime.labels import Labels, labels_in_words, require_nodes
from cluster.runtime.task_pool import cause_of, perform
from shards.data.sources import Source
from storage.errors import Invalid, ObjectMissing
from storage.location import is_on_s3
from storage.objects import NewName, ObjectKey, ObjectStore, object_key

_REMEDY = "Put data and store on S3 or in folders that all nodes share, or set [cluster] ingest_workers = 1."


def sizes_seen(paths: Sequence[Path], store: ObjectStore, probe: ObjectKey | None) -> list[int | None] | None:
    """Return the size of each file on this node; None if the node does not see the store that holds ``probe``."""
    if probe is not None:
        try:
            store.get(probe)
        except ObjectMissing:
            return None
    return [_size_seen(path) for path in paths]


_remote: Any = ray.remote
asking_task = _remote(num_cpus=0, max_retries=0)(perform)


def processors() -> int:
    """Return the number of the cluster's processors."""
    return processors_of({})


def processors_of(labels: Labels) -> int:
    """Return the number of processors of the nodes with these labels. Raises ``Unavailable`` if no node has them."""
    return sum(int(node["Resources"].get("CPU", 0)) for node in require_nodes(labels))


def check_nodes(source: Source, store: ObjectStore, new_name: NewName, labels: Labels | None = None) -> None:
    """Raise ``Invalid`` unless every node with a processor sees the source's files, and the store, as this one does.

    ``new_name`` names the temporary object by which the nodes recognise the store. With ``labels``, only nodes that
    have them count. Raises ``Unavailable`` when no node has them.
    """
    wanted = labels or {}
    nodes = [node for node in require_nodes(wanted) if node["Resources"].get("CPU", 0) >= 1]
    if not nodes:
        such = f" with the labels {labels_in_words(wanted)}" if wanted else ""
        raise Invalid(f"no node of the cluster{such} has a processor to read data", "Set [cluster] ingest_workers = 1.")
    files = {file.name: file.path for file in source.files if file.path is not None}
    here = ray.get_runtime_context().get_node_id()
    if [node["NodeID"] for node in nodes] == [here] or (not files and is_on_s3(store.location)):
        return
    expected = [_size_seen(path) for path in files.values()]
    with _probe_in(store, new_name) as probe:
        answers = [_ask(node, list(files.values()), store, probe) for node in nodes]
        for answer, node in zip(answers, nodes, strict=True):
            _compare(dict(zip(files, expected, strict=True)), _answered(answer), node["NodeManagerAddress"])


@contextmanager
def _probe_in(store: ObjectStore, new_name: NewName) -> Iterator[ObjectKey | None]:
    """Yield the key of a temporary object in the store; None for a bucket, which is the same from everywhere."""
    if is_on_s3(store.location):
        yield None
        return
    probe = object_key(f"requests/{new_name()}.probe")  # a sweep deletes one that is left behind
    store.put_if_absent(probe, b"Is this the store that you see?")
    try:
        yield probe
    finally:
        store.delete(probe)


def _ask(node: dict[str, Any], paths: Sequence[Path], store: ObjectStore, probe: ObjectKey | None) -> Any:
    # The task does not check its node's labels: Ray runs it on exactly this node of ``ray.nodes``, or not at all.
    there = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
    return asking_task.options(scheduling_strategy=there).remote(*map(Sent, (sizes_seen, paths, store, probe)))


def _answered(answer: Any) -> list[int | None] | None:
    try:
        sizes: list[int | None] | None = ray.get(answer)
    except RayError as error:
        raise cause_of(error) from error
    return sizes


def _compare(expected: dict[str, int | None], sizes: Sequence[int | None] | None, node: str) -> None:
    if sizes is None:
        raise Invalid("a node of the cluster does not see the store's folder", _REMEDY, node=node)
    unlike = [name for name, size in zip(expected, sizes, strict=True) if expected[name] != size]
    if unlike:
        fact = f"a node of the cluster does not see {len(unlike)} of the data's files as this one does"
        raise Invalid(fact, _REMEDY, node=node, file=unlike[0])


def _size_seen(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
