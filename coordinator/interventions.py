"""What may be done to an erasure request besides carrying it out, as values; ``policy.ruling`` says when."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Pause the request, such as for a legal hold, while nothing of it is removed."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """End the request's pause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extend:
    """Move the request's due date, once, before it is overdue."""

    days: int
    """1 .. ``[erasure] extension_days``."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Withdraw the request, while nothing of it is removed."""

    reason: str


Intervention = Hold | Release | Extend | Cancel
