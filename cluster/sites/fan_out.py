"""Asks several sites at once, and waits for a quorum of answers within a time limit.

Shape legend: N points, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Final

import numpy as np
import numpy.typing as npt

from cluster.config.sites import SitesSettings, SitesSpecification
from cluster.sites.imported_weights import Carried
from cluster.sites.link import SiteLink
from cluster.sites.membership import RosterRegister
from coordinator.aggregation import ModelFailed
from coordinator.sites import Roster, SiteAnswer, SiteMark, SiteStanding, TookPart, check_answer, combine, set_back
from storage.errors import SisaError, Unavailable

_NEW: Final = "it has not joined yet"

_QUESTIONS_AT_ONCE: Final = 4
"""Most questions in progress at one site; a site with this many unanswered questions gets no further ones."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CombinedAnswer:
    """The federation's answer, and which sites took part in it."""

    scores_NS: npt.NDArray[np.float64]
    sites: tuple[TookPart, ...]
    """The sites, in the order of the specification."""
    absent: Mapping[str, str]
    """Why each of the other sites did not take part, by site."""


class SitesFanOut:
    """Questions to the sites of one federation. May be used from any thread."""

    def __init__(
        self, specification: SitesSpecification, links: Mapping[str, SiteLink], roster: RosterRegister
    ) -> None:
        """``links`` are all sites of the specification, by name."""
        self._specification = specification
        self._roster = roster
        self._ways = {
            site.name: _Way(
                links[site.name],
                roster,
                specification.settings,
                Carried(site, links[site.name]) if site.settings.leaves == "weights" else None,
            )
            for site in specification.sites
        }

    def answer(self, features_NF: npt.NDArray[np.float32], names: tuple[str, ...]) -> CombinedAnswer:
        """Return the combined answer of the sites that take part, for features with these names, not scaled.

        It waits up to ``timeout_seconds`` for the quorum, and then up to ``grace_seconds`` for the others. A site that
        was withdrawn while it was asked does not take part in the answer. Raises ``Unavailable``, with the reason for
        each site, when too few answer.
        """
        members = self._members(self._roster.read())
        if not members:
            raise Unavailable("no site has joined the federation yet", "Run 'sisa train'.")
        asked = {name: self._ways[name].ask(features_NF, names) for name in members}
        self._await(asked)
        found, absent = _sorted_out(asked)
        # Read after the answers: a site may have left since, and an erasure may have withdrawn an answer.
        roster = self._roster.read()
        now = self._members(roster)
        for name in list(found):
            mark = roster.find(name)
            if mark is not None and mark.mark is not None and found[name].generation < mark.mark.floor:
                absent[name] = set_back(name).fact
                del found[name]
        found = {name: answer for name, answer in found.items() if name in now}
        absent = {name: reason for name, reason in absent.items() if name in now}
        self._check_quorum(found, absent, len(now), _failures(asked))
        absent |= {site.name: _NEW for site in self._specification.sites if roster.find(site.name) is None}
        return CombinedAnswer(
            scores_NS=combine(tuple(found.values()), self._specification.aggregation.rule, self._specification.target),
            sites=tuple(TookPart(site=name, **each.facts) for name, each in found.items()),
            absent=absent,
        )

    def close(self) -> None:
        """Stop waiting for answers."""
        for way in self._ways.values():
            way.close()

    def _members(self, roster: Roster) -> tuple[str, ...]:
        records = {site.name for site in roster.sites if site.is_member}
        return tuple(site.name for site in self._specification.sites if site.name in records)

    def _await(self, asked: Mapping[str, Future[SiteAnswer]]) -> None:
        settings = self._specification.settings
        quorum = min(settings.quorum or len(asked), len(asked))
        until, pending = monotonic() + settings.timeout_seconds, set(asked.values())
        has_grace = False
        while pending and (left := until - monotonic()) > 0:
            _done, pending = wait(pending, left, FIRST_COMPLETED)
            good = sum(1 for each in asked.values() if each.done() and each.exception() is None)
            if good >= quorum and not has_grace:
                has_grace, until = True, min(until, monotonic() + settings.grace_seconds)

    def _check_quorum(
        self,
        found: Mapping[str, SiteAnswer],
        absent: Mapping[str, str],
        members: int,
        failures: Sequence[ModelFailed],
    ) -> None:
        quorum = min(self._specification.settings.quorum or members, members)
        if len(found) < max(1, quorum):
            if failures:  # waiting cannot help: the same data points would fail again
                raise failures[0]
            reasons = "; ".join(f"{name}: {reason}" for name, reason in absent.items())
            raise Unavailable(
                f"{len(found)} of {members} sites answer, and the quorum is {max(1, quorum)}: {reasons}",
                "Wait for them, or lower [sites] quorum.",
            )


class _Way:
    """The connection to one site: the questions in progress, and the site's state as last seen."""

    def __init__(
        self, link: SiteLink, roster: RosterRegister, settings: SitesSettings, carried: Carried | None
    ) -> None:
        self._link = link
        self._roster = roster
        self._refresh_seconds = settings.refresh_seconds
        self._carried = carried
        self._questions = ThreadPoolExecutor(_QUESTIONS_AT_ONCE, f"sisa-ask-{link.name}")
        self._looks = ThreadPoolExecutor(1, f"sisa-look-{link.name}")
        self._lock = Lock()
        self._under_way = 0  # under ``_lock``
        # Without a lock: the roster decides which mark is the newer one, and an old one costs another look.
        self._mark: SiteMark | None = None
        self._looked_at = 0.0

    def ask(self, features_NF: npt.NDArray[np.float32], names: tuple[str, ...]) -> Future[SiteAnswer]:
        """Return the site's future answer."""
        with self._lock:
            is_behind = self._under_way >= _QUESTIONS_AT_ONCE
            self._under_way += not is_behind
        if is_behind:
            refused: Future[SiteAnswer] = Future()
            refused.set_exception(Unavailable("it is behind with earlier questions", "Wait until it has answered one."))
            return refused
        asked = self._questions.submit(self._ask, features_NF, names)
        asked.add_done_callback(lambda _: self._arrived())
        return asked

    def close(self) -> None:
        self._questions.shutdown(wait=False, cancel_futures=True)
        self._looks.shutdown(wait=False, cancel_futures=True)

    def _arrived(self) -> None:
        with self._lock:
            self._under_way -= 1

    def _ask(self, features_NF: npt.NDArray[np.float32], names: tuple[str, ...]) -> SiteAnswer:
        """Ask the site, and read its standing at the same time if the known one is old."""
        try:
            if self._carried is not None:
                answer = self._carried.answer(features_NF, names, self._confirm)
            else:
                look = self._looks.submit(self._look) if self._is_old() else None
                answer = self._link.answer(features_NF, names)
                if look is not None:
                    look.result()
            if self._mark is not None:
                check_answer(self._mark, answer, self._link.name)
        except SisaError:
            self._looked_at = 0.0  # so that the next question reads the site's standing again
            raise
        return answer

    def _confirm(self) -> SiteStanding:
        """Return the site's standing, after checking that it was not set back."""
        seen: list[SiteStanding] = []

        def look(requests: int) -> SiteStanding:
            seen.append(self._link.standing(requests))
            return seen[-1]

        self._mark = self._roster.advance(self._link.name, look)
        return seen[-1]

    def _is_old(self) -> bool:
        return self._mark is None or monotonic() - self._looked_at > self._refresh_seconds

    def _look(self) -> None:
        began = monotonic()
        self._mark = self._roster.advance(self._link.name, self._link.standing)
        self._looked_at = began


def _failures(asked: Mapping[str, Future[SiteAnswer]]) -> list[ModelFailed]:
    """Return the errors of sites whose model fails on the data points."""
    errors = (each.exception() for each in asked.values() if each.done())
    return [error for error in errors if isinstance(error, ModelFailed)]


def _sorted_out(asked: Mapping[str, Future[SiteAnswer]]) -> tuple[dict[str, SiteAnswer], dict[str, str]]:
    """Return the answers that have arrived, and for each other site the reason why its answer has not."""
    found: dict[str, SiteAnswer] = {}
    absent: dict[str, str] = {}
    for name, each in asked.items():
        if not each.done():
            absent[name] = "it has not answered in time"
        elif (error := each.exception()) is None:
            found[name] = each.result()
        elif isinstance(error, SisaError):
            absent[name] = error.fact
        else:
            raise error
    return found, absent
