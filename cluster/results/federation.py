"""What the front door returns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from coordinator.aggregation import AnsweredBy
from coordinator.decisions.plan import RetrainPlan
from coordinator.receipts.checking import ReceiptsCheck
from coordinator.requests import Readmission, Similar
from coordinator.status import RequestStatus
from coordinator.verification import Residue, ShardProof
from shards.data.frames import frame_like
from shards.data.prediction_files import PredictionBatch, predictions_table, write_predictions
from shards.learner_kinds.guarantees import EXACT
from shards.measures import Measures
from shards.slices.overlap import TrainedOn
from shards.targets import LabelArray, Target
from storage.errors import Invalid


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers(AnsweredBy):
    """Predictions, computed as they are read; ``batches`` can be read once."""

    target: Target
    id_column: str
    batches: Iterator[PredictionBatch]
    asked: Any = None
    """What was asked about."""

    def __repr__(self) -> str:
        outputs = f"{len(self.target.names)} {'classes' if self.target.has_classes else 'labels'}"
        outputs = outputs if self.target.has_labels else f"target {self.target.kind}"
        return (
            f"Answers(generation {self.generation}, constituents {self.constituents} of {self.shards},"
            f" {outputs}; .table() or .write(path) gives them, once)"
        )

    def table(self) -> Any:
        """Return the answers as a ``pyarrow.Table``: the id, and the columns of the target, such as ``prediction``."""
        return predictions_table(self.batches, self.target, self.id_column)

    def frame(self) -> Any:
        """Return the answers as a frame of the library that the data came from: pandas (with their index) or polars.

        For other data it is the same as ``table``.
        """
        return frame_like(self.asked, self.table())

    def write(self, path: Path) -> int:
        """Write the answers to a Parquet, Arrow or CSV file; return how many there are."""
        return write_predictions(path, self.batches, self.target, self.id_column)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation(Measures):
    """How good the ensemble's answers are: ``accuracy`` of classes, ``mae`` and ``r2`` of numbers, and so on."""

    target: str
    generation: int
    constituents: int
    shards: int
    guarantee: str = str(EXACT)
    """What the learner promises about erased data points; see ``AnsweredBy.guarantee``."""
    trained_on: TrainedOn | None = None
    """How many of the data points were trained on; None: not looked up, because there are no ids or several sites."""

    @property
    def accuracy(self) -> float:
        """How often the ensemble was right. Raises ``Invalid`` for a target that is a number."""
        if "accuracy" not in self.metrics:
            raise Invalid(f"the target {self.target} has no accuracy", "Read .metrics.")
        return self.metrics["accuracy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureAnswer(RequestStatus):
    """An erasure request with private details for its submitter, none of which is stored."""

    unknown_subjects: tuple[int, ...] = ()
    """Positions in the call, from 0, of the subjects that have no data point here; empty until they are known."""
    unknown_ids: tuple[int, ...] = ()
    """The same for ids."""
    unknown_names: tuple[str, ...] = ()
    """The unknown subjects and ids by name, where the call gave lists."""
    salt: str = ""
    """Opens the commitment in the request's receipt: keep it with the receipt. Empty if this call repeats a request,
    whose first submitter has the salt."""

    @classmethod
    def of(cls, status: RequestStatus, **more: Any) -> Self:
        """Return the answer to the request's submitter; ``more`` holds the private details."""
        return cls(**{each.name: getattr(status, each.name) for each in fields(RequestStatus)}, **more)

    @property
    def request(self) -> RequestStatus:
        """The request without the private details."""
        return RequestStatus(**{each.name: getattr(self, each.name) for each in fields(RequestStatus)})

    def naming(self, subjects: Iterable[str | int], ids: Iterable[str | int]) -> Self:
        """Return the answer with its unknown names, if the call gave lists, which can be read again."""
        unknown = (*_at(subjects, self.unknown_subjects), *_at(ids, self.unknown_ids))
        return replace(self, unknown_names=unknown)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadmissionAnswer(Readmission):
    """A readmission with private details for its submitter, none of which is stored."""

    unknown_subjects: tuple[int, ...] = ()
    """Positions in the call, from 0, of subjects that were not erased. Empty if the call repeats a readmission."""
    unknown_names: tuple[str, ...] = ()
    """These subjects by name, where the call gave a list."""
    erased_since: int = 0
    """If the call repeats a readmission: how many of its subjects are erased now. They stay out."""

    @classmethod
    def of(cls, readmission: Readmission, subjects: Iterable[str | int], **more: Any) -> Self:
        """Return the answer to the readmission's submitter; ``subjects``: as the call gave them."""
        kept = {each.name: getattr(readmission, each.name) for each in fields(Readmission)}
        answer = cls(**kept, **more)
        return replace(answer, unknown_names=_at(subjects, answer.unknown_subjects))


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What an erasure would remove, and which of its names have no data point."""

    plan: RetrainPlan
    subjects: int
    ids: int
    unknown: int
    unknown_subjects: tuple[int, ...]
    """As in ``ErasureAnswer``."""
    unknown_ids: tuple[int, ...]
    similar: Similar
    """Data points that would stay, of subjects whose names differ only in spelling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectFound:
    """What the federation holds of a subject."""

    points: int
    similar: Similar
    """What it holds of other subjects, whose names differ only in spelling."""
    erased: bool
    """Whether the subject was erased, so that its new data points are kept out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectsFound:
    """The answer to a look-up over HTTP; it repeats no name."""

    subjects: tuple[SubjectFound, ...]
    """In the order in which they were named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Proof that the federation is exact, or what contradicts it."""

    shards: tuple[ShardProof, ...]
    residue: Residue
    receipts: ReceiptsCheck
    guarantee: str = str(EXACT)
    """The guarantee that was verified; see ``AnsweredBy.guarantee``."""

    @property
    def exact(self) -> bool:
        """Whether every retrained shard came out byte-equal."""
        return all(proof.exact for proof in self.shards)

    @property
    def is_kept(self) -> bool:
        """Whether the learner's guarantee holds for every shard: see ``ShardProof.holds``."""
        return all(proof.holds for proof in self.shards)

    @property
    def holds(self) -> bool:
        """Whether the guarantee is kept, nothing is left over, and every complete request has a sound receipt."""
        return self.is_kept and not self.residue.found and not self.receipts.broken


def _at(given: Iterable[str | int], positions: Sequence[int]) -> tuple[str, ...]:
    return tuple(str(given[position]) for position in positions) if isinstance(given, Sequence) else ()


def evaluation_of(
    batches: Iterable[tuple[LabelArray, npt.NDArray[np.float64]]],
    target: Target,
    by: AnsweredBy,
) -> Evaluation:
    """Return the evaluation of labels and scores. Raises ``Invalid`` when there is not a single one."""
    found = target.measure(batches)
    if not found.points:
        raise Invalid("there is no data point to evaluate on", "Name a file that holds labelled data points.")
    measures: dict[str, Any] = {each.name: getattr(found, each.name) for each in fields(Measures)}
    return Evaluation(target=target.kind, **by.facts, **measures)
