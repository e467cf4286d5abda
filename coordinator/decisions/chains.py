"""Chains of checkpoints, and how changed slices, changed settings and lost objects shorten them.

Pure (docs/design.md, 1). Hold-out slices are replaced here, too; that shortens no chain.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from coordinator.state import FederationState, ShardState
from shards.lineage import Base, valid_prefix
from shards.routing import SliceId
from shards.slices.files import SliceRecord
from shards.specification import ShardId, SliceIndex


def with_slices(state: FederationState, changed: Mapping[SliceId, SliceRecord]) -> FederationState:
    """Return the state with these slices in place of the old ones, and without checkpoints that saw the old ones."""
    if not changed:
        return state
    shards = list(state.shards)
    for place, record in changed.items():
        was = shards[place.shard]
        slices = list(was.slices)
        slices[place.slice - 1] = record
        base = (
            Base(slices=was.slices, checkpoint=was.chain[0])
            if was.base is None and _is_direct(state, was)
            else was.base
        )
        shards[place.shard] = replace(was, slices=tuple(slices), base=base)
    kept = {part.key for record in changed.values() for part in record.parts}
    gone = [part.key for place in changed for part in state.slice(place).parts if part.key not in kept]
    touched = {place.shard for place in changed}
    cut = with_valid_chains(replace(state, shards=tuple(shards), condemned=(*state.condemned, *gone)), touched)
    # A slice that was only written again, because its objects were damaged, cuts nothing, and needs no base.
    return replace(
        cut, shards=tuple(replace(each, base=None) if each.chain and each.base else each for each in cut.shards)
    )


def _is_direct(state: FederationState, shard: ShardState) -> bool:
    """Return whether the shard's constituent is one that points can be taken out of directly."""
    return state.is_whole and bool(shard.chain)


def with_holdout(state: FederationState, holdout: tuple[SliceRecord, ...]) -> FederationState:
    """Return the state with these hold-out slices in place of the old ones. No chain has seen either."""
    kept = {part.key for record in holdout for part in record.parts}
    gone = [part.key for record in state.holdout for part in record.parts if part.key not in kept]
    same = [each.content_digest for each in holdout] == [each.content_digest for each in state.holdout]
    after = replace(state, holdout=holdout, is_measured=state.is_measured and same, condemned=(*state.condemned, *gone))
    # Without hold-out points, nothing would ever replace the last measure on them.
    return after if after.held_out else replace(after, measure=None, is_measured=False)


def with_valid_chains(state: FederationState, only: Collection[ShardId] | None = None) -> FederationState:
    """Cut every chain before its first checkpoint whose lineage does not match the current slices and settings.

    ``only`` names the shards in which anything changed; None: any.
    """
    for number in range(len(state.shards)) if only is None else sorted(only):
        chain = state.shards[number].chain
        valid = valid_prefix(chain, state.lineages(ShardId(number)))
        if len(valid) < len(chain):
            state = truncate(state, ShardId(number), SliceIndex(len(valid) + 1))
    return state


def without_bases(state: FederationState, only: ShardId | None = None) -> FederationState:
    """Return the state without bases, or without one shard's base: its constituent is then learned from nothing."""
    shards = (
        replace(shard, base=None) if shard.base is not None and (only is None or number == only) else shard
        for number, shard in enumerate(state.shards)
    )
    return replace(state, shards=tuple(shards))


def truncate(state: FederationState, number: ShardId, from_slice: SliceIndex) -> FederationState:
    """Return the state with the shard's chain cut before ``from_slice``, and the cut checkpoints condemned."""
    shard = state.shards[number]
    kept, gone = shard.chain[: from_slice - 1], shard.chain[from_slice - 1 :]
    if not gone:
        return state
    shards = (*state.shards[:number], replace(shard, chain=kept), *state.shards[number + 1 :])
    return replace(
        state,
        shards=shards,
        condemned=(*state.condemned, *(checkpoint.key for checkpoint in gone)),
    )


def withdraw_if_cut(before: FederationState, after: FederationState) -> FederationState:
    """Start a new generation, and raise the floor to it, if a served checkpoint is no longer part of its chain (E10).

    Each cut shard serves the rest of its chain until the retrained constituent is published.
    """
    if after.shards is before.shards or not any(
        now.serving > len(now.chain) for was, now in zip(before.shards, after.shards, strict=True) if now is not was
    ):
        return after
    shards = tuple(serving_up_to(shard, min(shard.serving, len(shard.chain))) for shard in after.shards)
    generation = before.generation + 1
    return replace(after, shards=shards, generation=generation, floor=generation, published=False)


def serving_up_to(shard: ShardState, portions: int) -> ShardState:
    """Return the shard serving this many portions; if it already does, the same object, which is not encoded again."""
    return shard if shard.serving == portions else replace(shard, serving=portions)


def hasten_if_changed(before: FederationState, after: FederationState) -> FederationState:
    """Record that training must not wait for a batch, unless only an erasure made it necessary."""
    if after.at_once:
        return after
    changed = after.configuration != before.configuration or any(
        now.slices != was.slices or len(now.chain) < len(was.chain)
        for was, now in zip(before.shards, after.shards, strict=True)
        if now is not was
    )
    # Evaluated last: it goes through all shards, and most events do not affect it.
    return replace(after, at_once=True) if changed and not after.is_all_trained else after
