"""One simulation: a scenario carried out, driven to rest, and compared with a run that never saw what is gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from itertools import count
from random import Random
from types import SimpleNamespace
from unittest.mock import patch

from coordinator.receipts.issuer import Registrar
from coordinator.requests import RequestState
from coordinator.state import FederationState, ShardState
from coordinator.verification import scan_residue
from storage.digests import Sha256
from storage.encryption.store import SealedStore
from storage.objects import ObjectKey, ObjectStore
from storage.stores.memory import MemoryStore
from tests.doubles.baton import Baton
from tests.doubles.federation import Point, SmallFederation, names_of, plain_conditions
from tests.doubles.time_and_names import CountingNames, VirtualClock
from tests.doubles.workers.fake_learner import HashLearner
from tests.doubles.workers.processor import one_processor
from tests.simulation.model.actors import Client, Operator, Reader, Stage
from tests.simulation.model.auditor import Auditor, Birth, asked_for
from tests.simulation.model.processes import Grounds, Process
from tests.simulation.model.scenario import (
    ALIKE,
    BASE,
    EPOCHS,
    EVERY,
    SPELT,
    Command,
    Scenario,
    draw_scenario,
    key_of,
    specification,
)
from tests.simulation.model.weather import Sea
from tests.simulation.model.world import AuditedStore

_WORLDS = count()
_LINES = 120
"""How much of a trace a failure tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a simulation came to."""

    scenario: Scenario
    trace: tuple[tuple[str, str, str, str], ...]
    """Who did what to which key, and what befell it."""
    counts: Counter[str]
    next_random: float
    """The next number of its random source: equal runs have drawn equally often."""
    clock: float


class Failure(AssertionError):
    """A simulation has shown a defect; says how to see it again."""


def simulate(seed: int) -> Outcome:
    """Carry out what ``seed`` makes happen. Raises ``Failure`` when any law was broken."""
    return carry_out(draw_scenario(seed))


def carry_out(scenario: Scenario) -> Outcome:
    """Carry out the scenario. Raises ``Failure`` when any law was broken."""
    simulation = _Simulation(scenario)
    try:
        with simulation.threads_in_turn(), one_processor():
            simulation.play()
            simulation.rest()
        simulation.check_end()
    except Exception as error:
        raise Failure(simulation.story(error)) from error
    finally:
        simulation.objects.forget()
    return simulation.outcome()


class _Simulation:
    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.random = Random(scenario.seed)  # noqa: S311  the same run for the same seed
        self.baton = Baton(self.random, scenario.stride)
        self.clock = VirtualClock()
        self.auditor = Auditor(
            similar=frozenset(each.request_id for each in scenario.demands if each.include_similar),
            returns={
                each.request_id: frozenset(names_of(each.subjects, ()).subject_digests()) for each in scenario.returns
            },
            spelt=SPELT,
            view=self.view,
            thorough=scenario.sealed,
            may_leave=self.may_leave,
        )
        self.objects = AuditedStore(f"simulation-{next(_WORLDS)}", self.auditor)
        self.sea = Sea(
            objects=self.objects,
            auditor=self.auditor,
            baton=self.baton,
            random=self.random,
            rate=scenario.fault_rate,
            left=scenario.most_faults,
        )
        self.grounds = Grounds(
            sea=self.sea,
            clock=self.clock,
            erasure=scenario.erasure,
            sealed=scenario.sealed,
            death_rate=scenario.death_rate,
            longest_nap=scenario.longest_nap,
        )
        self.stage = Stage(grounds=self.grounds, scenario=scenario)
        self.auditor.noted = self.grounds.count

    def view(self, store: MemoryStore) -> ObjectStore:
        """Return the store as those see it who hold its keys."""
        return SealedStore(store) if self.scenario.sealed else store

    def may_leave(self, birth: Birth) -> bool:
        """Return whether an object is there because of someone who is not done, or whose write was late."""
        if birth.author.startswith("late "):
            return True
        if not birth.author:
            return False  # it was there from the beginning
        life = self.grounds.lives[birth.author]
        own = self.auditor.holder.removeprefix("late ") in {life.name, life.parent}
        since = self.auditor.compacted if own and not life.is_forsaken else self.auditor.taken_over
        return birth.tick > since

    @contextmanager
    def threads_in_turn(self) -> Iterator[None]:
        """Have the locks of engines and ledgers pass the baton, and all randomness come from the seed."""
        secrets = SimpleNamespace(token_bytes=self.random.randbytes, token_hex=lambda n: self.random.randbytes(n).hex())
        with (
            patch("coordinator.engine.sweep.RLock", self.baton.lock),
            patch("storage.registers.group_commit.threading", SimpleNamespace(Condition=self.baton.condition)),
            patch("coordinator.engine.ledger._SNAPSHOT_EVERY", self.scenario.snapshot_every),
            patch("coordinator.engine.history.TOGETHER", self.scenario.history_together),
            patch("coordinator.decisions.ended.TOGETHER", self.scenario.ended_together),
            patch("coordinator.engine.ended.IN_A_BUCKET", self.scenario.ended_together),
            patch("storage.encryption.keyring.secrets", secrets),
            patch("storage.encryption.cipher.secrets", secrets),
        ):
            yield

    def play(self) -> None:
        """Let everyone do what the scenario says."""
        if self.scenario.trained:
            self._begin_trained()
        operators = [Operator(self.stage, number) for number in range(len(self.scenario.operators))]
        for operator in operators:
            self.baton.spawn(f"operator {operator.number}", operator.work, operator.has_died)
        for number, (served_by, commands) in enumerate(self.scenario.clients):
            client = Client(self.stage, operators[served_by], commands)
            self.baton.spawn(f"client {number}", client.work, client.has_died)
        if self.scenario.readers:
            self.baton.spawn("reader", Reader(self.stage, self.scenario.readers).work)
        self.baton.run()
        self.sea.deliver(None)
        self._check_orphans()

    def rest(self) -> None:
        """Let one more process, in calm weather, do whatever is left."""
        self.sea.rate = self.grounds.death_rate = 0.0
        self.baton.spawn("last", self._finish)
        self.baton.run()

    def check_end(self) -> None:
        """The end is as if what is gone had never been, and nothing of it is left."""
        state, store = self.auditor.state, self.view(self.objects)
        assert state is not None
        whole = self.auditor.whole(store, state)
        owed = [each.request_id for each in state.requests if each.state.is_open and not each.held]
        assert owed == [], "requests are not carried out"
        lost = self.auditor.acknowledged - {each.request_id for each in asked_for(whole)}
        assert not lost, f"acknowledged and lost: {lost}"
        assert scan_residue(store, state).found == ()
        assert not self.auditor.born.keys() - state.referenced()
        ended = (RequestState.COMPLETE, RequestState.REFUSED)
        stated = [each.request_id for each in whole.requests if each.state in ended]
        stated += [each.request_id for each in whole.readmissions]
        unstated = [each.request_id for each in asked_for(whole) if each.receipt is None]
        assert not set(stated).intersection(unstated), "statements are owed"
        receipts = Registrar(store, self.clock, CountingNames()).check_all(stated)
        assert (receipts.broken, receipts.checked) == ((), len(stated))
        self.auditor.check_generations(store, state)
        if state.published:
            self._check_exact(store, state)

    def outcome(self) -> Outcome:
        """Return what it came to."""
        return Outcome(
            scenario=self.scenario,
            trace=tuple(self.sea.trace),
            counts=self.sea.counts,
            next_random=self.random.random(),
            clock=self.clock.monotonic(),
        )

    def story(self, error: BaseException) -> str:
        """Return what has happened up to an error."""
        lines = [
            f"{name:8} {operation:14} {key} {outcome}" for name, operation, key, outcome in self.sea.trace[-_LINES:]
        ]
        again = f"see it again: python -m tests.simulation {self.scenario.seed}"
        return "\n".join([f"{type(error).__name__}: {error}", str(self.scenario), *lines, again])

    def _begin_trained(self) -> None:
        """Begin where someone else has trained and gone."""
        start = _trained(
            self.scenario.shards, self.scenario.slices, sealed=self.scenario.sealed, alike=self.scenario.begun_alike
        )
        self.objects._space.objects.update(start.objects)
        self.objects._space.folders.update(start.folders)
        start.auditor.hand_over(self.auditor)
        self.clock.advance_to(start.now)

    def _finish(self) -> None:
        state = self.auditor.state
        seed = state.configuration.seed if state and state.configuration else 0
        process = Process(self.grounds, specification(self.scenario.shards, self.scenario.slices, seed))
        engine = process.start()
        is_held = {request.request_id for request in engine.state.requests if request.held}
        for number, demand in enumerate(self.scenario.demands):
            if demand.request_id in is_held and self.random.random() < 0.7:
                self.stage.do(engine, Command("release", request=number))
        points = self.scenario.last_source or (None if engine.state.data else BASE)
        self.stage.do(engine, Command("train", points=points, seed=seed))
        process.check()
        process.end()

    def _check_orphans(self) -> None:
        """Whoever was overtaken has taken back what it had written: nobody else would know of it (D3, E12).

        What a worker of the present writer has written that was taken for dead may be there: as long as it is wanted.
        """
        auditor, state = self.auditor, self.auditor.state
        assert state is not None
        whole = auditor.whole(self.view(self.objects), state)
        gone = auditor.erased_by(each.request_id for each in whole.requests if each.state is RequestState.COMPLETE)
        for key in auditor.born.keys() - state.referenced() - set(state.condemned):
            birth = auditor.born[key]
            if not self._is_answerable(birth):
                continue
            is_own = auditor.holder in {birth.author, self.grounds.lives[birth.author].parent}
            assert is_own or birth.tick <= auditor.taken_over, f"left by {birth.author}, who was overtaken: {key}"
            if key.startswith("shards/") and birth.tick > auditor.compacted:
                tainted = auditor.sight.shows(self.view(self.objects), key, gone)
                assert not tainted, f"left by {birth.author} after it was erased: {key}"

    def _is_answerable(self, birth: Birth) -> bool:
        life = self.grounds.lives.get(birth.author)
        return life is not None and not life.is_killed and not life.strikes

    def _check_exact(self, store: ObjectStore, state: FederationState) -> None:
        """Every constituent has the bytes of one that never saw anything else (E9)."""
        assert state.configuration is not None
        left = frozenset(EVERY[each] for each in self.auditor.sight.points(store, state))
        shape = (self.scenario.shards, self.scenario.slices, state.configuration.seed)
        for number, shard in enumerate(state.shards):
            own = frozenset(each for each in left if each.placement(*shape[:2]).shard == number)
            assert _essence(shard) == _fresh(*shape, number, own), f"shard {number} is not that of a fresh run"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """A federation that is trained and at rest."""

    objects: Mapping[ObjectKey, bytes]
    folders: frozenset[str]
    auditor: Auditor
    now: datetime


@cache
def _trained(shards: int, slices: int, *, sealed: bool, alike: bool) -> _Start:
    scenario = replace(
        draw_scenario(0),
        shards=shards,
        slices=slices,
        sealed=sealed,
        trained=False,
        returns=(),
        operators=((Command("train", points=(*BASE, *ALIKE) if alike else BASE),),),
        starts=(0,),
        clients=(),
        readers=0,
        fault_rate=0.0,
        death_rate=0.0,
    )
    simulation = _Simulation(scenario)
    simulation.grounds.era = "t"
    with simulation.threads_in_turn():
        simulation.play()
    space = simulation.objects._space
    simulation.objects.forget()
    return _Start(
        objects=dict(space.objects),
        folders=frozenset(space.folders),
        auditor=simulation.auditor,
        now=simulation.clock.now(),
    )


_Essence = tuple[tuple[tuple[int, Sha256, Sha256], ...], tuple[tuple[int, Sha256, Sha256], ...]]


def _essence(shard: ShardState) -> _Essence:
    """Return what two shards of the same data have in common, whatever their histories and objects' names."""
    chain = tuple((each.slice, each.digest, each.lineage) for each in shard.chain)
    return chain, tuple((each.points, each.points_digest, each.content_digest) for each in shard.slices)


@cache
def _fresh(shards: int, slices: int, seed: int, shard: int, points: frozenset[Point]) -> _Essence:
    """Return the essence of a shard that was trained on ``points`` and never saw any others."""
    own = specification(shards, slices, seed)
    store = MemoryStore(f"fresh-{next(_WORLDS)}")
    federation = SmallFederation(
        specification=own,
        store=store,
        learners=lambda _: HashLearner(slices=slices, training_epochs=EPOCHS, seed=seed),
        conditions=lambda _: plain_conditions(own),
    )
    # An empty shard is trained beside another one: a source has at least one data point, and s0 is never erased.
    federation.train(sorted(points or BASE[:1], key=key_of))
    found = _essence(federation.state.shards[shard])
    store.forget()
    return found
