"""The ensemble as it may be served: constituents loaded, asked together, aggregated.

Shape legend: K constituents, N points, F features, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cluster.specification import FederationSpecification
from coordinator.aggregation import Aggregated, Rule, aggregate
from coordinator.state import FederationState, servable
from shards.constituent import read_checkpoint
from shards.seeding import set_numerics
from shards.trainer import TorchLearner, TorchState
from storage.errors import Invalid, Unavailable
from storage.objects import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ensemble:
    """One generation, in memory. Answers of single constituents stay inside (E11)."""

    generation: int
    shards: int
    """S: constituents there are; those not loaded abstain."""
    learner: TorchLearner
    constituents: tuple[TorchState, ...]
    rule: Rule

    @classmethod
    def load(cls, store: ObjectStore, state: FederationState, specification: FederationSpecification) -> Ensemble:
        """Return the ensemble that ``state`` says may be served.

        Raises ``Invalid`` when nothing was trained yet, ``Unavailable`` when every constituent abstains, ``Corrupt``
        when a checkpoint is missing or damaged.
        """
        if state.generation == 0 or state.data is None:
            raise Invalid("the federation is not trained yet", "run 'sisa train'", federation=state.name)
        current = servable(state)
        if not current:
            raise Unavailable(
                f"none of {len(state.shards)} constituents can answer: all of them are being trained anew",
                "run 'sisa train', or wait for it to finish",
            )
        set_numerics(specification.cluster.threads_per_worker, "cpu")
        learner = TorchLearner(
            model=specification.model,
            training=specification.training,
            inputs=state.data.layout.width,
            classes=len(specification.data.classes),
            slices=specification.partition.slices,
        )
        constituents = tuple(
            learner.from_bytes(read_checkpoint(store, each.checkpoint, each.shard), each.shard) for each in current
        )
        return cls(
            generation=state.generation,
            shards=len(state.shards),
            learner=learner,
            constituents=constituents,
            rule=specification.aggregation.rule,
        )

    def answer(self, features_NF: npt.NDArray[np.float32]) -> Aggregated:
        """Return the aggregated prediction for scaled features."""
        probabilities = [self.learner.probabilities(state, features_NF) for state in self.constituents]
        return aggregate(np.stack(probabilities), self.rule)
