"""Data points of several people: who finds them, and what is kept about the other people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest

from coordinator.engine.lookup import load_tombstones
from coordinator.engine.removal import Demand, everyone, find_points, put_digests
from coordinator.requests import RequestState, Segment, Similar
from coordinator.verification import scan_residue
from shards.tombstones import DigestSet
from storage.stores.memory import MemoryStore
from tests.doubles.federation import Point, SmallFederation, names_of, plain_conditions, specification_of
from tests.doubles.workers.fake_learner import HashLearner, HashState

_STORES = count()
_SPECIFICATION = specification_of(shards=3, slices=2, further=1)


def _point(number: int, sender: str, recipient: str) -> Point:
    return Point(
        id=f"m{number}", subject=sender, label="ab"[number % 2], features=(float(number), 1.0), others=(recipient,)
    )


MESSAGES = [
    _point(0, "mia", "bob"),
    _point(1, "bob", "mia"),
    _point(2, "eve", "Mia"),
    _point(3, "Mia", "ada"),
    _point(4, "mia", "Mia"),
    _point(5, "ada", ""),
    _point(6, "eve", "ada"),
    _point(7, "bob", "bob"),
]


@pytest.fixture
def federation() -> Iterator[SmallFederation[HashState]]:
    """A trained federation of messages."""
    store = MemoryStore(f"several-{next(_STORES)}")
    made: SmallFederation[HashState] = SmallFederation(
        specification=_SPECIFICATION,
        store=store,
        learners=lambda _: HashLearner(slices=2),
        conditions=lambda _: plain_conditions(_SPECIFICATION),
    )
    made.train(MESSAGES)
    yield made
    store.forget()


def _found(
    federation: SmallFederation[HashState], *names: str, apart: bool = False, similar: bool = False
) -> list[int]:
    demands = [Demand(names=names_of([name], []), include_similar=similar) for name in names]
    removals = find_points(federation.store, federation.state, demands, apart=apart)
    return [sum(removal.removed.values()) for removal in removals]


def test_people_are_found_in_any_column(federation: SmallFederation[HashState]) -> None:
    """Senders and recipients, in any slice; a point counts for the first demand, or for each if they are separate."""
    everybody = ("mia", "bob", "eve", "ada", "nobody")
    assert _found(federation, *everybody) == [3, 1, 2, 2, 0]
    assert _found(federation, *everybody, apart=True) == [3, 3, 2, 3, 0]


def test_other_spellings_are_found_in_any_column(federation: SmallFederation[HashState]) -> None:
    """Points whose sender or recipient is spelt alike are counted, or taken along; only those people are meant."""
    demand = Demand(names=names_of(["mia"], []))
    (removal,) = find_points(federation.store, federation.state, [demand])
    assert (sum(removal.removed.values()), removal.similar) == (3, Similar(points=2, subjects=1))
    assert removal.found == demand.names
    (whole,) = find_points(federation.store, federation.state, [Demand(names=demand.names, include_similar=True)])
    assert (sum(whole.removed.values()), whole.similar) == (5, Similar(points=0, subjects=0))
    assert whole.found == names_of(["mia", "Mia"], [])
    assert whole.missing == DigestSet()


def test_a_spelling_that_only_shares_points_is_meant_as_well(federation: SmallFederation[HashState]) -> None:
    """A subject with a similar spelling, whose only point is erased anyway, is kept out like the others."""
    federation.erase(subjects=[], ids=["m2", "m3"], request_id="er-0")
    demand = Demand(names=names_of(["mia"], []), include_similar=True)
    (removal,) = find_points(federation.store, federation.state, [demand])
    assert (sum(removal.removed.values()), removal.found) == (3, names_of(["mia", "Mia"], []))


def test_an_erasure_leaves_tombstones_for_whom_it_names_alone(federation: SmallFederation[HashState]) -> None:
    """The recipient is not kept out because the sender is; the points stay out by id; nothing is left of them."""
    done = federation.erase(subjects=["bob"], request_id="er-1")
    assert (done.state, done.found.points) == (RequestState.COMPLETE, 3)
    tombstones = load_tombstones(federation.store, federation.state.tombstone_objects())
    assert tombstones == names_of(["bob"], ["m0", "m1", "m7"])
    assert scan_residue(federation.store, federation.state).found == ()
    federation.train([*MESSAGES, _point(8, "mia", "ada"), _point(9, "ada", "bob")])
    assert sum(shard.points for shard in federation.state.shards) == 6
    assert federation.state.data is not None
    assert (federation.state.data.refused, federation.state.data.by_id) == (4, 0)
    assert _found(federation, "mia", "bob") == [2, 0]


def test_residue_is_seen_by_any_subject(federation: SmallFederation[HashState]) -> None:
    """A data point whose recipient is erased is residue."""
    ref = put_digests(federation.store, federation.names, "tombstones", names_of(["ada"], []))
    state = replace(federation.state, segments=(Segment(ref=ref, digests=1),))
    found = [line for line in scan_residue(federation.store, state).found if "erased data points" in line]
    assert sum(int(line.split()[0]) for line in found) == 3


def test_everyone_is_everybody_in_any_column(federation: SmallFederation[HashState]) -> None:
    """A site that is withdrawn erases recipients as well, and nobody is not among them."""
    names = everyone(federation.store, federation.state)
    assert names == names_of(["mia", "Mia", "bob", "eve", "ada"], [])
    (removal,) = find_points(federation.store, federation.state, [Demand(names=names)])
    assert sum(removal.removed.values()) == len(MESSAGES)


def test_a_batch_takes_a_point_of_two_once(federation: SmallFederation[HashState]) -> None:
    """Two requests of the two people of a message: the first removes it, both are kept out."""
    federation.accept(subjects=["ada"], request_id="er-1")
    federation.accept(subjects=["eve"], request_id="er-2")
    federation.engine.settle()
    assert [request.found.points for request in federation.state.requests] == [3, 1]
    tombstones = load_tombstones(federation.store, federation.state.tombstone_objects())
    assert tombstones.subjects == names_of(["ada", "eve"], []).subjects
