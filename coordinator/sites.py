"""Sites of a federation: how their answers are combined, and what is remembered about each site. Pure.

A site is a separate federation, with a store, keys, journal and receipts that only it uses. The federation of
sites does only two things: it combines their answers, and it checks that no site falls behind what it once reported.
Shape legend: N points, S scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from coordinator.aggregation import AnsweredBy, Rule
from coordinator.effects import HoldoutMeasure
from coordinator.requests import ErasureRequest
from shards.learner_kinds.guarantees import EXACT, weakest
from shards.measures import MEANS, ROOT_OF_MEAN
from shards.targets import Target
from storage.digests import Sha256, digest_of
from storage.errors import Conflict, Invalid, Unavailable

Leaves = Literal["predictions", "weights"]
"""What may leave a site: its constituents' aggregated answers, or the constituents as well. Data points never do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteStanding:
    """What a site reports about itself, at some moment after it was asked."""

    identity: str
    """Digest that identifies its partition key: a different key means a different site, even under the same name."""
    position: int
    """Number of its journal's last entry; only ever grows."""
    generation: int
    floor: int
    """Its erasure floor; only ever grows."""
    requests: int
    """Number of erasure requests that it ever accepted."""
    history: Sha256
    """Digest of the history of all of them."""
    history_then: Sha256
    """Digest of the history of the first ones, as many as the caller knows."""
    shards: int
    features: tuple[str, ...]
    """Names of the feature columns, in order."""
    width: int
    """Features of a data point."""
    model_code: str
    """Digest of the model's code that it was trained with."""
    checkpoints: tuple[tuple[int, str], ...]
    """Shard and checkpoint digest of each constituent that answers."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SiteAnswer(AnsweredBy):
    """A site's aggregated answer, by at least one constituent."""

    scores_NS: npt.NDArray[np.float32]
    """The target's scores over its constituents; in float32, as answers travel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TookPart:
    """A site whose constituents are in an answer."""

    site: str
    generation: int
    constituents: int
    """How many of them answered, of ``shards``."""
    shards: int
    guarantee: str = str(EXACT)
    """What its learner promises about erased data points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteMark:
    """The most advanced standing that a site ever reported."""

    identity: str
    position: int
    floor: int
    requests: int
    history: Sha256
    """``history_of`` its first ``requests`` erasure requests."""


class Accepted(NamedTuple):
    """The part of an erasure request that enters a site's history."""

    request_id: str
    body: Sha256
    received_at: str

    @classmethod
    def of(cls, request: ErasureRequest) -> Accepted:
        """Return that part of ``request``."""
        return cls(request.request_id, request.body, request.received_at)


def history_of(requests: Sequence[ErasureRequest | Accepted]) -> Sha256:
    """Return the digest of erasure requests in the order in which they were accepted.

    A store that was set back to an earlier moment and has accepted requests since has a different digest, regardless of
    the length of its journal.
    """
    return digest_of([[each.request_id, each.body, each.received_at] for each in requests])


def advanced(mark: SiteMark | None, standing: SiteStanding, site: str) -> SiteMark:
    """Return the mark updated by ``standing``, which the site reported for ``mark.requests``.

    Raises ``Conflict`` when it is another site than before, ``Unavailable`` when it was set back, such as by a restore
    from an old backup: then it may hold erased data points again, and its answers must not be used (E10).
    """
    if mark is not None and standing.identity != mark.identity:
        raise Conflict(
            "this is another site than the one that joined under its name: its partition key differs",
            "Bring the first one back, or withdraw it and let the other one join under another name.",
            site=site,
        )
    if mark is not None and (
        standing.position < mark.position
        or standing.floor < mark.floor
        or standing.history_then != mark.history  # a shorter history also has a different digest
    ):
        raise set_back(site)
    return SiteMark(
        identity=standing.identity,
        position=standing.position,
        floor=standing.floor,
        requests=standing.requests,
        history=standing.history,
    )


def check_answer(mark: SiteMark, answer: SiteAnswer, site: str) -> None:
    """Raise ``Unavailable`` when the site answers from a generation that it has withdrawn (E10)."""
    if answer.generation < mark.floor:
        raise set_back(site)


def set_back(site: str) -> Unavailable:
    """Return the error for a site that was set back to an earlier moment."""
    return Unavailable(
        "the site reports an earlier state than before: its store was set back to an earlier moment",
        "Restore its newest state; if that is lost, withdraw the site: it may hold erased data again.",
        site=site,
    )


def measured_together(measures: Sequence[HoldoutMeasure], columns: int) -> dict[str, float]:
    """Return the metrics over all hold-out points of several sites, each of which measured its own answers to its own.

    Only what follows from the sites' metrics and counts: the means over data points that all of them have, and the root
    of the mean square if one column is predicted (``columns``). Areas, F1, quantiles, R² and the shares of each class
    do not: their parts would have to leave the sites.
    """
    points = sum(each.points for each in measures)
    found = {}
    for name in measures[0].metrics if measures else ():
        values = [(each.points, each.metrics[name]) for each in measures if name in each.metrics]
        if len(values) < len(measures):
            continue
        if name in MEANS:
            found[name] = sum(count * value for count, value in values) / points
        elif name == ROOT_OF_MEAN and columns == 1:
            found[name] = math.sqrt(sum(count * value**2 for count, value in values) / points)
    return found


def answered_together(parts: Sequence[TookPart]) -> AnsweredBy:
    """Return who gave the answer of several sites; its generation is the highest of theirs, which count apart.

    Its guarantee is one that holds at all of them.
    """
    return AnsweredBy(
        generation=max(each.generation for each in parts),
        constituents=sum(each.constituents for each in parts),
        shards=sum(each.shards for each in parts),
        guarantee=weakest(each.guarantee for each in parts),
    )


def combine(answers: Sequence[SiteAnswer], rule: Rule, target: Target) -> npt.NDArray[np.float64]:
    """Return the combined answer of several sites, in the given order.

    Every constituent has the same weight at every site, as in one ensemble (E6): a site's weight is how many of its
    constituents answered. Raises ``Unavailable`` when no site answers.
    """
    if not answers:
        raise Unavailable("no site answers", "Wait until one does: see 'sisa status'.")
    scores = [answer.scores_NS for answer in answers]
    scores_NS: npt.NDArray[np.float64] = target.combine(scores, [answer.constituents for answer in answers], rule)
    return scores_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRecord:
    """What a federation remembers about one site."""

    name: str
    joined_at: str
    """UTC, ISO 8601, like the other times."""
    mark: SiteMark | None = None
    """None: it has never reported anything."""
    withdrawn_at: str = ""
    """Empty: it is a member."""
    reason: str = ""
    """Why it was withdrawn."""
    purged_at: str = ""
    """When all its data were erased at the site; empty: that is still to be done, or it is a member."""

    @property
    def is_member(self) -> bool:
        """Whether its constituents are part of the ensemble."""
        return not self.withdrawn_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """All sites that ever joined, in that order."""

    sites: tuple[SiteRecord, ...] = field(default=())

    def find(self, name: str) -> SiteRecord | None:
        """Return what is remembered about a site; None: it never joined."""
        return next((site for site in self.sites if site.name == name), None)

    def member(self, name: str) -> SiteRecord:
        """Return a site that is a member. Raises ``Invalid`` when it never joined, ``Conflict`` when withdrawn."""
        site = self._known(name)
        if not site.is_member:
            raise Conflict(
                "this site was withdrawn: it is no longer part of the federation",
                "Let its operator join again under another name, if they want to.",
                site=name,
                since=site.withdrawn_at,
            )
        return site

    def joined(self, name: str, at: str) -> Roster:
        """Return the roster with the site in it; joining again changes nothing. Raises ``Conflict`` when withdrawn."""
        if self.find(name) is not None:
            self.member(name)
            return self
        return Roster(sites=(*self.sites, SiteRecord(name=name, joined_at=at)))

    def marked(self, name: str, mark: SiteMark) -> Roster:
        """Return the roster with the site's mark moved forward, never back."""
        known = self._known(name).mark
        if known is not None and known.position >= mark.position:
            return self
        return self._with(name, mark=mark)

    def withdrawn(self, name: str, at: str, reason: str) -> Roster:
        """Return the roster without the site's constituents; withdrawing again changes nothing."""
        return self._with(name, withdrawn_at=at, reason=reason) if self._known(name).is_member else self

    def purged(self, name: str, at: str) -> Roster:
        """Return the roster with a record that the withdrawn site no longer holds data."""
        site = self._known(name)
        return self if site.is_member or site.purged_at else self._with(name, purged_at=at)

    def _known(self, name: str) -> SiteRecord:
        site = self.find(name)
        if site is None:
            raise Invalid(
                "no site of this name has joined the federation",
                "See 'sisa status' for the sites that it has.",
                site=name,
            )
        return site

    def _with(self, name: str, **changes: object) -> Roster:
        return Roster(
            sites=tuple(replace(each, **changes) if each.name == name else each for each in self.sites)  # type: ignore[arg-type]
        )
