"""Crashes at the writes of a series of commands: train, erase, erase, train again (D1, D2, D3, D5, E9, E10, E12).

``make soak`` crashes at every write, ``make test`` at a spread of them.
"""

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
from storage.digests import Sha256, sha256
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
from tests.simulation.model.audited_store import AuditedStore, CrashingStore, left_over
from tests.simulation.model.auditor import Auditor
from tests.simulation.model.scenario import identities_of, keys_of
from tests.volume import spread

_SHARDS, _SLICES = 2, 3
_SPECIFICATION = specification_of(shards=_SHARDS, slices=_SLICES)
_SIMULATIONS = count()

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
"""Ids of er-4, which names ``S1`` and includes similar subjects."""
BACK = [Point(id=f"n{n}", subject=each, label="a", features=(1.25, float(n))) for n, each in enumerate(("s1", "S1"))]
"""New data points of two erased people; the first one is readmitted."""


def moved(points: list[Point]) -> list[Point]:
    """Return the data points with one point of the erased person under another subject."""
    return [replace(point, subject="u0") if point.id == "p2" else point for point in points]


def _key(point: Point) -> int:
    return int(point_keys(np.frombuffer(point_digest(KEY, point.id), dtype="V16"))[0])


def _erased_keys(request_id: str) -> frozenset[int]:
    subjects, ids = ERASED[request_id]
    left = survivors(POINTS, subjects=subjects, ids=ids)
    return frozenset(_key(point) for point in POINTS if point not in left)


@dataclass(slots=True)
class AuditedFederation:
    """One store, a federation on it, and its auditor."""

    auditor: Auditor = field(init=False)
    objects: AuditedStore = field(init=False)
    store: CrashingStore = field(init=False)
    deaths: dict[int, Death] = field(default_factory=dict)
    sealed: bool = False
    """Whether objects are encrypted; the writer then also dies between any two steps of encryption."""
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
        self.objects = AuditedStore(f"audited-{next(_SIMULATIONS)}", self.auditor)
        self.store = CrashingStore(self.objects)
        self.federation = self.another("first", self.store)

    def view(self, store: ObjectStore) -> ObjectStore:
        """Return ``store``, decrypted if necessary."""
        return SealedStore(store) if self.sealed else store

    def another(self, prefix: str, store: CrashingStore) -> SmallFederation[HashState]:
        """Return a second process's federation on the same objects."""
        return SmallFederation(
            specification=_SPECIFICATION,
            store=self.view(store),
            learners=lambda _: HashLearner(slices=_SLICES),
            conditions=lambda _: plain_conditions(_SPECIFICATION),
            names=CountingNames(prefix),
            deaths=self.deaths,
        )

    def story(self, federation: SmallFederation[HashState]) -> list[Callable[[], object]]:
        """Return a series of commands; each may be repeated."""
        return [
            lambda: federation.train(POINTS),
            lambda: self.erase(federation, "er-1"),
            lambda: self.erase(federation, "er-2"),
            lambda: self.erase(federation, "er-3"),
            lambda: federation.train([*LATER, *reversed(POINTS)]),
        ]

    def story_of_names(self, federation: SmallFederation[HashState]) -> list[Callable[[], object]]:
        """Return commands about similar subjects, one of which is readmitted, and about an unknown subject."""
        return [
            lambda: self.train(federation, [*POINTS, *ALIKE]),
            lambda: self.erase(federation, "er-4", include_similar=True),
            lambda: self.erase(federation, "er-5", commitment=sha256(b"salted")),
            lambda: self.readmit(federation, "re-1"),
            lambda: self.train(federation, [*BACK, *moved(POINTS), *ALIKE]),
        ]

    def train(self, federation: SmallFederation[HashState], points: list[Point]) -> None:
        """Train; the auditor knows the source."""
        self.auditor.reads(identities_of(points), federation.engine._ledger)
        federation.train(points)

    def readmit(self, federation: SmallFederation[HashState], request_id: str) -> None:
        """Readmit a subject; repeating it has no further effect."""
        federation.readmit(subjects=["s1"], request_id=request_id)
        self.auditor.acknowledged.add(request_id)

    def erase(
        self,
        federation: SmallFederation[HashState],
        request_id: str,
        *,
        include_similar: bool = False,
        commitment: Sha256 | None = None,
    ) -> None:
        """Erase; once accepted, the request counts as acknowledged."""
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
        """Return the state in the store."""
        state = read_state(self.objects)
        assert state is not None
        return state


def _crashing(federation: SmallFederation[HashState]) -> CrashingStore:
    store = federation.store
    inner = store.inner if isinstance(store, SealedStore) else store
    assert isinstance(inner, CrashingStore)
    return inner


def _tell(federation: SmallFederation[HashState], story: list[Callable[[], object]]) -> None:
    """Give all commands; after a crash a new process takes over and the command is repeated.

    After every command the store has one manifest, no journal entry and no unreferenced object.
    """
    for command in story:
        while True:
            try:
                command()
                break
            except (Crash, OutcomeUnknown, Unavailable):
                _crashing(federation).restart()
                federation.restart()
        assert left_over(federation.store, federation.state) == []
        assert list(federation.store.unfinished("")) == []
        assert list(federation.register.superseded()) == []
        assert Numbers(federation.store, "journal").present() == ()


def _outcome(audited: AuditedFederation) -> dict[str, object]:
    """Return the part of the final state that a crash must not change."""
    state = audited.current()
    tombstones = load_tombstones(audited.federation.store, state.tombstone_objects())
    return {
        "digests": [[checkpoint.digest for checkpoint in shard.chain] for shard in state.shards],
        "lineages": [[checkpoint.lineage for checkpoint in shard.chain] for shard in state.shards],
        "contents": [[record.content_digest for record in shard.slices] for shard in state.shards],
        "serving": [shard.serving for shard in state.shards],
        "tombstones": tombstones,
        "requests": [(each.request_id, each.state, each.found.points, each.found.shards) for each in state.requests],
        "readmissions": [(each.request_id, each.subjects, each.receipt) for each in state.readmissions],
        "condemned": state.condemned,
    }


def _check_end(audited: AuditedFederation, expected: dict[str, object]) -> None:
    """The final state is that of the undisturbed commands, and the store has nothing else."""
    assert _outcome(audited) == expected
    state = audited.current()
    assert state == audited.auditor.state, "the stored state is not the one that the auditor has seen"
    found = scan_residue(audited.view(audited.objects), state).found
    assert found == ()
    assert state.published


@pytest.fixture(autouse=True, scope="module")
def _remembering() -> Iterator[None]:
    """Hundreds of nearly equal runs compute their common results once."""
    with remembering():
        yield


@pytest.fixture(scope="module")
def undisturbed() -> tuple[AuditedFederation, dict[str, object]]:
    """Returns the commands' result without any fault, after checking it."""
    audited = AuditedFederation()
    _tell(audited.federation, audited.story(audited.federation))
    outcome = _outcome(audited)
    state = audited.current()
    assert [request.state for request in state.requests] == [
        RequestState.COMPLETE,
        RequestState.COMPLETE,
        RequestState.REFUSED,
    ]
    assert [request.found.points for request in state.requests] == [4, 2, 0]
    assert sum(shard.points for shard in state.shards) == len(POINTS) + len(LATER) - 6
    _check_end(audited, outcome)
    return audited, outcome


def _crash_at(
    number: int, when: Literal["before", "after"], error: type[BaseException], expected: dict[str, object]
) -> AuditedFederation:
    audited = AuditedFederation()
    audited.store.plan(Fault(when=when, operation="write", nth=number + 1, error=error))
    _tell(audited.federation, audited.story(audited.federation))
    _check_end(audited, expected)
    return audited


@pytest.mark.slow
@pytest.mark.volume
@pytest.mark.parametrize(
    ("when", "error", "shift"),
    [
        pytest.param("before", Crash, 0, id="before"),
        pytest.param("after", Crash, 1, id="after"),
        pytest.param("after", OutcomeUnknown, 2, id="unknown"),
    ],
)
def test_a_crash_at_any_write_changes_nothing(
    when: Literal["before", "after"],
    error: type[BaseException],
    shift: int,
    undisturbed: tuple[AuditedFederation, dict[str, object]],
) -> None:
    """A crash or an unknown outcome, before or after any write or deletion, does not change the final state."""
    audited, expected = undisturbed
    for number in spread(range(audited.store.writes), 12, 4 * shift):
        _crash_at(number, when, error, expected)
    assert audited.store.writes >= 100


@pytest.mark.volume
@pytest.mark.parametrize(
    ("when", "shift"),
    [pytest.param("before", 0, id="before"), pytest.param("after", 3, id="after", marks=pytest.mark.slow)],
)
def test_a_crash_at_any_write_of_an_encrypted_store_changes_nothing(
    when: Literal["before", "after"], shift: int, undisturbed: tuple[AuditedFederation, dict[str, object]]
) -> None:
    """With all objects encrypted, a crash at any write, including those of keys and keyrings, ends in the same bytes as
    the undisturbed commands on plain objects, and leaves no key that could decrypt erased data.
    """
    _, expected = undisturbed
    calm = AuditedFederation(sealed=True)
    _tell(calm.federation, calm.story(calm.federation))
    _check_end(calm, expected)
    for number in spread(range(calm.store.writes), 24, 4 * shift):
        audited = AuditedFederation(sealed=True)
        audited.store.plan(Fault(when=when, operation="write", nth=number + 1, error=Crash))
        _tell(audited.federation, audited.story(audited.federation))
        _check_end(audited, expected)
        audited.objects.forget()
    assert calm.store.writes >= 150


@pytest.mark.slow
@pytest.mark.volume
@pytest.mark.parametrize("gap", [2, 9])
def test_a_crash_while_recovering_changes_nothing(
    gap: int, undisturbed: tuple[AuditedFederation, dict[str, object]]
) -> None:
    """A second crash, ``gap`` writes after the first, while the new process cleans up, changes nothing either."""
    audited, expected = undisturbed
    for number in spread(range(audited.store.writes), 24, shift=gap):
        again = AuditedFederation()
        again.store.plan(Fault(when="after", operation="write", nth=number + 1, error=Crash))
        again.store.next_faults = (Fault(when="before", operation="write", nth=gap, error=Crash),)
        _tell(again.federation, again.story(again.federation))
        _check_end(again, expected)


@pytest.fixture(scope="module")
def undisturbed_names() -> tuple[AuditedFederation, dict[str, object]]:
    """Returns the result of the commands about names without any fault, after checking it."""
    audited = AuditedFederation()
    _tell(audited.federation, audited.story_of_names(audited.federation))
    outcome, state = _outcome(audited), audited.current()
    stages = [(each.request_id, each.state, each.found.points) for each in state.requests]
    assert stages == [("er-4", RequestState.COMPLETE, 4), ("er-5", RequestState.REFUSED, 0)]
    # Nothing erased is back; of the readmitted person only new data points are.
    held = audited.auditor.contents.points(audited.objects, state)
    left = [point for point in POINTS if point not in SPELT_ALIKE]
    assert held == identities_of([*left, BACK[0]])
    assert [(each.request_id, each.subjects) for each in state.readmissions] == [("re-1", 1)]
    _check_names_end(audited, outcome)
    return audited, outcome


def _check_names_end(audited: AuditedFederation, expected: dict[str, object]) -> None:
    """The final state is that of the undisturbed commands, and each request has one receipt or statement."""
    _check_end(audited, expected)
    receipts = Registrar(audited.view(audited.objects), audited.federation.clock, CountingNames("reader"))
    checked = receipts.check_all(["er-4", "er-5", "re-1"])
    assert (checked.broken, checked.checked) == ((), 3)
    assert receipts.check_log().entries == 3


@pytest.mark.slow
@pytest.mark.volume
@pytest.mark.parametrize(
    ("sealed", "when", "error", "shift"),
    [
        pytest.param(False, "before", Crash, 0, id="before"),
        pytest.param(False, "after", Crash, 1, id="after"),
        pytest.param(False, "after", OutcomeUnknown, 2, id="unknown"),
        pytest.param(True, "before", Crash, 3, id="encrypted-before"),
        pytest.param(True, "after", Crash, 4, id="encrypted-after"),
    ],
)
def test_a_crash_at_any_write_of_the_story_of_names_changes_nothing(
    sealed: bool,
    when: Literal["before", "after"],
    error: type[BaseException],
    shift: int,
    undisturbed_names: tuple[AuditedFederation, dict[str, object]],
) -> None:
    """An erasure of similar subjects, a refusal with its statement, a readmission and another training: a crash or an
    unknown outcome at any write does not change the final state, and each request has one statement.
    """
    _, expected = undisturbed_names
    calm = AuditedFederation(sealed=sealed)
    _tell(calm.federation, calm.story_of_names(calm.federation))
    _check_names_end(calm, expected)
    for number in spread(range(calm.store.writes), 40 if sealed else 20, 4 * shift):
        audited = AuditedFederation(sealed=sealed)
        audited.store.plan(Fault(when=when, operation="write", nth=number + 1, error=error))
        _tell(audited.federation, audited.story_of_names(audited.federation))
        _check_names_end(audited, expected)
        audited.objects.forget()
    assert calm.store.writes >= 80


def test_no_client_needed_after_acceptance(undisturbed: tuple[AuditedFederation, dict[str, object]]) -> None:
    """The next writer carries out an acknowledged request without a repetition of the request (D1)."""
    reference, _ = undisturbed
    outcomes = []
    for number in range(reference.store.writes):
        audited = AuditedFederation()
        train, erase, *_ = audited.story(audited.federation)
        train()
        audited.store.plan(Fault(when="after", operation="write", nth=number + 1, error=Crash))
        try:
            erase()
        except Crash:
            audited.store.restart()
            audited.federation.restart()
            audited.federation.engine.settle()
        else:
            break
        request = audited.current().request("er-1")
        assert (request is not None and request.state is RequestState.COMPLETE) or not audited.auditor.acknowledged
        outcomes.append(bool(audited.auditor.acknowledged))
    assert set(outcomes) == {True, False}


@pytest.mark.volume
@pytest.mark.parametrize("death", ["before_telling", "after_telling"])
def test_a_worker_may_die_at_any_event(death: Death, undisturbed: tuple[AuditedFederation, dict[str, object]]) -> None:
    """A worker's death at any event does not change the final state, and at most its current slice is repeated (D5)."""
    reference, expected = undisturbed
    pool = reference.federation.pool
    for event in spread(range(pool.events), 4, shift=2 * (death == "after_telling")):
        audited = AuditedFederation(deaths={event: death})
        _tell(audited.federation, audited.story(audited.federation))
        _check_end(audited, expected)
        assert audited.federation.pool.slices_learned - pool.slices_learned in (0, 1)


def _race(number: int, *, finish: bool) -> tuple[AuditedFederation, BaseException | None]:
    """Let a second engine start, and finish all commands if ``finish``, right before a write of the first."""
    audited = AuditedFederation()
    rival = audited.another("second", CrashingStore(audited.objects))

    def enter(write: int) -> None:
        if write == number:
            _ = rival.engine  # starts it
            if finish:
                _tell(rival, audited.story(rival))

    audited.store.at_write = enter
    error: BaseException | None = None
    try:
        for command in audited.story(audited.federation):
            command()
    except SisaError as raised:
        error = raised
    third = audited.another("third", CrashingStore(audited.objects))
    _tell(third, audited.story(third))
    return audited, error


@pytest.mark.slow
@pytest.mark.volume
@pytest.mark.parametrize("finish", [False, True], ids=["starts", "finishes"])
def test_a_second_engine_fences_the_first(
    finish: bool, undisturbed: tuple[AuditedFederation, dict[str, object]]
) -> None:
    """Once another engine has started, the first one can neither commit anything nor delete current objects (D3)."""
    reference, expected = undisturbed
    # Write 0 claims the token; before it, the first engine has not started.
    for number in spread(range(1, reference.store.writes), 32 if finish else 16):
        audited, error = _race(number, finish=finish)
        _check_end(audited, expected)
        # After its last commit an engine only deletes, which does no harm.
        over = error is None and number > reference.store.writes - 12
        allowed = (Fenced, Conflict, Corrupt) if finish else (Fenced, Conflict)
        assert over or isinstance(error, allowed), f"write {number}: {error!r}"
