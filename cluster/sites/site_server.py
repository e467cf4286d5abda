"""A site's desk: answers all questions from outside, by the site's own ensemble and from its store.

A desk reads only the site's store. The site itself decides what may leave it: see ``cluster.ensemble.site_report``.
Shape legend: N points, F features, S scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from cluster.config.sites import ListedSite
from cluster.ensemble.replica_state import Standing
from cluster.ensemble.site_report import Telling
from cluster.results.federation import SubjectFound
from cluster.runtime.system import SystemClock
from cluster.writer.stores import open_objects
from coordinator.effects import HoldoutMeasure
from coordinator.ports import Clock
from coordinator.sites import SiteAnswer, SiteStanding
from shards.encoding import NO_ENCODING, Encoding
from shards.points import scaled
from storage.errors import Invalid, Unavailable

_ATTEMPTS: Final = 8
"""How often an answer is computed again when its generation was withdrawn meanwhile, before giving up."""

_MOST_NAMES: Final = 5


class Desk:
    """Answers for one site. May be used from any thread."""

    def __init__(self, site: ListedSite, clock: Clock | None = None) -> None:
        """Read nothing yet."""
        self._site = site
        store = open_objects(site.specification)
        self._state = Standing(site.specification, store, clock or SystemClock())
        self._telling = Telling(site.specification, self._state, store, site.settings)

    def standing(self, requests: int = 0) -> SiteStanding:
        """See ``Telling.standing``."""
        return self._telling.standing(requests)

    def answer(self, features_NF: npt.NDArray[np.float32], names: tuple[str, ...]) -> SiteAnswer:
        """Return the aggregated answer for unscaled features, confirmed after it was computed (E10).

        ``names`` are the features' names, in the given order. Raises ``Invalid`` when this site's features have other
        names, ``ModelFailed`` when the model fails, ``Unavailable`` when no constituent may answer.
        """
        for _ in range(_ATTEMPTS):
            state = self._state.trained()
            assert state.data is not None
            data, layout = self._site.specification.data, state.data.layout
            own_NF = arranged(features_NF, names, layout.features, layout.width, data.encoders)
            ensemble = self._state.ensemble
            if ensemble is None or self._state.is_behind:
                ensemble = self._state.load()
            scores_NS = ensemble.answer(scaled(own_NF, data.scale))
            self._state.current()
            if ensemble.generation >= self._state.floor:
                return SiteAnswer(**ensemble.answered_by.facts, scores_NS=scores_NS.astype(np.float32))
        raise Unavailable("erasures follow each other faster than an answer can be computed", "Ask again in a moment.")

    def checkpoint(self, shard: int, sha256: str) -> bytes:
        """See ``Telling.checkpoint``."""
        return self._telling.checkpoint(shard, sha256)

    def measure(self) -> HoldoutMeasure:
        """See ``Telling.measure``."""
        return self._telling.measure()

    def lookup(self, subjects: Iterable[str | int]) -> tuple[SubjectFound, ...]:
        """See ``Telling.lookup``."""
        return self._telling.lookup(subjects)


def arranged(
    features_NF: npt.NDArray[np.float32],
    names: tuple[str, ...],
    own: tuple[str, ...],
    width: int,
    encoding: Encoding = NO_ENCODING,
) -> npt.NDArray[np.float32]:
    """Return features in the order of a site's ``own``: by name, because sites may order their columns differently.

    An encoded column is several features, which stay together.
    Raises ``Invalid``, with the names, when the site's features have other names or another number.
    """
    others = other_names(names, own)
    if features_NF.shape[1] != width:
        raise Invalid(
            f"the data points have {features_NF.shape[1]} features, this site's have {width}"
            + (f": {others}" if others else ""),
            "Describe data points alike at all sites of a federation.",
        )
    if others:
        raise Invalid(
            f"this site's features have other names: {others}",
            "Give its columns the names that they have at the other sites, and train it again.",
        )
    if names == own:
        return features_NF
    ends = list(accumulate(encoding.widths(names), initial=0))
    places = {name: range(start, end) for name, (start, end) in zip(names, pairwise(ends), strict=True)}
    return np.ascontiguousarray(features_NF[:, [place for name in own for place in places[name]]])


def other_names(names: tuple[str, ...], own: tuple[str, ...]) -> str:
    """Return a description of how a site's ``own`` names of features differ from ``names``; empty if they do not.

    >>> other_names(("a", "b"), ("b", "a")), other_names(("a", "b"), ("a", "c"))
    ('', "it has no 'b'; it has 'c', which the others do not have")
    """
    missing, further = sorted(set(names) - set(own)), sorted(set(own) - set(names))
    parts = (
        f"it has no {_some(missing)}" if missing else "",
        f"it has {_some(further)}, which the others do not have" if further else "",
    )
    return "; ".join(part for part in parts if part)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(map(repr, names[:_MOST_NAMES])) + more
