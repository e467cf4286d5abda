"""Tasks of an experiment without Ray: one after another, in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class NearCrew:
    """Implements ``TaskPool``; after ``most`` things it is interrupted, as by Ctrl-C."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most

    def __call__(
        self,
        act: Callable[..., Any],
        things: Sequence[Any],
        new_name: Callable[[], str],
        on_result: Callable[[Any], None],
        /,
        *shared: Any,
        **more: Any,
    ) -> list[Any]:
        """Do the things in order."""
        found = []
        for number, thing in enumerate(things):
            if number == self._most:
                raise KeyboardInterrupt
            found.append(act(thing, new_name(), *shared))
            on_result(found[-1])
        return found
