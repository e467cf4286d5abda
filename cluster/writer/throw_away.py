"""Federations that are trained to be measured and then thrown away, with their store.

They never touch the federation's own store. Theirs is a private folder, which is removed even if the process is killed;
every data point and model in it is encrypted under keys that are in memory alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from cluster.config.specification import FederationSpecification
from cluster.writer.identity import fresh_state, partition_key
from cluster.writer.one_process import OneProcessFederation, Spent
from coordinator.decisions.optimise import Layout
from coordinator.engine.lookup import load_tombstones
from coordinator.state import FederationState
from shards.data.sources import Source
from shards.measures import Measures
from shards.routing import Naming, PartitionKey
from shards.specification import check_schedule
from shards.tombstones import NOTHING, DigestSet
from storage.encryption.store import SealedStore
from storage.errors import SisaError
from storage.objects import ObjectStore, new_name
from storage.private_folder import PrivateFolder
from storage.stores.local import LocalStore
from storage.stores.memory import MemoryStore

_FIGURES = ("accuracy", "rmse", "inertia", "hit_rate")
_ERRORS = frozenset({"rmse", "inertia"})


@dataclass(frozen=True, slots=True, kw_only=True)
class WhoStaysOut:
    """How people's names become digests, and the digests of those who were erased from the federation."""

    key: PartitionKey = field(repr=False)
    naming: Naming
    erased: DigestSet = NOTHING

    @classmethod
    def of(
        cls, specification: FederationSpecification, store: ObjectStore, state: FederationState | None
    ) -> WhoStaysOut:
        """Return these values of the federation in ``store``; if it was never begun, with a key that is not stored."""
        if state is not None and state.is_begun:
            return cls(
                key=partition_key(store, specification, draw=False),
                naming=state.naming,
                erased=load_tombstones(store, state.tombstone_objects()),
            )
        given = specification.partition.key
        key = PartitionKey(secrets.token_bytes(32) if given is None else bytes.fromhex(given))
        return cls(key=key, naming=fresh_state(specification, key).naming)


@contextmanager
def temporary_store() -> Iterator[SealedStore]:
    """Yield an empty store that is gone after the block, whose keys were never on a disk."""
    folder, keys = PrivateFolder("plan"), MemoryStore(f"plan-{new_name()}")
    try:
        yield SealedStore(LocalStore(str(folder.path.resolve() / "store")), keys)
    finally:
        keys.forget()
        folder.remove()


def layout_of(specification: FederationSpecification, layout: Layout) -> FederationSpecification:
    """Return the specification with other numbers of shards and slices. Raises ``Invalid`` for impossible ones."""
    partition = replace(specification.partition, shards=layout.shards, slices=layout.slices, key=None)
    check_schedule(specification.training, partition, specification.model)
    return replace(specification, partition=partition)


@contextmanager
def thrown_away(specification: FederationSpecification, who: WhoStaysOut) -> Iterator[OneProcessFederation]:
    """Yield a new federation that is gone after the block."""
    with temporary_store() as store:
        yield OneProcessFederation(specification, who.key, store, naming=who.naming, erased=who.erased)


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedLayout:
    """The result of training a federation of these numbers of shards and slices."""

    layout: Layout
    failed: str = ""
    """Why there is nothing else."""
    figure: str = ""
    """Name of the measure of the hold-out points."""
    value: float = 0.0
    points: int = 0
    """Hold-out points."""
    is_larger_better: bool = True
    training_seconds: float = 0.0
    """Processor time of training alone."""
    empty_shards: int = 0
    """Shards without a data point."""


def try_layout(
    specification: FederationSpecification,
    layout: Layout,
    who: WhoStaysOut,
    source: Source,
    holdout: Source | None,
) -> TriedLayout:
    """Train a federation of these numbers on the data, measure its answers to the hold-out points, and delete it.

    An error is part of the result, so that others can be tried.
    """
    try:
        with thrown_away(layout_of(specification, layout), who) as federation:
            federation.ingest(source, holdout)
            spent = federation.train()
            return _outcome(layout, spent, federation.measures(), federation.state)
    except SisaError as error:
        return TriedLayout(layout=layout, failed=error.message)
    except Exception as error:  # noqa: BLE001  the model is the user's code, and the text may quote data points
        return TriedLayout(layout=layout, failed=f"the model failed with {type(error).__name__}")


def _outcome(layout: Layout, spent: Spent, measures: Measures, state: FederationState) -> TriedLayout:
    figure = next((name for name in _FIGURES if name in measures.metrics), "")
    if not figure:
        return TriedLayout(layout=layout, failed="there are no hold-out points")
    return TriedLayout(
        layout=layout,
        figure=figure,
        value=measures.metrics[figure],
        points=measures.points,
        is_larger_better=figure not in _ERRORS,
        training_seconds=spent.seconds,
        empty_shards=sum(not shard.points for shard in state.shards),
    )
