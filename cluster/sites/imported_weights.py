"""Constituents that have left their site (``leaves = "weights"``): held in memory here, confirmed at the site.

They are never written to a disk here, and those that a site has withdrawn are dropped at the next answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from threading import Lock
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cluster.config.sites import ListedSite
from cluster.ensemble.loaded import Ensemble, open_serving
from cluster.sites.link import SiteLink
from cluster.sites.site_server import arranged
from coordinator.sites import SiteAnswer, SiteStanding
from shards.learners.protocol import Learner
from shards.points import scaled
from shards.specification import ShardId
from storage.digests import Sha256
from storage.errors import ObjectMissing, Unavailable

_ATTEMPTS: Final = 8


class Carried:
    """One site's constituents, evaluated here. May be used from any thread; one thread at a time fetches."""

    def __init__(self, site: ListedSite, link: SiteLink) -> None:
        """Fetch nothing yet."""
        self._site = site
        self._link = link
        self._fetching = Lock()
        # Changed under ``_fetching``; an answer is confirmed after it was computed, so what it read may be old.
        self._ensemble: Ensemble | None = None
        self._width = 0
        self._names: tuple[str, ...] = ()

    def answer(
        self, features_NF: npt.NDArray[np.float32], names: tuple[str, ...], confirm: Callable[[], SiteStanding]
    ) -> SiteAnswer:
        """Return the same answer as ``Desk.answer``; after it is computed, the site's standing confirms it (E10)."""
        standing: SiteStanding | None = None
        for _ in range(_ATTEMPTS):
            ensemble = self._ensemble
            if ensemble is None or (standing is not None and not _is_of(ensemble, standing)):
                ensemble = self._fetched(standing or confirm())
            data = self._site.specification.data
            own_NF = arranged(features_NF, names, self._names, self._width, data.encoders)
            scores_NS = ensemble.answer(scaled(own_NF, data.scale))
            standing = confirm()
            if _is_of(ensemble, standing):
                by = replace(ensemble.answered_by, generation=standing.generation)
                return SiteAnswer(**by.facts, scores_NS=scores_NS.astype(np.float32))
        raise Unavailable("the site's constituents change faster than they can be fetched", "Ask again in a moment.")

    def _fetched(self, standing: SiteStanding) -> Ensemble:
        with self._fetching:
            self._width, self._names = standing.width, standing.features
            known = self._ensemble
            if known is not None and _is_of(known, standing):
                return known
            if not standing.checkpoints:
                self._ensemble = None
                raise Unavailable("none of the site's constituents can answer now", "Wait until they are retrained.")
            self._ensemble = Ensemble.of(
                self._site.specification,
                generation=standing.generation,
                width=standing.width,
                shards=standing.shards,
                checkpoints=tuple((ShardId(shard), Sha256(digest)) for shard, digest in standing.checkpoints),
                code=Sha256(standing.model_code) if standing.model_code else None,
                fetched=lambda learner, names: [self._fetch(learner, name) for name in names],
                loaded=known,
            )
            return self._ensemble

    def _fetch(self, learner: Learner[Any], name: tuple[ShardId, Sha256]) -> Any:
        shard, digest = name
        try:
            payload = self._link.checkpoint(shard, digest)
        except ObjectMissing as error:
            raise Unavailable("the site has just withdrawn a constituent", "Ask again in a moment.") from error
        return open_serving(learner, payload, name)


def _is_of(ensemble: Ensemble, standing: SiteStanding) -> bool:
    """Return whether the ensemble has exactly the constituents that the site serves."""
    return ensemble.checkpoints == standing.checkpoints and ensemble.shards == standing.shards
