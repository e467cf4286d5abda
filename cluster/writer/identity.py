"""Which federation a store holds: the partition key, and the settings it was made with."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Final

from cluster.config.specification import (
    FederationSpecification,
    SettingDifference,
    describe_difference,
    settings_record,
)
from coordinator.decisions.times import MOST_SECONDS_BEHIND
from coordinator.engine.ledger import read_state
from coordinator.receipts.evidence import StoreEvidence
from coordinator.state import FederationState, ShardState
from shards.routing import Naming, PartitionKey
from shards.slices.files import EMPTY_SLICE
from shards.slices.ingest import taken_from
from storage.digests import Json, Sha256, sha256
from storage.encryption.store import SealedStore
from storage.errors import Conflict, Corrupt, Invalid, ObjectMissing, Unavailable
from storage.objects import ObjectStore, object_key
from storage.registers.create_once import create_or_read
from storage.s3.bucket import Describes, StoreFacts

KEY_OBJECT: Final = object_key("control/partition-key")

_IDENTITY: Final = ("name", "data.id", "data.subject", "partition.")
"""Settings that identify the federation: with others no digest in the store would have the same meaning."""

NEW_FORM: Final = "trimmed"
"""The form of names in a new federation whose specification does not set one."""

_NO_RESULT: Final = ("partition.key",)
"""Whether the key was given or drawn does not matter; its digest shows whether it is the same key."""


def partition_key(store: ObjectStore, specification: FederationSpecification, *, draw: bool) -> PartitionKey:
    """Return the partition key: the specification's own, or the one drawn once and kept in the store.

    With ``draw`` it is durable when this returns, even if another process drew it.
    Raises ``Invalid`` when ``draw`` is false and there is no key yet: nothing was trained.
    """
    if specification.partition.key is not None:
        return PartitionKey(bytes.fromhex(specification.partition.key))
    try:
        return _key_from((store.get_durable if draw else store.get)(KEY_OBJECT).payload)
    except ObjectMissing:
        if not draw:
            raise untrained(specification) from None
    return _key_from(create_or_read(store, KEY_OBJECT, secrets.token_hex(32).encode()))


def with_key_in_store(store: ObjectStore, specification: FederationSpecification) -> FederationSpecification:
    """Write the partition key of the specification to the store, and return the specification without it.

    Ray keeps what is sent to its actors and to Serve in its metadata, so they read the key from the store. Raises
    ``Conflict`` when the store holds a federation with another key.
    """
    given = specification.partition.key
    if given is None:
        return specification
    state = read_state(store)
    if state is not None and state.is_begun:
        check_identity(state, specification, PartitionKey(bytes.fromhex(given)))
    try:
        keep_given_key(store, specification)
    except Unavailable as error:
        raise Unavailable(
            "the store does not have the partition key that the specification gives, and it cannot be put there:"
            f" {error.message}",
            "Run 'sisa train' or 'sisa launch' once with an account that may write; afterwards read access is enough.",
            store=store.location,
            key=KEY_OBJECT,
        ) from error
    return replace(specification, partition=replace(specification.partition, key=None))


def keep_given_key(store: ObjectStore, specification: FederationSpecification) -> None:
    """Write the partition key of the specification to its federation's store, unless it is there."""
    given = (specification.partition.key or "").encode("ascii")
    if not given:
        return
    try:
        stored = store.get(KEY_OBJECT)
    except ObjectMissing:
        if create_or_read(store, KEY_OBJECT, given) == given:
            return
        stored = store.get(KEY_OBJECT)
    if stored.payload != given:  # a key that was drawn before this one was given, and never used
        store.put_if_match(KEY_OBJECT, given, stored.tag)


def key_digest(key: PartitionKey) -> Sha256:
    """Return the digest that names ``key`` without giving it away."""
    return sha256(b"sisa/partition-key/" + key)


def fresh_state(specification: FederationSpecification, key: PartitionKey) -> FederationState:
    """Return the state of a federation that holds nothing yet."""
    empty = ShardState(slices=(EMPTY_SLICE,) * specification.partition.slices)
    return FederationState(
        name=specification.name,
        settings=settings_record(specification),
        key_digest=key_digest(key),
        shards=(empty,) * specification.partition.shards,
        naming=Naming(form=specification.data.subject_form or NEW_FORM, by_skeleton=True),
    )


def differences(state: FederationState, specification: FederationSpecification) -> tuple[SettingDifference, ...]:
    """Return the settings that decide results and differ between the training and the specification."""
    found = describe_difference(state.settings, settings_record(specification))
    return tuple(each for each in found if each.setting not in _NO_RESULT)


def check_identity(state: FederationState, specification: FederationSpecification, key: PartitionKey) -> None:
    """Raise ``Conflict`` when the store holds another federation than the specification's."""
    other = [each for each in differences(state, specification) if each.setting.startswith(_IDENTITY)]
    form = specification.data.subject_form
    if form is not None and form != state.naming.form:
        other.append(SettingDifference("data.subject_form", f'"{state.naming.form}"', f'"{form}"'))
    if state.key_digest != key_digest(key):
        other.append(SettingDifference("partition.key", "another key", "this key"))
    if other:
        raise Conflict(
            f"the store belongs to another specification:\n{side_by_side(other)}\n",
            "Put these settings back, or name another store for the new federation.",
            federation=state.name,
        )


def check_unchanged(state: FederationState, specification: FederationSpecification) -> None:
    """Raise ``Conflict`` when settings that decide results were changed since the training."""
    if changed := differences(state, specification):
        raise Conflict(
            f"settings differ from those the federation was trained with:\n{side_by_side(changed)}\n",
            "Put them back, or run 'sisa train' to retrain under the current ones.",
            federation=state.name,
        )
    check_taken(state, specification)  # the settings may be restored while the data are still the other ones


def check_taken(state: FederationState, specification: FederationSpecification) -> None:
    """Raise ``Conflict`` when the data were read under another label, other features or other classes."""
    now = taken_from(specification.data)
    if state.data is None or state.data.taken == now:
        return
    changed = describe_difference({"data": state.data.taken}, {"data": now})
    raise Conflict(
        f"the data points in the store were read under other settings:\n{side_by_side(changed)}\n",
        "Put them back, or run 'sisa train' with the source files in place, to read them again.",
        federation=state.name,
    )


def side_by_side(found: list[SettingDifference] | tuple[SettingDifference, ...]) -> str:
    """Return the differences as a small table: setting, what the store has, what the specification has."""
    header = ("setting", "in the store", "in the specification")
    lines = [header, *((each.setting, each.stored, each.current) for each in found)]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def describe_store(store: SealedStore, now: datetime) -> StoreEvidence:
    """Return what receipts say of the store: kind and encryption, never its place, which may hold a person's name."""
    scheme, colon, _ = store.location.partition(":")
    facts = store.facts()
    properties: dict[str, Json] = {
        "encryption": f"{facts.algorithm}, a key for each object, wrapped by {facts.wrapping}",
        "keys_in_another_store": facts.apart,
        "purged_objects": "their keys were destroyed before their bytes were deleted",
    }
    bucket = bucket_facts(store, now)
    if bucket is not None:
        properties |= {
            "versioning": bucket.versioning,
            "object_lock": bucket.object_lock,
            "replication": bucket.replication,
        }
    return StoreEvidence(
        kind={"s3": "s3", "memory": "memory"}.get(scheme, "folder") if colon else "folder",
        properties=properties,
        exceptions=(*out_of_reach(bucket), *clock_differs(bucket)) if bucket else (),
    )


def bucket_facts(store: SealedStore, now: datetime) -> StoreFacts | None:
    """Return what is known of the store's bucket; None if the store is not in a bucket."""
    return store.inner.describe(now) if isinstance(store.inner, Describes) else None


def out_of_reach(bucket: StoreFacts) -> Iterator[str]:
    """Yield a sentence about each thing that the bucket keeps in spite of an erasure. Receipts hold them."""
    if bucket.object_lock:
        yield "The bucket can lock objects against deletion: what is locked stays until its lock ends, encrypted."
    if bucket.replication:
        yield "The bucket replicates its objects: copies in other buckets are not deleted; they stay, encrypted."
    if bucket.server.startswith("SeaweedFS"):
        yield (
            "The server keeps deleted bytes on its disk until it compacts (volume.vacuum), destroyed keys among them"
            " if these are in the same store."
        )
    if bucket.replication is None or bucket.object_lock is None:
        yield "Whether the bucket locks or replicates objects could not be read with these credentials."


def clock_differs(bucket: StoreFacts) -> Iterator[str]:
    """Yield a sentence if the server's clock, which the operator cannot set, differs from this machine's."""
    apart = bucket.clock_difference_seconds
    if apart is not None and abs(apart) > MOST_SECONDS_BEHIND:
        way = "behind" if apart > 0 else "ahead of"
        yield f"The clock of the machine that stated these times was {abs(apart):,.0f} seconds {way} the store's."


def untrained(specification: FederationSpecification) -> Invalid:
    """Return the error for a federation that holds nothing yet."""
    return Invalid(
        "the federation holds no data yet",
        "Run 'sisa train'.",
        federation=specification.name,
        store=specification.store,
    )


def no_federation(specification: FederationSpecification, place: str) -> Invalid:
    """Return the error for a store in which no federation was ever begun; ``place`` is the store's."""
    return Invalid(
        "there is no federation here",
        "Check 'store' in the specification, or begin a new federation there with 'sisa train'.",
        federation=specification.name,
        store=place,
    )


def require_data(state: FederationState | None, specification: FederationSpecification) -> FederationState:
    """Return the state if it holds data points; else raise ``Invalid``."""
    if state is None or state.data is None:
        raise untrained(specification)
    return state


def trained(
    state: FederationState | None, store: ObjectStore, specification: FederationSpecification
) -> tuple[FederationState, PartitionKey]:
    """Return the state, which has data and fits this specification, and the partition key.

    Raises ``Invalid`` when nothing was trained, ``Conflict`` when the store is another federation's or settings have
    changed.
    """
    if state is None:
        raise untrained(specification)
    key = partition_key(store, specification, draw=False)
    check_identity(state, specification, key)
    check_unchanged(require_data(state, specification), specification)
    return state, key


def _key_from(payload: bytes) -> PartitionKey:
    try:
        return PartitionKey(bytes.fromhex(payload.decode("ascii")))
    except ValueError as error:
        raise Corrupt(
            "the partition key in the store is damaged", "Restore it from a copy of the store.", key=KEY_OBJECT
        ) from error
