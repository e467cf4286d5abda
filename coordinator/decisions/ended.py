"""Decides which ended requests leave the state, and what the state keeps about them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from coordinator.decisions.lifecycle import lacks_measure
from coordinator.requests import Cost, ErasureRequest, ObjectRef, Readmission, RequestState
from coordinator.state import FederationState, joined, others

TOGETHER: Final = 64
"""How many ended requests leave the state together; it keeps fewer than twice as many."""

NO_HOLDOUT: Final = "there were no hold-out points any more"
_NOT_MEASURED: Final = "no generation could be measured until its record was closed"

_Ended = ErasureRequest | Readmission


def leaving(state: FederationState) -> tuple[_Ended, ...]:
    """Return the requests and readmissions that leave the state now: once many have ended, those that ended first.

    Requests that lack a measure leave after the others; those that must leave without one record why there is none.
    """
    every: tuple[_Ended, ...] = (*state.requests, *state.readmissions)
    over = [each for each in every if _is_over(each)]
    if len(over) < 2 * TOGETHER:
        return ()
    over.sort(key=lambda each: (_lacks_measure(each), _ended_at(each)))
    return tuple(_final(state, each) for each in over[:TOGETHER])


def without_ended(
    state: FederationState, request_ids: Iterable[str], buckets: tuple[ObjectRef | None, ...]
) -> FederationState:
    """Return the state without these requests and readmissions, which ``buckets`` record, unless they left before."""
    named = frozenset(request_ids)
    requests = [(number, each) for number, each in numbered(state) if each.request_id in named]
    readmissions = [each for each in state.readmissions if each.request_id in named]
    if len(requests) + len(readmissions) != len(named):
        return state
    going: tuple[_Ended, ...] = (*(each for _, each in requests), *readmissions)
    complete = [each for _, each in requests if each.state is RequestState.COMPLETE]
    was = state.ended
    missing = (each.found.missing for _, each in requests)
    ended = replace(
        was,
        complete=was.complete + len(complete),
        refused=was.refused + sum(each.state is RequestState.REFUSED for _, each in requests),
        cancelled=was.cancelled + sum(each.state is RequestState.CANCELLED for _, each in requests),
        readmissions=was.readmissions + len(readmissions),
        expected=sum((each.found.expected or Cost() for each in complete), was.expected),
        spent=sum((each.spent for each in complete), was.spent),
        purged_at=max([was.purged_at, *(each.times.get(RequestState.PURGED.value, "") for each in complete)]),
        numbers=joined(was.numbers, (number for number, _ in requests)),
        receipts=joined(was.receipts, (each.receipt for each in going if each.receipt is not None)),
        missing=(*was.missing, *(ref.key for ref in missing if isinstance(ref, ObjectRef))),
        buckets=buckets,
    )
    return replace(
        state,
        requests=tuple(each for each in state.requests if each.request_id not in named),
        readmissions=tuple(each for each in state.readmissions if each.request_id not in named),
        ended=ended,
    )


def is_owed_statement(request: ErasureRequest) -> bool:
    """Return whether the statement that nothing was found is still to be signed; corrections get none."""
    is_refused = request.state is RequestState.REFUSED and request.correction is None
    return is_refused and bool(request.commitment) and request.receipt is None


def numbered(state: FederationState) -> Iterator[tuple[int, ErasureRequest]]:
    """Yield the state's requests, each with its number among all accepted requests."""
    return zip(others(state.ended.numbers), state.requests, strict=False)


def _is_over(each: _Ended) -> bool:
    """Return whether the request can no longer change."""
    if isinstance(each, Readmission):
        return each.receipt is not None
    return not each.state.is_open and not is_owed_statement(each)


def _lacks_measure(each: _Ended) -> bool:
    return isinstance(each, ErasureRequest) and lacks_measure(each)


def _final(state: FederationState, each: _Ended) -> _Ended:
    """Return the request as it is recorded for good."""
    if isinstance(each, Readmission) or each.effect is None or not lacks_measure(each):
        return each
    why = _NOT_MEASURED if state.held_out else NO_HOLDOUT
    return replace(each, effect=replace(each.effect, unmeasured=why))


def _ended_at(each: _Ended) -> str:
    return each.at if isinstance(each, Readmission) else each.times.get(each.state.value, each.received_at)
