"""Drafting a correction: the rows of a file as encrypted slice drafts, so that only their names leave this process.

The drafts are written under a name that the writer has reserved, before the request that names them is accepted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Final

import numpy as np
import numpy.typing as npt

from cluster.writer.drafting import RequestDraft, Roll, refuse_own_name, request_of
from cluster.writer.identity import trained
from cluster.writer.writer import WriterSetup
from coordinator.decisions.times import latest_time
from coordinator.delays import check_reason
from coordinator.engine.corrections import drafts_gone, drafts_without, held_out_of, reading_of
from coordinator.engine.ended import find_request
from coordinator.engine.ledger import read_state
from coordinator.engine.lookup import load_tombstones
from coordinator.receipts.statements import Commitment
from coordinator.requests import Correction, PlacedRows, check_own_request_id
from coordinator.state import FederationState
from shards.data.columns import MissingName, choose_columns, read_texts
from shards.data.sources import Batch, Source
from shards.learner_kinds.admissible import ANYTHING, Admissible
from shards.points import PointBlock
from shards.routing import PartitionKey, PointDigest, SliceId
from shards.slices.contents import content_digests
from shards.slices.corrections import by_place, concatenated, named_identities
from shards.slices.files import SliceRecord, record_slice
from shards.slices.ingest import Intake, blocks_of, buffer_within, counted, gather, places_of, refuse_mixed, repeated_id
from shards.specification import DataSettings, PartitionSettings
from shards.tombstones import NOTHING, DigestSet, sortable
from storage.digests import Sha256, sha256
from storage.errors import Corrupt, Invalid
from storage.objects import ObjectStore

_CORRECT_FILE: Final = (
    "Correct the file: each row needs all columns that [data] names, with values that training takes as [data] is set."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenRows:
    """The rows of a file with corrected values, without the values."""

    names: DigestSet
    """All data points that it names."""
    ids: bytes
    """Their digests in the order of the rows, joined."""
    body: Sha256
    """Keyed digest of the content: the same rows, in any order and format, have the same."""
    unknown: DigestSet
    """Data points that are not in the federation."""
    places: Mapping[SliceId, int]
    """How many of the known data points are in each slice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowReader:
    """Reads a file with corrected values as the current data points were read."""

    store: ObjectStore
    state: FederationState
    source: Source
    intake: Intake

    @classmethod
    def of(
        cls,
        store: ObjectStore,
        state: FederationState,
        source: Source,
        data: DataSettings,
        partition: PartitionSettings,
        key: PartitionKey,
        admitted: Admissible = ANYTHING,
    ) -> RowReader:
        """Return the reader. Raises ``Invalid`` when the file lacks columns."""
        assert state.data is not None
        # By the names found at ingest, because a pattern could match this file's columns in another order.
        settings = replace(data, features=state.data.layout.features)
        try:
            columns = choose_columns(source, settings)
        except Invalid as error:
            raise advised(error) from error.__cause__
        intake = Intake(
            columns=columns,
            data=settings,
            partition=partition,
            key=key,
            naming=state.naming,
            tombstones=NOTHING,
            buffer_bytes=buffer_within(data.ingest_memory_mb, source),
            width=state.data.layout.width,
            admitted=admitted,
        )
        return cls(store=store, state=state, source=source, intake=intake)

    def read(self, noted: Callable[[Batch], None] = lambda _: None) -> GivenRows:
        """Read all rows, and check them against the current data points; ``noted`` is called with each batch.

        Raises ``Invalid`` for values that training would refuse, for an id that occurs twice, and for a data point that
        has another subject here.
        """
        rows = _Rows()
        with self._advised():
            for batch, block in blocks_of(self.intake.read(self.source), self.intake):
                noted(batch)
                rows.add(batch, block)
        return self._given(rows)

    def draft(self, name: str, noted: Callable[[Batch], None] = lambda _: None) -> tuple[GivenRows, Correction]:
        """Do what ``read`` does, and write the data points that are here as slice drafts in the same reading.

        Their names begin with ``name``. A second reading could find a file that has changed, and another one than the
        request's digest is about. After an error no draft is left.
        """
        rows, numbers = _Rows(), count(1)
        erased = load_tombstones(self.store, self.state.tombstone_objects())
        intake = replace(self.intake, tombstones=erased)  # nothing of the erased is written

        def seen(batch: Batch, block: PointBlock) -> None:
            noted(batch)
            rows.add(batch, block)

        def new_name() -> str:
            return f"{name}-{next(numbers)}"

        with ExitStack() as undo:
            with self._advised():
                gathered = gather(intake.read(self.source), intake, self.store, new_name, seen=seen)
            keys = {part.key for parts in gathered.parts.values() for part in parts}
            undo.callback(self.store.delete_all, keys)
            refuse_mixed(gathered.numbers)
            given = self._given(rows)
            try:
                drafts = tuple(
                    PlacedRows(place=place, record=record_slice(self.store, parts))
                    for place, parts in sorted(gathered.parts.items())
                )
                if len(given.unknown):
                    drafts = drafts_without(self.store, drafts, given.unknown, new_name)
                    self.store.delete_all(keys.difference(part.key for each in drafts for part in each.record.parts))
            except Corrupt as error:  # swept meanwhile: the name was no longer reserved
                raise drafts_gone() from error
            undo.pop_all()
        return given, Correction(drafts=drafts, read_as=reading_of(self.state))

    @contextmanager
    def _advised(self) -> Iterator[None]:
        """Have errors about rows say what can be done here: other settings would not fit the current data points."""
        try:
            yield
        except MissingName as error:
            raise counted(error, self.source) from None
        except Invalid as error:
            raise advised(error) from error.__cause__

    def _given(self, rows: _Rows) -> GivenRows:
        """Return what is known of the rows, having checked them against the current data points."""
        if not rows.points:
            raise Invalid("the file has no rows", "Name a file with the rows to correct.", file=self.source.location)
        names = DigestSet.joined(points=b"".join(rows.points))
        if len(names) < rows.count:
            points_N = np.sort(sortable(np.frombuffer(b"".join(rows.points), dtype="V16")))
            repeat = PointDigest(points_N[1:][points_N[1:] == points_N[:-1]][:1].tobytes())
            raise repeated_id(self.intake.data.id, places_of(self.source, self.intake.data.id, self.intake.key, repeat))
        trained = named_identities(self.store, self._slices(), names)
        held_out = named_identities(self.store, self.state.holdout, names)
        here = [block for block in (trained, held_out) if block is not None]
        present = concatenated(here) if here else None
        rows.check_people(present, self.intake.data)
        places = {} if trained is None else {place: len(block) for place, block in self._by_slice(trained)}
        for home, block in () if held_out is None else self._by_slice(held_out):
            (place,) = held_out_of(self.state, home)
            places[place] = places.get(place, 0) + len(block)
        return GivenRows(
            names=names,
            ids=b"".join(rows.points),
            body=rows.body(self.intake.key),
            unknown=names if present is None else names.without(DigestSet.points_of(present)),
            places=places,
        )

    def discard(self, correction: Correction) -> None:
        """Delete drafts that no request names."""
        self.store.delete_all([part.key for rows in correction.drafts for part in rows.record.parts])

    def _slices(self) -> Iterator[SliceRecord]:
        return (record for shard in self.state.shards for record in shard.slices)

    def _by_slice(self, block: PointBlock) -> Iterator[tuple[SliceId, PointBlock]]:
        return by_place(block, self.intake.partition.shards, self.intake.partition.slices, self.state.naming)


def advised(error: Invalid) -> Invalid:
    """Return the error without advice that only training could follow: settings stay as they are in a correction."""
    if "[data" in error.remedy or "its columns" in error.remedy:
        return error.advising(_CORRECT_FILE)
    return error


def draft_correction(setup: WriterSetup, source: Source, name: str, *, request_id: str, held: str = "") -> RequestDraft:
    """Write the rows in ``source`` as drafts under the reserved ``name``, and return the request that names them.

    The same ``request_id`` with the same rows is the same request (D4). With ``held``, the reason of a pause, it will
    wait to be released.
    Raises ``Invalid`` for rows that training would refuse, an id that occurs twice, a data point that has another
    subject here, and as ``draft`` does; ``Conflict`` when the store is another federation's or settings have changed.
    """
    check_own_request_id(request_id)
    if held:
        check_reason(held)
    rows = correction_reader(setup, source)
    salt = setup.new_name()
    commitment = Commitment(salt)

    def note(batch: Batch) -> None:
        ids = read_texts(batch, rows.intake.data.id)
        refuse_own_name(request_id, ids, "exact")
        for column in rows.intake.data.subject_columns:  # the people whose data points they are
            people = [name for name in read_texts(batch, column, optional=True) if name]
            refuse_own_name(request_id, people, rows.state.naming.form)
        commitment.add("id", ids)

    is_new = find_request(setup.store, lambda: read_state(setup.store), request_id) is None
    given, correction = rows.draft(name, note) if is_new else (rows.read(note), Correction())
    request = request_of(
        setup.specification,
        given.names,
        request_id,
        setup.clock.now(),
        held=held,
        correction=correction,
        commitment=commitment.value(),
    )
    roll = Roll(subjects=b"", ids=given.ids, ids_are_subjects=False)
    return RequestDraft(request=replace(request, body=given.body), names=given.names, roll=roll, salt=salt)


def correction_reader(setup: WriterSetup, source: Source) -> RowReader:
    """Return the reader of the rows in ``source``. Raises as ``draft`` and ``writing`` do."""
    setup.workers.check_own_place()  # a coordinator elsewhere does not check where its callers read slices
    specification = setup.specification
    state, key = trained(read_state(setup.store), setup.store, specification)
    setup.clock.saw(latest_time(state))
    return RowReader.of(
        setup.store, state, source, specification.data, specification.partition, key, specification.model.admitted
    )


@dataclass(slots=True)
class _Rows:
    """What is kept of the rows that were read."""

    points: list[bytes] = field(default_factory=list)
    people: list[PointBlock] = field(default_factory=list)
    contents: list[npt.NDArray[np.bytes_]] = field(default_factory=list)
    places: list[tuple[str, int]] = field(default_factory=list)
    """File and first row of each batch."""
    count: int = 0

    def add(self, batch: Batch, block: PointBlock) -> None:
        """Keep what is needed of a batch."""
        if not len(block):
            return
        self.points.append(block.points_N.tobytes())
        self.people.append(
            replace(
                block,
                labels_N=np.zeros(len(block), dtype=np.int32),
                features_NF=np.empty((len(block), 0), dtype=np.uint8),
            )
        )
        self.contents.append(content_digests(block))
        self.places.append((batch.file, batch.first))
        self.count += len(block)

    def check_people(self, present: PointBlock | None, data: DataSettings) -> None:
        """Raise ``Invalid`` for the first row whose data point has other subjects here."""
        if present is None:
            return
        for block, (file, first) in zip(self.people, self.places, strict=True):
            _, here, given = np.intersect1d(
                sortable(present.points_N), sortable(block.points_N), assume_unique=True, return_indices=True
            )
            for column, own, other in zip(data.subject_columns, present.people, block.people, strict=True):
                differ = given[sortable(own[here]) != sortable(other[given])]
                if len(differ):
                    raise Invalid(
                        "a data point has another subject in the federation",
                        "A correction leaves the subject as it is. For another subject, erase the data point with"
                        " 'sisa erase --id', give it a new id in the source, and run 'sisa train'.",
                        file=file,
                        column=column,
                        row=first + int(differ.min()),
                    )

    def body(self, key: PartitionKey) -> Sha256:
        """Return the digest that decides whether two requests with one id are the same.

        It is keyed, because it gets into the receipt: values must not be guessed from it.
        """
        contents = np.sort(np.concatenate(self.contents)).tobytes()
        return sha256(b"sisa/correction/" + hashlib.blake2b(contents, key=key, digest_size=32).digest())
