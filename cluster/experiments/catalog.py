"""The experiments, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cluster.experiments.experiment import Experiment
from cluster.experiments.table_i.grid import TABLE_I
from storage.errors import Invalid

EXPERIMENTS: Final[Mapping[str, Experiment]] = {TABLE_I.name: TABLE_I}


def find_experiment(name: str) -> Experiment:
    """Return the experiment. Raises ``Invalid`` for an unknown name."""
    if name not in EXPERIMENTS:
        raise Invalid(f"there is no experiment {name!r}", f"Take one of {', '.join(EXPERIMENTS)}.")
    return EXPERIMENTS[name]
