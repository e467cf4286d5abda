"""Crashes at the writes of corrections, between erasures, pauses and trainings (D1, D2, D5, E9, E12).

``make soak`` crashes at every write, ``make test`` at a spread of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Literal

import pytest

from coordinator.decisions.policy import ruling
from coordinator.engine.ledger import read_state
from coordinator.interventions import Cancel, Intervention, Release
from coordinator.receipts.issuer import Registrar
from coordinator.requests import RequestState
from coordinator.state import FederationState
from coordinator.verification import scan_residue
from storage.encryption.store import SealedStore
from storage.errors import Conflict, OutcomeUnknown, Unavailable
from storage.objects import ObjectStore
from storage.stores.memory import MemoryStore
from tests.doubles.corrected import Truth, essence
from tests.doubles.federation import Point, SmallFederation, plain_conditions, specification_of
from tests.doubles.remembered import remembering
from tests.doubles.stores.faulty_store import Crash, Fault
from tests.doubles.time_and_names import CountingNames
from tests.doubles.workers.fake_learner import HashLearner, HashState
from tests.simulation.model.audited_store import CrashingStore, left_over
from tests.volume import spread

_SLICES = 3
_SPECIFICATION = specification_of(shards=2, slices=_SLICES)
_HOLDING_OUT = specification_of(shards=2, slices=_SLICES, holdout=0.16)
"""It holds out s0, s4, s5 and s6: corrections of the story name data points on both sides."""
_STORES = count()
_NOT_SETTLED = 2
"""The command of the story after which work is left for the next one."""

POINTS = [
    Point(id=f"p{n}", subject=f"s{n // 2}", label="ab"[n % 2], features=(float(n), float(n * n % 7))) for n in range(14)
]


def _other(number: int, value: float) -> Point:
    return replace(POINTS[number], features=(float(number), value))


@dataclass(slots=True)
class _World:
    """One store, and a federation on it whose process may die at any write."""

    sealed: bool = False
    holdout: bool = False
    objects: MemoryStore = field(init=False)
    store: CrashingStore = field(init=False)
    federation: SmallFederation[HashState] = field(init=False)

    def __post_init__(self) -> None:
        self.objects = MemoryStore(f"rectifications-{next(_STORES)}")
        self.store = CrashingStore(self.objects)
        self.federation = SmallFederation(
            specification=_HOLDING_OUT if self.holdout else _SPECIFICATION,
            store=self.view(self.store),
            learners=lambda _: HashLearner(slices=_SLICES),
            conditions=lambda _: plain_conditions(_SPECIFICATION),
            names=CountingNames("first"),
        )

    def view(self, store: ObjectStore) -> ObjectStore:
        """Return ``store``, decrypted if necessary."""
        return SealedStore(store) if self.sealed else store

    def story(self) -> list[Callable[[], object]]:
        """Return a series of commands; each may be repeated."""
        return [
            lambda: self.federation.train(POINTS),
            lambda: self._propose("c-0", [_other(0, 9.0), _other(8, 9.0), _other(9, 9.0)], held="hold"),
            lambda: self._propose("c-1", [_other(3, 9.0), _other(8, 8.0)], settle=False),
            lambda: self._erase("er-1", ["s1", "s6"]),
            lambda: self._propose("c-2", [_other(5, 9.0)], held="hold"),
            lambda: self._erase("er-2", ["s2"]),
            lambda: self._intervene("c-0", Release()),
            lambda: self._intervene("c-2", Cancel(reason="a mistake")),
            lambda: self.federation.train(POINTS),
        ]

    def tell(self) -> None:
        """Give all commands; after a crash a new process takes over and the command is repeated."""
        for number, command in enumerate(self.story()):
            while True:
                try:
                    command()
                    break
                except (Crash, OutcomeUnknown, Unavailable):
                    self.store.restart()
                    self.federation.restart()
            if number != _NOT_SETTLED:
                assert left_over(self.federation.store, self.federation.state) == []

    def check(self) -> None:
        """Everything is as in a new run, and each request has ended in the same way."""
        state = self.current()
        assert state == self.federation.state
        fresh = _fresh(tuple(_truth().present.values()), holdout=self.holdout)
        assert essence(state) == fresh
        store = self.view(self.objects)
        assert scan_residue(store, state).found == ()
        ended = [(each.request_id, each.state, each.found.points, each.found.unknown) for each in state.requests]
        assert ended == [
            ("c-0", RequestState.COMPLETE, 2, 1),
            ("c-1", RequestState.COMPLETE, 2, 0),
            ("er-1", RequestState.COMPLETE, 4, 0),
            ("c-2", RequestState.CANCELLED, 0, 0),
            ("er-2", RequestState.COMPLETE, 2, 0),
        ]
        assert sum(rows.record.points for rows in state.corrected) == len(_truth().old) == 3
        assert state.data is not None
        assert state.data.outdated == 3
        receipts = Registrar(store, self.federation.clock, CountingNames("reader"))
        checked = receipts.check_all(["c-0", "c-1", "er-1", "er-2"])
        assert (checked.broken, checked.checked) == ((), 4)

    def current(self) -> FederationState:
        """Return the state in the store."""
        state = read_state(self.view(self.objects))
        assert state is not None
        return state

    def _propose(self, request_id: str, rows: list[Point], *, held: str = "", settle: bool = True) -> None:
        if self.federation.engine.find(request_id) is None:
            self.federation.propose(rows, request_id=request_id, held=held)
        if settle:
            self.federation.engine.settle()

    def _erase(self, request_id: str, subjects: list[str]) -> None:
        self.federation.accept(subjects=subjects, request_id=request_id)
        self.federation.engine.settle()

    def _intervene(self, request_id: str, wanted: Intervention) -> None:
        engine, erasure = self.federation.engine, self.federation.specification.erasure
        try:
            engine.intervene(lambda state: ruling(state, request_id, wanted, settings=erasure, at=engine.now()))
        except Conflict:  # an attempt before the crash was recorded
            assert engine.state.request(request_id) is not None
        engine.settle()


def _truth() -> Truth:
    truth = Truth()
    truth.train(POINTS)
    truth.hold("c-0", [_other(0, 9.0), _other(8, 9.0), _other(9, 9.0)])
    truth.rectify([_other(3, 9.0), _other(8, 8.0)])
    truth.erase(["s1", "s6"])
    truth.erase(["s2"])
    truth.release("c-0")
    truth.train(POINTS)
    return truth


def _fresh(points: tuple[Point, ...], *, holdout: bool) -> object:
    world = _World(holdout=holdout)
    world.federation.train(points)
    return essence(world.federation.state)


@pytest.fixture(autouse=True, scope="module")
def _remembering() -> Iterator[None]:
    """Hundreds of nearly equal runs compute their common results once."""
    with remembering():
        yield


@pytest.mark.parametrize("holdout", [False, True], ids=["trained on", "held out"])
def test_without_any_crash(holdout: bool) -> None:
    """What the commands leave is what they must leave."""
    world = _World(holdout=holdout)
    world.tell()
    world.check()


@pytest.mark.volume
@pytest.mark.parametrize(
    ("world_of", "when", "error", "shift"),
    [
        pytest.param(_World, "before", Crash, 0, id="before"),
        pytest.param(_World, "after", Crash, 1, id="after"),
        pytest.param(_World, "after", OutcomeUnknown, 2, id="unknown"),
        pytest.param(partial(_World, sealed=True), "before", Crash, 3, id="encrypted-before"),
        pytest.param(partial(_World, sealed=True), "after", Crash, 4, id="encrypted-after"),
        pytest.param(partial(_World, holdout=True), "before", Crash, 5, id="held-out-before"),
        pytest.param(partial(_World, holdout=True, sealed=True), "after", Crash, 6, id="held-out-after"),
    ],
)
def test_a_crash_at_any_write_changes_nothing(
    world_of: Callable[[], _World], when: Literal["before", "after"], error: type[BaseException], shift: int
) -> None:
    """A crash or an unknown outcome at any write, those of drafts among them, does not change the final state."""
    calm = world_of()
    calm.tell()
    calm.check()
    for number in spread(range(calm.store.writes), 67, shift):
        world = world_of()
        world.store.plan(Fault(when=when, operation="write", nth=number + 1, error=error))
        world.tell()
        world.check()
        world.objects.forget()
    assert calm.store.writes >= 120


def test_a_dead_client_s_drafts_are_swept() -> None:
    """A process that dies after it has written drafts and before the request is accepted leaves nothing of them."""
    world = _World(sealed=True)
    world.federation.train(POINTS)
    world.store.plan(Fault(when="before", operation="put_if_absent", prefix="journal/", error=Crash))
    with suppress(Crash):
        world.federation.propose([_other(3, 9.0)], request_id="c-1")
    assert world.store.dead
    assert left_over(world.view(world.objects), world.current()) != []
    world.store.restart()
    world.federation.restart()
    world.federation.engine.settle()
    assert left_over(world.view(world.objects), world.current()) == []
    assert world.federation.engine.find("c-1") is None
