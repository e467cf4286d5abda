"""Requests during training (D7): erasures from slices not reached yet are folded in, others supersede the attempt."""

from __future__ import annotations

from itertools import count

import pytest

from coordinator.ports import Notice
from coordinator.requests import RequestState
from shards.learners.trainer import EpochsDone, SliceLearned
from shards.routing import slice_of, subject_digest
from shards.specification import ShardId
from storage.stores.memory import MemoryStore
from tests.doubles.federation import (
    KEY,
    NAMING,
    Point,
    SmallFederation,
    comparable,
    plain_conditions,
    specification_of,
    survivors,
)
from tests.doubles.workers.fake_learner import HashLearner, HashState

_STORES = count()
_SLICES = 4
_SPECIFICATION = specification_of(shards=1, slices=_SLICES)
POINTS = [
    Point(id=f"p{n}", subject=f"s{n // 2}", label="ab"[n % 2], features=(float(n), float(n % 5))) for n in range(48)
]


def _subject_in(slice_: int) -> str:
    """Return a subject whose points are in that slice."""
    return next(
        each.subject
        for each in POINTS
        if slice_of(subject_digest(KEY, each.subject, NAMING), 1, _SLICES, NAMING).slice == slice_
    )


class _Interrupted:
    """Listens to training and submits a request at a chosen moment."""

    def __init__(self, at: tuple[str, int], subject: str) -> None:
        self.at = at
        self.subject = subject
        self.federation: SmallFederation[HashState] | None = None
        self.arrived = False
        self.learned: list[int] = []

    def __call__(self, notice: Notice) -> None:
        moment = None
        if isinstance(notice, SliceLearned):
            self.learned.append(notice.slice)
            moment = ("learned", int(notice.slice))
        elif isinstance(notice, EpochsDone) and notice.epochs < notice.of_epochs:
            moment = ("learning", int(notice.slice))
        if moment == self.at and not self.arrived and self.federation is not None:
            self.arrived = True
            self.federation.accept(subjects=[self.subject], request_id="er-1")
            self.federation.engine.remove_points()


def _federation(listener: _Interrupted | None = None) -> SmallFederation[HashState]:
    made: SmallFederation[HashState] = SmallFederation(
        specification=_SPECIFICATION,
        store=MemoryStore(f"superseding-{next(_STORES)}"),
        learners=lambda _: HashLearner(slices=_SLICES, training_epochs=12),
        conditions=lambda _: plain_conditions(_SPECIFICATION),
    )
    if listener is not None:
        made.listener = listener
        listener.federation = made
    return made


@pytest.mark.parametrize(
    ("at", "slice_", "learned"),
    [
        pytest.param(("learned", 1), 3, [1, 2, 3, 4], id="not-reached"),
        pytest.param(("learned", 2), 3, [1, 2, 3, 4], id="next"),
        pytest.param(("learning", 2), 4, [1, 2, 3, 4], id="not-reached-while-learning"),
        pytest.param(("learned", 2), 1, [1, 2, 1, 2, 3, 4], id="first"),
        pytest.param(("learned", 3), 3, [1, 2, 3, 3, 4], id="just-learned"),
        pytest.param(("learning", 3), 3, [1, 2, 3, 4], id="being-learned"),
        pytest.param(("learning", 3), 2, [1, 2, 2, 3, 4], id="before-the-one-being-learned"),
    ],
)
def test_a_request_in_the_middle_of_training(at: tuple[str, int], slice_: int, learned: list[int]) -> None:
    """Valid slices are kept, slices not reached are folded in, and the result is that of a new run."""
    subject = _subject_in(slice_)
    listener = _Interrupted(at, subject)
    federation = _federation(listener)
    federation.train(POINTS)
    assert listener.arrived
    assert listener.learned == learned
    request = federation.state.request("er-1")
    assert request is not None
    assert request.state is RequestState.COMPLETE
    fresh = _federation()
    fresh.train(survivors(POINTS, subjects=[subject]))
    chains = [[record.digest for record in each.state.shards[ShardId(0)].chain] for each in (federation, fresh)]
    assert chains[0] == chains[1]
    assert len(chains[0]) == _SLICES
    assert comparable(federation.state).settings == comparable(fresh.state).settings


def test_a_superseded_slice_ends_early() -> None:
    """A slice that a request makes useless is abandoned at the next epoch, not at its end."""
    listener = _Interrupted(("learning", 4), _subject_in(1))
    federation = _federation(listener)
    federation.train(POINTS)
    assert listener.learned == [1, 2, 3, 1, 2, 3, 4]
    assert federation.pool.slices_learned == len(listener.learned)
