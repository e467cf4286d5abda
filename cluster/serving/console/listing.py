"""The list of all requests, a page at a time: open ones first, the ones due soonest at the top, then what has ended.

What is open, and what ended last, is in the state. Older requests are in buckets (``coordinator.engine.ended``), which
only later pages need: each bucket is read once, and kept until a writer replaces it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock
from typing import Final

from coordinator.decisions.policy import is_overdue
from coordinator.engine.ended import buckets
from coordinator.requests import ErasureRequest, Readmission, RequestState
from coordinator.state import FederationState
from storage.errors import Corrupt
from storage.objects import ObjectStore

ON_A_PAGE: Final = 50
SOON: Final = timedelta(days=7)
"""How long before its due date a request is marked as due soon."""

GROUPS: Final = ("all", "open", "overdue", "complete", "refused", "cancelled", "readmitted")
_ENDED: Final = frozenset({"complete", "refused", "cancelled", "readmitted"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRequest:
    """A line of the list."""

    request_id: str
    kind: str
    """``erasure``, ``rectification`` or ``readmission``."""
    state: str
    points: int
    received_at: str
    due_at: str
    """Empty: it is a readmission."""
    ended_at: str
    """Empty: it is open."""
    overdue: bool = False
    due_soon: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPage:
    """A page of the list."""

    requests: tuple[ListedRequest, ...]
    number: int
    """From 1."""
    pages: int
    total: int
    """In this group."""
    group: str
    counts: dict[str, int]
    """How many are in each group."""


class RequestListing:
    """Lists requests. May be used from any thread."""

    def __init__(self, store: ObjectStore, current: Callable[[], FederationState | None]) -> None:
        self._store = store
        self._current = current
        self._lock = Lock()
        self._of: tuple[object, ...] = ()
        self._older: tuple[ListedRequest, ...] = ()

    def page(self, group: str, number: int, now: datetime) -> ListedPage:
        """Return a page of a group: the last page if there are fewer; an unknown group means all requests."""
        group = group if group in GROUPS else "all"
        state = self._current()
        if state is None:
            return ListedPage(requests=(), number=1, pages=1, total=0, group=group, counts=dict.fromkeys(GROUPS, 0))
        first = _in_state(state, now)
        counts = _counts(state, first)
        pages = max(1, -(-counts[group] // ON_A_PAGE))
        number = min(max(number, 1), pages)
        start = (number - 1) * ON_A_PAGE
        found = [each for each in first if _is_in(each, group)]
        if len(found) < min(start + ON_A_PAGE, counts[group]):
            found += [each for each in self._ended_before(state) if _is_in(each, group)]
        return ListedPage(
            requests=tuple(found[start : start + ON_A_PAGE]),
            number=number,
            pages=pages,
            total=counts[group],
            group=group,
            counts=counts,
        )

    def _ended_before(self, state: FederationState) -> tuple[ListedRequest, ...]:
        """Return the requests that have left the state, most recently ended first."""
        with self._lock:
            for _ in range(2):
                if self._of == state.ended.buckets:
                    break
                try:
                    self._older, self._of = _newest_first(self._read(state)), state.ended.buckets
                except Corrupt:  # a writer may have replaced a bucket meanwhile
                    newer = self._current()
                    if newer is None or newer.ended == state.ended:
                        raise
                    state = newer
            return self._older

    def _read(self, state: FederationState) -> Iterable[ListedRequest]:
        for bucket in buckets(self._store, state):
            yield from (_listed(request) for _, request in bucket.requests)
            yield from map(_listed_readmission, bucket.readmissions)


def _in_state(state: FederationState, now: datetime) -> list[ListedRequest]:
    """Return the requests in the state: open ones by due date, then ended ones, most recently ended first."""
    open_ = [_listed(each, now) for each in state.requests if each.state.is_open]
    ended = (_listed(each) for each in state.requests if not each.state.is_open)
    back = map(_listed_readmission, state.readmissions)
    return [*sorted(open_, key=lambda each: (not each.overdue, each.due_at)), *_newest_first((*ended, *back))]


def _newest_first(requests: Iterable[ListedRequest]) -> tuple[ListedRequest, ...]:
    return tuple(sorted(requests, key=lambda each: each.ended_at, reverse=True))


def _listed(request: ErasureRequest, now: datetime | None = None) -> ListedRequest:
    is_open = request.state.is_open
    late = now is not None and is_overdue(request, now)
    soon = now is not None and request.pause is None and datetime.fromisoformat(request.due_at) - now < SOON
    return ListedRequest(
        request_id=request.request_id,
        kind=request.kind,
        state=request.shown.value,
        points=request.found.points,
        received_at=request.received_at,
        due_at=request.due_at,
        ended_at="" if is_open else request.times.get(request.state.value, request.received_at),
        overdue=late,
        due_soon=is_open and soon and not late,
    )


def _listed_readmission(readmission: Readmission) -> ListedRequest:
    return ListedRequest(
        request_id=readmission.request_id,
        kind="readmission",
        state="readmitted",
        points=0,
        received_at=readmission.at,
        due_at="",
        ended_at=readmission.at,
    )


def _counts(state: FederationState, first: Iterable[ListedRequest]) -> dict[str, int]:
    ended = state.ended
    counts = dict.fromkeys(GROUPS, 0) | {
        RequestState.COMPLETE.value: ended.complete,
        RequestState.REFUSED.value: ended.refused,
        RequestState.CANCELLED.value: ended.cancelled,
        "readmitted": ended.readmissions,
        "all": ended.count,
    }
    for each in first:
        for group in GROUPS:
            counts[group] += _is_in(each, group)
    return counts


def _is_in(each: ListedRequest, group: str) -> bool:
    match group:
        case "all":
            return True
        case "open":
            return each.state not in _ENDED
        case "overdue":
            return each.overdue
        case _:
            return each.state == group
