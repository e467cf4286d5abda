"""What answers at a site: its own ensemble, and what may be told of it. Whoever asks from elsewhere asks a desk.

A desk reads the site's store and nothing else; it is the only thing of a site that the outside meets. What may leave is
decided at the site: see ``cluster.ensemble.site_report``.
Shape legend: N points, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from cluster.config.sites import Site
from cluster.ensemble.replica_state import Standing
from cluster.ensemble.site_report import Telling
from cluster.results.federation import SubjectFound
from cluster.runtime.system import SystemClock
from cluster.writer.stores import open_objects
from coordinator.ports import Clock
from coordinator.sites import SiteAnswer, SiteStanding
from shards.points import scaled
from storage.errors import Invalid, Unavailable

_ATTEMPTS: Final = 8
"""An answer is computed again when its generation was withdrawn meanwhile; so often in a row is no coincidence."""


class Desk:
    """One site's answers. May be used from any thread."""

    def __init__(self, site: Site, clock: Clock | None = None) -> None:
        """Reads nothing yet."""
        self._site = site
        store = open_objects(site.specification)
        self._state = Standing(site.specification, store, clock or SystemClock())
        self._telling = Telling(self._state, store, site.settings)

    def standing(self, requests: int = 0) -> SiteStanding:
        """See ``Telling.standing``."""
        return self._telling.standing(requests)

    def answer(self, features_NF: npt.NDArray[np.float32]) -> SiteAnswer:
        """Return the aggregated answer for features that are not scaled, confirmed after it was computed (E10).

        Raises ``Invalid`` for another number of features, ``Unavailable`` when no constituent may answer.
        """
        for _ in range(_ATTEMPTS):
            state = self._state.trained()
            assert state.data is not None
            check_width(state.data.layout.width, features_NF)
            ensemble = self._state.ensemble
            if ensemble is None or self._state.is_behind:
                ensemble = self._state.load()
            found = ensemble.answer(scaled(features_NF, self._site.specification.data.scale))
            self._state.current()
            if ensemble.generation >= self._state.floor:
                return SiteAnswer(
                    generation=ensemble.generation,
                    constituents=len(ensemble.constituents),
                    shards=ensemble.shards,
                    scores_NC=found.scores_NC.astype(np.float32),
                )
        raise Unavailable("erasures follow each other faster than an answer can be computed", "ask again in a moment")

    def checkpoint(self, shard: int, sha256: str) -> bytes:
        """See ``Telling.checkpoint``."""
        return self._telling.checkpoint(shard, sha256)

    def lookup(self, subjects: Iterable[str | int]) -> tuple[SubjectFound, ...]:
        """See ``Telling.lookup``."""
        return self._telling.lookup(subjects)


def check_width(width: int, features_NF: npt.NDArray[np.float32]) -> None:
    """Raise ``Invalid`` unless the data points have as many features as the site's."""
    if features_NF.shape[1] != width:
        raise Invalid(
            f"the data points have {features_NF.shape[1]} features, this site's have {width}",
            "sites of one federation describe data points alike",
        )
