"""The learner that a specification asks for."""

from __future__ import annotations

from typing import Any

from cluster.config.specification import FederationSpecification
from shards.learners.protocol import Learner
from shards.learners.registry import open_learner


def learner_of(specification: FederationSpecification, width: int) -> Learner[Any]:
    """Return the learner of ``width`` features, in this process; call ``fix_numerics`` first. See ``open_learner``."""
    data = specification.data
    return open_learner(
        model=specification.model,
        training=specification.training,
        inputs=width,
        classes=len(data.predicted.names),
        target=data.target,
        slices=specification.partition.slices,
        shape=data.input_shape,
    )
