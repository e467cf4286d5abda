"""What undisturbed runs end in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from coordinator.status import FederationStatus
from tests.doubles.user_folder import MARKED, UserFolder, ids_of, small_points, without
from tests.doubles.workers.local_workers import without_ray

ERASED: Final = ids_of(small_points(), MARKED)[0]
"""A data point of the marked person, who keeps others: retraining comes to those."""

ALSO: Final = ids_of(small_points(), MARKED)[1]
"""Another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Digests of the constituents, trained in one process."""

    trained: list[Any]
    erased: list[Any]
    """The constituents of a federation that never saw the data point ``ERASED``."""
    erased_also: list[Any]
    """The constituents of a federation that never saw ``ALSO`` either."""
    home: UserFolder
    """The folder in which ``trained`` was trained."""


def digests_of(status: FederationStatus) -> list[Any]:
    """Return the constituents' digests."""
    return [each.digest for each in status.constituents]


def undisturbed(folder: Callable[[str], Path]) -> Expected:
    """Return what a federation comes to without Ray and without any disturbance; ``folder`` makes one of a name."""
    with without_ray():
        homes = [UserFolder(folder(name)) for name in ("trained", "erased", "erased-also")]
        gone: tuple[list[str], ...] = ([], [ERASED], [ERASED, ALSO])
        trained, erased, erased_also = (
            home.fill(without(small_points(), ids=ids)).json("train").digests
            for home, ids in zip(homes, gone, strict=True)
        )
    return Expected(trained=trained, erased=erased, erased_also=erased_also, home=homes[0])
