"""Checks of a federation's sources: data that training would refuse, and rows of erased people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from csv import writer as csv_writer
from dataclasses import dataclass, replace
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from cluster.config.specification import FederationSpecification
from cluster.writer.identity import fresh_state, partition_key
from cluster.writer.training_data import is_news, open_sources
from coordinator.engine.lookup import load_tombstones
from coordinator.state import FederationState
from shards.data.cleaned import copy_without
from shards.data.columns import read_texts
from shards.data.readers import Wanted
from shards.data.sources import Batch, Source, remedy_by
from shards.routing import NOBODY, SKELETON_BYTES, Naming, PartitionKey, SubjectDigest, digests_of_all, point_digest
from shards.slices.survey import DataFault, find_faults
from shards.tombstones import DigestSet
from storage.errors import Conflict, Invalid
from storage.objects import ObjectStore

_BATCH_POINTS: Final = 65_536


class Why(Enum):
    """Why a row is listed."""

    SUBJECT = "subject"
    """Its subject was erased."""
    ID = "id"
    """It was erased by its id; the subject that the source now gives for it was not erased."""
    SIMILAR = "similar"
    """Its subject differs from an erased one only in case or spacing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """A row of a source that belongs to an erased person, or to one whose name is spelt similarly."""

    file: str
    row: int
    """Number of the row, counted from 1 without a CSV file's header."""
    why: Why


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftovers:
    """The data of erased people that the sources still hold."""

    held: Counter[str]
    """Data points that were erased, by file."""
    by_id: int
    """How many of these data points were erased by id alone."""
    respelt: Counter[str]
    """Data points spelt like the erased, by file."""
    rows_in: Path | None = None
    """The file with all rows."""
    copies: tuple[Path, ...] = ()
    """Copies of the files without the rows that were erased."""


def find_source_faults(
    specification: FederationSpecification,
    store: ObjectStore,
    state: FederationState | None,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[DataFault, ...]:
    """Return everything in the sources that training would refuse; nothing if they are unchanged since their ingest.

    Raises as ``open_sources`` does.
    """
    source, *holdout = open_sources(specification)
    if state is not None and state.is_begun and not is_news(specification, state, source, *(holdout or (None,))):
        return ()
    naming = (state or fresh_state(specification, PartitionKey(bytes(16)))).naming
    erased = _Erased.of(specification, store, state)
    return tuple(
        replace(fault, remedy=remedy_by(fault.remedy, setting))
        for each, setting in zip((source, *holdout), ("[data] train", "[data] holdout"), strict=False)
        for fault in find_faults(
            each,
            specification.data,
            naming,
            admitted=specification.model.admitted,
            kept_out=None if erased is None else erased.are_held,
            progress=progress,
        )
    )


def find_leftovers(
    specification: FederationSpecification,
    store: ObjectStore,
    state: FederationState | None,
    *,
    rows_in: Path | None = None,
    copies_in: Path | None = None,
) -> Leftovers | None:
    """Return what the source still holds of people who were erased; None: nobody is erased.

    ``rows_in`` receives the list of all rows (CSV: file, row, why), and the folder ``copies_in`` copies of the files
    that hold such rows, without the rows that were erased. Raises ``Conflict`` when one of these exists already.
    """
    erased = _Erased.of(specification, store, state)
    if erased is None:
        return None
    sources = open_sources(specification)
    if copies_in is not None and any(file.tree is not None for source in sources for file in source.files):
        raise Invalid(
            "a folder of images is not copied", "Delete the images that --rows lists.", data=sources[0].location
        )
    if copies_in is not None and any(source.version is not None for source in sources):
        remedy = "Delete the rows from the table, run VACUUM, and train on the new version."
        raise Invalid("files of a Delta table are not copied", remedy, data=sources[0].location)
    held, by_id, respelt = Counter[str](), 0, Counter[str]()
    dropped: dict[str, list[int]] = {}
    with ExitStack() as files:
        write = _row_writer(files, rows_in)
        for each in chain.from_iterable(map(erased.rows, sources)):
            write((each.file, each.row, each.why.value))
            if each.why is Why.SIMILAR:
                respelt[each.file] += 1
                continue
            held[each.file] += 1
            by_id += each.why is Why.ID
            if copies_in is not None:
                dropped.setdefault(each.file, []).append(each.row)
    copies: tuple[Path, ...] = ()
    if copies_in is not None:
        copies = tuple(
            copy for source in sources for copy in _copies(source, dropped, copies_in, specification.data.id)
        )
    return Leftovers(held=held, by_id=by_id, respelt=respelt, rows_in=rows_in, copies=copies)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Erased:
    """The erased subjects and data points, in the form that the source's rows are compared with."""

    data_id: str
    subjects: tuple[str, ...]
    key: PartitionKey
    naming: Naming
    tombstoned: frozenset[SubjectDigest]
    points: frozenset[bytes]
    skeletons: frozenset[bytes]

    @classmethod
    def of(
        cls, specification: FederationSpecification, store: ObjectStore, state: FederationState | None
    ) -> _Erased | None:
        """Return them; None: nobody is erased."""
        tombstones = load_tombstones(store, state.tombstone_objects()) if state else DigestSet.of()
        if state is None or not len(tombstones):
            return None
        subjects = frozenset(tombstones.subject_digests())
        return cls(
            data_id=specification.data.id,
            subjects=specification.data.subject_columns,
            key=partition_key(store, specification, draw=False),
            naming=state.naming,
            tombstoned=subjects,
            points=frozenset(tombstones.point_digests()),
            skeletons=frozenset(each[:SKELETON_BYTES] for each in subjects if state.naming.by_skeleton),
        )

    def rows(self, source: Source) -> Iterator[Leftover]:
        """Yield the rows in the source's order."""
        columns = tuple(dict.fromkeys((self.data_id, *self.subjects)))
        for batch in source.batches(Wanted(texts=columns, numbers=()), _BATCH_POINTS):
            for position, why in enumerate(self._whys(batch)):
                if why is not None:
                    file, row = batch.place(position)
                    yield Leftover(file=file, row=row, why=why)

    def are_held(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """Return which data points of the batch were erased; an ingest leaves them out."""
        return np.array([why in {Why.SUBJECT, Why.ID} for why in self._whys(batch)], dtype=np.bool_)

    def _whys(self, batch: Batch) -> Iterator[Why | None]:
        people = [self._digests(read_texts(batch, column, optional=True)) for column in self.subjects]
        for id_, *own in zip(read_texts(batch, self.data_id, optional=True), *people, strict=True):
            if not self.tombstoned.isdisjoint(own):
                yield Why.SUBJECT
            elif id_ and point_digest(self.key, id_) in self.points:
                yield Why.ID
            elif any(each[:SKELETON_BYTES] in self.skeletons for each in own if each != NOBODY):
                yield Why.SIMILAR
            else:
                yield None

    def _digests(self, names: Sequence[str]) -> Sequence[SubjectDigest]:
        try:
            return digests_of_all(self.key, names, self.naming)
        except Invalid:  # a name does not have the required form, so that it cannot be an erased subject's
            return [self._digest(name) for name in names]

    def _digest(self, name: str) -> SubjectDigest:
        try:
            return digests_of_all(self.key, [name], self.naming)[0]
        except Invalid:
            return NOBODY


def _row_writer(files: ExitStack, rows_in: Path | None) -> Callable[[Sequence[object]], object]:
    if rows_in is None:
        return lambda _: None
    try:
        lines = csv_writer(files.enter_context(rows_in.open("x", newline="", encoding="utf-8")))
    except FileExistsError:
        raise Conflict(f"{rows_in} exists already", "Name another file for the rows.") from None
    lines.writerow(("file", "row", "why"))
    return lines.writerow


def _copies(source: Source, dropped: Mapping[str, Sequence[int]], folder: Path, id_column: str) -> tuple[Path, ...]:
    """Write the files that hold dropped rows into the folder, under their names, without these rows."""
    made: list[Path] = []
    for file in source.files:
        if file.name not in dropped:
            continue
        parts = [
            part for part in Path(file.name.partition("://")[2] or file.name).parts if part not in {"/", "..", "."}
        ]
        target = folder.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        copy_without(file, dropped[file.name], target, id_column)
        made.append(target)
    return tuple(made)
