"""One simulation: runs a scenario to its end and compares the result with a run without the erased points."""

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
from tests.doubles.federation import Point, SmallFederation, names_of, plain_conditions
from tests.doubles.scheduler import CooperativeScheduler
from tests.doubles.time_and_names import CountingNames, VirtualClock
from tests.doubles.workers.fake_learner import HashLearner
from tests.doubles.workers.processor import one_processor
from tests.simulation.model.actors import ClientActor, OperatorActor, ReaderActor, SimulationContext
from tests.simulation.model.audited_store import AuditedStore
from tests.simulation.model.auditor import Auditor, Origin, asked_for
from tests.simulation.model.faults import FaultInjector
from tests.simulation.model.processes import OperatorProcess, SimulationEnvironment
from tests.simulation.model.scenario import (
    ALIKE,
    ALL_POINTS,
    BASE,
    EPOCHS,
    SPELT,
    Command,
    Scenario,
    draw_scenario,
    is_held_out,
    key_of,
    specification,
)

_SIMULATIONS = count()
_LINES = 120
"""Number of operations that a failure prints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationOutcome:
    """The result of a simulation."""

    scenario: Scenario
    trace: tuple[tuple[str, str, str, str], ...]
    """Process, operation, key and result of every operation."""
    counts: Counter[str]
    next_random: float
    """The next random number: equal runs have drawn equally often."""
    clock: float


class LawBroken(AssertionError):
    """A simulation broke a law; the message says how to repeat it."""


def simulate(seed: int) -> SimulationOutcome:
    """Run the scenario of ``seed``. Raises ``LawBroken`` when any law was broken."""
    return carry_out(draw_scenario(seed))


def carry_out(scenario: Scenario) -> SimulationOutcome:
    """Run the scenario. Raises ``LawBroken`` when any law was broken."""
    simulation = _Simulation(scenario)
    try:
        with simulation.threads_in_turn(), one_processor():
            simulation.run_actors()
            simulation.finish()
        simulation.check_end()
    except Exception as error:
        raise LawBroken(simulation.report(error)) from error
    finally:
        simulation.objects.forget()
    return simulation.outcome()


class _Simulation:
    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.random = Random(scenario.seed)  # noqa: S311  the same run for the same seed
        self.scheduler = CooperativeScheduler(self.random, scenario.stride)
        self.clock = VirtualClock()
        self.auditor = Auditor(
            similar=frozenset(each.request_id for each in scenario.requests if each.include_similar),
            returns={
                each.request_id: frozenset(names_of(each.subjects, ()).subject_digests()) for each in scenario.returns
            },
            spelt=SPELT,
            view=self.view,
            thorough=scenario.sealed,
            may_leave=self.may_leave,
        )
        self.objects = AuditedStore(f"simulation-{next(_SIMULATIONS)}", self.auditor)
        self.injector = FaultInjector(
            objects=self.objects,
            auditor=self.auditor,
            scheduler=self.scheduler,
            random=self.random,
            rate=scenario.fault_rate,
            left=scenario.most_faults,
        )
        self.environment = SimulationEnvironment(
            injector=self.injector,
            clock=self.clock,
            erasure=scenario.erasure,
            sealed=scenario.sealed,
            death_rate=scenario.death_rate,
            longest_sleep=scenario.longest_sleep,
        )
        self.context = SimulationContext(environment=self.environment, scenario=scenario)
        self.auditor.noted = self.environment.count

    def view(self, store: MemoryStore) -> ObjectStore:
        """Return the store, decrypted if necessary."""
        return SealedStore(store) if self.scenario.sealed else store

    def may_leave(self, origin: Origin) -> bool:
        """Return whether an object may remain because its writer is still running, or its write was late."""
        if origin.author.startswith("late "):
            return True
        if not origin.author:
            return False  # it existed from the start
        status = self.environment.statuses[origin.author]
        own = self.auditor.holder.removeprefix("late ") in {status.name, status.parent}
        since = self.auditor.compacted if own and not status.is_abandoned else self.auditor.taken_over
        return origin.tick > since

    @contextmanager
    def threads_in_turn(self) -> Iterator[None]:
        """Replace the locks of engines and ledgers by the scheduler's, and draw all randomness from the seed."""
        secrets = SimpleNamespace(token_bytes=self.random.randbytes, token_hex=lambda n: self.random.randbytes(n).hex())
        with (
            patch("coordinator.engine.sweep.RLock", self.scheduler.lock),
            patch("storage.registers.group_commit.threading", SimpleNamespace(Condition=self.scheduler.condition)),
            patch("coordinator.engine.ledger._SNAPSHOT_EVERY", self.scenario.snapshot_every),
            patch("coordinator.engine.history.TOGETHER", self.scenario.history_together),
            patch("coordinator.decisions.ended.TOGETHER", self.scenario.ended_together),
            patch("coordinator.engine.ended.IN_A_BUCKET", self.scenario.ended_together),
            patch("storage.transparency.packs.TILE_ENTRIES", self.scenario.packed_together),
            patch("storage.encryption.keyring.new_name", lambda: secrets.token_hex(16)),
            patch("storage.encryption.cipher.secrets", secrets),
        ):
            yield

    def run_actors(self) -> None:
        """Run all actors of the scenario."""
        if self.scenario.trained:
            self._begin_trained()
        operators = [OperatorActor(self.context, number) for number in range(len(self.scenario.operators))]
        for operator in operators:
            self.scheduler.spawn(f"operator {operator.number}", operator.work, operator.has_died)
        for number, (served_by, commands) in enumerate(self.scenario.clients):
            client = ClientActor(self.context, operators[served_by], commands)
            self.scheduler.spawn(f"client {number}", client.work, client.has_died)
        if self.scenario.readers:
            self.scheduler.spawn("reader", ReaderActor(self.context, self.scenario.readers).work)
        self.scheduler.run()
        self.injector.deliver(None)
        self._check_orphans()

    def finish(self) -> None:
        """Let one more process, without faults, do the remaining work."""
        self.injector.rate = self.environment.death_rate = 0.0
        self.scheduler.spawn("last", self._finish)
        self.scheduler.run()

    def check_end(self) -> None:
        """The final state is that of a federation without the erased points, and nothing is left of them."""
        state, store = self.auditor.state, self.view(self.objects)
        assert state is not None
        whole = self.auditor.whole(store, state)
        owed = [each.request_id for each in state.requests if each.state.is_open and not each.pause]
        assert owed == [], "requests are not carried out"
        lost = self.auditor.acknowledged - {each.request_id for each in asked_for(whole)}
        assert not lost, f"acknowledged and lost: {lost}"
        assert scan_residue(store, state).found == ()
        assert not self.auditor.origins.keys() - state.referenced()
        ended = (RequestState.COMPLETE, RequestState.REFUSED)
        stated = [each.request_id for each in whole.requests if each.state in ended]
        stated += [each.request_id for each in whole.readmissions]
        unstated = [each.request_id for each in asked_for(whole) if each.receipt is None]
        assert not set(stated).intersection(unstated), "statements are owed"
        with patch("storage.transparency.packs.TILE_ENTRIES", self.scenario.packed_together):
            receipts = Registrar(store, self.clock, CountingNames()).check_all(stated)
        assert (receipts.broken, receipts.checked) == ((), len(stated))
        self.auditor.check_generations(store, state)
        if state.published:
            self._check_exact(store, state)

    def outcome(self) -> SimulationOutcome:
        """Return the result."""
        return SimulationOutcome(
            scenario=self.scenario,
            trace=tuple(self.injector.trace),
            counts=self.injector.counts,
            next_random=self.random.random(),
            clock=self.clock.monotonic(),
        )

    def report(self, error: BaseException) -> str:
        """Return a report of the operations before an error."""
        lines = [
            f"{name:8} {operation:14} {key} {outcome}"
            for name, operation, key, outcome in self.injector.trace[-_LINES:]
        ]
        repeat = f"repeat it with: python -m tests.simulation {self.scenario.seed}"
        return "\n".join([f"{type(error).__name__}: {error}", str(self.scenario), *lines, repeat])

    def _begin_trained(self) -> None:
        """Begin with a federation that another process has trained."""
        start = _trained(
            self.scenario.shards,
            self.scenario.slices,
            self.scenario.holdout,
            sealed=self.scenario.sealed,
            alike=self.scenario.with_similar,
        )
        self.objects._space.objects.update(start.objects)
        self.objects._space.folders.update(start.folders)
        start.auditor.hand_over(self.auditor)
        self.clock.advance_to(start.now)

    def _finish(self) -> None:
        state = self.auditor.state
        seed = state.configuration.seed if state and state.configuration else 0
        own = specification(self.scenario.shards, self.scenario.slices, seed, self.scenario.holdout)
        process = OperatorProcess(self.environment, own)
        engine = process.start()
        is_held = {request.request_id for request in engine.state.requests if request.pause}
        for number, planned in enumerate(self.scenario.requests):
            if planned.request_id in is_held and self.random.random() < 0.7:
                self.context.do(engine, Command("release", request=number))
        points = self.scenario.last_source or (None if engine.state.data else BASE)
        self.context.do(engine, Command("train", points=points, seed=seed))
        process.check()
        process.end()

    def _check_orphans(self) -> None:
        """Superseded writers have deleted their uncommitted objects, because no one else knows of them (D3, E12).

        Objects of a given up worker of the current writer may exist, as long as they are not tainted.
        """
        auditor, state = self.auditor, self.auditor.state
        assert state is not None
        whole = auditor.whole(self.view(self.objects), state)
        gone = auditor.erased_by(each.request_id for each in whole.requests if each.state is RequestState.COMPLETE)
        for key in auditor.origins.keys() - state.referenced() - set(state.condemned):
            origin = auditor.origins[key]
            if not self._is_answerable(origin):
                continue
            is_own = auditor.holder in {origin.author, self.environment.statuses[origin.author].parent}
            assert is_own or origin.tick <= auditor.taken_over, f"left by {origin.author}, which was superseded: {key}"
            if key.startswith("shards/") and origin.tick > auditor.compacted:
                tainted = auditor.contents.shows(self.view(self.objects), key, gone)
                assert not tainted, f"left by {origin.author} after it was erased: {key}"

    def _is_answerable(self, origin: Origin) -> bool:
        status = self.environment.statuses.get(origin.author)
        return status is not None and not status.is_killed and not status.faults

    def _check_exact(self, store: ObjectStore, state: FederationState) -> None:
        """Every constituent has the bytes of a new training run on the remaining points (E9)."""
        assert state.configuration is not None
        left = frozenset(ALL_POINTS[each] for each in self.auditor.contents.points(store, state))
        held_out = frozenset(point for point in left if is_held_out(point, self.scenario.holdout))
        assert self.auditor.contents.held_out(store, state) == frozenset(map(key_of, held_out))
        left -= held_out  # the new run has no hold-out points at all
        shape = (self.scenario.shards, self.scenario.slices, state.configuration.seed, self.scenario.holdout)
        for number, shard in enumerate(state.shards):
            own = frozenset(each for each in left if each.slice_id(*shape[:2]).shard == number)
            if not own and self.scenario.shards == 1:  # no source is empty, so that there is nothing to compare with
                assert not any(each.points for each in shard.slices)
                continue
            assert _essence(shard) == _fresh(*shape, number, own), f"shard {number} is not that of a new run"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """A trained federation without running processes."""

    objects: Mapping[ObjectKey, bytes]
    folders: frozenset[str]
    auditor: Auditor
    now: datetime


@cache
def _trained(shards: int, slices: int, holdout: float | None, *, sealed: bool, alike: bool) -> _Start:
    scenario = replace(
        draw_scenario(0),
        shards=shards,
        slices=slices,
        holdout=holdout,
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
    simulation.environment.era = "t"
    with simulation.threads_in_turn():
        simulation.run_actors()
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
    """Return the part of a shard's state that depends only on its data, not on history or object names."""
    chain = tuple((each.slice, each.digest, each.lineage) for each in shard.chain)
    return chain, tuple((each.points, each.points_digest, each.content_digest) for each in shard.slices)


@cache
def _fresh(
    shards: int, slices: int, seed: int, holdout: float | None, shard: int, points: frozenset[Point]
) -> _Essence:
    """Return the essence of a shard that was trained on ``points`` only, in a federation without hold-out points."""
    own = specification(shards, slices, seed, None)
    store = MemoryStore(f"fresh-{next(_SIMULATIONS)}")
    federation = SmallFederation(
        specification=own,
        store=store,
        learners=lambda _: HashLearner(slices=slices, training_epochs=EPOCHS, seed=seed),
        conditions=lambda _: plain_conditions(own),
    )
    # A source has at least one data point: an empty shard is trained beside one of another shard.
    elsewhere = (point for point in BASE if point.slice_id(shards, slices).shard != shard)
    federation.train(sorted(points or [next(elsewhere)], key=key_of))
    found = _essence(federation.state.shards[shard])
    store.forget()
    return found
