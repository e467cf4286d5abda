"""Doing the same to many things: in turn here, and several at once where the caller knows how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

_Thing = TypeVar("_Thing")
_Result = TypeVar("_Result")


class Each(Protocol):
    """Does the same to many things, in turn or side by side."""

    def __call__(self, act: Callable[[_Thing], _Result], things: Sequence[_Thing], /) -> list[_Result]:
        """Return what ``act`` makes of each, in their order; the first error, once none is under way."""
        ...


def in_turn(act: Callable[[_Thing], _Result], things: Sequence[_Thing], /) -> list[_Result]:
    """Do one after another. Implements ``Each``."""
    return [act(thing) for thing in things]
