"""Read-only questions to a federation: its state, predictions, accuracy, and the cost of an erasure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from cluster.config.specification import FederationSpecification
from cluster.ensemble.tracing import (
    RequestIndex,
    checkpoints_after,
    generations_of,
    slices_with,
    traced_request,
)
from cluster.results.federation import Answers, ErasureAnswer, Evaluation, Search, SubjectFound, evaluation_of
from cluster.results.traces import SubjectTrace, SubjectTraces
from cluster.runtime.system import SteadyClock
from cluster.writer.drafting import RequestDraft, Roll, roll_of
from cluster.writer.identity import (
    differences,
    fresh_state,
    trained,
)
from cluster.writer.training_data import asked_about
from cluster.writer.writer import check_skeletons
from coordinator.aggregation import ModelFailed, placed
from coordinator.decisions.plan import plan_retrain
from coordinator.engine.ended import all_requests, find_readmission
from coordinator.engine.history import generations
from coordinator.engine.lookup import load_digests, load_tombstones
from coordinator.engine.removal import Demand, Removal, find_points
from coordinator.ports import Clock
from coordinator.receipts.rollback import forgotten_by, refuse_forgotten
from coordinator.requests import ErasureRequest, RequestState
from coordinator.state import FederationState
from coordinator.status import FederationStatus, describe_federation, describe_request
from shards.data.prediction_files import FeatureBatch, PredictionBatch, in_order_to_measure
from shards.routing import DIGEST_BYTES, PartitionKey
from shards.slices.held_out import labelled_batches
from shards.slices.overlap import Evaluated, TrainedOn
from shards.targets import Cluster
from shards.tombstones import DigestSet
from storage.encryption.store import SealedStore
from storage.errors import Corrupt, Invalid, Unavailable

if TYPE_CHECKING:
    from cluster.ensemble.loaded import Ensemble

_READ_ATTEMPTS = 3

_Result = TypeVar("_Result")


class Reading:
    """Reads a federation. It needs only the store, and any number of readers may work while one process writes."""

    def __init__(
        self,
        specification: FederationSpecification,
        store: SealedStore,
        clock: Clock,
        current: Callable[[], FederationState | None],
        remark: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``current`` returns the last committed state, None before the first; ``remark`` is called with messages."""
        self._specification = specification
        self._store = store
        self._clock = SteadyClock.of(clock)
        self._remark = remark
        self.current = current

    def trained(self) -> tuple[FederationState, PartitionKey]:
        """See ``cluster.writer.identity.trained``."""
        return trained(self.current(), self._store, self._specification)

    def search(
        self, subjects: Iterable[str | int], ids: Iterable[str | int], *, include_similar: bool = False
    ) -> Search:
        """Return what erasing them would remove and cost, and which names have no data point."""
        state, key = self.trained()
        refuse_forgotten(self._store, self.current)
        if include_similar:
            check_skeletons(state)
        roll = roll_of(self._specification, key, state.naming, subjects, ids)
        demand = Demand(names=roll.names, include_similar=include_similar)
        epochs = self._specification.training.epochs

        def found(state: FederationState) -> Search:
            removal = find_points(self._store, state, [demand])[0]
            at_subjects, at_ids = roll.positions(removal.missing)
            return Search(
                plan=plan_retrain(state, removal.removed, epochs),
                subjects=len(demand.names.subjects) // DIGEST_BYTES,
                ids=len(demand.names.points) // DIGEST_BYTES,
                unknown=len(removal.missing),
                unknown_subjects=at_subjects,
                unknown_ids=at_ids,
                similar=removal.similar,
            )

        return self._steadily(found)

    def lookup(self, subjects: Iterable[str | int]) -> tuple[SubjectFound, ...]:
        """Return what the federation holds of each subject, in their order; neither changes nor records anything.

        It counts similar spellings but cannot name them, because the store holds no names.
        """
        state, key = self.trained()
        refuse_forgotten(self._store, self.current)
        roll = roll_of(self._specification, key, state.naming, subjects, ())

        def found(state: FederationState) -> tuple[SubjectFound, ...]:
            tombstones = load_tombstones(self._store, state.tombstone_objects())
            demands = [Demand(names=names) for names in _one_by_one(roll)]
            removals = find_points(self._store, state, demands, apart=True)
            return tuple(
                SubjectFound(
                    points=sum(removal.removed.values()),
                    similar=removal.similar,
                    erased=bool(len(demand.names.shared(tombstones))),
                )
                for demand, removal in zip(demands, removals, strict=True)
            )

        return self._steadily(found)

    def trace(self, subjects: Iterable[str | int]) -> SubjectTraces:
        """Return what is on record about each subject, in their order: slices, checkpoints, generations, requests.

        It neither changes nor records anything. ``cluster.ensemble.tracing`` says what the trace of an erased subject
        still contains.
        """
        state, key = self.trained()
        refuse_forgotten(self._store, self.current)
        roll = roll_of(self._specification, key, state.naming, subjects, ())

        def found(state: FederationState) -> SubjectTraces:
            tombstones = load_tombstones(self._store, state.tombstone_objects())
            index, records = RequestIndex(self._store, state), tuple(generations(self._store, state))

            def of_one(names: DigestSet, removal: Removal) -> SubjectTrace:
                named_by = index.naming(names)
                return SubjectTrace(
                    points=sum(removal.removed.values()),
                    similar=removal.similar,
                    erased=bool(len(names.shared(tombstones))),
                    slices=slices_with(state, removal.removed),
                    checkpoints=checkpoints_after(state, removal.removed),
                    generations=generations_of(state, records, removal.removed, named_by),
                    requests=tuple(map(traced_request, named_by)),
                )

            each = _one_by_one(roll)
            removals = find_points(self._store, state, [Demand(names=names) for names in each], apart=True)
            together = index.naming(roll.names) if len(set(each)) > 1 else ()
            return SubjectTraces(
                subjects=tuple(of_one(names, removal) for names, removal in zip(each, removals, strict=True)),
                together=tuple(map(traced_request, together)),
            )

        return self._steadily(found)

    def kept_out(self, roll: Roll, request_id: str) -> dict[str, Any]:
        """Return the private part of a ``ReadmissionAnswer``; to be called before the readmission is made."""

        def found(state: FederationState) -> dict[str, Any]:
            tombstones = load_tombstones(self._store, state.tombstone_objects())
            if find_readmission(self._store, lambda: state, request_id) is not None:
                return {"erased_since": len(roll.names.shared(tombstones))}
            return {"unknown_subjects": roll.positions(roll.names.without(tombstones))[0]}

        return self._steadily(found)

    def answer_to(self, made: RequestDraft, request: ErasureRequest) -> ErasureAnswer:
        """Return a request's status for the caller that submitted it with this draft; unknown names by position.

        The salt opens the commitment of this draft, so it is included only if the request has that commitment.
        """
        assert made.roll is not None
        at_subjects, at_ids = self.unknown(made.roll, request)
        opens = request.commitment == made.request.commitment
        return ErasureAnswer.of(
            describe_request(request, self._clock.now()),
            unknown_subjects=at_subjects,
            unknown_ids=at_ids,
            salt=made.salt if opens else "",
        )

    def unknown(self, roll: Roll, request: ErasureRequest) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the positions, in the call that gave them, of the request's names that have no data point.

        They are empty until the request is carried out, and for requests that an earlier release carried out.
        """
        if request.state is RequestState.REFUSED:
            if request.correction is not None and request.found.unknown < request.ids:
                return (), ()  # some have these values already, and which ones is not on record
            return roll.positions(roll.names)
        return roll.positions(load_digests(self._store, request.found.missing))

    def requests(self) -> tuple[ErasureRequest, ...]:
        """Return all requests that were ever accepted, in order of acceptance."""
        if self.current() is None:
            return ()
        return self._steadily(lambda state: all_requests(self._store, state))

    def predict(self, data: object) -> Answers:
        """Return the ensemble's answers, batch by batch."""
        state, ensemble = self._load()
        features = asked_about(self._specification, state, data, labelled=False, remark=self._remark)
        return Answers(
            **ensemble.answered_by.facts,
            target=self._specification.predicted,
            id_column=self._specification.data.id,
            asked=data,
            batches=(
                PredictionBatch(ids=batch.ids, scores_NS=scores_NS)
                for batch, scores_NS in self._answered(ensemble, features)
            ),
        )

    def evaluate(self, data: object = None) -> Evaluation:
        """Return how good the ensemble's answers to labelled data are, and how many of them were trained on.

        Without ``data`` these are the hold-out points. Raises ``Invalid`` also when there are none.
        """
        state, ensemble = self._load()
        target, evaluated = self._specification.predicted, Evaluated(self.trained()[1])
        if data is None:
            if not state.held_out:
                raise Invalid(
                    "the federation has no hold-out points", "Name a labelled file, or set [data] holdout and train."
                )
            asked = (in_order_to_measure(batch, target) for batch in self._still_held(state))
            held = self._answered(ensemble, asked)
            pairs = ((batch.labels_N, scores_NS) for batch, scores_NS in held if batch.labels_N is not None)
            return evaluation_of(pairs, target, ensemble.answered_by)
        features = asked_about(self._specification, state, data, labelled=True, remark=self._remark)

        def counted() -> Iterator[FeatureBatch]:
            for batch in features:
                evaluated.add(batch)
                yield in_order_to_measure(batch, target)

        def trained_on(state: FederationState) -> TrainedOn | None:
            slices = (record for shard in state.shards for record in shard.slices)
            return evaluated.trained_on(self._store, slices, self._specification.data.scale)

        answered = self._answered(ensemble, counted())
        pairs = ((batch.labels_N, scores_NS) for batch, scores_NS in answered if batch.labels_N is not None)
        found = evaluation_of(pairs, target, ensemble.answered_by)
        try:
            return replace(found, trained_on=self._steadily(trained_on))
        except Corrupt as error:  # answers need no slices, and 'sisa verify' is there to find damage
            self._remark(f"how many of the data points were trained on is not known: {error.fact}")
            return found

    def centroids(self) -> npt.NDArray[np.float64]:
        """Return the centroids of the clusters, shape (K, F), in the unit of the features, encoded but not scaled.

        Raises ``Invalid`` for a federation of another target.
        """
        data = self._specification.data
        if data.target != Cluster.kind:
            raise Invalid(f"the target {data.target} has no centroids", "Ask a federation with the target cluster.")
        (clusters,) = self._load()[1].answering
        found_KF: npt.NDArray[np.float64] = clusters.centroids * np.asarray(data.scale)
        return found_KF

    def status(self) -> FederationStatus:
        """Return the status of the federation and its requests, even if it was never trained."""
        no_key = PartitionKey(bytes(16))
        found = self.describe(self.current() or fresh_state(self._specification, no_key))
        return replace(found, forgotten=forgotten_by(self._store, self.current))

    def describe(self, state: FederationState) -> FederationStatus:
        """Return ``state`` in words and numbers, with the settings that have changed since."""
        changed = tuple(each.setting for each in differences(state, self._specification))
        erasure = self._specification.erasure
        return describe_federation(state, self._store.location, self._clock.machine(), changed, erasure)

    def _load(self) -> tuple[FederationState, Ensemble]:
        from cluster.ensemble.loaded import Ensemble  # noqa: PLC0415  it loads torch

        refuse_forgotten(self._store, self.current)
        return self._steadily(lambda state: (state, Ensemble.load(self._store, state, self._specification)))

    def _steadily(self, act: Callable[[FederationState], _Result]) -> _Result:
        """Return ``act`` of the current state; repeat it if a writer has purged objects that it was reading."""
        for _ in range(_READ_ATTEMPTS - 1):
            state, _key = self.trained()
            try:
                return act(state)
            except Corrupt:
                if self.trained()[0] == state:
                    raise
        return act(self.trained()[0])

    def _answered(
        self, ensemble: Ensemble, features: Iterable[FeatureBatch]
    ) -> Iterator[tuple[FeatureBatch, npt.NDArray[np.float64]]]:
        """Yield each batch with its scores; see ``_still_servable``, and ``Ensemble.answer`` for what it raises."""
        first = 0
        for batch in self._still_servable(ensemble, features):
            try:
                scores_NS = ensemble.answer(batch.features_NF)
            except ModelFailed as error:
                raise placed(error, first) from None
            first += len(batch.features_NF)
            yield batch, scores_NS

    def _still_servable(self, ensemble: Ensemble, batches: Iterable[FeatureBatch]) -> Iterator[FeatureBatch]:
        """Yield the batches as long as the ensemble may answer, and end only if it still may (E10).

        Raises ``Unavailable`` when an erasure has raised the floor above it: only the batch under way was answered.
        """
        for batch in batches:
            self._check_floor(ensemble)
            yield batch
        self._check_floor(ensemble)

    def _still_held(self, state: FederationState) -> Iterator[FeatureBatch]:
        """Yield the hold-out points of the state, as long as none of them is erased or replaced.

        Raises ``Unavailable`` when that happens during the call, ``Corrupt`` when they are damaged.
        """
        try:
            yield from labelled_batches(self._store, state.holdout, self._specification.data.scale)
        except Corrupt:
            self._check_held(state)
            raise
        self._check_held(state)

    def _check_held(self, state: FederationState) -> None:
        now = self.current()
        if now is None or now.holdout != state.holdout:
            raise Unavailable(
                "hold-out points were erased or exchanged while they were measured; the result was given up",
                "Run the command again.",
            )

    def _check_floor(self, ensemble: Ensemble) -> None:
        state = self.current()
        floor = state.floor if state else 0
        if ensemble.generation < floor:
            raise Unavailable(
                "an erasure has withdrawn the ensemble that was answering; its answers were given up",
                "Run the command again to use the ensemble that is served now.",
                generation=ensemble.generation,
                floor=floor,
            )


def _one_by_one(roll: Roll) -> list[DigestSet]:
    """Return the subjects of a roll, each by itself, in the order in which they were named."""
    starts = range(0, len(roll.subjects), DIGEST_BYTES)
    return [DigestSet.joined(subjects=roll.subjects[start : start + DIGEST_BYTES]) for start in starts]
