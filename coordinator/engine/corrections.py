"""Corrects data points that requests name, between the erasures of the same batch, in the order of acceptance.

Data points that an erasure removes are also removed from the new values of open corrections and from the digests of old
ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from coordinator.decisions.events import ValuesKept
from coordinator.engine.lookup import is_intact
from coordinator.requests import ErasureRequest, PlacedRows
from coordinator.state import FederationState
from shards.points import PointBlock
from shards.routing import SliceId
from shards.slices.corrections import CorrectedRows, by_place, concatenated, keep_corrected, remember
from shards.slices.files import EMPTY_SLICE, PartRecord, SliceRecord, read_part, rewrite_slice
from shards.slices.ingest import FeatureLayout
from shards.tombstones import NOTHING, DigestSet
from storage.digests import Sha256, canonical_json, sha256
from storage.errors import Conflict, Corrupt, Unavailable
from storage.objects import NewName, ObjectStore

NOTHING_TO_CORRECT: Final = (
    "none of these data points can be corrected: they are not here under these subjects, or a later request corrected"
    " or erased them"
)
READ_OTHERWISE: Final = (
    "since it was accepted, the settings by which data are read have changed: submit it again under another id"
)
HAS_THESE_VALUES: Final = "the data points have these values already: there is nothing to correct"


@dataclass(slots=True, kw_only=True)
class Corrected:
    """The result of one correction."""

    changed: dict[SliceId, int] = field(default_factory=dict)
    """Number of data points with other values, by slice."""
    found: DigestSet = NOTHING
    """The data points that are here, under the same subjects."""
    is_read_otherwise: bool = False
    """Whether the new values were read under other settings than the current data points."""


@dataclass(slots=True, kw_only=True)
class Corrections:
    """The corrections of a batch, carried out in memory."""

    results: dict[str, Corrected]
    """Results, by request id."""
    rows: dict[SliceId, CorrectedRows]
    """The corrected data points of each slice."""

    @classmethod
    def of(
        cls,
        store: ObjectStore,
        state: FederationState,
        batch: Sequence[ErasureRequest],
        erased: Mapping[str, DigestSet],
    ) -> Corrections:
        """Carry out the batch's corrections; ``erased``: the data points that each of its erasures takes out."""
        reading, made = reading_of(state), cls(results={}, rows={})
        for request in batch:
            if request.correction is not None:
                result = Corrected(is_read_otherwise=request.correction.read_as != reading)
                made.results[request.request_id] = result
        fitting = [each for each in batch if each.drafts and not made.results[each.request_id].is_read_otherwise]
        homes = {rows.place for request in fitting for rows in request.drafts}
        for place in sorted(homes | {held_out for home in homes for held_out in held_out_of(state, home)}):
            drafts = {
                request.request_id: concatenated([read_part(store, part) for part in parts])
                for request in fitting
                if (parts := _parts_for(state, place, request.drafts))
            }
            named = NOTHING.union(*map(DigestSet.points_of, drafts.values()))
            present = CorrectedRows.of(store, state.slice(place), named)
            for request in batch:
                if request.request_id in erased:
                    present.erase(erased[request.request_id])
                elif request.request_id in drafts:
                    made._note(request.request_id, place, *present.correct(drafts[request.request_id]))
            if present.is_changed:
                made.rows[place] = present
        return made

    def refusal(self, request_id: str) -> str:
        """Return why a correction changed nothing."""
        result = self.results[request_id]
        if result.is_read_otherwise:
            return READ_OTHERWISE
        return HAS_THESE_VALUES if len(result.found) else NOTHING_TO_CORRECT

    def slice(
        self, store: ObjectStore, state: FederationState, gone: DigestSet, place: SliceId, new_name: NewName
    ) -> SliceRecord:
        """Write the slice with corrected values and without the data points that are ``gone``."""
        record = state.slice(place)
        if place in self.rows:
            return self.rows[place].written(store, record, gone, place, new_name)
        return rewrite_slice(store, record, gone, place, new_name).record

    def kept(
        self,
        store: ObjectStore,
        state: FederationState,
        batch: Sequence[ErasureRequest],
        gone: DigestSet,
        new_name: NewName,
    ) -> ValuesKept | None:
        """Write the digests kept of old values, and the drafts of requests that are not in the batch; None: no change.

        ``gone`` has the erased data points, and all names of the batch's erasures.
        """
        remembered = {rows.place: rows.record for rows in state.corrected}
        contents = self._contents(state)
        corrected = []
        for place in sorted(remembered.keys() | contents.keys()):
            record = remembered.get(place, EMPTY_SLICE)
            if place in contents:
                record = remember(store, record, *contents[place], gone, place, new_name)
            elif len(gone):
                record = rewrite_slice(store, record, gone, place, new_name).record
            if record.parts:
                corrected.append(PlacedRows(place=place, record=record))
        drafts = self._drafts(store, state, batch, gone, new_name)
        if tuple(corrected) == state.corrected and not drafts:
            return None
        return ValuesKept(corrected=tuple(corrected), drafts=drafts)

    def _contents(self, state: FederationState) -> dict[SliceId, tuple[list[PointBlock], list[PointBlock]]]:
        """Return digests of the replaced and of the current contents, by the slice that their subjects belong to."""
        shards, slices = len(state.shards), len(state.shards[0].slices)
        found: dict[SliceId, tuple[list[PointBlock], list[PointBlock]]] = {}
        for rows in self.rows.values():
            for kind, blocks in enumerate(rows.contents()):
                for block in blocks:
                    for home, here in by_place(block, shards, slices, state.naming):
                        found.setdefault(home, ([], []))[kind].append(here)
        return found

    def _drafts(
        self,
        store: ObjectStore,
        state: FederationState,
        batch: Sequence[ErasureRequest],
        gone: DigestSet,
        new_name: NewName,
    ) -> dict[str, tuple[PlacedRows, ...]]:
        """Return the drafts of paused corrections without erased data points and without values replaced since."""
        changed: dict[str, tuple[PlacedRows, ...]] = {}
        carried_out = {request.request_id for request in batch}
        newer = NOTHING
        for request in reversed(state.requests):  # from the last one accepted
            if request.request_id in carried_out:
                newer = newer.union(self.results.get(request.request_id, Corrected()).found)
            elif request.drafts and len(gone) + len(newer):
                left = drafts_without(store, request.drafts, gone.union(newer), new_name)
                if left != request.drafts:
                    changed[request.request_id] = left
        return changed

    def _note(self, request_id: str, place: SliceId, found: DigestSet, changed: int) -> None:
        result = self.results[request_id]
        result.found = result.found.union(found)
        if changed:
            result.changed[place] = changed


def drafts_without(
    store: ObjectStore, drafts: Iterable[PlacedRows], gone: DigestSet, new_name: NewName
) -> tuple[PlacedRows, ...]:
    """Return the drafts without data points that are ``gone``; objects that hold some are written again.

    Drafts of a slice that are damaged cannot be searched: only the damaged objects are left of them, so that the
    request is not carried out in part.
    """
    left = []
    for rows in drafts:
        damaged = tuple(part for part in rows.record.parts if not is_intact(store, part.key, part.sha256))
        record = (
            replace(rows.record, parts=damaged)
            if damaged
            else rewrite_slice(store, rows.record, gone, rows.place, new_name).record
        )
        left.append(PlacedRows(place=rows.place, record=record))
    return tuple(rows for rows in left if rows.record.parts)


def reading_of(state: FederationState) -> Sha256:
    """Return a digest of the settings by which the current data points were read; values read otherwise do not fit."""
    if state.data is None:
        return sha256(b"")
    layout = state.data.layout
    return sha256(canonical_json([_read_by(state.data.taken), list(layout.features), layout.width]))


def _read_by(taken: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings by which values are read; which data points are held out does not change them."""
    return {name: value for name, value in taken.items() if name != "holdout"}


def held_out_of(state: FederationState, home: SliceId) -> tuple[SliceId, ...]:
    """Return the hold-out slice of the people who belong to this slice of a shard; empty if nothing is held out."""
    return (SliceId(state.shard_of_holdout, home.slice),) if state.holdout else ()


def _parts_for(state: FederationState, place: SliceId, drafts: Iterable[PlacedRows]) -> list[PartRecord]:
    """Return the objects with new values for data points that may be in the slice."""
    return [part for rows in drafts if _may_be_in(state, rows.place, place) for part in rows.record.parts]


def _may_be_in(state: FederationState, home: SliceId, place: SliceId) -> bool:
    """Return whether data points of people who belong to ``home`` may be in the slice ``place``."""
    return place == home or (place.shard == state.shard_of_holdout and place.slice == home.slice)


def check_comparable(state: FederationState, layout: FeatureLayout, taken: Mapping[str, Any]) -> bool:
    """Return whether a source that is read in this way can be compared with the digests of old contents.

    If it cannot, but had the corrected values when it was last read, the digests are no longer needed. Raises
    ``Conflict`` if it still has old values, or was not compared since the last correction.
    """
    was = state.data
    if was is None or not state.corrected:
        return True
    now = (_read_by(taken), layout.features, layout.width)
    if (_read_by(was.taken), was.layout.features, was.layout.width) == now:
        return True
    if was.inventory and not was.outdated:
        return False
    raise Conflict(
        "data points were corrected by request, and the source would be read in another way than before, so that"
        " their old values could not be recognised",
        "Put the settings of [data] back, correct the source, run 'sisa train', and change the settings then.",
    )


def with_corrected(
    store: ObjectStore,
    state: FederationState,
    slices: Mapping[SliceId, SliceRecord],
    lost: Collection[SliceId],
    new_name: NewName,
) -> tuple[dict[SliceId, SliceRecord], int]:
    """Return the slices of a source with corrected values in place of old ones, and how many data points that are.

    A data point's corrected values may be in the hold-out slice while the source has it in a shard, and the other way
    round: the source, or another share, may have moved it.
    """
    kept, outdated = dict(slices), 0
    for place in sorted(slices):
        old = [rows for rows in state.corrected if _may_be_in(state, rows.place, place)]
        holders = {each for rows in old for each in (rows.place, *held_out_of(state, rows.place))}
        present = [state.slice(each) for each in sorted(holders.difference(lost))]
        found = keep_corrected(store, slices[place], [rows.record for rows in old], present, place, new_name)
        if found.left_out and not holders.isdisjoint(lost):
            raise Corrupt(
                f"a slice is damaged, and {found.left_out} of its data points were corrected by request: the source has"
                " their old values",
                "Correct these data points in the source and run 'sisa train', or restore the store from a copy.",
                shard=place.shard,
                slice=place.slice,
            )
        kept[place] = found.record
        outdated += found.replaced + found.left_out
    return kept, outdated


def are_intact(store: ObjectStore, request: ErasureRequest) -> bool:
    """Return whether all new values of the request can be read."""
    return all(is_intact(store, part.key, part.sha256) for rows in request.drafts for part in rows.record.parts)


def drafts_gone(**context: str) -> Unavailable:
    """Return the error for drafts that were swept before the request was accepted."""
    return Unavailable(
        "the new values are no longer in the store: the coordinator was restarted, or it took too long",
        "Submit the correction again.",
        **context,
    )


class LostValues(Corrupt):
    """New values of a correction are missing or damaged; other requests are still carried out."""


def lost(request: ErasureRequest) -> LostValues:
    """Return the error for a request whose new values cannot be read."""
    return LostValues(
        "the new values that a request keeps in the store are missing or damaged",
        f"Restore the store from a copy, or run 'sisa request cancel {request.request_id}' and submit the correction"
        " again under another id.",
        request=request.request_id,
    )
