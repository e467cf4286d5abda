"""Answering: many callers' data points, evaluated together, confirmed together.

It uses three threads, because torch and the store are blocking, and a request wakes only those that it concerns. One
computes: its next batch is what arrived during the last one, so that no caller waits for a batch to fill. Where a model
takes no longer than waking a thread, the caller itself computes, unless others wait. One confirms: a single read of the
store serves all answers that were ready when it began. One loads a new generation while the previous one still answers.
An answer whose generation is withdrawn before it leaves is computed again, unnoticed by its caller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from threading import Condition, Lock, Thread
from typing import Final

import numpy as np
import numpy.typing as npt

from cluster.ensemble.loaded import Ensemble
from cluster.ensemble.replica_state import Standing
from coordinator.aggregation import AnsweredBy, ModelFailed, placed
from storage.errors import InvariantBroken, SisaError, Unavailable

TOGETHER: Final = 1024
"""Most data points that are evaluated in one go; larger requests take turns with small ones, piece by piece."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer(AnsweredBy):
    """A confirmed answer of the ensemble."""

    scores_NS: npt.NDArray[np.float64]
    """The answer's numbers; see ``coordinator.aggregation.aggregate``."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Ask:
    """One caller's data points in progress."""

    features_NF: npt.NDArray[np.float32]
    answer: Future[Answer] = field(default_factory=Future)
    ensemble: Ensemble | None = None
    """The generation that all of its pieces are computed with."""
    done: list[npt.NDArray[np.float64]] = field(default_factory=list)
    points: int = 0
    """How many are computed."""

    def begin_again(self) -> None:
        """Discard what was computed."""
        self.ensemble, self.done, self.points = None, [], 0

    @property
    def is_computed(self) -> bool:
        return self.ensemble is not None and self.points >= len(self.features_NF)


class Answering:
    """One replica's answers. Its threads start when it is made and end with ``close``."""

    def __init__(self, standing: Standing, refresh_seconds: float, refresh: Callable[[], None] = lambda: None) -> None:
        """``refresh`` is called, on the thread that confirms, every ``refresh_seconds`` or more often."""
        self._standing = standing
        self._refresh_seconds = refresh_seconds
        self._refresh = refresh
        self._lock = Lock()
        """Guards all fields below but ``_threads``; an ask that was taken out belongs to the thread that took it."""
        # One condition for each thread, so that a request wakes only those that have work with it.
        self._to_compute, self._to_confirm, self._to_load = (Condition(self._lock) for _ in range(3))
        self._waiting: deque[_Ask] = deque()
        self._computed: list[_Ask] = []
        self._trouble: SisaError | None = None
        """Why the current generation could not be loaded."""
        self._doubt: SisaError | None = None
        """Why the last read of the store failed."""
        self._looks = 0
        self._loaded_after = 0
        """The number of reads of the store when the last load began."""
        self._is_loading = False
        self._is_closing = False
        self._threads = tuple(
            Thread(target=self._run, args=(target,), name=f"sisa-{name}", daemon=True)
            for name, target in (("compute", self._compute), ("confirm", self._confirm), ("load", self._load))
        )
        for thread in self._threads:
            thread.start()

    def ask(self, features_NF: npt.NDArray[np.float32]) -> Future[Answer]:
        """Return the future answer for scaled features. Few of them are computed by the caller's own thread.

        The future raises ``Unavailable`` when there is no generation to answer with, or it cannot be confirmed.
        """
        ask, ensemble = _Ask(features_NF=features_NF), self._standing.ensemble
        if ensemble is not None and len(features_NF) <= ensemble.quick_points and not self._waiting:
            self._compute_next([ask], ensemble)
        else:
            self._put(behind=[ask])
        return ask.answer

    def check(self) -> None:
        """Raise ``Unavailable`` when this replica cannot answer now, ``InvariantBroken`` when it never will."""
        if not all(thread.is_alive() for thread in self._threads):
            raise InvariantBroken("a thread of this replica has ended")
        with self._lock:
            if self._doubt is not None:
                raise self._doubt
            if self._standing.ensemble is None:
                raise self._reason

    def close(self) -> None:
        """Refuse what was not answered, and end the threads."""
        self._end()
        for thread in self._threads:
            thread.join()

    def _run(self, work: Callable[[], None]) -> None:
        """Do ``work`` until the end; if it fails, refuse all callers, so that none waits for ever."""
        try:
            work()
        finally:
            self._end()

    def _end(self) -> None:
        with self._lock:
            self._is_closing = True
            asks = [*self._waiting, *self._computed]
            self._waiting.clear()
            self._computed.clear()
            for each in (self._to_compute, self._to_confirm, self._to_load):
                each.notify()
        self._refuse(asks, _stopping())

    @property
    def _reason(self) -> SisaError:
        """Why there is no generation to answer with."""
        return self._trouble or self._doubt or Unavailable("no generation is loaded yet", "Ask again in a moment.")

    # ------------------------------------------------------------------------------------------------- computing

    def _compute(self) -> None:
        while True:
            with self._lock:
                while not (self._is_closing or self._is_ready):
                    if self._is_behind:
                        self._to_load.notify()
                    elif self._is_stuck:
                        self._to_confirm.notify()
                    self._to_compute.wait()
                if self._is_closing:
                    return
                ensemble, trouble = self._standing.ensemble, self._trouble or self._doubt
                if ensemble is None and trouble is None:
                    continue  # withdrawn a moment ago
                asks = self._take()
            if ensemble is not None:
                self._compute_next(asks, ensemble)
            elif trouble is not None:
                self._refuse(asks, trouble)

    def _compute_next(self, asks: Sequence[_Ask], ensemble: Ensemble) -> None:
        """Compute the next piece of an ask, or several small asks; if the model fails on one, the others succeed."""
        try:
            self._evaluate(asks, ensemble)
        except ModelFailed as error:
            if len(asks) > 1:
                for ask in asks:
                    self._compute_next([ask], ensemble)
            else:
                self._refuse(asks, placed(error, asks[0].points))
        except SisaError as error:
            self._refuse(asks, error)
        except Exception:  # noqa: BLE001  what a learner raises may quote data points
            self._refuse(asks, InvariantBroken("the model failed on these data points"))
        else:
            self._pass_on(asks)

    @property
    def _is_ready(self) -> bool:
        """Whether there is an ask, and either a generation to compute it with or the reason why there is not one."""
        is_known = self._standing.ensemble is not None or self._trouble is not None or self._doubt is not None
        return bool(self._waiting) and is_known

    @property
    def _is_stuck(self) -> bool:
        """Whether asks wait for a generation, and only a read of the store can show which one to load.

        Any thread that reads the store may find that the generation in memory was withdrawn.
        """
        has_looked = self._is_loading or self._looks > self._loaded_after
        return bool(self._waiting) and not self._is_ready and not has_looked

    def _take(self) -> list[_Ask]:
        """Return the next ask and the following ones that fit into one batch with it."""
        asks = [self._waiting.popleft()]
        if len(asks[0].features_NF) > TOGETHER:  # piece by piece, all pieces with the generation of the first
            return asks
        points, width = len(asks[0].features_NF), asks[0].features_NF.shape[1]
        while self._waiting:
            following = self._waiting[0]
            points += len(following.features_NF)
            if points > TOGETHER or following.features_NF.shape[1] != width:
                break
            asks.append(self._waiting.popleft())
        return asks

    def _evaluate(self, asks: Sequence[_Ask], ensemble: Ensemble) -> None:
        """Compute the next piece of an ask, or several small asks as a whole."""
        for ask in asks:
            if ask.ensemble is not None and ask.ensemble.generation < self._standing.floor:
                ask.begin_again()
            ask.ensemble = ask.ensemble or ensemble
        together = asks[0].ensemble or ensemble
        pieces = [ask.features_NF[ask.points : ask.points + TOGETHER] for ask in asks]
        scores_NS = together.answer(pieces[0] if len(pieces) == 1 else np.concatenate(pieces))
        start = 0
        for ask, piece in zip(asks, pieces, strict=True):
            stop = start + len(piece)
            ask.done.append(scores_NS[start:stop])
            ask.points += len(piece)
            start = stop

    def _pass_on(self, asks: Sequence[_Ask]) -> None:
        self._put(
            computed=[ask for ask in asks if ask.is_computed], behind=[ask for ask in asks if not ask.is_computed]
        )

    def _put(self, *, first: Sequence[_Ask] = (), behind: Sequence[_Ask] = (), computed: Sequence[_Ask] = ()) -> None:
        """Queue asks for their next step; refuse them once the replica is closing."""
        with self._lock:
            is_over = self._is_closing
            if not is_over:
                self._waiting.extendleft(reversed(first))
                self._waiting.extend(behind)
                self._computed.extend(computed)
                if self._waiting:
                    self._to_compute.notify()
                if computed:
                    self._to_confirm.notify()
        if is_over:
            self._refuse([*first, *behind, *computed], _stopping())

    # ------------------------------------------------------------------------------------------------ confirming

    def _confirm(self) -> None:
        while not self._is_closing:
            with self._lock:
                self._to_confirm.wait_for(
                    lambda: self._computed or self._is_closing or self._is_stuck, self._refresh_seconds
                )
                asks, self._computed = self._computed, []
            try:
                self._standing.current()
                self._refresh()
            except SisaError as error:
                doubt = _doubt(error)
                self._refuse(asks, doubt)
                self._looked(doubt)
            except BaseException:
                self._refuse(asks, _stopping())
                raise
            else:
                self._looked(None)
                self._let_go(asks)

    def _looked(self, doubt: SisaError | None) -> None:
        with self._lock:
            self._doubt = doubt
            self._looks += doubt is None
            if self._is_wanted:
                self._to_load.notify()
            if self._waiting:
                self._to_compute.notify()

    def _let_go(self, asks: Sequence[_Ask]) -> None:
        """Answer what was computed with a generation that may be served; have the rest computed again."""
        withdrawn = []
        for ask in asks:
            assert ask.ensemble is not None
            if ask.ensemble.generation >= self._standing.floor:
                _settle(ask, partial(ask.answer.set_result, _answer(ask, ask.ensemble)))
            else:
                ask.begin_again()
                withdrawn.append(ask)
        self._put(first=withdrawn)

    # --------------------------------------------------------------------------------------------------- loading

    def _load(self) -> None:
        """Load the generation that the state names whenever a read of the store finds another one than in memory."""
        while True:
            with self._lock:
                self._to_load.wait_for(lambda: self._is_closing or self._is_behind)
                if self._is_closing:
                    return
                self._loaded_after, self._is_loading = self._looks, True
            trouble: SisaError | None = None
            try:
                self._standing.load()
            except SisaError as error:
                trouble = error
            with self._lock:
                self._trouble, self._is_loading = trouble, False
                self._to_compute.notify()

    @property
    def _is_behind(self) -> bool:
        """Whether a read of the store since the last load began requires loading."""
        return self._looks > self._loaded_after and self._is_wanted

    @property
    def _is_wanted(self) -> bool:
        """Whether a generation is to be loaded."""
        return self._trouble is not None or self._standing.state is None or self._standing.is_behind

    def _refuse(self, asks: Sequence[_Ask], error: SisaError) -> None:
        for ask in asks:
            _settle(ask, partial(ask.answer.set_exception, error))


def _settle(ask: _Ask, give: Callable[[], None]) -> None:
    """Give a caller the answer or the error, unless it has gone away."""
    if ask.answer.set_running_or_notify_cancel():
        give()


def _answer(ask: _Ask, ensemble: Ensemble) -> Answer:
    return Answer(
        **ensemble.answered_by.facts,
        scores_NS=np.concatenate(ask.done),
    )


def _stopping() -> SisaError:
    return Unavailable("this replica is stopping", "Ask again: another one answers.")


def _doubt(error: SisaError) -> SisaError:
    """Return the error for callers while the store does not say what may be served."""
    return Unavailable(
        f"it cannot be confirmed that the generation in memory may still be served: {error.fact}",
        error.remedy or "Ask again in a moment.",
    )
