"""Launching, finding and stopping a federation's coordinator.

Two federations of one name have two stores, and so two namespaces: their coordinators never meet.
"""

from __future__ import annotations

import os
import secrets
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
from coordinator.decisions.policy import check_reason
from coordinator.ports import Listener
from coordinator.receipts.rollback import refuse_restoring
from storage.digests import sha256
from storage.encryption.store import SealedStore
from storage.errors import Conflict, SisaError, Unavailable
from storage.location import is_on_s3
from storage.objects import ObjectStore

_JOIN_SECONDS: Final = 60.0
"""How long a Ray head of our own may take to be ready."""

_READY_SECONDS: Final = 300.0
"""How long its process may take to start, on a busy machine."""

_RETRY_SECONDS: Final = 0.5

_STOP_SECONDS: Final = 60.0
"""How long the present step of a coordinator that is stopped may take; then it is ended in the middle of it."""


_OURS: Final = "shards."
"""How an import path begins to a model that comes with this system."""


def namespace_of(specification: FederationSpecification, store: ObjectStore) -> str:
    """Return the Ray namespace of the federation in ``store``."""
    return f"sisa-{specification.name}-{_mark(store)}"


def _mark(store: ObjectStore) -> str:
    return sha256(store.location.encode())[:12]


def launch_coordinator(specification: FederationSpecification) -> Launched:
    """Start the federation's coordinator on its Ray cluster, or find it at work; return where it is.

    With ``[cluster] address = "local"`` a Ray head of its own is started on this machine, and outlives this process.

    A partition key that the specification gives is kept in the store, where the coordinator reads it.

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
        if handle is not None:  # of this store, or of one that has its name on another machine or server
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
            stop_head(head.process)
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
    """Return the settings and tables in which two specifications would have a coordinator do different things.

    ``[serve]`` is for replicas. Where the file lies matters only for what is found from there: places, and a model's
    code.
    """
    one, other = _acted_on(at_work), _acted_on(wanted)
    return tuple(part.name for part in fields(one) if getattr(one, part.name) != getattr(other, part.name))


def find_coordinator(
    store: ObjectStore, listener: Listener, remark: Callable[[str], None], who: str = "command"
) -> RemoteWriter | None:
    """Return the coordinator at work on the federation in ``store``, having joined its Ray; None when there is none.

    ``who`` is what this process is called. Raises ``OtherRelease`` when the coordinator runs another one, ``Conflict``
    when it is that of another store, of which this one is a copy.
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
    """Return whether the federation's coordinator answers, of whichever release, having joined its Ray.

    Raises ``Conflict`` when it is the coordinator of another store, of which this one is a copy.
    """
    record = read_record(store)
    handle = _handle(record) if record is not None else None
    if record is None or handle is None:
        return False
    _check_own(handle, store, record.namespace)
    return True


def stop_coordinator(store: ObjectStore) -> bool:
    """End the coordinator after its present step, and the Ray head started for it; return whether there was one.

    What was accepted is carried out by whoever writes next. Raises ``Conflict``, and ends nothing, when it is the
    coordinator of another store, of which this one is a copy.
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
                raise  # it may be another store's, and does not say which one is its own
        ray.wait([handle.stop.remote()], timeout=_STOP_SECONDS)
        ray.kill(handle, no_restart=True)
    if record.head is not None or not was_joined:  # who is part of the cluster for other reasons stays
        leave_ray()
    if record.head is not None and (handle is not None or is_place_on_record(store)):
        stop_head(record.head)
    store.delete(RECORD_KEY)
    note_release(store, "coordinator", is_there=False)
    return True


def adopt_copy(store: SealedStore, reason: str, now: datetime, own_id: str) -> Adoption:
    """Make the store, a copy, a federation of its own that may be written and launched; return what is recorded of it.

    The original and its coordinator are left alone. Raises ``Invalid`` for a bad reason, ``Conflict`` when the store is
    no copy, ``Unavailable`` when the coordinator that it names is there and does not say which store it writes.
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
            "this store is no copy: the coordinator that it names was launched on it",
            "Run 'sisa stop' to end that coordinator.",
            store=store.location,
        )
    original = "" if record is None else record.namespace
    adoption = Adoption(id=own_id, at=now.isoformat(timespec="seconds"), reason=reason, original=original)
    with store.exclusive("writer", holder=holder("adopt", now)):
        own_keys(store, take=True)
        record_adoption(store, adoption)
        take_place(store, own_id)  # last: a copy stays one until the adoption is on record
    return adoption


def _acted_on(specification: FederationSpecification) -> FederationSpecification:
    """Return what a coordinator acts on: places in full, nothing of serving, the folder only for code of one's own."""
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
    """Return a path as it is found from ``folder``, an address as it is."""
    return place if "://" in place else os.path.normpath(folder / Path(place).expanduser())


def _join(specification: FederationSpecification) -> Head | None:
    """Join the cluster; return the head where one was started."""
    if specification.cluster.address != "local" or ray.is_initialized():
        join_ray(specification.cluster)
        return None
    make_token()
    head = start_head(specification.cluster.labels)
    until = monotonic() + _JOIN_SECONDS
    try:
        while True:  # its door is open before there is somebody behind it
            try:
                join_ray(ClusterSettings(address=head.address))
            except Unavailable:
                if monotonic() > until:
                    raise
                sleep(_RETRY_SECONDS)
            else:
                return head
    except BaseException:
        stop_head(head.process)
        raise


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
    """Return whether the coordinator writes ``store``; where it is gone, whether it has said so, if that counts.

    Raises ``Unavailable`` when it is there and does not answer.
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

    One of a release that cannot be asked is judged by its namespace, which follows from where its store was.
    """
    if _release_of(handle) == EARLIER:
        if not namespace.endswith(_mark(store)):
            raise is_copy(store, f"that of the coordinator {namespace}")
        return
    nonce = secrets.token_hex(16)
    check_shown(patiently(lambda: handle.show.remote(nonce=nonce)), nonce, store)


def _place(specification: FederationSpecification) -> dict[str, Any]:
    """Return where the actor has to be: on a node with the labels, else beside a store in a folder of this node.

    With labels a store in a folder is one that all nodes share which have them.
    """
    if specification.cluster.labels or is_on_s3(specification.store):
        return selecting(specification.cluster.labels)
    here = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=here, soft=False)}


def _await_ready(handle: Any) -> None:
    """Raise what keeps the coordinator from working, and end it then."""
    try:
        patiently(handle.ready.remote, answer_seconds=_READY_SECONDS)
    except SisaError:
        ray.kill(handle, no_restart=True)
        raise


def refuse_other_release(handle: Any, who: str = "command") -> None:
    """Raise ``OtherRelease`` when the coordinator runs another one: what is sent would mean something else there."""
    refuse_other(
        f"the coordinator at work runs another release than this {who}",
        **{"coordinator": _release_of(handle), who: own_release()},
    )


def _release_of(handle: Any) -> str:
    """Return what the coordinator's process says of its release, in every release and in every state.

    Asked before anything else. By a method of ours an older process would end: a handle has the methods that are known
    here, and Ray does not recover from one that the actor does not have. The argument is named, because of a class that
    cannot be loaded here Ray knows no places.
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
