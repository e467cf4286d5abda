"""Each pair of a correction and something else that may happen to a federation, in either order, ends as it must.

In the middle of all of it are the data point p2 and its subject s1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count, product

import pytest

from coordinator.decisions.policy import ruling
from coordinator.interventions import Cancel, Extend, Intervention, Release
from coordinator.receipts.issuer import Registrar
from coordinator.requests import Refutation, RequestState
from coordinator.settings import ErasureSettings
from coordinator.verification import scan_residue
from shards.specification import SliceIndex
from storage.encryption.store import SealedStore
from storage.errors import Invalid
from storage.stores.memory import MemoryStore
from tests.coordinator.engine.test_corrections import POINTS, made, other
from tests.coordinator.engine.test_held_out_corrections import BY_SHARE
from tests.doubles.corrected import Truth, essence
from tests.doubles.federation import Point, SmallFederation, specification_of
from tests.doubles.remembered import remembering
from tests.doubles.workers.fake_learner import HashState
from tests.volume import one_of_each, spread

_STORES = count()
_PLAIN = specification_of(shards=2, slices=3)
_HOLDING_S1_OUT = replace(BY_SHARE, data=replace(BY_SHARE.data, holdout=0.2))
_NEW = Point(id="new", subject="s1", label="b", features=(4.0, 4.0))
"""A data point of s1 that the source has at the end: it is here if s1 was readmitted or never erased."""


@dataclass(slots=True)
class _Story:
    """A federation in an encrypted store, what it must hold, and how long its work waits."""

    waits: str
    is_held_out: bool
    federation: SmallFederation[HashState] = field(init=False)
    truth: Truth = field(default_factory=Truth)
    numbers: Iterator[int] = field(default_factory=count)
    paused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        store = SealedStore(MemoryStore(f"pairs-{next(_STORES)}"))
        self.federation = made(store, _HOLDING_S1_OUT if self.is_held_out else _PLAIN)
        if self.waits == "until due":
            engine = self.federation.engine
            engine._tools = replace(engine._tools, erasure=ErasureSettings(batch="until_due"))
        self.train()

    def train(self) -> None:
        self.federation.train(POINTS)
        self.truth.train(POINTS)

    def correct(self, value: float = 9.0) -> None:
        rows = [other(2, value), other(5, value)]
        self.federation.propose(rows, request_id=f"c-{next(self.numbers)}")
        self.truth.rectify(rows)

    def correct_again(self) -> None:
        self.correct(8.0)

    def correct_back(self) -> None:
        self.federation.propose([POINTS[2]], request_id=f"c-{next(self.numbers)}")
        self.truth.rectify([POINTS[2]])

    def pause(self) -> None:
        request_id = f"c-{next(self.numbers)}"
        rows = [other(2, 7.0), other(8, 7.0)]
        self.federation.propose(rows, request_id=request_id, held="hold")
        self.truth.hold(request_id, rows)
        self.paused.append(request_id)

    def release(self) -> None:
        self.federation.engine.remove_points()  # else what was accepted later would count as later
        for request_id in self.paused:
            self._intervene(request_id, Release())
            self.truth.release(request_id)
        self.paused.clear()

    def cancel(self) -> None:
        for request_id in self.paused:
            self._intervene(request_id, Cancel(reason="a mistake"))
            del self.truth.held[request_id]
        self.paused.clear()

    def extend(self) -> None:
        for request in self.federation.state.requests:
            if request.state.is_open and request.extension is None:
                self._intervene(request.request_id, Extend(days=5, reason="many requests"))

    def erase(self) -> None:
        self.federation.accept(subjects=["s1"], request_id=f"er-{next(self.numbers)}")
        self.truth.erase(["s1"])

    def erase_id(self) -> None:
        self.federation.accept(ids=["p2"], request_id=f"er-{next(self.numbers)}")
        self.truth.erase([], ["p2"])

    def readmit(self) -> None:
        self.federation.engine.remove_points()
        if "s1" not in self.truth.subjects:
            with pytest.raises(Invalid, match="none of these subjects was erased"):
                self.federation.readmit(subjects=["s1"], request_id=f"re-{next(self.numbers)}")
            return
        self.federation.readmit(subjects=["s1"], request_id=f"re-{next(self.numbers)}")
        self.truth.subjects.discard("s1")

    def rotate(self) -> None:
        Registrar(self.federation.store, self.federation.clock, self.federation.names).rotate_keys()

    def refute(self) -> None:
        shard = POINTS[5].slice_id(2, 3).shard
        if chain := self.federation.state.shards[shard].chain:
            wrong = Refutation(
                shard=shard,
                slice=SliceIndex(1),
                checkpoint=chain[0].key,
                lineage=chain[0].lineage,
                digest=chain[0].digest,
                retrained_digest=None,
                at="",
            )
            self.federation.engine.refute([wrong])

    def restart(self) -> None:
        tools = self.federation.engine._tools
        self.federation.restart()
        self.federation.engine._tools = replace(self.federation.engine._tools, erasure=tools.erasure)

    def step(self, name: str) -> None:
        """Do one thing, and then as much of the outstanding work as does not wait."""
        getattr(self, name)()
        if self.waits != "together":
            self.federation.engine.settle(hurry=self.waits == "one by one")

    def check(self) -> None:
        """Carry everything out, read the old source once more, and compare with a new run on what must be here."""
        self.release()
        self.federation.engine.settle()
        federation, truth = self.federation, self.truth
        source = [*POINTS, _NEW]
        outdated = truth.train(source)
        federation.train(source)
        state = federation.state
        assert state.data is not None
        assert state.data.outdated == outdated
        fresh = made(specification=federation.specification)
        fresh.train(list(truth.present.values()))
        assert essence(state) == essence(fresh.state)
        assert state.published
        assert sum(rows.record.points for rows in state.corrected) == len(truth.old)
        assert not any(request.state.is_open or request.drafts for request in state.requests)
        assert scan_residue(federation.store, state).found == ()
        receipts = {each.request_id for each in state.requests if each.state is RequestState.COMPLETE}
        receipts |= {each.request_id for each in state.readmissions} | {each.request_id for each in state.refuted}
        checked = Registrar(federation.store, federation.clock, federation.names).check_all(sorted(receipts))
        assert (checked.broken, checked.checked) == ((), len(receipts))

    def _intervene(self, request_id: str, wanted: Intervention) -> None:
        engine, erasure = self.federation.engine, self.federation.specification.erasure
        engine.intervene(lambda state: ruling(state, request_id, wanted, settings=erasure, at=engine.now()))


CORRECTIONS = ("correct", "pause")
OTHERS = (
    "cancel",
    "correct_again",
    "correct_back",
    "erase",
    "erase_id",
    "extend",
    "readmit",
    "refute",
    "release",
    "restart",
    "rotate",
    "train",
)
_PAIRS = [
    *((first, then) for first, then in product(CORRECTIONS, (*CORRECTIONS, *OTHERS))),
    *((first, then) for first, then in product(OTHERS, CORRECTIONS)),
]
_EACH = one_of_each(list(product(_PAIRS, [False, True])), kind=lambda each: each[0])
_MODES = ("one by one", "together", "until due")
_NAMES = {False: "trained on", True: "held out"}
_SIDES = pytest.mark.parametrize("is_held_out", [False, True], ids=_NAMES.get)


@pytest.fixture(autouse=True, scope="module")
def _remembering() -> Iterator[None]:
    """Many nearly equal runs compute their common results once."""
    with remembering():
        yield


@pytest.mark.volume
@pytest.mark.parametrize(
    ("pair", "is_held_out"),
    _EACH,
    ids=lambda each: _NAMES.get(each) or ", ".join(each),
)
def test_each_pair_ends_as_it_must(pair: tuple[str, str], is_held_out: bool) -> None:
    """One after the other, together in one batch, or with a retrain that waits until it is due."""
    waits = _MODES[(_PAIRS.index(pair) + is_held_out) % len(_MODES)]
    _check(waits, *pair, is_held_out=is_held_out)


@pytest.mark.slow
@pytest.mark.volume
@_SIDES
@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("first", [*CORRECTIONS, *OTHERS])
def test_a_correction_between_any_two(first: str, correction: str, is_held_out: bool) -> None:
    """With something before and after it, of all that may happen, in each of the three ways."""
    every = (*CORRECTIONS, *OTHERS)
    # Not the same ones in each test: between them, each thing comes last, and in each of the ways.
    shift = (every.index(first) * len(CORRECTIONS) + CORRECTIONS.index(correction)) * 2 + is_held_out
    for waits, then in spread(list(product(_MODES, every)), 21, shift):
        _check(waits, first, correction, then, is_held_out=is_held_out)


def _check(waits: str, *steps: str, is_held_out: bool) -> None:
    story = _Story(waits=waits, is_held_out=is_held_out)
    for step in steps:
        story.step(step)
    story.check()
