"""The ensemble that may be served: loads the constituents, evaluates all of them and aggregates their answers.

Shape legend: K constituents, N points, F features, W outputs of the model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cluster.config.specification import FederationSpecification
from cluster.runtime.learners import learner_of
from cluster.runtime.user_code import make_importable, working_in
from coordinator.aggregation import AnsweredBy, ModelFailed, Rule, aggregate, model_failed
from coordinator.state import Constituent, FederationState, servable
from shards.learner_kinds.guarantees import EXACT
from shards.learners.protocol import (
    Learner,
    OpensForAnswers,
    Outputs,
    OutputsAtOnce,
    Serves,
    answering,
    answering_from,
    outputs_of_all,
)
from shards.learners.registry import code_digest, fix_numerics
from shards.learners.tensors import OTHER_DIGEST, decode_serving, encode_serving
from shards.learners.torch.code_manifest import CodeManifest
from shards.learners.torch.rehearsal import recorded_manifest
from shards.learners.torch.staging import declared_files, file_digest
from shards.learners.trainer import read_checkpoint
from shards.lineage import CheckpointRecord, Configuration
from shards.specification import ShardId
from shards.targets import Target
from storage.digests import Sha256, sha256
from storage.errors import Conflict, Corrupt, Invalid, InvariantBroken, ObjectMissing, Unavailable
from storage.objects import ObjectStore, ReadsPieces

CheckpointName = tuple[ShardId, Sha256]
"""Shard and checkpoint of a constituent."""

_MOST_READERS: Final = 4
"""Threads that read checkpoints concurrently: the store's answers take time, and so do decryption and digests."""

_READING_BYTES: Final = 256 * 1024 * 1024
"""Most bytes of checkpoints that are read at once, except a single larger one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ensemble:
    """One generation, in memory. Answers of single constituents stay inside (E11)."""

    generation: int
    shards: int
    """S: the number of shards; constituents that are not loaded abstain."""
    learner: Learner[Any] = field(repr=False)
    constituents: tuple[Any, ...] = field(repr=False)
    """The learner's states, one per constituent."""
    rule: Rule
    target: Target
    answering: tuple[Any, ...] = field(repr=False)
    """The states that are evaluated: the constituents, or a single one made of all of them."""
    outputs: Outputs = field(repr=False)
    """Asks them."""
    checkpoints: tuple[CheckpointName, ...] = ()
    """Shard and checkpoint of each constituent."""
    guarantee: str = str(EXACT)
    """See ``AnsweredBy.guarantee``."""

    @property
    def answered_by(self) -> AnsweredBy:
        """The constituents behind its answers."""
        return AnsweredBy(
            generation=self.generation,
            constituents=len(self.constituents),
            shards=self.shards,
            guarantee=self.guarantee,
        )

    @classmethod
    def load(
        cls,
        store: ObjectStore,
        state: FederationState,
        specification: FederationSpecification,
        loaded: Ensemble | None = None,
    ) -> Ensemble:
        """Return the ensemble that may be served according to ``state``.

        Constituents that ``loaded`` holds, an ensemble of the same specification, are not read again. Raises
        ``Invalid`` when nothing was trained yet, ``Unavailable`` when every constituent abstains, ``Conflict`` when the
        model's code differs from the one that it was trained with, ``Corrupt`` when a checkpoint is missing or damaged.
        """
        if state.generation == 0 or state.data is None:
            raise Invalid("the federation is not trained yet", "Run 'sisa train'.", federation=state.name)
        current = servable(state)
        if not current and state.published:
            raise Invalid("no data points are left: there is nothing to predict with", "Train on other data.")
        if not current:
            raise Unavailable(
                f"none of {len(state.shards)} constituents can answer: all of them are being retrained",
                "Run 'sisa train', or wait for it to finish.",
            )
        named = tuple((each.shard, each.checkpoint.sha256) for each in current)
        records = dict(zip(named, current, strict=True))

        def fetched(learner: Learner[Any], names: Sequence[CheckpointName]) -> Sequence[Any]:
            def fetch(name: CheckpointName) -> Any:
                record = records[name].checkpoint
                found = _opened_by_pieces(learner, store, record) if isinstance(learner, OpensForAnswers) else None
                if found is None:
                    found = answering_from(learner, read_checkpoint(store, record, name[0]), name[0])
                return found

            is_safe = isinstance(learner, OpensForAnswers)
            return _on_threads(fetch, names, _readers(current) if is_safe else 1)

        configuration = state.configuration
        return cls.of(
            specification,
            generation=state.generation,
            width=state.data.layout.width,
            shards=len(state.shards),
            checkpoints=named,
            code=configuration.model_code if configuration else None,
            manifest=_manifest(store, state.data.layout.width, configuration),
            fetched=fetched,
            loaded=loaded,
        )

    @classmethod
    def of(
        cls,
        specification: FederationSpecification,
        *,
        generation: int,
        width: int,
        shards: int,
        checkpoints: tuple[CheckpointName, ...],
        code: Sha256 | None,
        fetched: Callable[[Learner[Any], Sequence[CheckpointName]], Sequence[Any]],
        manifest: CodeManifest | None = None,
        loaded: Ensemble | None = None,
    ) -> Ensemble:
        """Return the ensemble of these checkpoints, whose constituents ``fetched`` opens; see ``load`` for ``loaded``.

        Raises ``Conflict`` when the model's code differs from ``code``, or its parts from ``manifest``: the code and
        parts with which the checkpoints were trained.
        """
        make_importable(specification.folder)
        fix_numerics(specification.model, specification.cluster.threads_per_worker, "cpu")
        learner = learner_of(specification, width)
        known = dict(zip(loaded.checkpoints, loaded.constituents, strict=True)) if loaded else {}
        with working_in(specification.folder) if specification.model.files else nullcontext():
            if isinstance(learner, OpensForAnswers):
                learner.prepare_to_open()  # imports all of the model's code, as the other does
            else:
                learner.initial(ShardId(0))
            _check_code(code, manifest, specification)
            missing = [name for name in checkpoints if name not in known]
            known |= zip(missing, fetched(learner, missing), strict=True)
            constituents = tuple(known[name] for name in checkpoints)
        asked = answering(learner, constituents)
        return cls(
            generation=generation,
            shards=shards,
            learner=learner,
            constituents=constituents,
            answering=asked,
            outputs=outputs_of_all(learner, asked),
            rule=specification.aggregation.rule,
            target=specification.predicted,
            checkpoints=checkpoints,
            guarantee=str(specification.model.promise),
        )

    @property
    def quick_points(self) -> int:
        """Up to this many data points are answered faster than a thread wakes up; see ``OutputsAtOnce``."""
        return self.outputs.quick_points if isinstance(self.outputs, OutputsAtOnce) else 0

    def answer(self, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the aggregated scores for scaled features.

        Raises ``ModelFailed`` with the position of the first data point on which the model fails, and ``Unavailable``
        when there is too little memory.
        """
        try:
            outputs_KNW = self.outputs(features_NF)
        except MemoryError:
            raise Unavailable(
                "there is not enough memory to answer these data points", "Ask for fewer at a time."
            ) from None
        except Exception as error:  # noqa: BLE001  the model is the user's code, and its errors may quote data points
            raise self._failed(features_NF, f"the model's code raises {type(error).__name__}") from None
        if not np.isfinite(outputs_KNW).all():
            point = int(np.argwhere(~np.isfinite(outputs_KNW))[:, 1].min())
            raise model_failed("the model's answer is not a number", point)
        return aggregate(outputs_KNW, self.rule, self.target)

    def _failed(self, features_NF: npt.NDArray[np.float32], fact: str) -> ModelFailed:
        """Return the error for data points one of which the model fails on; the halving below finds it."""
        start, stop = 0, len(features_NF)
        while stop - start > 1:
            middle = (start + stop) // 2
            start, stop = (start, middle) if self._fails(features_NF[start:middle]) else (middle, stop)
        is_found = stop > start and self._fails(features_NF[start:stop])  # else it failed for another reason
        return model_failed(fact, start if is_found else None)

    def _fails(self, features_NF: npt.NDArray[np.float32]) -> bool:
        try:
            self.outputs(features_NF)
        except Exception:  # noqa: BLE001  see ``answer``
            return True
        return False


def _opened_by_pieces(learner: OpensForAnswers[Any], store: ObjectStore, record: CheckpointRecord) -> Any:
    """Return a constituent whose checkpoint was digested and opened while it was decrypted; None if that failed.

    The checkpoint is then read as a whole, which retries if that may help, and reports what is wrong.
    """
    if not isinstance(store, ReadsPieces):
        return None
    digest = hashlib.sha256()

    def digested() -> Iterator[memoryview]:
        for piece in store.pieces(record.key):
            digest.update(piece)
            yield piece

    try:
        found = learner.open_pieces(digested())
    except (Corrupt, ObjectMissing):
        return None
    return found if digest.hexdigest() == record.sha256 else None


def _readers(constituents: Sequence[Constituent]) -> int:
    """Return how many of these checkpoints are read at once: each is in memory twice while it is read."""
    largest = max(each.checkpoint.payload_bytes for each in constituents)
    return min(_MOST_READERS, max(1, _READING_BYTES // max(1, largest)))


def _on_threads(fetch: Callable[[CheckpointName], Any], names: Sequence[CheckpointName], readers: int) -> list[Any]:
    """Return the result of ``fetch`` for each name; raises the first error, and starts no further calls after it."""
    if readers == 1 or len(names) < 2:
        return [fetch(name) for name in names]
    with ThreadPoolExecutor(readers, "sisa-reading") as threads:
        try:
            return list(threads.map(fetch, names))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def serving_part(specification: FederationSpecification, width: int, payload: bytes, name: CheckpointName) -> bytes:
    """Return the part of a checkpoint that leaves the site: all of it for torch, otherwise the part that serves.

    Raises ``Invalid`` when it was made of so few data points that it would reveal single ones.
    """
    if specification.model.recorded_learner is None:
        return payload
    fix_numerics(specification.model, specification.cluster.threads_per_worker, "cpu")
    learner = learner_of(specification, width)
    if not isinstance(learner, Serves):
        raise InvariantBroken("a learner without a part that serves was let through")
    return encode_serving(learner.to_serving(learner.from_bytes(payload, name[0])), name[1])


def open_serving(learner: Learner[Any], payload: bytes, name: CheckpointName) -> Any:
    """Return the local counterpart of another site's constituent, from the result of ``serving_part`` there.

    Raises ``Corrupt`` when ``payload`` is damaged, of another checkpoint or not of this learner.
    """
    if isinstance(learner, Serves):
        return learner.from_serving(decode_serving(payload, name[1]))
    if sha256(payload) != name[1]:
        raise Corrupt(OTHER_DIGEST, "Fetch it again.")
    return answering_from(learner, payload, name[0])


def _manifest(store: ObjectStore, width: int, configuration: Configuration | None) -> CodeManifest | None:
    if configuration is None or configuration.code_manifest is None:
        return None
    manifest = recorded_manifest(width, configuration, store)
    if manifest is None:
        raise Conflict(
            "the record of what the model is made of is gone from the store, or damaged",
            "Run 'sisa train', which writes the record again and retrains only what has changed.",
        )
    return manifest


def _check_code(code: Sha256 | None, manifest: CodeManifest | None, specification: FederationSpecification) -> None:
    model, differences = specification.model, list[str]()
    if manifest is not None:
        files = declared_files(specification.folder, model.files)
        present = manifest.present(model.factory, {name: file_digest(file) for name, file in files.items()})
        differences = manifest.differences(present)
    if code is not None and code != code_digest(model, specification.training) and not differences:
        is_torch = model.recorded_learner is None
        differences = ["the model's source code has changed" if is_torch else "the learner's arguments have changed"]
    if differences:
        raise Conflict(
            f"the constituents were trained under other conditions: {'; '.join(differences)}",
            "Undo the change, or run 'sisa train' to retrain all constituents.",
            factory=model.factory,
        )
