"""A small federation in memory: the real engine with a store and a pool, and data points made for the test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic

import pyarrow as pa

from cluster.config.specification import ClusterSettings, FederationSpecification, bit_settings, settings_record
from cluster.writer.corrections import RowReader
from cluster.writer.drafting import readmission_of, request_of
from cluster.writer.identity import fresh_state
from coordinator.engine.engine import Engine, Tools
from coordinator.ports import Listener
from coordinator.receipts.evidence import StoreEvidence
from coordinator.receipts.issuer import Registrar
from coordinator.requests import ErasureRequest, Readmission
from coordinator.settings import AggregationSettings, ErasureSettings
from coordinator.state import FederationState
from shards.data.sources import Source, table_source
from shards.learners.protocol import Learner, State
from shards.lineage import Configuration, NumericsProfile
from shards.measures import Measures
from shards.routing import Naming, PartitionKey, SliceId, point_digest, slice_of, subject_digest
from shards.specification import DataSettings, ModelSettings, PartitionSettings, TrainingSettings
from shards.targets import TARGETS
from shards.tombstones import DigestSet
from storage.digests import Sha256, sha256
from storage.objects import ObjectStore
from storage.registers.manifest import ManifestRegister
from tests.doubles.time_and_names import CountingNames, VirtualClock
from tests.doubles.workers.in_process_pool import Death, InProcessPool

KEY = PartitionKey(bytes(range(7, 39)))
"""With this key, the tests' data sets leave no slice empty."""
NAMING = Naming(form="trimmed", by_skeleton=True)
"""The naming of new federations."""

PROFILE = NumericsProfile(torch="none", threads=1, device="none", dtype="none", deterministic=True, packing="none")
"""The profile of learners that do not use torch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A data point before it is ingested."""

    id: str
    subject: str
    label: str | tuple[float, ...]
    """The class; or numbers, a column each."""
    features: tuple[float | str | None, ...]
    """Numbers; for a column with an encoder, texts and None as well."""
    others: tuple[str, ...] = ()
    """Its further subjects; an empty string stands for none."""

    def slice_id(self, shards: int, slices: int) -> SliceId:
        """Return its placement under ``KEY``."""
        return slice_of(subject_digest(KEY, self.subject, NAMING), shards, slices, NAMING)


def source_of(points: Sequence[Point]) -> Source:
    """Return the data points as a table in memory, in the order given."""
    width = len(points[0].features) if points else 2
    columns: dict[str, Any] = {
        "id": pa.array([point.id for point in points], pa.string()),
        "who": pa.array([point.subject for point in points], pa.string()),
    }
    if points and isinstance(points[0].label, tuple):
        for number in range(len(points[0].label)):
            columns[f"label{number}"] = pa.array([float(point.label[number]) for point in points], pa.float32())
    else:
        columns["label"] = pa.array([point.label for point in points], pa.string())
    for number in range(len(points[0].others) if points else 0):
        columns[f"who{number}"] = pa.array([point.others[number] or None for point in points], pa.string())
    for number in range(width):
        cells = [point.features[number] for point in points]
        is_text = any(isinstance(cell, str) for cell in cells)
        columns[f"x{number}"] = pa.array(cells, pa.string() if is_text else pa.float32())
    return table_source(pa.table(columns))


def specification_of(
    *,
    shards: int,
    slices: int,
    classes: Sequence[str] = ("a", "b"),
    target: str = "class",
    labels: int = 1,
    training: TrainingSettings | None = None,
    model: ModelSettings | None = None,
    scale: float | tuple[float, ...] = 1.0,
    features: tuple[str, ...] = ("x*",),
    threads: int = 1,
    further: int = 0,
    encode: Mapping[str, Mapping[str, Any]] | None = None,
    holdout: float | str | None = None,
) -> FederationSpecification:
    """Return the specification of a federation over ``source_of``'s columns."""
    return FederationSpecification(
        name="small",
        store="memory",
        folder=Path("/nowhere"),
        data=DataSettings(
            train="table",
            id="id",
            subject=("who", *(f"who{number}" for number in range(further))),
            label=None
            if not TARGETS[target].has_labels
            else "label"
            if target == "class"
            else tuple(f"label{number}" for number in range(labels)),
            target=target,
            features=features,
            classes=tuple(classes) if target == "class" else (),
            scale=scale,
            encode=encode or {},
            holdout=holdout,
        ),
        model=model or ModelSettings(),
        training=training or TrainingSettings(epochs=4, batch_size=3, learning_rate=0.1),
        partition=PartitionSettings(shards=shards, slices=slices),
        aggregation=AggregationSettings(),
        erasure=ErasureSettings(),
        cluster=ClusterSettings(threads_per_worker=threads),
    )


def plain_conditions(specification: FederationSpecification) -> Configuration:
    """Return the configuration of a learner that has neither model code nor numerics."""
    return Configuration(
        settings=bit_settings(settings_record(specification)),
        model_code=sha256(b""),
        seed=specification.training.seed,
        profile=PROFILE,
    )


@dataclass(slots=True, kw_only=True)
class SmallFederation(Generic[State]):
    """Does the same as ``cluster.Federation``, step by step, with a test's store, pool, clock and names."""

    specification: FederationSpecification
    store: ObjectStore
    learners: Callable[[int], Learner[State]]
    conditions: Callable[[int], Configuration]
    names: CountingNames = field(default_factory=CountingNames)
    clock: VirtualClock = field(default_factory=VirtualClock)
    listener: Listener = lambda _: None
    deaths: dict[int, Death] = field(default_factory=dict)
    measure: Callable[[FederationState], Measures] | None = None
    pool: InProcessPool[State] = field(init=False)
    register: ManifestRegister = field(init=False)
    _engine: Engine | None = None

    def __post_init__(self) -> None:
        self.register = ManifestRegister(self.store)
        self.pool = InProcessPool(
            learners=self.learners, conditions=self.conditions, store=self.store, names=self.names, deaths=self.deaths
        )

    @property
    def engine(self) -> Engine:
        """The engine, which starts at the first use."""
        if self._engine is None:
            tools = Tools(
                store=self.store,
                clock=self.clock,
                new_name=self.names,
                listener=self.listener,
                pool=lambda: self.pool,
                registrar=Registrar(self.store, self.clock, self.names),
                described=lambda: StoreEvidence(kind="memory"),
                measure=self.measure,
            )
            self._engine = Engine.start(tools, fresh_state(self.specification, KEY))
        return self._engine

    @property
    def state(self) -> FederationState:
        """The engine's state."""
        return self.engine.state

    def restart(self) -> None:
        """Drop the engine, as if its process had died: the next use starts a new one on the same store."""
        self._engine = None

    def train(self, points: Sequence[Point] | None = None, holdout: Sequence[Point] | None = None) -> None:
        """Ingest ``points`` (None: keep what was ingested before), configure, and do all outstanding work.

        ``holdout`` are the hold-out points where they come from a source of their own.
        """
        engine, specification = self.engine, self.specification
        engine.remove_points()
        if points is not None:
            apart = None if holdout is None else source_of(holdout)
            engine.ingest(source_of(points), specification.data, specification.partition, KEY, engine.audit(), apart)
        assert engine.state.data is not None
        engine.configure(settings_record(specification), self.conditions(engine.state.data.layout.width))
        engine.settle()

    def accept(
        self,
        *,
        subjects: Iterable[str] = (),
        ids: Iterable[str] = (),
        request_id: str,
        include_similar: bool = False,
        commitment: Sha256 | None = None,
    ) -> ErasureRequest:
        """Accept an erasure request; with a ``commitment``, a statement is issued if nothing is found."""
        names = names_of(subjects, ids)
        request = request_of(
            self.specification,
            names,
            request_id,
            self.clock.now(),
            include_similar=include_similar,
            commitment=commitment,
        )
        return self.engine.accept(request, names)

    def rows(self, source: Source, key: PartitionKey = KEY) -> RowReader:
        """Return the reader of corrected rows in a source."""
        specification = self.specification
        return RowReader.of(self.store, self.state, source, specification.data, specification.partition, key)

    def propose(self, points: Sequence[Point], *, request_id: str, held: str = "") -> ErasureRequest:
        """Accept a request to correct data points: these are their new values."""
        engine, specification = self.engine, self.specification
        rows = self.rows(source_of(points))
        name = engine.reserve()
        try:
            given, correction = rows.draft(name)
            request = request_of(
                specification, given.names, request_id, self.clock.now(), held=held, correction=correction
            )
            return engine.accept(replace(request, body=given.body), given.names)
        finally:
            engine.give_back(name)

    def rectify(self, points: Sequence[Point], *, request_id: str) -> ErasureRequest:
        """Accept a request to correct data points, and carry it out."""
        self.propose(points, request_id=request_id)
        self.engine.settle()
        done = self.state.request(request_id)
        assert done is not None
        return done

    def readmit(self, *, subjects: Iterable[str], request_id: str) -> Readmission:
        """Readmit erased subjects, and issue the statement."""
        names = names_of(subjects, ())
        readmitted = self.engine.readmit(readmission_of(names, request_id, "asked", self.clock.now()), names)
        self.engine.settle()
        return readmitted

    def erase(self, *, subjects: Iterable[str] = (), ids: Iterable[str] = (), request_id: str) -> ErasureRequest:
        """Accept an erasure request and carry it out."""
        self.accept(subjects=subjects, ids=ids, request_id=request_id)
        self.engine.settle()
        done = self.state.request(request_id)
        assert done is not None
        return done

    def respecify(self, specification: FederationSpecification) -> None:
        """Continue with another specification, in a new process."""
        self.specification = specification
        self.restart()


def names_of(subjects: Iterable[str], ids: Iterable[str]) -> DigestSet:
    """Return the keyed digests of subjects and of single data points."""
    return DigestSet.of(
        subjects=(subject_digest(KEY, each, NAMING) for each in subjects),
        points=(point_digest(KEY, each) for each in ids),
    )


def survivors(points: Iterable[Point], *, subjects: Iterable[str] = (), ids: Iterable[str] = ()) -> list[Point]:
    """Return the data points without these subjects and ids."""
    gone, single = set(subjects), set(ids)
    return [point for point in points if gone.isdisjoint((point.subject, *point.others)) and point.id not in single]


def comparable(state: FederationState) -> FederationState:
    """Return the part of the state that depends only on the data, not on history or object names."""
    return replace(state, requests=(), condemned=(), tombstones=None, generation=0, floor=0, data=None)
