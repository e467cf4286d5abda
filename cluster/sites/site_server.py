"""What answers at a site: its own ensemble, and what may be told of it. Whoever asks from elsewhere asks a desk.

A desk reads the site's store and nothing else; it is the only thing of a site that the outside meets. What may leave is
decided at the site: see ``cluster.ensemble.site_report``.
Shape legend: N points, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from cluster.config.sites import ListedSite
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

_MOST_NAMES: Final = 5


class Desk:
    """One site's answers. May be used from any thread."""

    def __init__(self, site: ListedSite, clock: Clock | None = None) -> None:
        """Reads nothing yet."""
        self._site = site
        store = open_objects(site.specification)
        self._state = Standing(site.specification, store, clock or SystemClock())
        self._telling = Telling(self._state, store, site.settings)

    def standing(self, requests: int = 0) -> SiteStanding:
        """See ``Telling.standing``."""
        return self._telling.standing(requests)

    def answer(self, features_NF: npt.NDArray[np.float32], names: tuple[str, ...]) -> SiteAnswer:
        """Return the aggregated answer for features that are not scaled, confirmed after it was computed (E10).

        ``names`` are those of the features, in the order given. Raises ``Invalid`` when this site's have others,
        ``ModelFailed`` when the model has no answer, ``Unavailable`` when no constituent may answer.
        """
        for _ in range(_ATTEMPTS):
            state = self._state.trained()
            assert state.data is not None
            own_NF = arranged(features_NF, names, state.data.layout.features, state.data.layout.width)
            ensemble = self._state.ensemble
            if ensemble is None or self._state.is_behind:
                ensemble = self._state.load()
            found = ensemble.answer(scaled(own_NF, self._site.specification.data.scale))
            self._state.current()
            if ensemble.generation >= self._state.floor:
                return SiteAnswer(
                    generation=ensemble.generation,
                    constituents=len(ensemble.constituents),
                    shards=ensemble.shards,
                    scores_NC=found.scores_NC.astype(np.float32),
                )
        raise Unavailable("erasures follow each other faster than an answer can be computed", "Ask again in a moment.")

    def checkpoint(self, shard: int, sha256: str) -> bytes:
        """See ``Telling.checkpoint``."""
        return self._telling.checkpoint(shard, sha256)

    def lookup(self, subjects: Iterable[str | int]) -> tuple[SubjectFound, ...]:
        """See ``Telling.lookup``."""
        return self._telling.lookup(subjects)


def arranged(
    features_NF: npt.NDArray[np.float32], names: tuple[str, ...], own: tuple[str, ...], width: int
) -> npt.NDArray[np.float32]:
    """Return features in the order of a site's ``own``: by name, because sites may have columns in another order.

    Raises ``Invalid``, with the names, when the site's features have others, and for another number of features.
    """
    others = other_names(names, own)
    if features_NF.shape[1] != width:
        raise Invalid(
            f"the data points have {features_NF.shape[1]} features, this site's have {width}"
            + (f": {others}" if others else ""),
            "Sites of one federation describe data points alike.",
        )
    if others:
        raise Invalid(
            f"this site's features have other names: {others}",
            "Give its columns the names that they have at the other sites, and train it again.",
        )
    if names == own:
        return features_NF
    places = {name: place for place, name in enumerate(names)}
    return np.ascontiguousarray(features_NF[:, [places[name] for name in own]])


def other_names(names: tuple[str, ...], own: tuple[str, ...]) -> str:
    """Return, in words, how a site's ``own`` features are called otherwise than ``names``; empty: in nothing.

    >>> other_names(("a", "b"), ("b", "a")), other_names(("a", "b"), ("a", "c"))
    ('', "it has no 'b'; it has 'c', which the others have not")
    """
    missing, further = sorted(set(names) - set(own)), sorted(set(own) - set(names))
    parts = (
        f"it has no {_some(missing)}" if missing else "",
        f"it has {_some(further)}, which the others have not" if further else "",
    )
    return "; ".join(part for part in parts if part)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(map(repr, names[:_MOST_NAMES])) + more
