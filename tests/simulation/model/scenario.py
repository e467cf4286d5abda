"""What a seed makes happen: who gives which commands, who interferes, in what weather. Drawn before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Final, Literal

import numpy as np

from cluster.config.specification import FederationSpecification
from coordinator.settings import ErasureSettings
from shards.routing import point_digest, subject_digest
from shards.slices.files import point_keys
from shards.specification import TrainingSettings
from tests.doubles.federation import KEY, NAMING, Point, specification_of

EPOCHS: Final = 2
SEEDS: Final = (0, 0, 0, 0, 0, 1)
"""Seeds that training is asked for under; another one than before makes all of it anew."""

_SUBJECTS = ("s0", "s1", "s1", "s2", "s3", "s3", "s4")
BASE: Final = tuple(
    Point(id=f"p{n}", subject=subject, label="ab"[n % 2], features=(float(n), 0.5))
    for n, subject in enumerate(_SUBJECTS)
)
LATER: Final = tuple(
    Point(id=f"q{n}", subject=subject, label="b", features=(0.25, float(n)))
    for n, subject in enumerate(("t0", "s1", "t1"))
)
"""Data points that a source may have only later: of a known person, too."""

ERASABLE: Final = ("s1", "s2", "s3", "s4", "t0", "nobody")
"""Subjects whom requests may name: never s0, so that somebody is left."""
ERASABLE_IDS: Final = ("p1", "p2", "p3", "p4", "p6", "q0", "q1", "none")

ALIKE: Final = tuple(
    Point(id=f"a{n}", subject=subject, label="a", features=(0.75, float(n)))
    for n, subject in enumerate(("S1", "s1 ", "S3", "s 3", "S2", "T0"))
)
"""Data points of subjects spelt alike: with white space around it a name is the same, else somebody else's."""
NEW: Final = tuple(
    Point(id=f"n{n}", subject=subject, label="b", features=(1.25, float(n)))
    for n, subject in enumerate(("s1", " s2", "s3", "S1", "s4", "t0"))
)
"""What people have to give who come back; and others."""

_MOVABLE: Final = ("p1", "p2", "p3", "p4", "p6", "q1")
_MOVED_TO: Final = ("u0", "S1")
"""Data points that a later source may have under another subject, and under which."""

LONGEST_NAP: Final = 300
_UNTIL_ALL_IS_OVER: Final = 5_000

_SHARE_WITH_NAMES: Final = 0.5
"""Of the scenarios: they take twice as long as others."""

_MANY_NAMES: Final = 70
"""More names than a request carries in itself."""

Kind = Literal[
    "train",
    "erase",
    "submit",
    "settle",
    "wait",
    "hold",
    "release",
    "extend",
    "cancel",
    "announce",
    "repeat otherwise",
    "readmit",
]


BRISK: Final = ("hold", "cancel")
"""What a client asks for without thinking."""


@dataclass(frozen=True, slots=True)
class Command:
    """What a person asks for."""

    kind: Kind
    request: int = 0
    """Which of the scenario's requests it is about; for ``readmit``, of its returns."""
    points: tuple[Point, ...] | None = None
    """The source to read for ``train``; None: what was read before."""
    seed: int = 0
    """To train under."""

    def __str__(self) -> str:
        about = f" {self.request}" if self.kind not in {"train", "settle", "wait"} else ""
        source = "" if self.points is None else f" on {','.join(map(_told, self.points))}"
        return f"{self.kind}{about}{source}{f' seed {self.seed}' if self.seed else ''}"


@dataclass(frozen=True, slots=True)
class Demand:
    """An erasure request that may be sent, perhaps more than once."""

    request_id: str
    subjects: tuple[str, ...]
    ids: tuple[str, ...]
    held: str = ""
    """Why it comes paused, if it does."""
    include_similar: bool = False
    """Whether those spelt alike are meant as well."""


@dataclass(frozen=True, slots=True)
class Return:
    """A readmission that may be asked for, perhaps more than once."""

    request_id: str
    subjects: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Everything that is drawn beforehand."""

    seed: int
    shards: int
    slices: int
    sealed: bool
    trained: bool
    """Whether it begins with a federation that was trained on ``BASE``, or with nothing."""
    begun_alike: bool = False
    """Whether that has data points of people spelt alike as well."""
    erasure: ErasureSettings
    demands: tuple[Demand, ...]
    returns: tuple[Return, ...] = ()
    operators: tuple[tuple[Command, ...], ...]
    """The commands of those who run processes; several of them race."""
    starts: tuple[int, ...]
    """At which operation each of them begins."""
    clients: tuple[tuple[int, tuple[Command, ...]], ...]
    """Those who speak to the processes of an operator, by its number, from threads of their own."""
    readers: int
    """How often someone reads the state meanwhile."""
    snapshot_every: int
    """Entries of the journal after which a manifest is written."""
    stride: int
    """Operations that an actor does on average before another one goes on."""
    fault_rate: float
    """Share of operations that go wrong."""
    most_faults: int
    death_rate: float
    """Share of a worker's news at which it is taken for dead."""
    longest_nap: int = LONGEST_NAP
    """Operations that a worker sleeps through at most that was taken for dead."""
    last_source: tuple[Point, ...] | None = None
    """What is read when all is over; None: nothing."""
    history_together: int = 64
    """Generations in an object of the history."""
    ended_together: int = 64
    """Ended requests that leave the state at once, and that a bucket holds on average."""

    def __str__(self) -> str:
        lines = [
            f"seed={self.seed} shards={self.shards} slices={self.slices} sealed={self.sealed} trained={self.trained}",
            f"batch={self.erasure.batch} stride={self.stride} faults={self.fault_rate} deaths={self.death_rate}",
            *(
                f"{each.request_id}: {','.join((*each.subjects[:4], *each.ids))}{' and alike' * each.include_similar}"
                for each in self.demands
            ),
            *(f"{each.request_id}: {','.join(each.subjects)} may come back" for each in self.returns),
            *(
                f"operator {number} from {start}: {'; '.join(map(str, own))}"
                for number, (start, own) in enumerate(zip(self.starts, self.operators, strict=True))
            ),
            *(f"client of operator {number}: {'; '.join(map(str, own))}" for number, own in self.clients),
        ]
        return "\n".join(lines)


def draw_scenario(seed: int) -> Scenario:
    """Return what happens under ``seed``."""
    random = Random(seed)  # noqa: S311  the same scenario for the same seed
    demands = tuple(_demand(random, number) for number in range(random.randrange(1, 4)))
    trained = random.random() < 0.7
    count = random.choices((1, 2, 3), (45, 45, 10))[0]
    operators = tuple(_script(random, len(demands), number, trained=trained) for number in range(count))
    clients = tuple(
        (number, _asks(random, len(demands))) for number in range(count) for _ in range(random.choice((0, 1, 1, 2)))
    )
    faulty = random.random() < 0.7
    scenario = Scenario(
        seed=seed,
        shards=random.choice((1, 2, 2, 3)),
        slices=random.choice((2, 2, 3)),
        sealed=random.random() < 0.08,
        trained=trained,
        erasure=_erasure(random),
        demands=demands,
        operators=operators,
        starts=(0, *(random.randrange(400) for _ in range(count - 1))),
        clients=clients,
        readers=random.choice((0, 0, 2)),
        snapshot_every=random.choice((3, 10, 256)),
        stride=random.choice((4, 12, 40, 150)),
        fault_rate=random.choice((0.01, 0.03, 0.1)) if faulty else 0.0,
        most_faults=random.randrange(1, 6),
        death_rate=random.choice((0.0, 0.0, 0.1, 0.3)),
    )
    # From another source, so that nothing drawn above depends on it.
    return _with_names(scenario, Random(f"names-{seed}"))  # noqa: S311


def _with_names(scenario: Scenario, random: Random) -> Scenario:
    """Return the scenario with people spelt alike, data points that change hands, and people who come back: or not."""
    if random.random() >= _SHARE_WITH_NAMES:
        return scenario
    demands = tuple(_spelt(random, each) for each in scenario.demands)
    erased = sorted({name.strip() for each in demands for name in each.subjects if name.strip() in ERASABLE})
    returns = tuple(
        Return(f"re-{number}", tuple(random.sample((*erased, "s1", "S1", "t0"), random.choice((1, 1, 2)))))
        for number in range(random.choice((0, 0, 1, 1, 2)))
    )
    operators = [[_with_more(random, command) for command in own] for own in scenario.operators]
    clients = [(served_by, list(own)) for served_by, own in scenario.clients]
    for number in range(len(returns)):
        readmit = Command("readmit", request=number)
        if clients and random.random() < 0.5:
            served_by, asks = random.choice(clients)
            asks.insert(random.randrange(len(asks) + 1), readmit)
        else:
            served_by = random.randrange(len(operators))
            if random.random() < 0.5:
                operators[served_by].append(Command("erase", request=random.randrange(len(demands))))
            operators[served_by] += [readmit] * random.choice((1, 1, 2))
        if random.random() < 0.6:
            everybody = _more(random, (*BASE, *LATER))
            operators[served_by].append(Command("train", points=everybody, seed=random.choice(SEEDS)))
    return replace(
        scenario,
        demands=demands,
        begun_alike=scenario.trained and random.random() < 0.5,
        returns=returns,
        operators=tuple(map(tuple, operators)),
        clients=tuple((served_by, tuple(own)) for served_by, own in clients),
        last_source=_more(random, (*BASE, *LATER)) if random.random() < 0.4 else None,
        longest_nap=random.choice((LONGEST_NAP, _UNTIL_ALL_IS_OVER)),
        history_together=random.choice((1, 2, 64, 64, 64, 64)),
        ended_together=random.choice((1, 1, 2, 64)),
    )


def _spelt(random: Random, demand: Demand) -> Demand:
    """Return the demand as people write it, who may mean those spelt alike."""

    def written(name: str) -> str:
        if name not in ERASABLE:
            return name
        return random.choices((name, name.upper(), f" {name}"), (70, 15, 15))[0]

    subjects = tuple(map(written, demand.subjects))
    return replace(demand, subjects=subjects, include_similar=random.random() < 0.35)


def _with_more(random: Random, command: Command) -> Command:
    if command.points is None or random.random() < 0.4:
        return command
    return replace(command, points=_more(random, command.points))


def _more(random: Random, points: Sequence[Point]) -> tuple[Point, ...]:
    """Return a source in which some data points are somebody else's, and more people."""
    moved = [
        replace(point, subject=random.choice(_MOVED_TO)) if point.id in _MOVABLE and random.random() < 0.25 else point
        for point in points
    ]
    return (*moved, *(point for point in (*ALIKE, *NEW) if random.random() < 0.5))


def _told(point: Point) -> str:
    return point.id if point in (*BASE, *LATER, *ALIKE, *NEW) else f"{point.id} of {point.subject}"


def _demand(random: Random, number: int) -> Demand:
    subjects = tuple(sorted(random.sample(ERASABLE, random.choice((0, 1, 1, 2)))))
    ids = tuple(sorted(random.sample(ERASABLE_IDS, random.choice((0, 0, 1, 2)))))
    if random.random() < 0.1:
        subjects += tuple(f"stranger-{n}" for n in range(_MANY_NAMES))
    held = "a lawsuit" if random.random() < 0.1 else ""
    return Demand(f"er-{number}", subjects if subjects or ids else ("s2",), ids, held)


def _script(random: Random, demands: int, number: int, *, trained: bool) -> tuple[Command, ...]:
    """Return an operator's commands: the first one's begin with training, unless that was done."""
    first = () if trained or number else (Command("train", points=BASE, seed=random.choice(SEEDS)),)
    return (*first, *(_order(random, demands) for _ in range(random.randrange(1, 3))))


def _order(random: Random, demands: int) -> Command:
    kind: Kind = random.choices(("erase", "submit", "settle", "wait", "train"), (40, 10, 10, 25, 15))[0]
    if kind != "train":
        return Command(kind, request=random.randrange(demands))
    return Command(kind, points=_source(random), seed=random.choice(SEEDS))


def _source(random: Random) -> tuple[Point, ...] | None:
    match random.randrange(4):
        case 0:
            return None
        case 1:
            return (*LATER, *reversed(BASE))
        case 2:
            points = [point for point in (*BASE, *LATER) if point.id == "p0" or random.random() < 0.8]
            random.shuffle(points)
            return tuple(points)
        case _:
            return tuple(reversed(BASE))


def _asks(random: Random, demands: int) -> tuple[Command, ...]:
    """Return what a client asks for: mostly erasures, now and then something about them."""
    kinds: tuple[Kind, ...] = ("submit", "announce", "hold", "release", "extend", "cancel", "repeat otherwise")
    chosen = random.choices(kinds, (50, 20, 8, 8, 6, 8, 4), k=random.randrange(1, 4))
    asks = []
    for kind in chosen:
        command = Command(kind, request=random.randrange(demands))
        if kind in BRISK:  # there is little time: they come right behind the request
            asks.append(replace(command, kind="announce"))
        asks.append(command)
    return tuple(asks)


def _erasure(random: Random) -> ErasureSettings:
    if random.random() < 0.4:
        return ErasureSettings(batch="until_due")
    return ErasureSettings(batch_window_seconds=random.choice((0.0, 2.0, 60.0)))


@cache
def specification(shards: int, slices: int, seed: int) -> FederationSpecification:
    """Return the specification to train under."""
    training = TrainingSettings(epochs=EPOCHS, batch_size=3, learning_rate=0.1, seed=seed)
    return specification_of(shards=shards, slices=slices, training=training)


@cache
def key_of(point: Point) -> int:
    """Return the point's key (``ShardPoints.keys_N``)."""
    return int(point_keys(np.frombuffer(point_digest(KEY, point.id), dtype="V16"))[0])


@cache
def identity_of(point: Point) -> tuple[bytes, bytes]:
    """Return the keyed digests of data point and subject."""
    return bytes(point_digest(KEY, point.id)), bytes(subject_digest(KEY, point.subject, NAMING))


EVERY: Final = {
    identity_of(point): point
    for point in (
        *(replace(point, subject=who) for point in (*BASE, *LATER) if point.id in _MOVABLE for who in _MOVED_TO),
        *(*BASE, *LATER, *ALIKE, *NEW),
    )
}
"""Every data point that a source may have."""

_NAMES: Final = frozenset({point.subject for point in EVERY.values()}.union(ERASABLE, map(str.upper, ERASABLE)))

SPELT: Final = {bytes(subject_digest(KEY, name, NAMING)): "".join(name.split()).casefold() for name in sorted(_NAMES)}
"""What the names of people spelt alike have in common, by keyed digest. Said here without the product's skeletons:
names in these scenarios are letters, digits and white space."""


def keys_of(points: Sequence[Point]) -> frozenset[int]:
    """Return the points' keys."""
    return frozenset(map(key_of, points))


def identities_of(points: Sequence[Point]) -> frozenset[tuple[bytes, bytes]]:
    """Return the points' identities."""
    return frozenset(map(identity_of, points))
