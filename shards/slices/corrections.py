"""Corrections: data points of a slice get other values, and digests of the old ones are kept.

A source that still has the old values must not bring them back, so the digest of a data point's old content is kept. It
is stored in the form of a slice whose features are this digest. So erased people are removed from it as from slices,
with ``rewrite_slice``, and it is encrypted like them. Shape legend: N points, F features, K further subjects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from shards.points import PointBlock
from shards.routing import DIGEST_BYTES, Naming, SliceId, slice_numbers
from shards.slices.contents import content_digests
from shards.slices.files import (
    EMPTY_SLICE,
    SliceRecord,
    identities,
    read_part,
    record_slice,
    rewrite_slice,
    write_part,
)
from shards.specification import ShardId, SliceIndex
from shards.tombstones import NOTHING, DigestSet, sortable
from storage.objects import NewName, ObjectStore


@dataclass(slots=True)
class CorrectedRows:
    """The data points of a slice that corrections name, while requests are carried out one after another."""

    _rows: PointBlock | None
    """They, with the values that they have so far; None: there are none."""
    _old: list[PointBlock] = field(default_factory=list)
    """Digests of the contents that were replaced."""
    _changed: DigestSet = NOTHING
    """Data points with other values than before, including those erased since."""

    @classmethod
    def of(cls, store: ObjectStore, record: SliceRecord, named: DigestSet) -> CorrectedRows:
        """Return those of the slice's data points that are ``named``."""
        return cls(read_rows(store, [record], named))

    def erase(self, gone: DigestSet) -> None:
        """Take out data points that a request erases."""
        if self._rows is not None:
            self._rows = self._rows.take(~gone.contains(self._rows))

    def correct(self, draft: PointBlock) -> tuple[DigestSet, int]:
        """Put the values in ``draft`` in place of the current ones.

        Returns which data points of the draft are here, under the same subjects, and how many got other values.
        """
        if self._rows is None:
            return NOTHING, 0
        rows, given = matched(self._rows, draft)
        found = DigestSet.points_of(draft.take(given))
        differ = content_digests(self._rows.take(rows)) != content_digests(draft.take(given))
        rows, given = rows[differ], given[differ]
        if len(rows):
            self._old.append(_contents(self._rows.take(rows)))
            self._changed = self._changed.union(DigestSet.points_of(draft.take(given)))
            self._rows = concatenated([self._rows.take(np.delete(np.arange(len(self._rows)), rows)), draft.take(given)])
        return found, len(rows)

    @property
    def is_changed(self) -> bool:
        """Whether any data point got other values."""
        return len(self._changed) > 0

    def written(
        self, store: ObjectStore, record: SliceRecord, gone: DigestSet, place: SliceId, new_name: NewName
    ) -> SliceRecord:
        """Write the slice with the current values and without the data points that are ``gone``."""
        old = self._changed.union(gone)
        return rewrite_slice(store, record, old, place, new_name, added=self._corrected(gone)).record

    def contents(self) -> tuple[list[PointBlock], list[PointBlock]]:
        """Return digests of the contents that were replaced, and those of the current ones of these data points."""
        present = self._corrected(NOTHING)
        return self._old, [] if present is None else [_contents(present)]

    def _corrected(self, gone: DigestSet) -> PointBlock | None:
        """Return the data points with other values than before."""
        if self._rows is None:
            return None
        return self._rows.take(self._changed.contains(self._rows) & ~gone.contains(self._rows))


def remember(
    store: ObjectStore,
    kept: SliceRecord,
    old: Iterable[PointBlock],
    present: Iterable[PointBlock],
    gone: DigestSet,
    place: SliceId,
    new_name: NewName,
) -> SliceRecord:
    """Write the digests of all old contents: those in ``kept``, and those in ``old``.

    Left out are those of data points that are ``gone``, and of contents that are the ``present`` ones again.
    """
    every = concatenated([*(read_part(store, part) for part in kept.parts), *old])
    is_old = ~gone.contains(every)
    for block in present:
        is_old &= ~np.isin(_digests(every), _digests(block))
    _, first = np.unique(_digests(every), return_index=True)
    is_old &= np.isin(np.arange(len(every)), first)
    left = every.take(is_old)
    return record_slice(store, [write_part(store, left, place, new_name)]) if len(left) else EMPTY_SLICE


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A slice as a source gives it, with corrected values in place of old ones."""

    record: SliceRecord
    replaced: int
    """Data points of which the source has old values: they keep the corrected ones."""
    left_out: int
    """Data points of which the source has old values, and the slice does not have newer ones."""


def keep_corrected(
    store: ObjectStore,
    given: SliceRecord,
    old: Iterable[SliceRecord],
    present: Iterable[SliceRecord],
    place: SliceId,
    new_name: NewName,
) -> Kept:
    """Return the slice ``given`` by a source without the contents in ``old``, and with those of ``present`` instead."""
    contents = [_digests(read_part(store, part)) for record in old for part in record.parts]
    stale: list[PointBlock] = []
    for part in given.parts if contents else ():
        block = read_part(store, part)
        found = np.isin(content_digests(block), np.concatenate(contents))
        if found.any():
            stale.append(block.take(found))
    if not stale:
        return Kept(record=given, replaced=0, left_out=0)
    rows = concatenated(stale)
    points = DigestSet.points_of(rows)
    corrected = read_rows(store, present, points)
    if corrected is not None:
        corrected = corrected.take(matched(corrected, rows)[0])
    record = rewrite_slice(store, given, points, place, new_name, added=corrected).record
    replaced = 0 if corrected is None else len(corrected)
    return Kept(record=record, replaced=replaced, left_out=len(rows) - replaced)


def read_rows(store: ObjectStore, records: Iterable[SliceRecord], named: DigestSet) -> PointBlock | None:
    """Return those data points of the slices that are ``named``; None: there are none."""
    found = []
    for part in (part for record in records for part in record.parts):
        block = read_part(store, part)
        if (here := named.contains(block)).any():
            found.append(block.take(here))
    return concatenated(found) if found else None


def named_identities(store: ObjectStore, records: Iterable[SliceRecord], named: DigestSet) -> PointBlock | None:
    """Return the digests of those data points in the slices that are ``named``; None: there are none."""
    blocks = (block for record in records for block in identities(store, record))
    found = [block.take(here) for block in blocks if (here := named.contains(block)).any()]
    return concatenated(found) if found else None


def by_place(block: PointBlock, shards: int, slices: int, naming: Naming) -> Iterator[tuple[SliceId, PointBlock]]:
    """Yield each slice that subjects of the data points belong to if they are not held out, and its data points."""
    numbers_N = slice_numbers(block.subjects_N, shards, slices, naming)
    for number in np.unique(numbers_N).tolist():
        yield SliceId(ShardId(number // slices), SliceIndex(number % slices + 1)), block.take(numbers_N == number)


def matched(rows: PointBlock, draft: PointBlock) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the positions, in both, of the data points that have the same id and the same subjects in both."""
    _, at, given = np.intersect1d(
        sortable(rows.points_N), sortable(draft.points_N), assume_unique=True, return_indices=True
    )
    same = np.ones(len(at), dtype=np.bool_)
    for own, other in zip(rows.people, draft.people, strict=True):
        same &= sortable(own[at]) == sortable(other[given])
    return at[same], given[same]


def concatenated(blocks: Iterable[PointBlock]) -> PointBlock:
    """Return the data points of all blocks, of which there is at least one."""
    first, *others = blocks
    if not others:
        return first
    every = (first, *others)
    return replace(
        first,
        points_N=np.concatenate([each.points_N for each in every]),
        subjects_N=np.concatenate([each.subjects_N for each in every]),
        labels_N=np.concatenate([each.labels_N for each in every]),
        features_NF=np.concatenate([each.features_NF for each in every]),
        further_NK=np.concatenate([each.further_NK for each in every]),
    )


def _contents(block: PointBlock) -> PointBlock:
    """Return the data points with the digest of their content in place of it."""
    return replace(
        block,
        labels_N=np.zeros(len(block), dtype=np.int32),
        features_NF=np.ascontiguousarray(content_digests(block)).view(np.uint8).reshape(len(block), DIGEST_BYTES),
    )


def _digests(contents: PointBlock) -> npt.NDArray[np.bytes_]:
    """Return the digests in what ``_contents`` returned."""
    return np.ascontiguousarray(contents.features_NF).view(f"S{DIGEST_BYTES}").reshape(len(contents))
