"""What answers at a site: its own ensemble, and what may be told of it. Whoever asks from elsewhere asks a desk.

A desk reads the site's store and nothing else; it is the only thing of a site that the outside meets. What may leave is
decided here, at the site, by the site's own copy of the specification.
Shape legend: N points, F features, C classes.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from cluster.objects import open_objects
from cluster.serving.standing import Standing
from cluster.sites.specification import Site
from cluster.system import SystemClock
from coordinator.ports import Clock
from coordinator.sites import SiteAnswer, SiteStanding, history_of
from coordinator.state import FederationState, servable
from shards.constituent import read_checkpoint
from shards.dataset import scaled
from storage.errors import Invalid, ObjectMissing, Unavailable

_ATTEMPTS: Final = 8
"""An answer is computed again when its generation was withdrawn meanwhile; so often in a row is no coincidence."""


class Desk:
    """One site's answers. May be used from any thread."""

    def __init__(self, site: Site, clock: Clock | None = None) -> None:
        """Reads nothing yet."""
        self._site = site
        self._store = open_objects(site.specification)
        self._state = Standing(site.specification, self._store, clock or SystemClock())

    def standing(self, requests: int = 0) -> SiteStanding:
        """Return how the site stands now, to one who has heard of its first ``requests`` erasure requests.

        Raises ``Unavailable`` when nothing was trained, or it cannot be read.
        """
        state = self._state.trained()
        assert state.data is not None
        return SiteStanding(
            identity=state.key_digest,
            position=self._state.position,
            generation=state.generation,
            floor=state.floor,
            requests=len(state.requests),
            history=history_of(state.requests),
            history_then=history_of(state.requests[:requests]),
            shards=len(state.shards),
            features=state.data.layout.features,
            width=state.data.layout.width,
            model_code=state.configuration.model_code if state.configuration else "",
            checkpoints=tuple((each.shard, each.checkpoint.sha256) for each in servable(state)),
        )

    def answer(self, features_NF: npt.NDArray[np.float32]) -> SiteAnswer:
        """Return the aggregated answer for features that are not scaled, confirmed after it was computed (E10).

        Raises ``Invalid`` for another number of features, ``Unavailable`` when no constituent may answer.
        """
        for _ in range(_ATTEMPTS):
            state = self._state.trained()
            _check_width(state, features_NF)
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
        """Return the bytes of a checkpoint that may be served now.

        Raises ``Invalid`` when no weights leave this site, ``ObjectMissing`` when it is not served (any more).
        """
        if self._site.settings.leaves != "weights":
            raise Invalid("no weights leave this site: only predictions do", "ask it for predictions")
        for each in servable(self._state.trained()):
            if each.shard == shard and each.checkpoint.sha256 == sha256:
                return read_checkpoint(self._store, each.checkpoint, each.shard)
        raise ObjectMissing("the site serves no such checkpoint now", "ask how it stands, and try again")


def _check_width(state: FederationState, features_NF: npt.NDArray[np.float32]) -> None:
    assert state.data is not None
    if features_NF.shape[1] != state.data.layout.width:
        raise Invalid(
            f"the data points have {features_NF.shape[1]} features, this site's have {state.data.layout.width}",
            "sites of one federation describe data points alike",
        )
