"""Fault injection between processes and their store: operations are delayed, lost or repeated, and processes die."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Final, Literal, TypeVar, get_args

from storage.errors import ObjectChanged, ObjectExists, ObjectMissing, OutcomeUnknown, SisaError, Unavailable
from storage.objects import ObjectInfo, ObjectKey, StoredObject, VersionTag
from tests.doubles.scheduler import CooperativeScheduler
from tests.doubles.stores.faulty_store import Crash
from tests.simulation.model.audited_store import AuditedStore
from tests.simulation.model.auditor import Auditor

InjectedFault = Literal[
    "dies before",
    "dies after",
    "dies, arrives later",
    "unknown, not done",
    "unknown, done",
    "unknown, arrives later",
    "away",
    "twice",
    "sleeps",
]

_ON_WRITES: Final[tuple[InjectedFault, ...]] = get_args(InjectedFault)
_ON_READS: tuple[InjectedFault, ...] = ("dies before", "away", "sleeps")

LONGEST_DELAY = 300
"""Operations after which every late operation has arrived and every sleeper has woken."""

_READS_A_WRITE = 4
"""Factor by which faults on reads are rarer: there are more reads, and faults on writes matter more."""

_MOST_OPERATIONS = 20_000
"""Limit for a simulation: forty times as many as most simulations need."""

Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class ProcessStatus:
    """The status of one process."""

    name: str
    parent: str = ""
    """The process to which a worker belongs."""
    is_dead: bool = False
    """Whether it has ended, in any way."""
    is_killed: bool = False
    """Whether it was killed."""
    is_abandoned: bool = False
    """Whether its owner believes that it has died although it still runs."""
    frozen_for: int = 0
    """Number of operations by others that it will sleep through before its next one."""
    faults: int = 0
    """Number of faults injected into its operations."""

    def kill(self) -> None:
        """Kill it at its current operation."""
        self.is_killed = self.is_dead = True


@dataclass(slots=True)
class LateOperation:
    """An operation that takes effect after its sender has given up."""

    due: int
    author: str
    operation: str
    key: str
    act: Callable[[], object]


@dataclass(slots=True, kw_only=True)
class FaultInjector:
    """Injects faults between the processes of one simulation and their store."""

    objects: AuditedStore
    auditor: Auditor
    scheduler: CooperativeScheduler
    random: Random
    rate: float
    left: int
    """Maximal number of further faults."""
    counts: Counter[str] = field(default_factory=Counter)
    trace: list[tuple[str, str, str, str]] = field(default_factory=list)
    """Process, operation, key and result of every operation."""
    under_way: list[LateOperation] = field(default_factory=list)

    @property
    def tick(self) -> int:
        """The number of operations so far."""
        return self.scheduler.steps

    def arrive(self, status: ProcessStatus, operation: str, key: str, *, writes: bool) -> InjectedFault | None:
        """Let other threads run first; return the fault to inject into the operation."""
        self.scheduler.step()
        assert self.tick < _MOST_OPERATIONS, "the simulation does not end"
        if status.frozen_for:
            frozen_for, status.frozen_for = status.frozen_for, 0
            self.scheduler.sleep(frozen_for)
        if status.is_dead:
            raise Crash
        self.deliver(self.tick)
        fault = self._draw(writes=writes)
        if fault is not None:
            status.faults += 1
            self.counts[fault] += 1
        if fault == "sleeps":
            self.trace.append((status.name, operation, key, fault))
            self.scheduler.sleep(self.random.randrange(1, LONGEST_DELAY))
            if status.is_dead:
                raise Crash
            return None
        if fault is not None and fault.startswith("dies"):
            status.kill()
        self.trace.append((status.name, operation, key, fault or ""))
        return fault

    def post(self, status: ProcessStatus, operation: str, key: str, act: Callable[[], object]) -> None:
        """Schedule the operation to take effect later."""
        due = self.tick + self.random.randrange(1, LONGEST_DELAY)
        self.under_way.append(LateOperation(due, status.name, operation, key, act))

    def deliver(self, until: int | None) -> None:
        """Execute the late operations that are due; with None all of them."""
        if not self.under_way:
            return
        due = [late for late in self.under_way if until is None or late.due <= until]
        for late in due:
            self.under_way.remove(late)
            self._deliver(late)

    def _deliver(self, late: LateOperation) -> None:
        self.auditor.author = f"late {late.author}"
        try:
            late.act()
        except (ObjectExists, ObjectChanged, ObjectMissing):
            outcome = "late, refused"
        else:
            outcome = "late, done"
        self.counts[outcome] += 1
        self.trace.append((late.author, late.operation, late.key, outcome))

    def _draw(self, *, writes: bool) -> InjectedFault | None:
        rate = self.rate if writes else self.rate / _READS_A_WRITE
        if not self.left or self.random.random() >= rate:
            return None
        self.left -= 1
        kinds = _ON_WRITES if writes else _ON_READS
        return kinds[self.random.randrange(len(kinds))]


@dataclass(frozen=True, slots=True)
class InjectedStore:
    """The store as one process reaches it, with faults. Implements ``storage.objects.ObjectStore``."""

    injector: FaultInjector
    status: ProcessStatus

    @property
    def location(self) -> str:
        """Where the store is."""
        return self.injector.objects.location

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Create the object, unless a fault is injected."""
        return self._write("put_if_absent", key, partial(self.injector.objects.put_if_absent, key, payload))

    def put_if_match(self, key: ObjectKey, payload: bytes, expected: VersionTag) -> VersionTag:
        """Replace the object, unless a fault is injected."""
        return self._write("put_if_match", key, partial(self.injector.objects.put_if_match, key, payload, expected))

    def get(self, key: ObjectKey) -> StoredObject:
        """Read the object, unless a fault is injected."""
        self._read("get", key)
        return self.injector.objects.get(key)

    def get_durable(self, key: ObjectKey) -> StoredObject:
        """Read the object: in memory all objects are durable."""
        return self.get(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """List the current objects, unless a fault is injected."""
        self._read("list", prefix)
        return self.injector.objects.list(prefix)

    def delete(self, key: ObjectKey) -> None:
        """Remove the object, unless a fault is injected."""
        self._write("delete", key, partial(self.injector.objects.delete, key))

    def delete_all(self, keys: Iterable[ObjectKey]) -> None:
        """Remove the objects one after another."""
        for key in keys:
            self.delete(key)

    def unfinished(self, prefix: str) -> Iterator[str]:
        """Yield nothing: a put in memory is atomic."""
        return iter(())

    def remove_unfinished(self, prefix: str) -> int:
        """Return 0: there are no leftovers."""
        return 0

    def foreign(self) -> Iterator[str]:
        """Yield nothing: no one else can write here."""
        return iter(())

    def exclusive(self, name: str, holder: str) -> AbstractContextManager[None]:
        """Hold the inner store's exclusive right."""
        return self.injector.objects.exclusive(name, holder)

    def _read(self, operation: str, key: str) -> None:
        fault = self.injector.arrive(self.status, operation, key, writes=False)
        if fault == "away":
            raise _failed(Unavailable, fault)
        if fault is not None:
            raise Crash

    def _write(self, operation: str, key: str, act: Callable[[], Result]) -> Result:
        fault = self.injector.arrive(self.status, operation, key, writes=True)
        match fault:
            case "dies before":
                raise Crash
            case "away":
                raise _failed(Unavailable, fault)
            case "unknown, not done":
                raise _failed(OutcomeUnknown, fault)
            case "dies, arrives later" | "unknown, arrives later" | "twice":
                self.injector.post(self.status, operation, key, act)
        if fault == "dies, arrives later":
            raise Crash
        if fault == "unknown, arrives later":
            raise _failed(OutcomeUnknown, fault)
        done = self._do(act, fault)
        if fault == "dies after":
            raise Crash
        if fault == "unknown, done":
            raise _failed(OutcomeUnknown, fault)
        return done

    def _do(self, act: Callable[[], Result], fault: InjectedFault | None) -> Result:
        self.injector.auditor.author = self.status.name
        try:
            return act()
        except (ObjectExists, ObjectChanged, ObjectMissing):
            if fault in {None, "twice"}:
                raise
            raise _lost(fault) from None  # the answer that would report it is lost as well


def _failed(kind: type[SisaError], fault: InjectedFault) -> SisaError:
    return kind("planned fault", "none", fault=fault)


def _lost(fault: InjectedFault | None) -> BaseException:
    return Crash() if fault == "dies after" else OutcomeUnknown("planned fault", "none", fault=str(fault))
