"""Applies one function to many items: in turn here, or concurrently by a caller that can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

_Thing = TypeVar("_Thing")
_Result = TypeVar("_Result")


class Each(Protocol):
    """Applies one function to many items, in turn or concurrently."""

    def __call__(self, act: Callable[[_Thing], _Result], things: Sequence[_Thing], /) -> list[_Result]:
        """Return the results of ``act`` in the items' order.

        After an error it waits for the calls in progress, then raises it.
        """
        ...


def in_turn(act: Callable[[_Thing], _Result], things: Sequence[_Thing], /) -> list[_Result]:
    """Process the items one after another. Implements ``Each``."""
    return [act(thing) for thing in things]
