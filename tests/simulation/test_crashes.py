"""Crashes at every write of a whole story: train, erase, erase, train again (D1, D2, D3, D5, E9, E10, E12)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Literal

import numpy as np
import pytest

from coordinator.engine.ledger import read_state
from coordinator.engine.lookup import load_tombstones
from coordinator.receipts.issuer import Registrar
from coordinator.requests import RequestState
from coordinator.state import FederationState
from coordinator.verification import scan_residue
from shards.routing import point_digest
from shards.slices.files import point_keys
from storage.digests import sha256
from storage.encryption.store import SealedStore
from storage.errors import Conflict, Corrupt, Fenced, OutcomeUnknown, SisaError, Unavailable
from storage.objects import ObjectStore
from storage.registers.numbered import Numbers
from tests.doubles.federation import (
    KEY,
    Point,
    SmallFederation,
    names_of,
    plain_conditions,
    specification_of,
    survivors,
)
from tests.doubles.remembered import remembering
from tests.doubles.stores.faulty_store import Crash, Fault
from tests.doubles.time_and_names import CountingNames
from tests.doubles.workers.fake_learner import HashLearner, HashState
from tests.doubles.workers.in_process_pool import Death
from tests.simulation.model.auditor import Auditor
from tests.simulation.model.scenario import identities_of, keys_of
from tests.simulation.model.world import AuditedStore, MortalStore, left_over

_SHARDS, _SLICES = 2, 3
_SPECIFICATION = specification_of(shards=_SHARDS, slices=_SLICES)
_WORLDS = count()

POINTS = [
    Point(id=f"p{n}", subject=f"s{n // 2}", label="ab"[n % 2], features=(float(n), float(n * n % 7))) for n in range(18)
]
LATER = [Point(id=f"q{n}", subject=f"t{n}", label="a", features=(0.5, float(n))) for n in range(2)]
ERASED = {
    "er-1": (("s1", "s4"), ()),
    "er-2": ((), ("p11", "p0")),
    "er-3": (("nobody",), ()),
    "er-4": (("S1",), ()),
    "er-5": (("nobody",), ()),
}

ALIKE = [Point(id=f"a{n}", subject=each, label="b", features=(0.75, float(n))) for n, each in enumerate(("S1", " s1"))]
SPELT_ALIKE = [*ALIKE, *(point for point in POINTS if point.subject == "s1")]
"""Of er-4, which names ``S1`` and means those spelt alike."""
BACK = [Point(id=f"n{n}", subject=each, label="a", features=(1.25, float(n))) for n, each in enumerate(("s1", "S1"))]
"""New data points of two people who were erased; the first one is let back."""


def moved(points: list[Point]) -> list[Point]:
    """Return the data points as they are when one of the person erased is somebody else's."""
    return [replace(point, subject="u0") if point.id == "p2" else point for point in points]


def _key(point: Point) -> int:
    return int(point_keys(np.frombuffer(point_digest(KEY, point.id), dtype="V16"))[0])


def _erased_keys(request_id: str) -> frozenset[int]:
    subjects, ids = ERASED[request_id]
    left = survivors(POINTS, subjects=subjects, ids=ids)
    return frozenset(_key(point) for point in POINTS if point not in left)


@dataclass(slots=True)
class World:
    """One store, one federation at work on it, and its auditor."""

    auditor: Auditor = field(init=False)
    objects: AuditedStore = field(init=False)
    store: MortalStore = field(init=False)
    deaths: dict[int, Death] = field(default_factory=dict)
    sealed: bool = False
    """Whether objects are encrypted; the writer dies between any two steps of that, too."""
    federation: SmallFederation[HashState] = field(init=False)

    def __post_init__(self) -> None:
        erases = {request: _erased_keys(request) for request in ERASED} | {"er-4": keys_of(SPELT_ALIKE)}
        self.auditor = Auditor(
            erases=erases,
            similar=frozenset({"er-4"}),
            returns={"re-1": frozenset(names_of(["s1"], ()).subject_digests())},
            spelt=dict.fromkeys(names_of([point.subject for point in SPELT_ALIKE], ()).subject_digests(), "s1"),
            view=self.view,
            thorough=self.sealed,
        )
        self.objects = AuditedStore(f"world-{next(_WORLDS)}", self.auditor)
        self.store = MortalStore(self.objects)
        self.federation = self.another("first", self.store)

    def view(self, store: ObjectStore) -> ObjectStore:
        """Return ``store`` as its users see it."""
        return SealedStore(store) if self.sealed else store

    def another(self, prefix: str, store: MortalStore) -> SmallFederation[HashState]:
        """Return another process's federation on the same objects."""
        return SmallFederation(
            specification=_SPECIFICATION,
            store=self.view(store),
            learners=lambda _: HashLearner(slices=_SLICES),
            conditions=lambda _: plain_conditions(_SPECIFICATION),
            names=CountingNames(prefix),
            deaths=self.deaths,
        )

    def story(self, federation: SmallFederation[HashState]) -> list[Callable[[], object]]:
        """Return the commands a person gives, one after another; each may be given again."""
        return [
            lambda: federation.train(POINTS),
            lambda: self.erase(federation, "er-1"),
            lambda: self.erase(federation, "er-2"),
            lambda: self.erase(federation, "er-3"),
            lambda: federation.train([*LATER, *reversed(POINTS)]),
        ]

    def story_of_names(self, federation: SmallFederation[HashState]) -> list[Callable[[], object]]:
        """Return commands about people spelt alike, of whom one comes back, and about somebody who was never there."""
        return [
            lambda: self.train(federation, [*POINTS, *ALIKE]),
            lambda: self.erase(federation, "er-4", include_similar=True),
            lambda: self.erase(federation, "er-5", commitment=sha256(b"salted")),
            lambda: self.readmit(federation, "re-1"),
            lambda: self.train(federation, [*BACK, *moved(POINTS), *ALIKE]),
        ]

    def train(self, federation: SmallFederation[HashState], points: list[Point]) -> None:
        """Give the command that trains; the auditor knows of the source."""
        self.auditor.reads(identities_of(points), federation.engine._ledger)
        federation.train(points)

    def readmit(self, federation: SmallFederation[HashState], request_id: str) -> None:
        """Give the command that lets somebody back; given again it is the same one."""
        federation.readmit(subjects=["s1"], request_id=request_id)
        self.auditor.acknowledged.add(request_id)

    def erase(
        self,
        federation: SmallFederation[HashState],
        request_id: str,
        *,
        include_similar: bool = False,
        commitment: str = "",
    ) -> None:
        """Give the command that erases; once it is accepted it counts as acknowledged."""
        subjects, ids = ERASED[request_id]
        federation.accept(
            subjects=subjects,
            ids=ids,
            request_id=request_id,
            include_similar=include_similar,
            commitment=commitment,
        )
        self.auditor.acknowledged.add(request_id)
        federation.engine.settle()

    def current(self) -> FederationState:
        """Return the state that the store holds."""
        state = read_state(self.objects)
        assert state is not None
        return state


def _mortal(federation: SmallFederation[HashState]) -> MortalStore:
    store = federation.store
    mortal = store.inner if isinstance(store, SealedStore) else store
    assert isinstance(mortal, MortalStore)
    return mortal


def _tell(federation: SmallFederation[HashState], story: list[Callable[[], object]]) -> None:
    """Give all commands; after a crash a new process takes over, and the command is given again.

    After every command the store holds one manifest, no entry of the journal, and no object that it does not name.
    """
    for command in story:
        while True:
            try:
                command()
                break
            except (Crash, OutcomeUnknown, Unavailable):
                _mortal(federation).revive()
                federation.restart()
        assert left_over(federation.store, federation.state) == []
        assert list(federation.store.unfinished("")) == []
        assert list(federation.register.superseded()) == []
        assert Numbers(federation.store, "journal").present() == ()


def _outcome(world: World) -> dict[str, object]:
    """Return everything about the end that a crash must not change."""
    state = world.current()
    tombstones = load_tombstones(world.federation.store, state.tombstone_objects())
    return {
        "digests": [[checkpoint.digest for checkpoint in shard.chain] for shard in state.shards],
        "lineages": [[checkpoint.lineage for checkpoint in shard.chain] for shard in state.shards],
        "contents": [[record.content_digest for record in shard.slices] for shard in state.shards],
        "serving": [shard.serving for shard in state.shards],
        "tombstones": tombstones,
        "requests": [(each.request_id, each.state, each.points, each.shards) for each in state.requests],
        "readmissions": [(each.request_id, each.subjects, each.receipt) for each in state.readmissions],
        "condemned": state.condemned,
    }


def _check_end(world: World, expected: dict[str, object]) -> None:
    """The end is that of the undisturbed story, and the store holds nothing else."""
    assert _outcome(world) == expected
    state = world.current()
    assert state == world.auditor.state, "what is stored is not what the auditor has seen become durable"
    found = scan_residue(world.view(world.objects), state).found
    assert found == ()
    assert state.published


@pytest.fixture(autouse=True, scope="module")
def _remembering() -> Iterator[None]:
    """Hundreds of nearly equal stories: what they have in common is computed once."""
    with remembering():
        yield


@pytest.fixture(scope="module")
def undisturbed() -> tuple[World, dict[str, object]]:
    """The story without any fault, checked for saying what it should."""
    world = World()
    _tell(world.federation, world.story(world.federation))
    outcome = _outcome(world)
    state = world.current()
    assert [request.state for request in state.requests] == [
        RequestState.COMPLETE,
        RequestState.COMPLETE,
        RequestState.REFUSED,
    ]
    assert [request.points for request in state.requests] == [4, 2, 0]
    assert sum(shard.points for shard in state.shards) == len(POINTS) + len(LATER) - 6
    _check_end(world, outcome)
    return world, outcome


def _crash_at(
    number: int, when: Literal["before", "after"], error: type[BaseException], expected: dict[str, object]
) -> World:
    world = World()
    world.store.plan(Fault(when=when, operation="write", nth=number + 1, error=error))
    _tell(world.federation, world.story(world.federation))
    _check_end(world, expected)
    return world


@pytest.mark.parametrize(
    ("when", "error"),
    [
        pytest.param("before", Crash, id="before", marks=pytest.mark.slow),
        pytest.param("after", Crash, id="after", marks=pytest.mark.slow),
        pytest.param("after", OutcomeUnknown, id="unknown", marks=pytest.mark.slow),
    ],
)
def test_a_crash_at_any_write_changes_nothing(
    when: Literal["before", "after"],
    error: type[BaseException],
    undisturbed: tuple[World, dict[str, object]],
) -> None:
    """Dying, or hearing nothing, before or after any single write or deletion ends in the undisturbed story's state."""
    world, expected = undisturbed
    for number in range(world.store.writes):
        _crash_at(number, when, error, expected)
    assert world.store.writes >= 100


@pytest.mark.parametrize(
    ("when", "every"),
    [
        pytest.param("before", 6, id="before"),
        pytest.param("before", 1, id="before-all", marks=pytest.mark.slow),
        pytest.param("after", 1, id="after-all", marks=pytest.mark.slow),
    ],
)
def test_a_crash_at_any_write_of_an_encrypted_store_changes_nothing(
    when: Literal["before", "after"], every: int, undisturbed: tuple[World, dict[str, object]]
) -> None:
    """With all objects encrypted, dying at any write, those of keys and rings among them, ends in the bytes of the
    undisturbed story on plain objects, and leaves no key behind that could open what was erased.
    """
    _, expected = undisturbed
    calm = World(sealed=True)
    _tell(calm.federation, calm.story(calm.federation))
    _check_end(calm, expected)
    for number in range(0, calm.store.writes, every):
        world = World(sealed=True)
        world.store.plan(Fault(when=when, operation="write", nth=number + 1, error=Crash))
        _tell(world.federation, world.story(world.federation))
        _check_end(world, expected)
        world.objects.forget()
    assert calm.store.writes >= 150


@pytest.mark.slow
@pytest.mark.parametrize("gap", [2, 9])
def test_a_crash_while_recovering_changes_nothing(gap: int, undisturbed: tuple[World, dict[str, object]]) -> None:
    """A second crash, ``gap`` writes after the first, while the new process cleans up, changes nothing either."""
    world, expected = undisturbed
    for number in range(0, world.store.writes, 4):
        again = World()
        again.store.plan(Fault(when="after", operation="write", nth=number + 1, error=Crash))
        again.store.next_life = (Fault(when="before", operation="write", nth=gap, error=Crash),)
        _tell(again.federation, again.story(again.federation))
        _check_end(again, expected)


@pytest.fixture(scope="module")
def undisturbed_names() -> tuple[World, dict[str, object]]:
    """The story of names without any fault, checked for saying what it should."""
    world = World()
    _tell(world.federation, world.story_of_names(world.federation))
    outcome, state = _outcome(world), world.current()
    stages = [(each.request_id, each.state, each.points) for each in state.requests]
    assert stages == [("er-4", RequestState.COMPLETE, 4), ("er-5", RequestState.REFUSED, 0)]
    # Of the erased nothing is back; of her who may come back, what is new.
    held = world.auditor.sight.points(world.objects, state)
    left = [point for point in POINTS if point not in SPELT_ALIKE]
    assert held == identities_of([*left, BACK[0]])
    assert [(each.request_id, each.subjects) for each in state.readmissions] == [("re-1", 1)]
    _check_names_end(world, outcome)
    return world, outcome


def _check_names_end(world: World, expected: dict[str, object]) -> None:
    """The end is that of the undisturbed story, and each of its ends has one receipt or statement."""
    _check_end(world, expected)
    receipts = Registrar(world.view(world.objects), world.federation.clock, CountingNames("reader"))
    checked = receipts.check_all(["er-4", "er-5", "re-1"])
    assert (checked.broken, checked.checked) == ((), 3)
    assert receipts.check_log().entries == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sealed", "when", "error", "every"),
    [
        pytest.param(False, "before", Crash, 1, id="before"),
        pytest.param(False, "after", Crash, 1, id="after"),
        pytest.param(False, "after", OutcomeUnknown, 3, id="unknown"),
        pytest.param(True, "before", Crash, 5, id="encrypted-before"),
        pytest.param(True, "after", Crash, 5, id="encrypted-after"),
    ],
)
def test_a_crash_at_any_write_of_the_story_of_names_changes_nothing(
    sealed: bool,
    when: Literal["before", "after"],
    error: type[BaseException],
    every: int,
    undisturbed_names: tuple[World, dict[str, object]],
) -> None:
    """An erasure of people spelt alike, a refusal with its statement, a readmission and what then comes back: dying, or
    hearing nothing, at any write of them ends in the undisturbed story's state, with one statement each.
    """
    _, expected = undisturbed_names
    calm = World(sealed=sealed)
    _tell(calm.federation, calm.story_of_names(calm.federation))
    _check_names_end(calm, expected)
    for number in range(0, calm.store.writes, every):
        world = World(sealed=sealed)
        world.store.plan(Fault(when=when, operation="write", nth=number + 1, error=error))
        _tell(world.federation, world.story_of_names(world.federation))
        _check_names_end(world, expected)
        world.objects.forget()
    assert calm.store.writes >= 80


def test_no_client_needed_after_acceptance(undisturbed: tuple[World, dict[str, object]]) -> None:
    """What was acknowledged is carried out by whoever writes next, without the request being repeated (D1)."""
    reference, _ = undisturbed
    outcomes = []
    for number in range(reference.store.writes):
        world = World()
        train, erase, *_ = world.story(world.federation)
        train()
        world.store.plan(Fault(when="after", operation="write", nth=number + 1, error=Crash))
        try:
            erase()
        except Crash:
            world.store.revive()
            world.federation.restart()
            world.federation.engine.settle()
        else:
            break
        request = world.current().request("er-1")
        assert (request is not None and request.state is RequestState.COMPLETE) or not world.auditor.acknowledged
        outcomes.append(bool(world.auditor.acknowledged))
    assert set(outcomes) == {True, False}


@pytest.mark.parametrize("death", ["before_telling", "after_telling"])
def test_a_worker_may_die_at_any_event(death: Death, undisturbed: tuple[World, dict[str, object]]) -> None:
    """A worker's death at any event ends in the same state, and at most the slice it was at is learned again (D5)."""
    reference, expected = undisturbed
    pool = reference.federation.pool
    for event in range(pool.events):
        world = World(deaths={event: death})
        _tell(world.federation, world.story(world.federation))
        _check_end(world, expected)
        assert world.federation.pool.slices_learned - pool.slices_learned in (0, 1)


def _race(number: int, *, finish: bool) -> tuple[World, BaseException | None]:
    """Let a second engine start, and finish the whole story if asked, right before a write of the first."""
    world = World()
    rival = world.another("second", MortalStore(world.objects))

    def enter(write: int) -> None:
        if write == number:
            _ = rival.engine  # starts it
            if finish:
                _tell(rival, world.story(rival))

    world.store.at_write = enter
    error: BaseException | None = None
    try:
        for command in world.story(world.federation):
            command()
    except SisaError as raised:
        error = raised
    third = world.another("third", MortalStore(world.objects))
    _tell(third, world.story(third))
    return world, error


@pytest.mark.slow
@pytest.mark.parametrize("finish", [False, True], ids=["starts", "finishes"])
def test_a_second_engine_fences_the_first(finish: bool, undisturbed: tuple[World, dict[str, object]]) -> None:
    """From the moment another engine has started, nothing of the first one becomes current or deletes what is (D3)."""
    reference, expected = undisturbed
    # Write 0 claims the token: until it is done there is no first engine.
    for number in range(1, reference.store.writes, 2 if finish else 1):
        world, error = _race(number, finish=finish)
        _check_end(world, expected)
        # After its last commit an engine has only deletions left, which do no harm.
        over = error is None and number > reference.store.writes - 12
        allowed = (Fenced, Conflict, Corrupt) if finish else (Fenced, Conflict)
        assert over or isinstance(error, allowed), f"write {number}: {error!r}"
