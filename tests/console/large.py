"""A large federation's state, made from a small one: a thousand shards, ten thousand requests."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from coordinator.requests import RequestState
from coordinator.state import FederationState
from shards.specification import ShardId, SliceIndex

SHARDS = 1_000
REQUESTS = 10_000


def grown(state: FederationState) -> FederationState:
    """Return the state with many shards, some of which are being retrained, and many open requests.

    The checkpoints of all shards are those of the first few, so that their lineages do not fit their numbers.
    """
    shards = [state.shards[number % len(state.shards)] for number in range(SHARDS)]
    affected = range(0, SHARDS, 7)
    for number in affected:
        shards[number] = replace(shards[number], chain=shards[number].chain[:1], serving=number % 2)
    first = next(each for each in state.requests if each.state is RequestState.COMPLETE)
    received = datetime.fromisoformat(first.received_at)
    requests = tuple(
        replace(
            first,
            request_id=f"er-{number:05d}",
            state=RequestState.RETRAINING if number % 100 == 0 else RequestState.ACCEPTED,
            received_at=(received + timedelta(seconds=number)).isoformat(),
            found=replace(first.found, from_slices={ShardId(number % SHARDS): SliceIndex(2)}),
        )
        for number in range(REQUESTS)
    )
    return replace(state, shards=tuple(shards), requests=(*requests, *state.requests))
