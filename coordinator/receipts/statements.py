"""Statements about what was not an erasure: nothing was found, subjects may come back, a constituent was wrong. Pure.

They are signed and logged like receipts. A name that is not in the federation must not get into the append-only log,
not even as a digest that the holder of the partition key could compare with a name. So the statement that nothing was
found contains a commitment to the names, but no digest of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from coordinator.receipts.evidence import FORMAT_VERSION, StoreEvidence
from coordinator.receipts.kinds import NOTHING_FOUND_TYPE, READMISSION_TYPE, REFUTATION_TYPE
from coordinator.receipts.openings import RECIPE, leaves, over
from coordinator.requests import ErasureRequest, Readmission, Refutation, RequestState
from coordinator.state import FederationState
from shards.learner_kinds.guarantees import EXACT
from shards.subjects import SubjectForm
from storage.digests import Sha256

_LEAF_BYTES: Final = 32
_UNLIKE: Final = "this constituent to be unlike one trained on the same data points"
_ABOVE: Final = (
    "this constituent, whose guarantee is certified, to be further from the optimum of its data points than was"
    " accounted for it"
)
_NOT_PURGED: Final = frozenset({RequestState.QUARANTINED, RequestState.RETRAINING, RequestState.PUBLISHED})
"""States of requests whose data points are taken out of the data, but are still in objects to be deleted."""


class Commitment:
    """Collects names one by one for a commitment."""

    def __init__(self, salt: str) -> None:
        self._salt = salt
        self._leaves = bytearray()

    def add(self, kind: str, names: Iterable[str]) -> None:
        """Add names of this kind, ``subject`` or ``id``."""
        for leaf in leaves(self._salt, kind, names):
            self._leaves += leaf

    def value(self) -> Sha256:
        """Return ``openings.commitment`` of all names; sorting a million takes a second."""
        return over(np.sort(np.frombuffer(bytes(self._leaves), dtype=f"S{_LEAF_BYTES}")).tobytes())


@dataclass(frozen=True, slots=True, kw_only=True)
class NothingFound:
    """The statement that no data point of a request's names was in the federation."""

    federation: str
    request: ErasureRequest
    points: int
    """Number of data points in the federation, all of other people."""
    being_erased: int = 0
    """Number of other requests whose data points were taken out and not used, but not yet purged."""
    generation: int
    form: SubjectForm
    store: StoreEvidence

    @property
    def request_id(self) -> str:
        """See ``Evidence.request_id``."""
        return self.request.request_id

    @property
    def request_digest(self) -> Sha256:
        """See ``Evidence.request_digest``."""
        return self.request.commitment or Sha256("")

    @property
    def predicate_type(self) -> str:
        """See ``Evidence.predicate_type``."""
        return NOTHING_FOUND_TYPE

    def predicate(self, issued_at: str) -> dict[str, Any]:
        """See ``Evidence.predicate``."""
        return {
            "format_version": FORMAT_VERSION,
            "proves": (
                "The operator stated, at this place of an append-only log, that no data point of the names committed to"
                " was in the federation's data, and that no model that it served then had learned one."
            ),
            "does_not_prove": (
                "It does not prove that the statement is true, nor that the federation knows nobody of a similar name:"
                " 'similar' counts those spelt alike. Nor that nothing of them was there before: what 'being_erased'"
                " other requests have taken out, perhaps theirs, lies in the store, unused, until those requests are"
                " purged. It names nobody: only who has the salt can show whom it is about."
            ),
            "issued_at": issued_at,
            "federation": self.federation,
            "request": {
                "id": self.request_id,
                "digest": self.request_digest,
                "digest_is": RECIPE,
                "subjects": self.request.subjects,
                "ids": self.request.ids,
                "unknown": self.request.found.unknown,
                "state": self.request.state.value,
                "due_at": self.request.due_at,
                "times": dict(self.request.times),
            },
            "searched": {
                "points": self.points,
                "being_erased": self.being_erased,
                "generation": self.generation,
                "subject_form": self.form,
                "similar": asdict(self.request.found.similar),
            },
            "store": {"kind": self.store.kind, "properties": dict(self.store.properties)},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Readmitted:
    """The statement that subjects who were erased may come back."""

    federation: str
    readmission: Readmission

    @property
    def request_id(self) -> str:
        """See ``Evidence.request_id``."""
        return self.readmission.request_id

    @property
    def request_digest(self) -> Sha256:
        """See ``Evidence.request_digest``."""
        return self.readmission.body

    @property
    def predicate_type(self) -> str:
        """See ``Evidence.predicate_type``."""
        return READMISSION_TYPE

    def predicate(self, issued_at: str) -> dict[str, Any]:
        """See ``Evidence.predicate``."""
        return {
            "format_version": FORMAT_VERSION,
            "proves": (
                "The operator stated, at this place of an append-only log, that from this time on new data points of"
                " subjects who had been erased are taken again, and why."
            ),
            "does_not_prove": (
                "It does not prove that they asked for it, and it names nobody. It brings nothing back: data points"
                " that were erased stay out by their ids, except those of 'without_ids' subjects, of whose erased data"
                " points no id is known."
            ),
            "issued_at": issued_at,
            "federation": self.federation,
            "request": {
                "id": self.request_id,
                "digest": self.request_digest,
                "subjects": self.readmission.subjects,
                "without_ids": self.readmission.without_ids,
                "state": "readmitted",
                "times": {"readmitted": self.readmission.at},
            },
            "reason": self.readmission.reason,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuted:
    """The statement that a constituent was not the result of training on its data points."""

    federation: str
    refutation: Refutation
    requests: tuple[str, ...]
    """Ids of erasures whose receipts cover this shard, and so the refuted constituent."""
    is_exact: bool = True
    """Whether the check was a comparison with a retrained constituent.

    Otherwise its distance from the optimum was compared with the amount accounted for it.
    """

    @property
    def request_id(self) -> str:
        """See ``Evidence.request_id``."""
        return self.refutation.request_id

    @property
    def request_digest(self) -> Sha256:
        """See ``Evidence.request_digest``: the constituent's."""
        return self.refutation.digest

    @property
    def predicate_type(self) -> str:
        """See ``Evidence.predicate_type``."""
        return REFUTATION_TYPE

    def predicate(self, issued_at: str) -> dict[str, Any]:
        """See ``Evidence.predicate``."""
        return {
            "format_version": FORMAT_VERSION,
            "proves": (
                "The operator stated, at this place of an append-only log, that a verification found"
                f" {_UNLIKE if self.is_exact else _ABOVE}, and took it out of service at this time."
            ),
            "does_not_prove": (
                "It does not prove"
                f" {'which of the two was right' if self.is_exact else 'why'}, nor what the constituent answered while"
                " it was served."
            ),
            "issued_at": issued_at,
            "federation": self.federation,
            "request": {
                "id": self.request_id,
                "digest": self.request_digest,
                "state": "refuted",
                "times": {"refuted": self.refutation.at},
            },
            "shard": self.refutation.shard,
            "slice": self.refutation.slice,
            "lineage": self.refutation.lineage,
            "constituent": self.refutation.digest,
            "retrained": self.refutation.retrained_digest,
            "receipts_about_this_shard": list(self.requests),
        }


def statement_owed(
    state: FederationState, request_id: str, store: StoreEvidence, every: Callable[[], Iterable[ErasureRequest]]
) -> NothingFound | Readmitted | Refuted | None:
    """Return the statement to make about a request that erased nothing; None for a request that erases data points.

    ``every`` returns all requests ever accepted, in order of acceptance.
    """
    readmission, refutation = state.readmission(request_id), state.refutation(request_id)
    if readmission is not None:
        return Readmitted(federation=state.name, readmission=readmission)
    if refutation is not None:
        about = (each for each in every() if refutation.shard in each.found.from_slices and each.receipt is not None)
        ids = tuple(each.request_id for each in about)
        is_exact = state.promise == EXACT
        return Refuted(federation=state.name, refutation=refutation, requests=ids, is_exact=is_exact)
    request = state.request(request_id)
    if request is None or request.state is not RequestState.REFUSED:
        return None
    return NothingFound(
        federation=state.name,
        request=request,
        points=sum(shard.points for shard in state.shards),
        being_erased=sum(each.state in _NOT_PURGED for each in state.requests),
        generation=state.generation,
        form=state.naming.form,
        store=store,
    )
