"""Requests and readmissions that ended long ago: recorded in buckets, and found there by id (D4).

    ended/<name>.json    a bucket: those whose ids' digests fall into it; replaced by a new object when more come

A state is always written as a whole, so requests that have ended leave it (``coordinator.decisions.ended``). Buckets
are split one at a time (linear hashing), so that each holds at most about 400 requests, and finding a request reads
one bucket.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from coordinator.decisions.ended import leaving, numbered
from coordinator.decisions.events import EndedKept
from coordinator.engine.codec import EMPTY_BUCKET, EndedBucket, decode_ended, encode_ended
from coordinator.engine.lookup import load_object
from coordinator.engine.removal import put_object
from coordinator.requests import ErasureRequest, ObjectRef, Readmission
from coordinator.state import FederationState
from storage.digests import canonical_json, sha256
from storage.errors import Conflict, Corrupt
from storage.objects import NewName, ObjectStore

PREFIX: Final = "ended/"
IN_A_BUCKET: Final = 192
"""Average number of requests in a bucket."""


def keep_ended(store: ObjectStore, new_name: NewName, state: FederationState) -> EndedKept | None:
    """Write the buckets with the requests that leave the state now, and return the event; None: no request leaves."""
    going = leaving(state)
    if not going:
        return None
    buckets = _Buckets(store, state)
    buckets.grow(1 + (state.ended.count + len(going)) // IN_A_BUCKET)
    number = {request.request_id: number for number, request in numbered(state)}
    for each in going:
        buckets.add(number.get(each.request_id, 0), each)
    return EndedKept(request_ids=tuple(each.request_id for each in going), buckets=buckets.written(new_name))


def find_known(
    store: ObjectStore, current: Callable[[], FederationState | None], request_id: str
) -> tuple[ErasureRequest | Readmission | None, FederationState | None]:
    """Return the request or readmission of this id, however old, and the state that was searched.

    ``current`` returns the state; it is called again if a writer has replaced a bucket meanwhile. Raises ``Corrupt``
    when a bucket is missing or damaged.
    """
    state = current()
    while state is not None:
        if (found := state.request(request_id) or state.readmission(request_id)) is not None:
            return found, state
        try:
            return _find_ended(store, state, request_id), state
        except Corrupt:
            newer = current()
            if newer is None or newer.ended == state.ended:
                raise
            state = newer
    return None, None


def find_request(
    store: ObjectStore, current: Callable[[], FederationState | None], request_id: str
) -> ErasureRequest | None:
    """Return the erasure request of this id, however old. Raises as ``find_known`` does."""
    found, _ = find_known(store, current, request_id)
    return found if isinstance(found, ErasureRequest) else None


def find_readmission(
    store: ObjectStore, current: Callable[[], FederationState | None], request_id: str
) -> Readmission | None:
    """Return the readmission of this id, however old. Raises as ``find_known`` does."""
    found, _ = find_known(store, current, request_id)
    return found if isinstance(found, Readmission) else None


def all_requests(store: ObjectStore, state: FederationState) -> tuple[ErasureRequest, ...]:
    """Return all accepted requests, in order of acceptance; reads every bucket. Raises as ``find_known`` does."""
    ended = (pair for bucket in buckets(store, state) for pair in bucket.requests)
    pairs = sorted((*ended, *numbered(state)), key=lambda pair: pair[0])
    return tuple(request for _, request in pairs)


def all_readmissions(store: ObjectStore, state: FederationState) -> tuple[Readmission, ...]:
    """Return all readmissions; reads every bucket. Raises as ``find_known`` does."""
    ended = (each for bucket in buckets(store, state) for each in bucket.readmissions)
    return (*sorted(ended, key=lambda each: each.at), *state.readmissions)


def buckets(store: ObjectStore, state: FederationState) -> Iterator[EndedBucket]:
    """Yield every bucket of the state that is not empty. Raises ``Corrupt``."""
    return (_load(store, ref) for ref in state.ended.buckets if ref is not None)


class _Buckets:
    """The buckets of a state, while requests are added to them."""

    def __init__(self, store: ObjectStore, state: FederationState) -> None:
        self._store = store
        self._refs = list(state.ended.buckets)
        self._changed: dict[int, EndedBucket] = {}

    def grow(self, count: int) -> None:
        """Split buckets until there are at least ``count``; each new one takes its part of an existing one."""
        while len(self._refs) < count:
            self._refs.append(None)
            new = len(self._refs) - 1
            parted = self._at(new - _largest_power(new)) if new else EMPTY_BUCKET
            self._changed.update(dict.fromkeys({new, new - _largest_power(new) if new else new}, EMPTY_BUCKET))
            for number, request in parted.requests:
                self.add(number, request)
            for readmission in parted.readmissions:
                self.add(0, readmission)

    def add(self, number: int, each: ErasureRequest | Readmission) -> None:
        """Add a request or readmission."""
        place = _place(each.request_id, len(self._refs))
        was = self._at(place)
        if isinstance(each, Readmission):
            self._changed[place] = replace(was, readmissions=(*was.readmissions, each))
        else:
            self._changed[place] = replace(was, requests=(*was.requests, (number, each)))

    def written(self, new_name: NewName) -> tuple[ObjectRef | None, ...]:
        """Write the changed buckets, and return all."""
        for place, bucket in self._changed.items():
            payload = canonical_json(encode_ended(bucket))
            holds = bucket.requests or bucket.readmissions
            self._refs[place] = put_object(self._store, new_name, PREFIX, ".json", payload) if holds else None
        return tuple(self._refs)

    def _at(self, place: int) -> EndedBucket:
        if place not in self._changed:
            ref = self._refs[place]
            return EMPTY_BUCKET if ref is None else _load(self._store, ref)
        return self._changed[place]


def _find_ended(store: ObjectStore, state: FederationState, request_id: str) -> ErasureRequest | Readmission | None:
    refs = state.ended.buckets
    ref = refs[_place(request_id, len(refs))] if refs else None
    if ref is None:
        return None
    payload = load_object(store, ref)
    if canonical_json(request_id) not in payload:  # most ids are looked up once, when they are new: nothing is parsed
        return None
    bucket = decode_ended(json.loads(payload), only=request_id)
    found: tuple[ErasureRequest | Readmission, ...] = (*(each for _, each in bucket.requests), *bucket.readmissions)
    return found[0] if found else None


def _load(store: ObjectStore, ref: ObjectRef) -> EndedBucket:
    return decode_ended(json.loads(load_object(store, ref)))


def _place(request_id: str, count: int) -> int:
    """Return which of ``count`` buckets an id belongs to; a bucket that is not split yet serves two numbers."""
    power = _largest_power(count)
    digest = int(sha256(request_id.encode("utf-8", "surrogatepass")), 16)
    place = digest % (2 * power)
    return place if place < count else place - power


def _largest_power(count: int) -> int:
    """Return the largest power of two that is not above ``count``, which is at least 1."""
    return 1 << (count.bit_length() - 1)


def used_before(request_id: str) -> Conflict:
    """Return the error for an id that belongs to another demand (D4)."""
    return Conflict(
        "this request id was used before, for other subjects or data points",
        "Choose another --request-id, or repeat the request as it was.",
        request=request_id,
    )
