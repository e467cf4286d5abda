"""Settings of decisions: how predictions are aggregated and how erasure requests are served.

Each class is one table of ``sisa.toml``. ``__post_init__`` raises ``Invalid`` with every problem of the table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from coordinator.aggregation import Rule
from shards.specification import refuse


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregationSettings:
    """The table ``[aggregation]``: how the constituents' predictions become one."""

    rule: Rule = "mean_probability"
    """Declared, never learned (E6)."""

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            refuse("aggregation", [f"rule must be one of {', '.join(get_args(Rule))}, got {self.rule!r}"])


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureSettings:
    """The table ``[erasure]``: how erasure requests are collected and when they are due."""

    batch_window_seconds: float = 2.0
    """How long the first request of a batch waits for others; 0 serves each alone. At most the deadline."""
    deadline_days: int = 30
    """Days until a request is due (GDPR Art. 12(3) gives one month); 1 .. 90."""

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= self.deadline_days <= 90:
            problems.append(f"deadline_days must be 1 .. 90, got {self.deadline_days}")
        if not (math.isfinite(self.batch_window_seconds) and self.batch_window_seconds >= 0):
            problems.append(f"batch_window_seconds must be 0 or more, got {self.batch_window_seconds}")
        elif self.batch_window_seconds > self.deadline_days * 86_400:
            problems.append("batch_window_seconds is longer than deadline_days: requests would be late")
        refuse("erasure", problems)
