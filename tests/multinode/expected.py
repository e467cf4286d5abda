"""What undisturbed runs end in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from coordinator.status import FederationStatus
from tests.doubles.home import MARKED, ids_of, small_points

ERASED: Final = ids_of(small_points(), MARKED)[0]
"""A data point of the marked person, who keeps others: retraining comes to those."""

ALSO: Final = ids_of(small_points(), MARKED)[1]
"""Another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Digests of the constituents, trained in one process."""

    trained: list[Any]
    erased: list[Any]
    """Of who never saw the data point ``ERASED``."""
    erased_also: list[Any]
    """Of who never saw ``ALSO`` either."""


def digests_of(status: FederationStatus) -> list[Any]:
    """Return the constituents' digests."""
    return [each.digest for each in status.constituents]
