"""The bounds of arguments, and the messages about values outside them."""

from __future__ import annotations

import math
from collections.abc import Mapping


def outside(arguments: object, ranges: Mapping[str, tuple[int, int]]) -> list[str]:
    """Return what is wrong with arguments that are not from the first to the second number of their range."""
    return [
        f"{name} must be {low} .. {high}, got {value}"
        for name, (low, high) in ranges.items()
        if not low <= (value := getattr(arguments, name)) <= high
    ]


def not_positive(arguments: object, *names: str) -> list[str]:
    """Return what is wrong with arguments that are not above 0, or not finite."""
    values = {name: getattr(arguments, name) for name in names}
    return [f"{name} must be above 0, got {value}" for name, value in values.items() if not 0 < value < math.inf]


def not_up_to(most: int, arguments: object, name: str) -> list[str]:
    """Return what is wrong with an argument that is not above 0 and at most ``most``."""
    value = getattr(arguments, name)
    return [] if 0 < value <= most else [f"{name} must be above 0 and at most {most}, got {value}"]
