"""A site's reports to its federation: its state, and its checkpoints if weights may leave it.

The site itself decides here what may leave it, by its own copy of the specification.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cluster.config.sites import SiteSettings
from cluster.config.specification import FederationSpecification
from cluster.ensemble.loaded import serving_part
from cluster.ensemble.replica_state import Standing
from cluster.results.federation import SubjectFound
from coordinator.decisions.ended import numbered as numbered_of
from coordinator.effects import HoldoutMeasure
from coordinator.engine.ended import buckets
from coordinator.sites import Accepted, SiteStanding, history_of
from coordinator.state import NONE_ENDED, EndedRequests, FederationState, servable
from shards.learners.trainer import read_checkpoint
from storage.errors import Corrupt, Invalid, ObjectMissing, Unavailable
from storage.objects import ObjectStore


class Withheld(Invalid):
    """The site does not give this away."""


class Telling:
    """One site's reports on itself. May be used from any thread."""

    def __init__(
        self,
        specification: FederationSpecification,
        standing: Standing,
        store: ObjectStore,
        site: SiteSettings | None,
    ) -> None:
        """Read nothing yet. ``site`` says what may leave it; None: only predictions."""
        self._specification = specification
        self._standing = standing
        self._store = store
        self._leaves_weights = site is not None and site.leaves == "weights"
        self._is_looked_into = site is not None and site.lookup
        self._reports_measures = site is not None and site.measures
        # Without a lock: replaced as a whole, and two threads that read the buckets at once find the same.
        self._ended: tuple[EndedRequests, dict[int, Accepted]] = (NONE_ENDED, {})

    def standing(self, requests: int = 0) -> SiteStanding:
        """Return the site's current standing, for a caller that knows its first ``requests`` erasure requests.

        Raises ``Unavailable`` when nothing was trained, or it cannot be read.
        """
        state, position, every = self._seen()
        assert state.data is not None
        return SiteStanding(
            identity=state.key_digest,
            position=position,
            generation=state.generation,
            floor=state.floor,
            requests=len(every),
            history=history_of(every),
            history_then=history_of(every[:requests]),
            shards=len(state.shards),
            features=state.data.layout.features,
            width=state.data.layout.width,
            model_code=state.configuration.model_code if state.configuration else "",
            checkpoints=tuple((each.shard, each.checkpoint.sha256) for each in servable(state)),
        )

    def _seen(self) -> tuple[FederationState, int, tuple[Accepted, ...]]:
        """Return the state, its position in the journal, and all requests ever accepted."""
        self._standing.trained()
        state, position = self._standing.seen()  # both from one read: another thread may have read since
        assert state is not None
        known, numbered = self._ended
        if known != state.ended:
            try:
                pairs = (pair for bucket in buckets(self._store, state) for pair in bucket.requests)
                numbered = {number: Accepted.of(request) for number, request in pairs}
            except Corrupt:
                if self._standing.trained().ended == state.ended:
                    raise
                return self._seen()  # a writer has replaced a bucket meanwhile
            self._ended = state.ended, numbered
        every = {**numbered, **{number: Accepted.of(each) for number, each in numbered_of(state)}}
        return state, position, tuple(each for _, each in sorted(every.items()))

    def checkpoint(self, shard: int, sha256: str) -> bytes:
        """Return the bytes of a checkpoint that may be served now; see ``serving_part``.

        Raises ``Withheld`` when no weights leave this site, or not these, ``ObjectMissing`` when the checkpoint is not
        served.
        """
        if not self._leaves_weights:
            raise Withheld("no weights leave this site: only predictions do", "Ask it for predictions.")
        state = self._standing.trained()
        assert state.data is not None
        for each in servable(state):
            if each.shard == shard and each.checkpoint.sha256 == sha256:
                payload = read_checkpoint(self._store, each.checkpoint, each.shard)
                name = each.shard, each.checkpoint.sha256
                try:
                    return serving_part(self._specification, state.data.layout.width, payload, name)
                except Invalid as error:
                    raise Withheld(error.fact, error.remedy) from error
        raise ObjectMissing("the site serves no such checkpoint now", "Read the site's standing, and try again.")

    def measure(self) -> HoldoutMeasure:
        """Return how well the constituents that answer now do on all of this site's hold-out points.

        Without the share of each class: of a class that few people have, it says something about each of them.
        Raises ``Withheld`` if not allowed, ``Invalid`` without hold-out points, ``Unavailable`` until it is measured.
        """
        if not self._reports_measures:
            raise Withheld(
                "this site keeps its measures to itself",
                "Ask the site to set measures = true in its own table [[site]].",
            )
        state = self._standing.trained()
        if not state.held_out:
            raise Invalid("this site has no hold-out points", "Set [data] holdout for it, and train it.")
        if state.measure is None or not state.has_current_measure:
            raise Unavailable(
                "what this site serves now is not measured yet on its hold-out points",
                "Run 'sisa train' there, which measures it.",
            )
        return replace(state.measure, per_class=None)

    def lookup(self, subjects: Iterable[str | int]) -> tuple[SubjectFound, ...]:
        """Return what the site holds of each subject; see ``Reading.lookup``. Raises ``Withheld`` if not allowed."""
        if not self._is_looked_into:
            raise Withheld(
                "this site does not let the federation look people up",
                "Ask the site to set lookup = true in its own table [[site]].",
            )
        return self._standing.lookup(subjects)
