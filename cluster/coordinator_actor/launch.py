"""Launching, finding and stopping a federation's coordinator.

Two federations with the same name have different stores, and so different Ray namespaces: their coordinators are apart.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.config.serve import ServeSettings
from cluster.config.specification import ClusterSettings, FederationSpecification
from cluster.coordinator_actor.actor import (
    ACTOR_NAME,
    CoordinatorActor,
    RemoteWriter,
    patiently,
    unwrapped,
)
from cluster.coordinator_actor.ownership import Adoption, check_shown, is_copy, is_place_on_record, record_adoption
from cluster.coordinator_actor.record import RECORD_KEY, Launched, note_release, read_record, write_record
from cluster.release import EARLIER, OtherRelease, Sent, own_release, refuse_other, said_by
from cluster.runtime.contact import make_token
from cluster.runtime.head import Head, is_reachable, start_head, stop_head
from cluster.runtime.labels import selecting
from cluster.runtime.session import join_ray, leave_ray, worker_count
from cluster.runtime.system import holder
from cluster.writer.identity import with_key_in_store
from cluster.writer.keys_owner import check_owner, is_of_others, own_keys
from cluster.writer.place import take_place
from cluster.writer.stores import open_objects
from coordinator.delays import check_reason
from coordinator.ports import Listener
from coordinator.receipts.rollback import refuse_restoring
from storage.digests import sha256
from storage.encryption.store import SealedStore
from storage.errors import Conflict, SisaError, Unavailable
from storage.location import is_on_s3
from storage.objects import ObjectStore, new_name

_JOIN_SECONDS: Final = 60.0
"""How long a Ray head of our own may take to be ready."""

_STARTS: Final = 3
"""How often a Ray head is started: it gives itself up after 30 seconds, which a busy machine may need."""

_READY_SECONDS: Final = 300.0
"""How long its process may take to start, on a busy machine."""

_RETRY_SECONDS: Final = 0.5

_STOP_SECONDS: Final = 60.0
"""How long a coordinator that is being stopped may take to finish its step before its process is ended."""


_OURS: Final = "shards."
"""Prefix of the import paths of models that come with this system."""


def namespace_of(specification: FederationSpecification, store: ObjectStore) -> str:
    """Return the Ray namespace of the federation in ``store``."""
    return f"sisa-{specification.name}-{_mark(store)}"


def _mark(store: ObjectStore) -> str:
    return sha256(store.location.encode())[:12]


def launch_coordinator(specification: FederationSpecification) -> Launched:
    """Start the federation's coordinator on its Ray cluster, or find it running; return where it is.

    With ``[cluster] address = "local"`` this starts a Ray head on this machine, which outlives this process.

    A partition key in the specification is written to the store, where the coordinator reads it.

    Raises ``Conflict`` when a coordinator is at work under another specification or of another release, the store
    belongs to another federation or is a copy that names the original's coordinator, ``Invalid`` when no node can hold
    a worker, ``Unavailable`` when the cluster cannot be reached, or no node has the labels.
    """
    store = open_objects(specification)
    record = read_record(store)
    if record is not None and (handle := _handle(record)) is not None:
        refuse_other_release(handle)
        _check_own(handle, store, record.namespace)  # a copy is not written to either
        _refuse_other(handle, with_key_in_store(store, specification))
        note_release(store, "coordinator", is_there=True)
        return record
    check_owner(store)
    specification = with_key_in_store(store, specification)
    namespace = namespace_of(specification, store)
    head = _join(specification)
    try:
        worker_count(specification.cluster, specification.partition.shards)
        handle = _named(namespace)
        if handle is not None:  # the coordinator of this store, or of one with the same name on another machine
            refuse_other_release(handle)
            _check_own(handle, store, namespace)
        else:
            handle = CoordinatorActor.options(
                name=ACTOR_NAME, namespace=namespace, lifetime="detached", get_if_exists=True, **_place(specification)
            ).remote(Sent(specification))
        _await_ready(handle)
        _check_own(handle, store, namespace)
    except BaseException:
        if head is not None:
            leave_ray()
            stop_head(head.process, head.address)
        raise
    launched = Launched(
        address=head.address if head else ray.get_runtime_context().gcs_address,
        namespace=namespace,
        head=head.process if head else None,
    )
    write_record(store, launched)
    note_release(store, "coordinator", is_there=True)
    return launched


def differing_parts(at_work: FederationSpecification, wanted: FederationSpecification) -> tuple[str, ...]:
    """Return the settings and tables in which two specifications must agree for a coordinator.

    ``[serve]`` concerns replicas only. The file's folder matters only where something is found relative to it: places,
    and a model's code.
    """
    one, other = _acted_on(at_work), _acted_on(wanted)
    return tuple(part.name for part in fields(one) if getattr(one, part.name) != getattr(other, part.name))


def find_coordinator(
    store: ObjectStore, listener: Listener, remark: Callable[[str], None], who: str = "command"
) -> RemoteWriter | None:
    """Return the coordinator at work on the federation in ``store``, and join its Ray; None if no coordinator runs.

    ``who`` names this process in errors. Raises ``OtherRelease`` when the coordinator runs another release,
    ``Conflict`` when it is the coordinator of another store, of which this one is a copy.
    """
    record = read_record(store)
    if record is None:
        return None
    handle = _handle(record)
    if handle is None:
        remark(f"the coordinator launched at {record.address} does not answer: the work is done here; see 'sisa stop'")
        return None
    refuse_other_release(handle, who)
    _check_own(handle, store, record.namespace)
    return RemoteWriter(handle, store, listener)


def is_at_work(store: ObjectStore) -> bool:
    """Return whether the federation's coordinator answers, regardless of its release, having joined its Ray.

    Raises ``Conflict`` when it is the coordinator of another store, of which this one is a copy.
    """
    record = read_record(store)
    handle = _handle(record) if record is not None else None
    if record is None or handle is None:
        return False
    _check_own(handle, store, record.namespace)
    return True


def stop_coordinator(store: ObjectStore) -> bool:
    """End the coordinator after its current step, and the Ray head started for it; return whether there was one.

    The next writer carries out what was accepted. Raises ``Conflict``, and ends nothing, when it is the coordinator of
    another store, of which this one is a copy.
    """
    record = read_record(store)
    if record is None:
        return False
    was_joined = ray.is_initialized()
    handle = _handle(record)
    if handle is not None:
        try:
            _check_own(handle, store, record.namespace)
        except (Unavailable, OtherRelease):
            if not is_place_on_record(store):
                raise  # it may be another store's coordinator, and does not say which store it writes
        ray.wait([handle.stop.remote()], timeout=_STOP_SECONDS)
        ray.kill(handle, no_restart=True)
    if record.head is not None or not was_joined:  # a process that had joined this cluster before stays in it
        leave_ray()
    if record.head is not None and (handle is not None or is_place_on_record(store)):
        stop_head(record.head, record.address)
    store.delete(RECORD_KEY)
    note_release(store, "coordinator", is_there=False)
    return True


def adopt_copy(store: SealedStore, reason: str, now: datetime, own_id: str) -> Adoption:
    """Turn a copy of a store into a separate federation, which may be written and launched; return the record.

    The original and its coordinator are left alone. Raises ``Invalid`` for a bad reason, ``Conflict`` when the store is
    not a copy, ``Unavailable`` when the coordinator that it names runs and does not say which store it writes.
    """
    check_reason(reason)
    refuse_restoring(store)
    record = read_record(store)
    is_copied = is_of_others(store)
    if record is None and not is_copied:
        raise Conflict(
            "this store names no coordinator, and its keys and its place are its own: there is nothing to adopt",
            "Give commands here right away, or run 'sisa launch'.",
            store=store.location,
        )
    if record is not None and _is_launched_here(record, store, by_place=not is_copied):
        raise Conflict(
            "this store is not a copy: the coordinator that it names was launched on it",
            "Run 'sisa stop' to end that coordinator.",
            store=store.location,
        )
    original = "" if record is None else record.namespace
    adoption = Adoption(id=own_id, at=now.isoformat(timespec="seconds"), reason=reason, original=original)
    with store.exclusive("writer", holder=holder("adopt", now)):
        own_keys(store, take=True)
        record_adoption(store, adoption)
        take_place(store, own_id)  # last, so that the store counts as a copy until the adoption is recorded
    return adoption


def _acted_on(specification: FederationSpecification) -> FederationSpecification:
    """Return what a coordinator uses: full paths, no ``[serve]``, the folder only for the user's own code."""
    whole, witness = partial(_whole, specification.folder), specification.receipts.witness
    return replace(
        specification,
        store=whole(specification.store),
        keys=specification.keys and whole(specification.keys),
        data=replace(specification.data, train=whole(specification.data.train)),
        receipts=replace(specification.receipts, witness=witness and whole(witness)),
        folder=Path() if specification.model.factory.startswith(_OURS) else specification.folder,
        serve=ServeSettings(),
    )


def _whole(folder: Path, place: str) -> str:
    """Return a path made absolute from ``folder``, or an address unchanged."""
    return place if "://" in place else os.path.normpath(folder / Path(place).expanduser())


def _join(specification: FederationSpecification) -> Head | None:
    """Join the cluster; return the head where one was started."""
    if specification.cluster.address != "local" or ray.is_initialized():
        join_ray(specification.cluster)
        return None
    make_token()
    for left in reversed(range(_STARTS)):
        head = start_head(specification.cluster.labels)
        try:
            _join_head(head)
        except BaseException as error:
            stop_head(head.process, head.address)
            if not left or not isinstance(error, Unavailable):
                raise
        else:
            return head
    raise AssertionError  # the last attempt has returned or raised


def _join_head(head: Head) -> None:
    until = monotonic() + _JOIN_SECONDS
    while True:  # its port is open before it can answer
        try:
            join_ray(ClusterSettings(address=head.address))
        except Unavailable:
            if monotonic() > until or not is_reachable(head.address):  # a head that starts too slowly ends itself
                raise
            sleep(_RETRY_SECONDS)
        else:
            return


def _handle(record: Launched) -> Any | None:
    """Return the actor of the record, having joined its Ray; None when it does not answer."""
    if not is_reachable(record.address):
        return None  # Ray would wait a minute for it, and then end this process
    if not ray.is_initialized():
        try:
            join_ray(ClusterSettings(address=record.address))
        except Unavailable:
            return None
    return _named(record.namespace)


def _named(namespace: str) -> Any | None:
    """Return the coordinator's actor in a namespace of the Ray that is joined; None when there is none."""
    try:
        return ray.get_actor(ACTOR_NAME, namespace=namespace)
    except (ValueError, RayError):
        return None


def _is_launched_here(record: Launched, store: ObjectStore, *, by_place: bool) -> bool:
    """Return whether the coordinator writes ``store``.

    If it is gone, the place that it recorded decides, but only with ``by_place``. Raises ``Unavailable`` when it runs
    and does not answer.
    """
    was_joined = ray.is_initialized()
    handle = _handle(record)
    try:
        if handle is None:
            return by_place and is_place_on_record(store)
        _check_own(handle, store, record.namespace)
    except OtherRelease:  # it was started again from another package, and writes nothing
        return by_place and is_place_on_record(store)
    except Conflict:
        return False
    finally:
        if not was_joined:
            leave_ray()
    return True


def _check_own(handle: Any, store: ObjectStore, namespace: str) -> None:
    """Raise ``Conflict`` when the actor writes another store than ``store``, ``Unavailable`` when it does not answer.

    For a release that cannot be asked, the namespace decides, which is derived from the place of its store.
    """
    if _release_of(handle) == EARLIER:
        if not namespace.endswith(_mark(store)):
            raise is_copy(store, f"that of the coordinator {namespace}")
        return
    nonce = new_name()
    check_shown(patiently(lambda: handle.show.remote(nonce=nonce)), nonce, store)


def _place(specification: FederationSpecification) -> dict[str, Any]:
    """Return where the actor has to run: on a node with the labels, or else on this node if the store is a folder.

    With labels, a store in a folder must be on a disk that all nodes with these labels share.
    """
    if specification.cluster.labels or is_on_s3(specification.store):
        return selecting(specification.cluster.labels)
    here = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=here, soft=False)}


def _await_ready(handle: Any) -> None:
    """Wait until the coordinator is ready; if an error keeps it from working, end it and raise that error."""
    try:
        patiently(handle.ready.remote, answer_seconds=_READY_SECONDS)
    except SisaError:
        ray.kill(handle, no_restart=True)
        raise


def refuse_other_release(handle: Any, who: str = "command") -> None:
    """Raise ``OtherRelease`` when the coordinator runs another release, where the same values may differ in meaning."""
    refuse_other(
        f"the coordinator at work runs another release than this {who}",
        **{"coordinator": _release_of(handle), who: own_release()},
    )


def _release_of(handle: Any) -> str:
    """Return the release that the coordinator's process reports; works for every release and in every state.

    This is the first call to a coordinator. A method of our own could end an older process: a handle has the methods
    that this process knows, and Ray does not recover from a call to one that the actor lacks. The argument is passed by
    name, because Ray does not know the signatures of a class that it cannot load here.
    """
    try:
        said: str = patiently(lambda: handle.__ray_call__.remote(fn=said_by))
    except OtherRelease:  # it has no such function
        return EARLIER
    return said


def _refuse_other(handle: Any, specification: FederationSpecification) -> None:
    if differing := differing_parts(unwrapped(handle.specification.remote()), specification):
        raise Conflict(
            "a coordinator is at work under another version of the specification",
            "Run 'sisa stop', then 'sisa launch' again.",
            federation=specification.name,
            differing=",".join(differing),
        )
