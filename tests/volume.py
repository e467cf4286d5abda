"""How much a run carries out of many like cases: a spread of them, or all.

``make test`` takes a spread in which each kind of case is there at least once, always the same one, so that a failure
points at a change. ``SISA_VOLUME=7`` takes the seventh spread after it. ``make soak`` sets ``SISA_VOLUME=all`` and runs
the tests marked ``volume``, which are those that ask here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from typing import Final, TypeVar

_Case = TypeVar("_Case")

SISA_VOLUME: Final = os.environ.get("SISA_VOLUME", "0")
_ALL: Final = SISA_VOLUME == "all"
_TURN: Final = 0 if _ALL else int(SISA_VOLUME)


def spread(cases: Sequence[_Case], every: int, shift: int = 0) -> Sequence[_Case]:
    """Return each ``every``-th of the cases, at least one where there are any; all of them in a soak.

    ``every`` calls with ``shift`` from 0 on return each case once.
    """
    if _ALL or not cases:
        return cases
    return cases[(_TURN + shift) % every :: every] or cases[(_TURN + shift) % len(cases) :][:1]


def one_of_each(cases: Sequence[_Case], kind: Callable[[_Case], Hashable]) -> Sequence[_Case]:
    """Return one of the cases of each kind, not the same one of all kinds; all cases in a soak."""
    if _ALL:
        return cases
    kinds: dict[Hashable, list[_Case]] = {}
    for case in cases:
        kinds.setdefault(kind(case), []).append(case)
    return [alike[(_TURN + number) % len(alike)] for number, alike in enumerate(kinds.values())]


def seeds_of(many: int, few: int) -> range:
    """Return ``few`` of the seeds from 0 to ``many``, the next ones at every turn; all of them in a soak.

    ``many`` is a multiple of ``few``.
    """
    first = _TURN * few % many
    return range(many) if _ALL else range(first, first + few)


def examples(many: int, few: int) -> int:
    """Return how many random examples of a property are tried: ``few``, other ones in each run; ``many`` in a soak."""
    return many if _ALL else few
