"""The Python front door: a federation that is trained, asked, and told to forget people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from cluster.ensemble import Ensemble
from cluster.identity import (
    bit_settings,
    check_identity,
    check_taken,
    check_unchanged,
    describe_store,
    differences,
    fresh_state,
    partition_key,
    side_by_side,
    untrained,
)
from cluster.naming import digests_of, request_of
from cluster.objects import local_folders, open_objects
from cluster.outcome import Answers, Evaluation, Verification, evaluation_of
from cluster.planning import Plan, measured_basis, plan_for, trial_basis
from cluster.pool import RayPool
from cluster.session import join_ray, leave_ray
from cluster.specification import FederationSpecification, read_specification, settings_record
from cluster.system import SystemClock, cpus, holder
from cluster.worker import WorkerSetup, new_name
from coordinator.codec import decode_state
from coordinator.engine import Engine, Tools, check_configuration
from coordinator.lookup import erased_points
from coordinator.plan import RetrainPlan, plan_retrain
from coordinator.ports import Clock, Listener, Names, Notice, Remark
from coordinator.registrar import Registrar
from coordinator.requests import RequestState
from coordinator.state import FederationState
from coordinator.status import FederationStatus, RequestStatus, describe, describe_request
from coordinator.verification import prove_shards, scan_residue
from shards.ingest import feature_width, taken_from
from shards.predictions import FeatureBatch, PredictionBatch, feature_batches
from shards.routing import PartitionKey
from shards.sources import Source, inventory, open_source, table_source
from shards.specification import DataSettings, ShardId
from storage.errors import Corrupt, Invalid, Unavailable
from storage.location import is_on_s3
from storage.manifest import ManifestRegister
from storage.probe import probe_store
from storage.vault import SealedStore

_READ_ATTEMPTS = 3

_Result = TypeVar("_Result")


def _nobody(_: Notice) -> None:
    """Hear nothing."""


class Federation:
    """One federation, reached through its specification.

    Reading needs nothing but the store. Writing (``train``, ``erase``) holds the store's writer lock, starts Ray when
    there is something to train, and goes on with whatever an interrupted writer left undone.
    Use it as a context manager, or call ``close``.
    """

    def __init__(
        self,
        specification: FederationSpecification,
        *,
        listener: Listener = _nobody,
        clock: Clock | None = None,
        names: Names = new_name,
    ) -> None:
        self.specification = specification
        self._clock = clock or SystemClock()
        self._names = names
        self._listener = listener
        self._store = open_objects(specification)
        self._register = ManifestRegister(store=self._store)
        self._pool: RayPool | None = None
        self._started_ray = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def store(self) -> SealedStore:
        """The store that holds it."""
        return self._store

    @property
    def register(self) -> ManifestRegister:
        """Its manifests."""
        return self._register

    @property
    def registrar(self) -> Registrar:
        """Its receipts."""
        return Registrar(self._store, self._clock, self._names)

    def release(self) -> None:
        """Let the workers go, so that others may have their processors; what needs workers starts new ones."""
        if self._pool is not None:
            self._pool.close()

    def close(self) -> None:
        """Let the workers go, and Ray with them where this federation started it."""
        self.release()
        self._pool = None
        if self._started_ray:
            leave_ray()
            self._started_ray = False

    def train(self) -> FederationStatus:
        """Ingest, partition and train; or go on where an earlier run stopped; or train anew what settings changed.

        The source is read again when it has changed. Erased subjects stay out whatever it holds.
        Raises ``Invalid`` for bad data or a bad model, ``Conflict`` when the store belongs to another specification or
        another writer is at work.
        """
        specification = self.specification
        with self._writing("train") as (engine, key):
            lost = engine.audit()
            if not lost:  # else the source comes first: a damaged slice cannot be searched
                engine.remove_points()
            self._tell_changes(engine.state)
            source = self._source(engine.state)
            width = feature_width(source, specification.data) if source else _width(engine.state)
            configuration = self.workers().configuration(width, specification.partition.shards)
            if lost and source is None:
                raise Corrupt(
                    f"{len(lost)} slice files are damaged and the source is not there to read them again",
                    "bring back the files named by [data] train, or restore the store from a copy",
                    source=specification.data.train,
                )
            if source is None:
                check_taken(engine.state, specification)
            elif lost or self._is_news(engine.state, source):
                engine.ingest(source, specification.data, specification.partition, key, lost)
            engine.configure(settings_record(specification), configuration)
            engine.settle()
            return self._describe(engine.state)

    def erase(
        self, *, subjects: Iterable[str | int] = (), ids: Iterable[str | int] = (), request_id: str | None = None
    ) -> RequestStatus:
        """Erase subjects and single data points, and return the request when all is done.

        The same ``request_id`` with the same subjects and ids is the same request (D4).
        Raises ``Invalid`` when nothing is named or nothing is trained, ``Conflict`` when the id was used for others.
        """
        with self._writing("erase") as (engine, key):
            self._require_data(engine.state)
            check_unchanged(engine.state, self.specification)
            names = digests_of(self.specification, key, subjects, ids)
            own_id = request_id or f"er-{self._names()[:12]}"
            engine.accept(request_of(self.specification, names, own_id, self._clock.now()), names)
            engine.settle()
            done = engine.state.request(own_id)
            assert done is not None
            return describe_request(done, self._clock.now())

    def price(self, *, subjects: Iterable[str | int] = (), ids: Iterable[str | int] = ()) -> RetrainPlan:
        """Return what erasing them would cost; changes nothing."""
        _, key = self._read()
        names = digests_of(self.specification, key, subjects, ids)
        epochs = self.specification.training.epochs
        return self._steadily(lambda state: plan_retrain(state, erased_points(self._store, state, names), epochs))

    def predict(self, data: object) -> Answers:
        """Return the ensemble's answers for a file, folder, glob or ``pyarrow.Table``, batch by batch."""
        state, ensemble = self._load()
        batches = self._still_servable(ensemble, self._features(state, data, labelled=False))
        return Answers(
            generation=ensemble.generation,
            constituents=len(ensemble.constituents),
            shards=ensemble.shards,
            classes=self.specification.data.classes,
            id_column=self.specification.data.id,
            batches=(self._answer(ensemble, batch) for batch in batches),
        )

    def evaluate(self, data: object) -> Evaluation:
        """Return the ensemble's accuracy on labelled data, overall and per class."""
        state, ensemble = self._load()
        counted = (
            (batch.labels_N, ensemble.answer(batch.features_NF).classes_N)
            for batch in self._still_servable(ensemble, self._features(state, data, labelled=True))
            if batch.labels_N is not None
        )
        return evaluation_of(
            counted,
            classes=self.specification.data.classes,
            generation=ensemble.generation,
            constituents=len(ensemble.constituents),
            shards=ensemble.shards,
        )

    def status(self) -> FederationStatus:
        """Return where the federation and its requests stand."""
        latest = self._register.latest()
        if latest is None:
            key = PartitionKey(bytes(16))
            return self._describe(fresh_state(self.specification, key))
        return self._describe(decode_state(dict(latest.body)))

    def verify(self, shards: Sequence[int] | None = None) -> Verification:
        """Retrain ``shards`` (default: all) from nothing on what is left, compare bytes, scan the store for residue.

        Holds the writer lock, so that nothing changes meanwhile. Raises ``Invalid`` for a shard that does not exist.
        """
        with self._writing("verify") as (engine, _):
            state = engine.state
            self._require_data(state)
            check_unchanged(state, self.specification)
            chosen = _chosen(shards, len(state.shards))
            pool = self.workers()
            check_configuration(state.configuration, pool.configuration(_width(state), len(chosen)))
            residue = scan_residue(self._store, self._register, state)
            proofs = prove_shards(state, chosen, pool, self._listener)
            complete = [each.request_id for each in state.requests if each.state is RequestState.COMPLETE]
            return Verification(shards=proofs, residue=residue, receipts=self.registrar.check_all(complete))

    def plan(
        self, *, shards: int | None = None, slices: int | None = None, requests: int = 1, points: int | None = None
    ) -> Plan:
        """Return what training and erasing will cost, for the specification's S and R or for others.

        Rests on this federation's own training where there was one, else on a short trial.
        """
        latest = self._register.latest()
        state = decode_state(dict(latest.body)) if latest else None
        basis = measured_basis(state, state.settings["training"]["epochs"]) if state else None
        if basis is None:
            source = self._open_train()
            basis = trial_basis(self.specification, source, points, self._clock)
        elif points is not None:
            basis = replace(basis, points=points)
        workers = self.specification.cluster.workers or max(1, int(cpus() / self.specification.cluster.cpus_per_worker))
        return plan_for(self.specification, basis, shards=shards, slices=slices, requests=requests, workers=workers)

    def workers(self) -> RayPool:
        """Return the worker pool, joining Ray at the first call."""
        if self._pool is None:
            self._started_ray = join_ray(self.specification.cluster)
            self._pool = RayPool(
                self._worker_setup(), self.specification.cluster, lambda text: self._listener(Remark(text=text))
            )
        return self._pool

    def _worker_setup(self) -> WorkerSetup:
        specification = self.specification
        return WorkerSetup(
            store=self._store,
            settings=bit_settings(settings_record(specification)),
            model=specification.model,
            training=specification.training,
            classes=len(specification.data.classes),
            slices=specification.partition.slices,
            threads=specification.cluster.threads_per_worker,
            device="cuda" if specification.cluster.gpus_per_worker else "cpu",
            import_folder=specification.folder,
        )

    @contextmanager
    def _writing(self, command: str) -> Iterator[tuple[Engine, PartitionKey]]:
        tools = Tools(
            store=self._store,
            clock=self._clock,
            names=self._names,
            listener=self._listener,
            pool=self.workers,
            registrar=self.registrar,
            described=lambda: describe_store(self._store, self._clock.now()),
        )
        with self._store.exclusive("writer", holder=holder(command, self._clock.now())):
            if command == "train":
                self._probe_unknown()
            key = partition_key(self._store, self.specification, draw=command == "train")
            self._check_store(key)
            yield Engine.start(tools, self._register, fresh_state(self.specification, key)), key

    def _probe_unknown(self) -> None:
        """Probe a bucket before the first federation in it: many servers keep conditions only one at a time."""
        if is_on_s3(self._store.location) and self._register.latest() is None:
            probe_store(self._store)

    def _check_store(self, key: PartitionKey) -> None:
        if latest := self._register.latest():
            state = decode_state(dict(latest.body))
            if state.is_begun:
                check_identity(state, self.specification, key)

    def _read(self) -> tuple[FederationState, PartitionKey]:
        latest = self._register.latest()
        if latest is None:
            raise untrained(self.specification)
        state = decode_state(dict(latest.body))
        key = partition_key(self._store, self.specification, draw=False)
        check_identity(state, self.specification, key)
        self._require_data(state)
        check_unchanged(state, self.specification)
        return state, key

    def _load(self) -> tuple[FederationState, Ensemble]:
        return self._steadily(lambda state: (state, Ensemble.load(self._store, state, self.specification)))

    def _steadily(self, act: Callable[[FederationState], _Result]) -> _Result:
        """Return what ``act`` makes of the current state; again when a writer purged meanwhile what it read."""
        for _ in range(_READ_ATTEMPTS - 1):
            state, _key = self._read()
            try:
                return act(state)
            except Corrupt:
                if self._read()[0] == state:
                    raise
        return act(self._read()[0])

    def _still_servable(self, ensemble: Ensemble, batches: Iterable[FeatureBatch]) -> Iterator[FeatureBatch]:
        """Yield the batches as long as the ensemble may answer, and end only if it still may (E10).

        Raises ``Unavailable`` when an erasure has raised the floor above it: only the batch under way was answered.
        """
        for batch in batches:
            self._check_floor(ensemble)
            yield batch
        self._check_floor(ensemble)

    def _check_floor(self, ensemble: Ensemble) -> None:
        latest = self._register.latest()
        floor = decode_state(dict(latest.body)).floor if latest else 0
        if ensemble.generation < floor:
            raise Unavailable(
                "an erasure has withdrawn the ensemble that was answering; its answers were given up",
                "run the command again: it takes the ensemble that is served now",
                generation=ensemble.generation,
                floor=floor,
            )

    def _source(self, state: FederationState) -> Source | None:
        """Return the source; None when it is gone but was ingested before, which is no reason to stop."""
        try:
            return self._open_train()
        except Invalid as error:
            if state.data is None:
                raise
            self._listener(Remark(text=f"{error.message}: going on with what was ingested before"))
            return None

    def _open_train(self) -> Source:
        own = local_folders(self.specification)
        return open_source(self.specification.data.train, self.specification.folder, leave_out=own)

    def _is_news(self, state: FederationState, source: Source) -> bool:
        """Whether the source, or what is taken from it, differs from what was ingested."""
        taken = taken_from(self.specification.data)
        return state.data is None or state.data.inventory != inventory(source) or state.data.taken != taken

    def _tell_changes(self, state: FederationState) -> None:
        if state.configuration and (changed := differences(state, self.specification)):
            table = side_by_side(changed)
            self._listener(Remark(text=f"settings changed, so constituents are trained anew:\n{table}"))

    def _features(self, state: FederationState, data: object, *, labelled: bool) -> Iterator[FeatureBatch]:
        assert state.data is not None
        # By the names found at ingest: a pattern could match the columns of this file in another order.
        settings: DataSettings = replace(self.specification.data, features=state.data.layout.features)
        source = open_source(str(data), Path.cwd()) if isinstance(data, str | Path) else table_source(data)
        return feature_batches(source, settings, state.data.layout.width, labelled=labelled)

    def _answer(self, ensemble: Ensemble, batch: FeatureBatch) -> PredictionBatch:
        answer = ensemble.answer(batch.features_NF)
        names = self.specification.data.classes
        return PredictionBatch(
            ids=batch.ids,
            predictions=[names[position] for position in answer.classes_N],
            probabilities_NC=answer.scores_NC,
        )

    def _require_data(self, state: FederationState) -> None:
        if state.data is None:
            raise untrained(self.specification)

    def _describe(self, state: FederationState) -> FederationStatus:
        changed = tuple(each.setting for each in differences(state, self.specification))
        return describe(state, self._store.location, self._clock.now(), changed)


def connect(config: str | Path | FederationSpecification = "sisa.toml", **options: Any) -> Federation:
    """Return the federation that a specification describes; Ray is joined when first needed."""
    specification = config if isinstance(config, FederationSpecification) else read_specification(Path(config))
    return Federation(specification, **options)


def launch(config: str | Path | FederationSpecification = "sisa.toml", **options: Any) -> Federation:
    """Return the federation with its workers' cluster joined already: what is wrong with Ray shows at once."""
    federation = connect(config, **options)
    federation.workers()
    return federation


def _width(state: FederationState) -> int:
    assert state.data is not None
    return state.data.layout.width


def _chosen(shards: Sequence[int] | None, count: int) -> tuple[ShardId, ...]:
    wanted = sorted(set(range(count) if shards is None else shards))
    if strange := [shard for shard in wanted if not 0 <= shard < count]:
        raise Invalid(f"there is no shard {strange[0]}", f"shards are 0 .. {count - 1}")
    return tuple(ShardId(shard) for shard in wanted)
