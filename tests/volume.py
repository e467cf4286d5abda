"""How much a run carries out of what is many times the same: a spread of the cases, another one every day, or all.

``make test`` takes a spread in which each kind of case is there at least once. ``make soak`` sets ``SISA_VOLUME=all``
and runs the tests marked ``volume``, which are those that ask here. ``SISA_VOLUME=20421`` takes the spread of that day
since 1970, in UTC: a run in which something failed prints the number that repeats it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Final, TypeVar

_Case = TypeVar("_Case")

# Put into the environment, so that all processes of a run take the same spread, also around midnight.
SISA_VOLUME: Final = os.environ.setdefault("SISA_VOLUME", str(int(time.time()) // 86_400))
_ALL: Final = SISA_VOLUME == "all"
_DAY: Final = 0 if _ALL else int(SISA_VOLUME)


def spread(cases: Sequence[_Case], every: int, shift: int = 0) -> Sequence[_Case]:
    """Return each ``every``-th of the cases, at least one where there are any; all of them in a soak.

    ``every`` calls with ``shift`` from 0 on return each case once.
    """
    if _ALL or not cases:
        return cases
    return cases[(_DAY + shift) % every :: every] or cases[(_DAY + shift) % len(cases) :][:1]


def one_of_each(cases: Sequence[_Case], kind: Callable[[_Case], Hashable]) -> Sequence[_Case]:
    """Return one of the cases of each kind, not the same one of all kinds; all cases in a soak."""
    if _ALL:
        return cases
    kinds: dict[Hashable, list[_Case]] = {}
    for case in cases:
        kinds.setdefault(kind(case), []).append(case)
    return [alike[(_DAY + number) % len(alike)] for number, alike in enumerate(kinds.values())]


def seeds_of(many: int, few: int) -> range:
    """Return ``few`` of the seeds from 0 to ``many``, the next ones every day; all of them in a soak.

    ``many`` is a multiple of ``few``.
    """
    first = _DAY * few % many
    return range(many) if _ALL else range(first, first + few)
