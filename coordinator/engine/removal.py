"""Removes or corrects the data points that requests name, and returns the events (E2, E10, E12).

Requests that arrive together are handled together: each slice is read and written once for all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from coordinator.decisions.events import (
    NothingToErase,
    PointsRemoved,
    ValuesKept,
)
from coordinator.decisions.plan import RetrainPlanner, total, trained_epochs
from coordinator.engine.corrections import Corrected, Corrections, are_intact
from coordinator.engine.lookup import load_digests
from coordinator.engine.state_encoder import StateEncoder
from coordinator.requests import (
    MOST_INLINE,
    NONE_SIMILAR,
    Cost,
    ErasureRequest,
    InlineDigests,
    ObjectRef,
    Segment,
    Similar,
)
from coordinator.state import FederationState, ShardState
from shards.points import PointBlock
from shards.routing import SliceId, slices_of
from shards.slices.files import SliceRecord, identities
from shards.specification import ShardId, SliceIndex
from shards.tombstones import NOTHING, DigestSet
from storage.digests import sha256
from storage.objects import NewName, ObjectStore, object_key

NOTHING_TO_ERASE: Final = "no data point of these subjects or ids is in the federation: there is nothing to erase"

_MERGED_WITHIN: Final = 2
"""A segment of tombstones is merged with the next one unless it is more than twice as large. So each digest is written
about once for every doubling of the number of tombstones."""


_UNAFFECTED: Final = ShardState(slices=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """The subjects and ids that one request names."""

    names: DigestSet
    include_similar: bool = False
    """Whether subjects whose names differ only in spelling are erased as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """The result of one demand."""

    removed: Mapping[SliceId, int]
    """Number of removed data points by slice, without those that an earlier demand of the batch names too. The slices
    include those of hold-out points."""
    found: DigestSet
    """The names that have a data point, with similar ones if they are included. Only these get tombstones: a misspelt
    name must not keep out another person for good."""
    points: DigestSet
    """Digests of the removed data points."""
    missing: DigestSet
    """Names of the demand without a data point."""
    similar: Similar
    """Data points that stay, of subjects whose names differ only in spelling from those of the demand."""


def find_points(
    store: ObjectStore, state: FederationState, batch: Sequence[Demand], *, apart: bool = False
) -> tuple[Removal, ...]:
    """Return the result of each demand, in order, without writing anything. ``apart``: as if each were the only one.

    Routing locates the slices of subjects and of similar subjects. Every slice is searched for points that are named by
    id, and for all points if data points may have several subjects. Hold-out points are found in the same way.
    """
    searches = [_Search(demand, by_skeleton=state.naming.by_skeleton) for demand in batch]
    for where, numbers in sorted(_search(state, batch).items()):
        for block in identities(store, state.slice(where)):
            left = block
            for number in numbers:
                rest = searches[number].take(left, where)
                left = block if apart else rest
    return tuple(search.removal() for search in searches)


@dataclass(slots=True)
class _Search:
    """The search for one demand, slice by slice."""

    demand: Demand
    by_skeleton: bool
    _removed: dict[SliceId, int] = field(default_factory=dict)
    _found: list[DigestSet] = field(default_factory=list)
    _points: list[DigestSet] = field(default_factory=list)
    _alike: int = 0
    _subjects_alike: list[DigestSet] = field(default_factory=list)

    def take(self, block: PointBlock, where: SliceId) -> PointBlock:
        """Record the data points of ``block`` that the demand names, and return the others."""
        names = self.demand.names
        named = names.contains(block)
        if self.by_skeleton and names.subjects:
            alike = names.resembles(block) & ~named
            if self.demand.include_similar:
                # Similar subjects, even if all of their data points are named by id.
                self._found += [names.alike_in(block), names.resembled_in(block)]
                named |= alike
            elif alike.any():
                self._alike += int(alike.sum())
                self._subjects_alike.append(names.alike_in(block.take(alike)))
        if not named.any():
            return block
        self._removed[where] = self._removed.get(where, 0) + int(named.sum())
        self._found.append(names.among(block))
        self._points.append(DigestSet.points_of(block.take(named)))
        return block.take(~named)

    def removal(self) -> Removal:
        """Return the result."""
        found = NOTHING.union(*self._found)
        return Removal(
            removed=self._removed,
            found=found,
            points=NOTHING.union(*self._points),
            missing=self.demand.names.without(found),
            similar=Similar(points=self._alike, subjects=len(NOTHING.union(*self._subjects_alike))),
        )


def everyone(store: ObjectStore, state: FederationState) -> DigestSet:
    """Return all subjects that have data points here, or whose values corrections keep; the set may be empty.

    Values of a paused correction stay when a source drops their data points.
    """
    drafts = (rows.record for request in state.requests for rows in request.drafts if are_intact(store, request))
    records = (*(record for _, record in state.slices()), *(rows.record for rows in state.corrected), *drafts)
    return NOTHING.union(*(DigestSet.subjects_of(block) for record in records for block in identities(store, record)))


def removal_events(
    store: ObjectStore,
    new_name: NewName,
    state: FederationState,
    batch: Sequence[tuple[ErasureRequest, DigestSet]],
    at: str,
) -> Iterator[PointsRemoved | NothingToErase | ValuesKept]:
    """Write the slices without the named data points and with corrected values, and yield the events by request.

    The first event that changes anything holds all slices: the events belong into one commit.
    """
    requests = [request for request, _ in batch]
    erasures = [(request, digests) for request, digests in batch if request.correction is None]
    demands = [Demand(names=digests, include_similar=request.include_similar) for request, digests in erasures]
    removals = {
        request.request_id: removal
        for (request, _), removal in zip(erasures, find_points(store, state, demands), strict=True)
    }
    every = NOTHING.union(*(each.found for each in removals.values()), *(each.points for each in removals.values()))
    erased = {request_id: removal.points for request_id, removal in removals.items()}
    corrections = Corrections.of(store, state, requests, erased)
    places = corrections.rows.keys() | {where for removal in removals.values() for where in removal.removed}
    rewritten = {place: corrections.slice(store, state, every, place, new_name) for place in sorted(places)}
    slices = {where: record for where, record in rewritten.items() if where.shard != state.shard_of_holdout}
    holdout = None if slices == rewritten else tuple(_exchanged(state, rewritten))
    segments, before = state.segments, None
    if len(every):
        # If ids are subjects, the subjects' tombstones suffice: a subject who comes back has the same id.
        new = DigestSet(subjects=every.subjects) if ids_are_subjects(state) else every
        segments = with_tombstones(store, new_name, state.segments, new)
    if rewritten:
        kept_before = StateEncoder()(_with_only(state, {place.shard for place in rewritten}))
        before = put_object(store, new_name, "requests/", ".before", kept_before.text)
    kept = corrections.kept(store, state, requests, every.union(*(names for _, names in erasures)), new_name)
    if kept is not None:
        yield kept
    planner = _planner(state)
    for request, digests in batch:
        removal = removals.get(request.request_id) or _corrected(corrections.results[request.request_id], digests)
        if before is None or not removal.removed:
            is_here = request.correction is not None and len(removal.missing) < len(digests)
            yield NothingToErase(
                request_id=request.request_id,
                reason=NOTHING_TO_ERASE if request.correction is None else corrections.refusal(request.request_id),
                unknown=len(removal.missing) if is_here else len(digests),
                similar=removal.similar,
                at=at,
            )
            continue
        trained = {where: count for where, count in removal.removed.items() if where.shard != state.shard_of_holdout}
        yield PointsRemoved(
            request_id=request.request_id,
            removed=trained,
            slices=slices,
            held_out=sum(removal.removed.values()) - sum(trained.values()),
            holdout=holdout,
            tombstones=state.tombstones,
            segments=segments,
            before=before,
            unknown=len(removal.missing),
            missing=kept_names(store, new_name, removal.missing),
            similar=removal.similar,
            expected=_expected(planner, trained, stay=request.correction is not None),
            at=at,
        )
        slices, holdout = {}, None


def _with_only(state: FederationState, affected: Collection[ShardId]) -> FederationState:
    """Return the state as the receipts of requests that affect these shards need it: the other shards are empty.

    So what is kept for them does not grow with the number of shards.
    """
    shards = (shard if number in affected else _UNAFFECTED for number, shard in enumerate(state.shards))
    return replace(state, shards=tuple(shards), history=())


def _exchanged(state: FederationState, rewritten: Mapping[SliceId, SliceRecord]) -> Iterator[SliceRecord]:
    """Yield the hold-out slices with those that were rewritten in place of the old ones."""
    for index, record in enumerate(state.holdout, start=1):
        yield rewritten.get(SliceId(state.shard_of_holdout, SliceIndex(index)), record)


def _corrected(result: Corrected, names: DigestSet) -> Removal:
    """Return the result of a correction in the form of that of an erasure."""
    return Removal(
        removed=result.changed,
        found=result.found,
        points=NOTHING,
        missing=names.without(result.found),
        similar=NONE_SIMILAR,
    )


def with_tombstones(
    store: ObjectStore, new_name: NewName, segments: tuple[Segment, ...], new: DigestSet
) -> tuple[Segment, ...]:
    """Return the segments with ``new`` added: as a segment of its own, merged with those that are not much larger."""
    kept = list(segments)
    while kept and kept[-1].digests <= _MERGED_WITHIN * len(new):
        new = new.union(load_digests(store, kept.pop().ref))
    return (*kept, Segment(ref=put_digests(store, new_name, "tombstones", new), digests=len(new)))


def without_tombstones(
    store: ObjectStore, new_name: NewName, state: FederationState, gone: DigestSet
) -> tuple[ObjectRef | None, tuple[Segment, ...]]:
    """Return the state's tombstones without ``gone``; objects that held any of those are written again."""
    tombstones = state.tombstones
    if tombstones is not None:
        held = load_digests(store, tombstones)
        left = held.without(gone)
        if len(left) < len(held):
            tombstones = put_digests(store, new_name, "tombstones", left) if len(left) else None
    segments = []
    for segment in state.segments:
        held = load_digests(store, segment.ref)
        left = held.without(gone)
        if len(left) == len(held):
            segments.append(segment)
        elif len(left):
            segments.append(Segment(ref=put_digests(store, new_name, "tombstones", left), digests=len(left)))
    return tombstones, tuple(segments)


def ids_are_subjects(state: FederationState) -> bool:
    """Return whether each data point is its own subject."""
    data = state.settings.get("data", {})
    return bool(data) and data.get("subject") == data.get("id")


def have_further_subjects(state: FederationState) -> bool:
    """Return whether data points may have subjects besides the one that routes."""
    return isinstance(state.settings.get("data", {}).get("subject"), list | tuple)


def kept_names(store: ObjectStore, new_name: NewName, digests: DigestSet) -> ObjectRef | InlineDigests | None:
    """Return the digests as a request keeps them: inline, or in an object of their own if there are many."""
    if not len(digests):
        return None
    return (
        InlineDigests.of(digests) if len(digests) <= MOST_INLINE else put_digests(store, new_name, "requests", digests)
    )


def _planner(state: FederationState) -> RetrainPlanner | None:
    """Return what plans the requests of a batch; None before the first training."""
    epochs = trained_epochs(state)
    return None if epochs is None or state.configuration is None else RetrainPlanner(state, epochs)


def _expected(planner: RetrainPlanner | None, removed: Mapping[SliceId, int], *, stay: bool) -> Cost | None:
    """Return the expected cost of retraining without these points, or, where they ``stay``, with other values."""
    if planner is None:
        return None
    cost = total(planner.retrains(removed, stay=stay))
    return replace(cost, seconds=round(cost.seconds, 3))


def put_digests(store: ObjectStore, new_name: NewName, prefix: str, digests: DigestSet) -> ObjectRef:
    """Write the digests to a new object."""
    return put_object(store, new_name, f"{prefix}/", ".digests", digests.to_bytes())


def put_object(store: ObjectStore, new_name: NewName, prefix: str, ending: str, payload: bytes) -> ObjectRef:
    """Write an object under a fresh name."""
    key = object_key(f"{prefix}{new_name()}{ending}")
    store.put_if_absent(key, payload)
    return ObjectRef(key=key, sha256=sha256(payload))


def _search(state: FederationState, batch: Sequence[Demand]) -> dict[SliceId, list[int]]:
    """Return, by slice, the demands of the batch that may name points in it."""
    shards, slices = len(state.shards), len(state.shards[0].slices)
    anywhere = have_further_subjects(state)
    everywhere = frozenset(place for place, _ in state.slices())
    wanted: dict[SliceId, list[int]] = {}
    for number, demand in enumerate(batch):
        names = demand.names
        routed = everywhere if anywhere or names.points else slices_of(names.subjects, shards, slices, state.naming)
        # Hold-out points of a subject are in the slice of the same number, and the subject may have other points in a
        # shard.
        held_out = {SliceId(state.shard_of_holdout, place.slice) for place in routed if state.holdout}
        for where in routed | held_out:
            wanted.setdefault(where, []).append(number)
    return wanted
