"""The doctor: checks, before work starts, for every known problem."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from cluster.federation import Federation
from cluster.runtime.contact import check_token_file
from cluster.runtime.guard import check_rooms
from cluster.runtime.metadata import command_lines, words_of
from cluster.runtime.session import worker_count
from cluster.runtime.system import SystemClock
from cluster.sources import Leftovers, find_leftovers
from cluster.writer.identity import bucket_facts, check_identity, check_unchanged, out_of_reach, partition_key
from cluster.writer.training_data import open_sources, open_train
from coordinator.decisions.times import MOST_SECONDS_BEHIND, clock_is_behind, latest_time
from coordinator.engine.lookup import load_tombstones
from coordinator.receipts.rollback import refuse_forgotten
from coordinator.status import WHY_BY_ID, similar_subjects
from shards.data.sources import passed_over_text
from shards.routing import SKELETON_BYTES, Naming, PartitionKey, point_digest, subject_digest
from shards.slices.ingest import feature_width
from shards.slices.survey import DataFault, remedy_of
from shards.tombstones import DigestSet
from storage.errors import Invalid, SisaError
from storage.s3.bucket import StoreFacts
from storage.stores.probe import probe_store

LEAST_FREE_BYTES: Final = 1 << 30
"""A local store with less free space than this fails soon."""

MOST_SECONDS_APART: Final = 60
"""Between this machine's clock and a bucket's; S3 refuses requests from about 900 on, and receipts state times."""

_LIBRARIES: Final = ("sisa-ray", "ray", "torch", "pyarrow", "numpy", "safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check."""

    check: str
    ok: bool
    message: str
    remedy: str = ""
    faults: tuple[DataFault, ...] = ()
    """The faults found in the data."""


def examine(federation: Federation, *, rows_in: Path | None = None, copies_in: Path | None = None) -> Iterator[Finding]:
    """Yield a finding per check; a check that fails does not stop the next.

    ``rows_in`` receives the list of source rows that still hold erased people, and the folder ``copies_in`` copies of
    their files without these rows; see ``cluster.sources.find_leftovers``.
    """
    examination = _Examination(federation, rows_in, copies_in)
    for name, check in examination.checks():
        try:
            found = check()
            yield found if isinstance(found, Finding) else Finding(check=name, ok=True, message=found)
        except SisaError as error:
            yield Finding(check=name, ok=False, message=error.message, remedy=error.remedy)


class _Examination:
    """The checks; each returns a message if all is well, and raises an error otherwise."""

    def __init__(self, federation: Federation, rows_in: Path | None = None, copies_in: Path | None = None) -> None:
        self._federation = federation
        self._rows_in = rows_in
        self._copies_in = copies_in
        self._specification = federation.specification

    def checks(self) -> tuple[tuple[str, Callable[[], str | Finding]], ...]:
        """Return all checks, the cheap ones first."""
        return (
            ("installation", self._installation),
            ("store", self._store),
            ("disk", self._disk),
            ("federation", self._state),
            ("clock", self._clock),
            ("data", self._data),
            ("erased in sources", self._sources),
            *((("witness", self._witness),) if self._specification.receipts.witness else ()),
            ("token for Ray", check_token_file),
            ("ray", self._ray),
            ("erased in Ray", self._metadata),
            ("model", self._model),
        )

    def _installation(self) -> str:
        check_rooms()
        libraries = ", ".join(f"{name} {_version(name)}" for name in _LIBRARIES)
        return f"Python {platform.python_version()}, {libraries}"

    def _store(self) -> str:
        probe_store(self._federation.store)
        bucket = bucket_facts(self._federation.store, SystemClock().now())
        if bucket is not None and (bucket.object_lock or bucket.replication):
            raise SisaError(
                f"the bucket keeps objects from being erased: {' '.join(out_of_reach(bucket))}",
                "Use a bucket without object lock and replication for data and models. Until then receipts say so.",
                store=self._federation.store.location,
            )
        if bucket is not None:
            _check_clock(bucket)
        facts = self._federation.store.facts()
        keys = f"keys in {facts.keys}" if facts.apart else "keys beside the objects: a whole copy of the store opens"
        return (
            f"{self._federation.store.location}: conditional puts hold under races, writes are read back;"
            f" objects are encrypted ({facts.algorithm}), {keys}"
        )

    def _disk(self) -> str:
        folder = self._specification.folder
        free = shutil.disk_usage(folder).free
        if free < LEAST_FREE_BYTES:
            raise SisaError(
                f"only {free / 1e9:.2f} GB are free next to the specification",
                "Make room before training.",
                folder=str(folder),
            )
        return f"{free / 1e9:.0f} GB free"

    def _state(self) -> str:
        state = self._federation.reading.current()
        if state is None:
            return "nothing is trained yet"
        key = partition_key(self._federation.store, self._specification, draw=False)
        check_identity(state, self._specification, key)
        check_unchanged(state, self._specification)
        refuse_forgotten(self._federation.store, self._federation.reading.current)
        owed = sum(request.state.is_open for request in state.requests)
        if owed:
            raise SisaError(f"{owed} erasure requests are not complete", "Run 'sisa train': it continues with them.")
        similar = similar_subjects(state)
        alike = (
            f"; {similar:,} subjects have names that differ from another's only in case or spacing" if similar else ""
        )
        held_out = f"; {state.held_out:,} hold-out points" if state.holdout else ""
        count = len(state.requests) + state.ended.requests
        return f"generation {state.generation}, {count} erasure requests, none owed{alike}{held_out}"

    def _clock(self) -> str:
        now, latest = SystemClock().now(), latest_time(self._federation.reading.current())
        behind = 0.0 if latest is None else (latest - now).total_seconds()
        if behind > MOST_SECONDS_BEHIND:
            raise SisaError(
                clock_is_behind(behind),
                "Set this machine's clock (NTP). If another machine's was ahead by mistake, wait until that time.",
            )
        return "not behind any time on record"

    def _data(self) -> str | Finding:
        source, *holdout = open_sources(self._specification)
        if faults := self._federation.faults():
            return Finding(
                check="data",
                ok=False,
                message=f"training would refuse the data: {'; '.join(map(str, faults))}",
                remedy=remedy_of(faults),
                faults=faults,
            )
        width = feature_width(source, self._specification.data)
        apart = "".join(f", and {len(each.files)} of hold-out points" for each in holdout)
        passed_over = "; ".join(filter(None, map(passed_over_text, (source, *holdout))))
        return f"{len(source.files)} files{apart}, {width} features{f'; {passed_over}' if passed_over else ''}"

    def _sources(self) -> str:
        state = self._federation.reading.current()
        found = find_leftovers(
            self._specification, self._federation.store, state, rows_in=self._rows_in, copies_in=self._copies_in
        )
        if found is None:
            return "nobody is erased"
        alike = f"{found.respelt.total()} data points of subjects spelt like an erased one but for case or spacing"
        if found.held:
            listed = ", ".join(f"{file} ({count} data points)" for file, count in sorted(found.held.items()))
            alone = f"; {found.by_id} of them {WHY_BY_ID}" if found.by_id else ""
            raise SisaError(
                f"source files still hold erased people: {listed}{alone}{f'; and {alike}' if found.respelt else ''}",
                "Rewrite these files, which are yours; training leaves out what was erased, by subject and by id, even"
                f" if the files hold it. {_rows_and_copies(found)}.",
            )
        if found.respelt:
            raise SisaError(
                f"source files hold {alike}: {', '.join(sorted(found.respelt))}",
                "If they are the same people, erase them with 'sisa erase'.",
            )
        return "no source file holds an erased data point"

    def _witness(self) -> str:
        held = self._federation.registrar.witnessed()
        found = self._federation.registrar.check_log(held, everything=False)
        if found.problems:
            raise SisaError(
                f"the receipts' log is not what the witness keeps of it: {found.problems[0]}",
                "Stop, keep both stores as they are, and run 'sisa log --check'.",
            )
        if (found.earlier or 0) < found.entries:
            raise SisaError(
                f"the witness keeps the log up to entry {found.earlier or 0} of {found.entries}",
                "Check that it can be written. The next erasure brings it up to date.",
            )
        return f"keeps the receipts' log up to its last entry, {found.entries}"

    def _ray(self) -> str:
        self._federation.workers()
        workers = worker_count(self._specification.cluster, self._specification.partition.shards)
        return f"reachable; room for {workers} workers for {self._specification.partition.shards} shards"

    def _metadata(self) -> str:
        state = self._federation.reading.current()
        tombstones = load_tombstones(self._federation.store, state.tombstone_objects() if state else ())
        if state is None or not len(tombstones):
            return "nobody is erased"
        key = partition_key(self._federation.store, self._specification, draw=False)
        self._federation.workers()
        lines = command_lines()
        words = frozenset[str]().union(*map(words_of, lines))
        if found := _erased(words, tombstones, key, state.naming):
            raise SisaError(
                f"command lines of programs that joined the Ray cluster name {found} of those who are erased, and Ray"
                " keeps them",
                "Start its head with an empty folder for its metadata (RAY_gcs_storage_path), then run 'sisa launch'."
                " Let your programs read names from a file.",
            )
        return f"none of {len(lines)} command lines that Ray keeps names anybody who is erased"

    def _model(self) -> str:
        width = feature_width(open_train(self._specification), self._specification.data)
        found = self._federation.workers().configuration(width, 1)
        model = self._specification.model
        what = model.recorded_learner or model.factory
        if model.is_whole and found.profile.library is None:
            return f"{what} fits {width} features; its constituents are the same on every machine"
        return f"{what} fits {width} features; workers compute on {found.profile.device}"


def _rows_and_copies(found: Leftovers) -> str:
    rows = f"The rows are listed in {found.rows_in}" if found.rows_in else "'sisa doctor --rows FILE' lists the rows"
    copies = ", ".join(map(str, found.copies))
    return f"{rows}; {f'copies without them: {copies}' if copies else '--clean FOLDER writes copies without them'}"


def _erased(words: Iterable[str], tombstones: DigestSet, key: PartitionKey, naming: Naming) -> int:
    """Return how many of ``words`` are data points or subjects that are erased, in any spelling."""
    length = SKELETON_BYTES if naming.by_skeleton else None
    subjects = {digest[:length] for digest in tombstones.subject_digests()}
    points = set(tombstones.point_digests())
    found = 0
    for word in words:
        with suppress(Invalid):  # the word cannot be a subject's name
            found += subject_digest(key, word, naming)[:length] in subjects or point_digest(key, word) in points
    return found


def _check_clock(bucket: StoreFacts) -> None:
    apart = bucket.clock_difference_seconds
    if apart is not None and abs(apart) > MOST_SECONDS_APART:
        raise SisaError(
            f"this machine's clock is {abs(apart):.0f} seconds {'behind' if apart > 0 else 'ahead of'} the store's",
            "Set this machine's clock (NTP). S3 refuses requests when it is about 900 seconds off.",
            store=bucket.location,
        )


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "not installed"
