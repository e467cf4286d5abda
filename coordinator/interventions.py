"""Interventions in an erasure request, as values; ``policy.ruling`` decides whether one is allowed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Pause the request, such as for a legal hold, before any of its data points is removed."""

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
    """Withdraw the request, before any of its data points is removed."""

    reason: str


Intervention = Hold | Release | Extend | Cancel
