"""The sea between processes and their store: operations wait, go astray, arrive late or twice, and processes drown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Literal, TypeVar

from storage.errors import ObjectChanged, ObjectExists, ObjectMissing, OutcomeUnknown, SisaError, Unavailable
from storage.objects import ObjectInfo, ObjectKey, StoredObject, VersionTag
from tests.doubles.baton import Baton
from tests.doubles.stores.faulty_store import Crash
from tests.simulation.model.auditor import Auditor
from tests.simulation.model.world import AuditedStore

Strike = Literal[
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

_ON_WRITES: tuple[Strike, ...] = (
    "dies before",
    "dies after",
    "dies, arrives later",
    "unknown, not done",
    "unknown, done",
    "unknown, arrives later",
    "away",
    "twice",
    "sleeps",
)
_ON_READS: tuple[Strike, ...] = ("dies before", "away", "sleeps")

LONGEST_DELAY = 300
"""Operations after which what was late has arrived, and whoever slept goes on."""

_READS_A_WRITE = 4
"""There are so many more of them; and what goes wrong with a write matters more."""

_MOST_OPERATIONS = 20_000
"""Forty times as many as there are mostly."""

Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class Life:
    """A process, from its start to its death."""

    name: str
    parent: str = ""
    """The process that a worker works for."""
    is_dead: bool = False
    """Whether it has ended, one way or the other."""
    is_killed: bool = False
    """Whether it has ended where it stood."""
    is_forsaken: bool = False
    """Whether it was taken for dead and goes on."""
    frozen_for: int = 0
    """How many operations of others it will sleep through before its next one."""
    strikes: int = 0
    """How often its store has failed it."""

    def kill(self) -> None:
        """End it where it stands."""
        self.is_killed = self.is_dead = True


@dataclass(slots=True)
class Late:
    """An operation that is still under way although whoever sent it has given up."""

    due: int
    author: str
    operation: str
    key: str
    act: Callable[[], object]


@dataclass(slots=True, kw_only=True)
class Sea:
    """All that lies between the lives of one simulation and their store."""

    objects: AuditedStore
    auditor: Auditor
    baton: Baton
    random: Random
    rate: float
    left: int
    """How many strikes are still to come at most."""
    counts: Counter[str] = field(default_factory=Counter)
    trace: list[tuple[str, str, str, str]] = field(default_factory=list)
    """Who did what to which key, and what came of it."""
    under_way: list[Late] = field(default_factory=list)

    @property
    def tick(self) -> int:
        """The number of operations so far."""
        return self.baton.steps

    def arrive(self, life: Life, operation: str, key: str, *, writes: bool) -> Strike | None:
        """Let others go first; return what befalls the operation."""
        self.baton.step()
        assert self.tick < _MOST_OPERATIONS, "it never comes to an end"
        if life.frozen_for:
            frozen_for, life.frozen_for = life.frozen_for, 0
            self.baton.sleep(frozen_for)
        if life.is_dead:
            raise Crash
        self.deliver(self.tick)
        strike = self._draw(writes=writes)
        if strike is not None:
            life.strikes += 1
            self.counts[strike] += 1
        if strike == "sleeps":
            self.trace.append((life.name, operation, key, strike))
            self.baton.sleep(self.random.randrange(1, LONGEST_DELAY))
            if life.is_dead:
                raise Crash
            return None
        if strike is not None and strike.startswith("dies"):
            life.kill()
        self.trace.append((life.name, operation, key, strike or ""))
        return strike

    def post(self, life: Life, operation: str, key: str, act: Callable[[], object]) -> None:
        """Let the operation take effect later."""
        due = self.tick + self.random.randrange(1, LONGEST_DELAY)
        self.under_way.append(Late(due, life.name, operation, key, act))

    def deliver(self, until: int | None) -> None:
        """Let what is late arrive, if its time has come; None: all of it."""
        if not self.under_way:
            return
        due = [late for late in self.under_way if until is None or late.due <= until]
        for late in due:
            self.under_way.remove(late)
            self._deliver(late)

    def _deliver(self, late: Late) -> None:
        self.auditor.author = f"late {late.author}"
        try:
            late.act()
        except (ObjectExists, ObjectChanged, ObjectMissing):
            outcome = "late, refused"
        else:
            outcome = "late, done"
        self.counts[outcome] += 1
        self.trace.append((late.author, late.operation, late.key, outcome))

    def _draw(self, *, writes: bool) -> Strike | None:
        rate = self.rate if writes else self.rate / _READS_A_WRITE
        if not self.left or self.random.random() >= rate:
            return None
        self.left -= 1
        kinds = _ON_WRITES if writes else _ON_READS
        return kinds[self.random.randrange(len(kinds))]


@dataclass(frozen=True, slots=True)
class Crossing:
    """The store as one life reaches it. Implements ``storage.objects.ObjectStore``."""

    sea: Sea
    life: Life

    @property
    def location(self) -> str:
        """Where the store is."""
        return self.sea.objects.location

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Create the object, weather permitting."""
        return self._write("put_if_absent", key, partial(self.sea.objects.put_if_absent, key, payload))

    def put_if_match(self, key: ObjectKey, payload: bytes, expected: VersionTag) -> VersionTag:
        """Replace the object, weather permitting."""
        return self._write("put_if_match", key, partial(self.sea.objects.put_if_match, key, payload, expected))

    def get(self, key: ObjectKey) -> StoredObject:
        """Read the object, weather permitting."""
        self._read("get", key)
        return self.sea.objects.get(key)

    def get_durable(self, key: ObjectKey) -> StoredObject:
        """Read the object: in memory all of them are durable."""
        return self.get(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """List the objects as they are now, weather permitting."""
        self._read("list", prefix)
        return self.sea.objects.list(prefix)

    def delete(self, key: ObjectKey) -> None:
        """Remove the object, weather permitting."""
        self._write("delete", key, partial(self.sea.objects.delete, key))

    def delete_all(self, keys: Iterable[ObjectKey]) -> None:
        """Remove the objects one after another."""
        for key in keys:
            self.delete(key)

    def unfinished(self, prefix: str) -> Iterator[str]:
        """Yield nothing: a put in memory happens at once."""
        return iter(())

    def remove_unfinished(self, prefix: str) -> int:
        """Return 0: there is never a leftover."""
        return 0

    def foreign(self) -> Iterator[str]:
        """Yield nothing: no one else can write here."""
        return iter(())

    def exclusive(self, name: str, holder: str) -> AbstractContextManager[None]:
        """Hold the inner store's right."""
        return self.sea.objects.exclusive(name, holder)

    def _read(self, operation: str, key: str) -> None:
        strike = self.sea.arrive(self.life, operation, key, writes=False)
        if strike == "away":
            raise _failed(Unavailable, strike)
        if strike is not None:
            raise Crash

    def _write(self, operation: str, key: str, act: Callable[[], Result]) -> Result:
        strike = self.sea.arrive(self.life, operation, key, writes=True)
        match strike:
            case "dies before":
                raise Crash
            case "away":
                raise _failed(Unavailable, strike)
            case "unknown, not done":
                raise _failed(OutcomeUnknown, strike)
            case "dies, arrives later" | "unknown, arrives later" | "twice":
                self.sea.post(self.life, operation, key, act)
        if strike == "dies, arrives later":
            raise Crash
        if strike == "unknown, arrives later":
            raise _failed(OutcomeUnknown, strike)
        done = self._do(act, strike)
        if strike == "dies after":
            raise Crash
        if strike == "unknown, done":
            raise _failed(OutcomeUnknown, strike)
        return done

    def _do(self, act: Callable[[], Result], strike: Strike | None) -> Result:
        self.sea.auditor.author = self.life.name
        try:
            return act()
        except (ObjectExists, ObjectChanged, ObjectMissing):
            if strike in {None, "twice"}:
                raise
            raise _lost(strike) from None  # the answer that would have told is lost as well


def _failed(kind: type[SisaError], strike: Strike) -> SisaError:
    return kind("planned fault", "none", strike=strike)


def _lost(strike: Strike | None) -> BaseException:
    return Crash() if strike == "dies after" else OutcomeUnknown("planned fault", "none", strike=str(strike))
