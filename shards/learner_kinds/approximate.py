"""The learners of the laboratory: they only approximate an erasure, so a federation refuses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shards.learner_kinds.guarantees import Approximate

LABORATORY: Final[Mapping[str, Approximate]] = {
    "deltagrad": Approximate(reason="because most gradients of the replayed training are estimates"),
    "gradient_ascent": Approximate(reason="because raising a loss does not undo the steps that lowered it"),
    "fisher_scrubbing": Approximate(reason="because its noise hides what is left of them, and does not remove it"),
    "sekhari": Approximate(reason="because it leaves out what one Newton step does not reach, and adds noise"),
    "variational": Approximate(reason="because it changes an approximate posterior"),
}
"""The laboratory's learners by name, with what each lacks."""
