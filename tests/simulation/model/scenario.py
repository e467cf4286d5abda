"""The scenario of a seed: who gives which commands, and which faults occur. Drawn before anything runs."""

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
"""Seeds to draw from for training; a change of seed retrains everything."""

_SUBJECTS = ("s0", "s1", "s1", "s2", "s3", "s3", "s4")
BASE: Final = tuple(
    Point(id=f"p{n}", subject=subject, label="ab"[n % 2], features=(float(n), 0.5))
    for n, subject in enumerate(_SUBJECTS)
)
LATER: Final = tuple(
    Point(id=f"q{n}", subject=subject, label="b", features=(0.25, float(n)))
    for n, subject in enumerate(("t0", "s1", "t1"))
)
"""Data points that only a later source may have; one of them belongs to a known person."""

ERASABLE: Final = ("s1", "s2", "s3", "s4", "t0", "nobody")
"""Subjects that requests may name: never s0, so that one is always left."""
ERASABLE_IDS: Final = ("p1", "p2", "p3", "p4", "p6", "q0", "q1", "none")

ALIKE: Final = tuple(
    Point(id=f"a{n}", subject=subject, label="a", features=(0.75, float(n)))
    for n, subject in enumerate(("S1", "s1 ", "S3", "s 3", "S2", "T0"))
)
"""Data points of similarly spelt subjects: with outer white space the name is the same, otherwise another person's."""
NEW: Final = tuple(
    Point(id=f"n{n}", subject=subject, label="b", features=(1.25, float(n)))
    for n, subject in enumerate(("s1", " s2", "s3", "S1", "s4", "t0"))
)
"""New data points of readmitted people and of others."""

_MOVABLE: Final = ("p1", "p2", "p3", "p4", "p6", "q1")
_MOVED_TO: Final = ("u0", "S1")
"""Data points that may have another subject in a later source, and these subjects."""

LONGEST_SLEEP: Final = 300
_UNTIL_ALL_IS_OVER: Final = 5_000

_SHARE_WITH_NAMES: Final = 0.5
"""Share of the scenarios with similar names; they take twice as long as others."""

_MANY_NAMES: Final = 70
"""More names than a request holds inline."""

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


IMMEDIATE: Final = ("hold", "cancel")
"""Commands that a client gives without a pause."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of an operator or client."""

    kind: Kind
    request: int = 0
    """Index of the request that it concerns; for ``readmit``, of the readmission."""
    points: tuple[Point, ...] | None = None
    """The source to read for ``train``; None: none, train on what was ingested before."""
    seed: int = 0
    """Seed to train with."""

    def __str__(self) -> str:
        request = f" {self.request}" if self.kind not in {"train", "settle", "wait"} else ""
        source = "" if self.points is None else f" on {','.join(map(_point_text, self.points))}"
        return f"{self.kind}{request}{source}{f' seed {self.seed}' if self.seed else ''}"


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """An erasure request that may be sent, perhaps more than once."""

    request_id: str
    subjects: tuple[str, ...]
    ids: tuple[str, ...]
    held: str = ""
    """Reason for which it is submitted on hold; empty when it is not."""
    include_similar: bool = False
    """Whether similarly spelt subjects are included."""


@dataclass(frozen=True, slots=True)
class PlannedReadmission:
    """A readmission that may be submitted, perhaps more than once."""

    request_id: str
    subjects: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Everything that is drawn in advance."""

    seed: int
    shards: int
    slices: int
    sealed: bool
    trained: bool
    """Whether it begins with a federation trained on ``BASE``, or with an empty store."""
    with_similar: bool = False
    """Whether that federation also has data points of similarly spelt subjects."""
    erasure: ErasureSettings
    requests: tuple[PlannedRequest, ...]
    returns: tuple[PlannedReadmission, ...] = ()
    operators: tuple[tuple[Command, ...], ...]
    """The commands of each operator; several operators race."""
    starts: tuple[int, ...]
    """The operation at which each operator begins."""
    clients: tuple[tuple[int, tuple[Command, ...]], ...]
    """The clients: the number of the operator whose processes they use, and their commands."""
    readers: int
    """How often a reader reads the state during the run."""
    snapshot_every: int
    """Number of journal entries after which a manifest is written."""
    stride: int
    """Average number of operations of an actor before a switch to another."""
    fault_rate: float
    """Probability of a fault per operation."""
    most_faults: int
    death_rate: float
    """Probability per worker's event that the worker is given up."""
    longest_sleep: int = LONGEST_SLEEP
    """Maximal number of operations that a given up worker sleeps through."""
    holdout: float | None = None
    """The share of subjects that are held out."""
    last_source: tuple[Point, ...] | None = None
    """The source to read at the end; None: none."""
    history_together: int = 64
    """Number of generations per object of the history."""
    ended_together: int = 64
    """Number of ended requests that leave the state together, and the average per bucket."""
    packed_together: int = 256
    """Number of entries of the receipts' log in a tile and in a pack."""

    def __str__(self) -> str:
        lines = [
            f"seed={self.seed} shards={self.shards} slices={self.slices} sealed={self.sealed} trained={self.trained}",
            f"batch={self.erasure.batch} stride={self.stride} faults={self.fault_rate} deaths={self.death_rate}",
            *(
                f"{each.request_id}: {','.join((*each.subjects[:4], *each.ids))}{' and alike' * each.include_similar}"
                for each in self.requests
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
    """Return the scenario of ``seed``."""
    random = Random(seed)  # noqa: S311  the same scenario for the same seed
    requests = tuple(_request_plan(random, number) for number in range(random.randrange(1, 4)))
    trained = random.random() < 0.7
    count = random.choices((1, 2, 3), (45, 45, 10))[0]
    operators = tuple(_script(random, len(requests), number, trained=trained) for number in range(count))
    clients = tuple(
        (number, _client_commands(random, len(requests)))
        for number in range(count)
        for _ in range(random.choice((0, 1, 1, 2)))
    )
    faulty = random.random() < 0.7
    scenario = Scenario(
        seed=seed,
        shards=random.choice((1, 2, 2, 3)),
        slices=random.choice((2, 2, 3)),
        sealed=random.random() < 0.08,
        trained=trained,
        erasure=_erasure(random),
        requests=requests,
        operators=operators,
        starts=(0, *(random.randrange(400) for _ in range(count - 1))),
        clients=clients,
        readers=random.choice((0, 0, 2)),
        snapshot_every=random.choice((3, 10, 256)),
        stride=random.choice((4, 12, 40, 150)),
        fault_rate=random.choice((0.01, 0.03, 0.1)) if faulty else 0.0,
        most_faults=random.randrange(1, 6),
        death_rate=random.choice((0.0, 0.0, 0.1, 0.3)),
        holdout=0.16 if seed % 10 in {6, 9} else None,  # then s0, s4 and t1 are held out
    )
    # From another random source, so that nothing drawn above depends on it.
    return _with_names(scenario, Random(f"names-{seed}"))  # noqa: S311


def _with_names(scenario: Scenario, random: Random) -> Scenario:
    """Return the scenario, perhaps with similar names, data points that change their subject, and readmissions."""
    if random.random() >= _SHARE_WITH_NAMES:
        return scenario
    requests = tuple(_spelt(random, each) for each in scenario.requests)
    erased = sorted({name.strip() for each in requests for name in each.subjects if name.strip() in ERASABLE})
    returns = tuple(
        PlannedReadmission(f"re-{number}", tuple(random.sample((*erased, "s1", "S1", "t0"), random.choice((1, 1, 2)))))
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
                operators[served_by].append(Command("erase", request=random.randrange(len(requests))))
            operators[served_by] += [readmit] * random.choice((1, 1, 2))
        if random.random() < 0.6:
            everybody = _more(random, (*BASE, *LATER))
            operators[served_by].append(Command("train", points=everybody, seed=random.choice(SEEDS)))
    return replace(
        scenario,
        requests=requests,
        with_similar=scenario.trained and random.random() < 0.5,
        returns=returns,
        operators=tuple(map(tuple, operators)),
        clients=tuple((served_by, tuple(own)) for served_by, own in clients),
        last_source=_more(random, (*BASE, *LATER)) if random.random() < 0.4 else None,
        longest_sleep=random.choice((LONGEST_SLEEP, _UNTIL_ALL_IS_OVER)),
        history_together=random.choice((1, 2, 64, 64, 64, 64)),
        ended_together=random.choice((1, 1, 2, 64)),
        packed_together=random.choice((1, 1, 2, 2, 3, 256)),
    )


def _spelt(random: Random, planned: PlannedRequest) -> PlannedRequest:
    """Return the request with its names spelt as people might write them, perhaps including similar subjects."""

    def written(name: str) -> str:
        if name not in ERASABLE:
            return name
        return random.choices((name, name.upper(), f" {name}"), (70, 15, 15))[0]

    subjects = tuple(map(written, planned.subjects))
    return replace(planned, subjects=subjects, include_similar=random.random() < 0.35)


def _with_more(random: Random, command: Command) -> Command:
    if command.points is None or random.random() < 0.4:
        return command
    return replace(command, points=_more(random, command.points))


def _more(random: Random, points: Sequence[Point]) -> tuple[Point, ...]:
    """Return a source in which some data points have another subject, with additional people."""
    moved = [
        replace(point, subject=random.choice(_MOVED_TO)) if point.id in _MOVABLE and random.random() < 0.25 else point
        for point in points
    ]
    return (*moved, *(point for point in (*ALIKE, *NEW) if random.random() < 0.5))


def _point_text(point: Point) -> str:
    return point.id if point in (*BASE, *LATER, *ALIKE, *NEW) else f"{point.id} of {point.subject}"


def _request_plan(random: Random, number: int) -> PlannedRequest:
    subjects = tuple(sorted(random.sample(ERASABLE, random.choice((0, 1, 1, 2)))))
    ids = tuple(sorted(random.sample(ERASABLE_IDS, random.choice((0, 0, 1, 2)))))
    if random.random() < 0.1:
        subjects += tuple(f"stranger-{n}" for n in range(_MANY_NAMES))
    held = "a lawsuit" if random.random() < 0.1 else ""
    return PlannedRequest(f"er-{number}", subjects if subjects or ids else ("s2",), ids, held)


def _script(random: Random, requests: int, number: int, *, trained: bool) -> tuple[Command, ...]:
    """Return an operator's commands; the first operator begins with training, unless there is a trained federation."""
    first = () if trained or number else (Command("train", points=BASE, seed=random.choice(SEEDS)),)
    return (*first, *(_operator_command(random, requests) for _ in range(random.randrange(1, 3))))


def _operator_command(random: Random, requests: int) -> Command:
    kind: Kind = random.choices(("erase", "submit", "settle", "wait", "train"), (40, 10, 10, 25, 15))[0]
    if kind != "train":
        return Command(kind, request=random.randrange(requests))
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


def _client_commands(random: Random, requests: int) -> tuple[Command, ...]:
    """Return a client's commands: mostly erasures, sometimes interventions."""
    kinds: tuple[Kind, ...] = ("submit", "announce", "hold", "release", "extend", "cancel", "repeat otherwise")
    chosen = random.choices(kinds, (50, 20, 8, 8, 6, 8, 4), k=random.randrange(1, 4))
    asks = []
    for kind in chosen:
        command = Command(kind, request=random.randrange(requests))
        if kind in IMMEDIATE:  # right after the request, because there is little time
            asks.append(replace(command, kind="announce"))
        asks.append(command)
    return tuple(asks)


def _erasure(random: Random) -> ErasureSettings:
    if random.random() < 0.4:
        return ErasureSettings(batch="until_due")
    return ErasureSettings(batch_window_seconds=random.choice((0.0, 2.0, 60.0)))


@cache
def specification(shards: int, slices: int, seed: int, holdout: float | None = None) -> FederationSpecification:
    """Return the specification to train with."""
    training = TrainingSettings(epochs=EPOCHS, batch_size=3, learning_rate=0.1, seed=seed)
    return specification_of(shards=shards, slices=slices, training=training, holdout=holdout)


@cache
def is_held_out(point: Point, holdout: float | None) -> bool:
    """Return whether the point's subject is among the share that is held out."""
    leading = int.from_bytes(subject_digest(KEY, point.subject, NAMING)[:8], "big")
    return leading < (holdout or 0.0) * 2**64


@cache
def key_of(point: Point) -> int:
    """Return the point's key (``ShardPoints.keys_N``)."""
    return int(point_keys(np.frombuffer(point_digest(KEY, point.id), dtype="V16"))[0])


@cache
def identity_of(point: Point) -> tuple[bytes, bytes]:
    """Return the keyed digests of data point and subject."""
    return bytes(point_digest(KEY, point.id)), bytes(subject_digest(KEY, point.subject, NAMING))


ALL_POINTS: Final = {
    identity_of(point): point
    for point in (
        *(replace(point, subject=who) for point in (*BASE, *LATER) if point.id in _MOVABLE for who in _MOVED_TO),
        *(*BASE, *LATER, *ALIKE, *NEW),
    )
}
"""Every data point that a source may have, by its identity."""

_NAMES: Final = frozenset({point.subject for point in ALL_POINTS.values()}.union(ERASABLE, map(str.upper, ERASABLE)))

SPELT: Final = {bytes(subject_digest(KEY, name, NAMING)): "".join(name.split()).casefold() for name in sorted(_NAMES)}
"""The common spelling of similar names, by keyed digest. Computed without the product's skeletons: names in these
scenarios consist of letters, digits and white space."""


def keys_of(points: Sequence[Point]) -> frozenset[int]:
    """Return the points' keys."""
    return frozenset(map(key_of, points))


def identities_of(points: Sequence[Point]) -> frozenset[tuple[bytes, bytes]]:
    """Return the points' identities."""
    return frozenset(map(identity_of, points))
