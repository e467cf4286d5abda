"""The part of a constituent other than a network that may leave a site."""

from __future__ import annotations

from typing import Final

FEWEST: Final = 5
"""Fewest data points whose mean or share may be in the part of a constituent that leaves a site."""


def nothing(_: object) -> None:
    """Return None: nothing of the part that serves is withheld."""
