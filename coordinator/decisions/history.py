"""Records of the served generations: which, when, and what their constituents had seen. Pure, and without names."""

from __future__ import annotations

from dataclasses import replace

from coordinator.state import FederationState, GenerationRecord


def with_history(before: FederationState, after: FederationState, at: str) -> FederationState:
    """Return ``after`` with a record of its generation, if that differs from the one of ``before``; ``at``: now."""
    if after.generation == before.generation:
        return after
    ended = tuple(replace(each, until=at) if not each.until else each for each in after.history)
    serving = tuple(shard.serving for shard in after.shards)
    begun = GenerationRecord(number=after.generation, since=at, until="", serving=serving)
    return replace(after, history=(*ended, begun))


def forgotten(state: FederationState, through: int) -> FederationState:
    """Return the state without the records of generations up to ``through``, which are stored in objects."""
    return replace(state, history=tuple(each for each in state.history if each.number > through))
