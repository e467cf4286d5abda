"""The experiments, by name."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

from cluster.experiments.costs.report import SISA_COSTS
from cluster.experiments.experiment import Experiment
from cluster.experiments.harm.report import HARM
from cluster.experiments.section_vi.definition import SECTION_VI
from cluster.experiments.table_i.grid import TABLE_I
from storage.errors import Invalid

EXPERIMENTS: Final[Mapping[str, Experiment]] = {each.name: each for each in (HARM, SECTION_VI, SISA_COSTS, TABLE_I)}


def find_experiment(name: str) -> Experiment:
    """Return the experiment. Raises ``Invalid`` for an unknown name, with the nearest one."""
    if name not in EXPERIMENTS:
        near = get_close_matches(name.lower(), EXPERIMENTS, n=1)
        raise Invalid(
            f"there is no experiment {name!r}",
            f"Did you mean {near[0]}?" if near else f"Take one of {', '.join(EXPERIMENTS)}.",
        )
    return EXPERIMENTS[name]
