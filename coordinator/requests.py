"""Erasure requests and the states they pass through."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from shards.specification import ShardId
from storage.digests import Sha256
from storage.errors import Invalid
from storage.objects import ObjectKey

_MOST_CHARACTERS: Final = 200


class RequestState(enum.Enum):
    """Where a request stands (DESIGN section 4)."""

    ACCEPTED = "accepted"
    """Durable: it will be carried out whatever crashes."""
    PLANNED = "planned"
    """Its data points are found and written out of their slices."""
    QUARANTINED = "quarantined"
    """No prediction can use a model that has seen them."""
    RETRAINING = "retraining"
    PUBLISHED = "published"
    """The retrained constituents have taken over."""
    PURGED = "purged"
    """Nothing that held them is left in the store."""
    COMPLETE = "complete"
    WAITING = "waiting"
    FAILED = "failed"
    REFUSED = "refused"
    """Nothing to erase: no data point of these subjects or ids is in the federation."""

    @property
    def is_open(self) -> bool:
        """Whether work is still owed."""
        return self not in (RequestState.COMPLETE, RequestState.FAILED, RequestState.REFUSED)


_ORDER = [
    RequestState.ACCEPTED,
    RequestState.PLANNED,
    RequestState.QUARANTINED,
    RequestState.RETRAINING,
    RequestState.PUBLISHED,
    RequestState.PURGED,
    RequestState.COMPLETE,
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRef:
    """An object and the digest its bytes must have."""

    key: ObjectKey
    sha256: Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureRequest:
    """A demand to erase subjects or data points; holds keyed digests and counts, never ids."""

    request_id: str
    body: Sha256
    """Digest of the keyed digests it names: the same id with another body is a conflict (D4)."""
    names: ObjectRef | None
    """The keyed digests it names, until it is complete: then they are among the tombstones."""
    subjects: int
    """Subjects named."""
    ids: int
    """Data points named one by one."""
    before: ObjectRef | None = None
    """The state before its quarantine, for the receipt, until it is complete."""
    receipt: int | None = None
    """Index of its receipt in the log; None until it is complete."""
    received_at: str
    """UTC, ISO 8601."""
    due_at: str
    """UTC, ISO 8601."""
    state: RequestState = RequestState.ACCEPTED
    shards: tuple[ShardId, ...] = ()
    """Shards that held something."""
    points: int = 0
    """Data points erased."""
    unknown: int = 0
    """Subjects and ids named that have no data point here, perhaps because they were erased before."""
    reason: str = ""
    """Why it was refused or failed, and what to do."""
    times: Mapping[str, str] = field(default_factory=dict)
    """When each state was reached, UTC, ISO 8601."""

    def __post_init__(self) -> None:
        check_request_id(self.request_id)

    def reach(self, state: RequestState, at: str) -> ErasureRequest:
        """Return the request in ``state``, with the states passed on the way marked as reached at ``at``."""
        passed = [state]
        if state in _ORDER and self.state in _ORDER:
            passed = _ORDER[_ORDER.index(self.state) + 1 : _ORDER.index(state) + 1]
        return replace(self, state=state, times={**self.times, **{each.value: at for each in passed}})


def check_request_id(request_id: str) -> None:
    """Raise ``Invalid`` unless the id can be shown and kept: 1 to 200 printable characters, not only spaces.

    It stands in receipts, on terminals and in lines of text; control characters would act there.
    """
    if len(request_id) <= _MOST_CHARACTERS and request_id.isprintable() and request_id.strip():
        return
    # The id itself is not told: it would act on the terminal that shows this.
    raise Invalid(
        f"a request id is 1 to {_MOST_CHARACTERS} printable characters, got {len(request_id)} characters"
        f"{'' if request_id.isprintable() else ', not all printable'}",
        "choose another --request-id, or leave it out: one is drawn then",
    )
