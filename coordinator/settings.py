"""Settings of the coordinator: how predictions are aggregated and erasure requests are carried out.

Each class is one table of ``sisa.toml``. ``__post_init__`` raises ``Invalid`` with every problem of the table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from coordinator.aggregation import Rule
from shards.specification import refuse_settings

BatchUntil = Literal["window", "until_due"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregationSettings:
    """The table ``[aggregation]``: how the constituents' predictions are combined."""

    rule: Rule = "mean_probability"
    """Declared, never learned (E6)."""

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            refuse_settings("aggregation", [f"rule must be one of {', '.join(get_args(Rule))}, got {self.rule!r}"])


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureSettings:
    """The table ``[erasure]``: how erasure requests are collected and when they are due."""

    batch: BatchUntil = "window"
    """When a batch of requests is retrained: with ``window``, ``batch_window_seconds`` after its first request; with
    ``until_due``, as late as the earliest due date allows, so that more requests share the work. In both cases their
    data points are removed at once, and models that have seen them are no longer served."""
    batch_window_seconds: float = 2.0
    """How long the first request of a batch waits for others; with 0 each is served alone. At most the deadline."""
    deadline_days: int = 30
    """Days until a request is due (GDPR Art. 12(3) gives one month); 1 .. 90."""
    lead_days: float = 3.0
    """Safety margin in days: ``until_due`` retrains this long, plus the expected time of the work, before the earliest
    due date. 0 or more, at most the deadline."""
    extension_days: int = 60
    """The longest extension of a request's due date, in days, granted once (GDPR Art. 12(3) allows two further months);
    with 0 there is no extension; 0 .. 60."""

    alarm_margin: float = 0.05
    """How much a class's share of recognised hold-out points may fall by an erasure, or the error of numbers grow as a
    share of what it was, before the request has an alarm; above 0. With 1 or more there is none."""

    def __post_init__(self) -> None:
        problems = []
        if not (math.isfinite(self.alarm_margin) and self.alarm_margin > 0):
            problems.append(f"alarm_margin must be above 0, got {self.alarm_margin}")
        if self.batch not in get_args(BatchUntil):
            problems.append(f"batch must be one of {', '.join(get_args(BatchUntil))}, got {self.batch!r}")
        if not 1 <= self.deadline_days <= 90:
            problems.append(f"deadline_days must be 1 .. 90, got {self.deadline_days}")
        if not (math.isfinite(self.batch_window_seconds) and self.batch_window_seconds >= 0):
            problems.append(f"batch_window_seconds must be 0 or more, got {self.batch_window_seconds}")
        elif self.batch_window_seconds > self.deadline_days * 86_400:
            problems.append("batch_window_seconds is longer than deadline_days: requests would be late")
        if not (math.isfinite(self.lead_days) and self.lead_days >= 0):
            problems.append(f"lead_days must be 0 or more, got {self.lead_days}")
        elif self.batch == "until_due" and self.lead_days > self.deadline_days:
            problems.append("lead_days is longer than deadline_days: no request would wait for another")
        if not 0 <= self.extension_days <= 60:
            problems.append(f"extension_days must be 0 .. 60, got {self.extension_days}")
        refuse_settings("erasure", problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptSettings:
    """The table ``[receipts]``: where else the checkpoints of the receipts' log are kept."""

    witness: str | None = None
    """Folder or address of another store that gets every checkpoint of the log; default: no witness.

    Its writers should not be those of the federation's store. May be set and changed at any time.
    """
    endpoint: str | None = None
    """Address of the S3-compatible server of a witness ``s3://…``; default: the federation's ``endpoint``."""

    def __post_init__(self) -> None:
        refuse_settings("receipts", ["witness is empty: name a folder or an address"] if self.witness == "" else [])
