"""The basis of one replica's answers: the state in the store, and the generation in its memory (E10).

A replica never answers from memory alone. It loads a generation, computes with it, and then asks the store whether that
generation may still be served; only then does the answer leave.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock

from cluster.config.specification import FederationSpecification
from cluster.ensemble.loaded import Ensemble
from cluster.ensemble.reader import Reading
from cluster.results.federation import SubjectFound
from cluster.results.traces import SubjectTraces
from coordinator.engine.follower import Follower
from coordinator.ports import Clock
from coordinator.receipts.rollback import refuse_forgotten
from coordinator.state import FederationState
from storage.encryption.store import SealedStore
from storage.errors import Conflict, Corrupt, Invalid, SisaError, Unavailable

_LOADING_ATTEMPTS = 16


class Standing:
    """One replica's knowledge. May be used from any thread; one thread at a time loads."""

    def __init__(self, specification: FederationSpecification, store: SealedStore, clock: Clock) -> None:
        """Read nothing yet."""
        self._specification = specification
        self._store = store
        self._follower = Follower(store)
        self.reading = Reading(specification, store, clock, self.current)
        """Reads the same store, through this replica's knowledge of the state."""
        # These fields are changed under the lock named; readers take one value at a time without it, but for ``seen``.
        self._looking = Lock()
        self._floor = 0  # under ``_looking``
        self._state: FederationState | None = None  # under ``_looking``
        self._position = 0  # under ``_looking``
        self._loading = Lock()  # taken before ``_looking``, never after it
        self._ensemble: Ensemble | None = None  # under ``_loading``

    @property
    def state(self) -> FederationState | None:
        """The state as it was last read; None: nothing was ever committed, or nothing was read yet."""
        return self._state

    @property
    def floor(self) -> int:
        """The highest erasure floor that was ever read: it never falls, even if the store is rolled back."""
        return self._floor

    def seen(self) -> tuple[FederationState | None, int]:
        """Return the state as it was last read, and the number of the journal's last entry in it."""
        with self._looking:
            return self._state, self._position

    @property
    def ensemble(self) -> Ensemble | None:
        """The generation in memory, unless it is known to be withdrawn."""
        ensemble = self._ensemble
        return ensemble if ensemble is not None and ensemble.generation >= self._floor else None

    @property
    def is_behind(self) -> bool:
        """Whether the state that was last read names another generation than the one in memory."""
        state, ensemble = self._state, self._ensemble
        return state is not None and (ensemble is None or ensemble.generation != state.generation)

    def current(self) -> FederationState | None:
        """Return the state as it was at some moment since the call; None when nothing was ever committed.

        Raises as ``Follower.look`` does: the state is then unknown, and the replica must not answer.
        """
        with self._looking:
            state = self._follower.look()
            if state is not None:
                self._state, self._position = state, self._follower.position
                self._floor = max(self._floor, state.floor)
            return state

    def load(self) -> Ensemble:
        """Load and return the current generation; until it is loaded the previous one stays in use.

        Constituents that both have are not read again. Raises ``Unavailable`` with the reason why no generation can be
        loaded, and as ``current`` does.
        """
        with self._loading:
            damaged: FederationState | None = None
            for _ in range(_LOADING_ATTEMPTS):
                known = self._floor
                state = self.trained()
                if state.generation < known:
                    raise Unavailable(
                        "the store names a generation that was withdrawn before",
                        "Find out whether the store was rolled back to an earlier state.",
                    )
                refuse_forgotten(self._store, self.current)
                try:
                    ensemble = self._read(state)
                except Corrupt:  # a writer may have purged what was being read; the state has then changed
                    if state == damaged:
                        raise
                    damaged = state
                    continue
                if ensemble.generation >= self._floor:  # else an erasure arrived while it was read
                    self._ensemble = ensemble
                    return ensemble
            raise Unavailable("erasures follow each other faster than a generation is read", "Ask again in a moment.")

    def lookup(self, subjects: Iterable[str | int]) -> tuple[SubjectFound, ...]:
        """See ``Reading.lookup``. Raises ``Unavailable`` as ``trained`` does, ``Invalid`` for invalid names."""
        self.trained()
        return self.reading.lookup(subjects)

    def trace(self, subjects: Iterable[str | int]) -> SubjectTraces:
        """See ``Reading.trace``. Raises as ``lookup`` does."""
        self.trained()
        return self.reading.trace(subjects)

    def trained(self) -> FederationState:
        """Return the current state, which has data and fits this specification.

        Raises ``Unavailable`` when nothing was trained yet, or the store now holds another federation.
        """
        try:
            return self.reading.trained()[0]
        except (Invalid, Conflict) as error:
            raise unservable(error) from error

    def _read(self, state: FederationState) -> Ensemble:
        try:
            return Ensemble.load(self._store, state, self._specification, self._ensemble)
        except (Invalid, Conflict) as error:
            raise unservable(error) from error


def unservable(error: SisaError) -> Unavailable:
    """Return the error that callers get for a fault that they did not cause."""
    return Unavailable(
        f"the federation cannot answer now: {error.fact.partition(chr(10))[0].rstrip(':')}",
        f"Ask its operator to fix that. {error.remedy or 'See its status.'}",
    )
