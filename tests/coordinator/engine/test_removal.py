"""Removing points for many requests at once: same result as one after another, at the cost of one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.writer.drafting import readmission_of
from coordinator.engine.engine import Engine
from coordinator.engine.lookup import load_tombstones
from coordinator.engine.removal import Demand, find_points
from coordinator.requests import MOST_INLINE, InlineDigests, ObjectRef, RequestState
from coordinator.state import FederationState
from shards.data.inventory import SourceFile, inventory
from shards.data.sources import open_source
from shards.tombstones import NOTHING
from storage.errors import Conflict, Corrupt
from storage.registers.numbered import Numbers
from storage.stores.memory import MemoryStore
from tests.doubles.federation import (
    KEY,
    Point,
    SmallFederation,
    names_of,
    plain_conditions,
    specification_of,
    survivors,
)
from tests.doubles.stores.faulty_store import FaultyStore
from tests.doubles.workers.fake_learner import HashLearner, HashState

_STORES = count()
_SPECIFICATION = specification_of(shards=2, slices=3)
POINTS = [Point(id=f"p{n}", subject=f"s{n // 3}", label="ab"[n % 2], features=(float(n), 1.0)) for n in range(60)]
REQUESTS: dict[str, tuple[list[str], list[str]]] = {
    "er-1": (["s1", "s2"], []),
    "er-2": (["s2", "s3"], []),
    "er-3": ([], ["p3", "p30", "p59"]),
    "er-4": (["nobody"], []),
    "er-5": (["s2"], ["p6", "p30"]),
}
"""er-5 names only what earlier ones name as well."""


@pytest.fixture
def federation() -> Iterator[SmallFederation[HashState]]:
    """A trained federation."""
    store = MemoryStore(f"removal-{next(_STORES)}")
    made: SmallFederation[HashState] = SmallFederation(
        specification=_SPECIFICATION,
        store=FaultyStore(store),
        learners=lambda _: HashLearner(slices=3),
        conditions=lambda _: plain_conditions(_SPECIFICATION),
    )
    made.train(POINTS)
    yield made
    store.forget()


def _contents(state: FederationState) -> list[list[str]]:
    return [[record.content_digest for record in shard.slices] for shard in state.shards]


def test_each_point_is_counted_for_the_first_request_that_names_it(federation: SmallFederation[HashState]) -> None:
    """When requests overlap, a point and a name belong to the first one."""
    batch = [Demand(names=names_of(subjects, ids)) for subjects, ids in REQUESTS.values()]
    found = find_points(federation.store, federation.state, batch)
    assert [sum(each.removed.values()) for each in found] == [6, 3, 2, 0, 0]
    assert [len(each.found) for each in found] == [2, 1, 2, 0, 0]
    assert found[3].found == NOTHING


def test_a_batch_ends_as_single_requests_do(federation: SmallFederation[HashState]) -> None:
    """Carried out together or one by one, requests leave the same slices, tombstones and answers (E9)."""
    for request_id, (subjects, ids) in REQUESTS.items():
        federation.accept(subjects=subjects, ids=ids, request_id=request_id)
    federation.engine.settle()
    together = federation.state
    alone: SmallFederation[HashState] = SmallFederation(
        specification=_SPECIFICATION,
        store=MemoryStore(f"removal-{next(_STORES)}"),
        learners=lambda _: HashLearner(slices=3),
        conditions=lambda _: plain_conditions(_SPECIFICATION),
    )
    alone.train(POINTS)
    for request_id, (subjects, ids) in REQUESTS.items():
        alone.erase(subjects=subjects, ids=ids, request_id=request_id)
    assert _contents(together) == _contents(alone.state)
    tombstones = load_tombstones(federation.store, together.tombstone_objects())
    assert tombstones == load_tombstones(alone.store, alone.state.tombstone_objects())
    assert (len(tombstones.subjects), len(tombstones.points)) == (3 * 16, 11 * 16)
    facts = [
        [
            (each.request_id, each.state, each.found.points, each.found.unknown, each.found.shards)
            for each in state.requests
        ]
        for state in (together, alone.state)
    ]
    assert facts[0] == facts[1]
    assert [each.state for each in together.requests] == [
        RequestState.COMPLETE,
        RequestState.COMPLETE,
        RequestState.COMPLETE,
        RequestState.REFUSED,
        RequestState.REFUSED,
    ]


def test_a_batch_writes_each_slice_once(federation: SmallFederation[HashState]) -> None:
    """Five requests cost one entry of the journal and one new object for each slice that they touch."""
    for request_id, (subjects, ids) in REQUESTS.items():
        federation.accept(subjects=subjects, ids=ids, request_id=request_id)
    before = Numbers(federation.store, "journal").present()
    faulty = federation.store
    assert isinstance(faulty, FaultyStore)
    faulty.plan()
    old = _contents(federation.state)
    federation.engine.remove_points()
    assert len(Numbers(federation.store, "journal").present()) == len(before) + 1
    parts = [key for operation, key in faulty.calls if operation == "put_if_absent" and key.startswith("shards/")]
    changed = sum(
        mine != theirs
        for shard, other in zip(old, _contents(federation.state), strict=True)
        for mine, theirs in zip(shard, other, strict=True)
    )
    assert 0 < len(parts) <= changed
    assert federation.engine.state.request("er-1") is not None


def test_small_requests_carry_their_names_and_large_ones_refer_to_them(federation: SmallFederation[HashState]) -> None:
    """Up to 64 names stand in the journal's entry itself; a request that names more has an object of its own."""
    small = federation.accept(subjects=[f"x{n}" for n in range(MOST_INLINE)], request_id="er-small")
    large = federation.accept(subjects=[f"x{n}" for n in range(MOST_INLINE + 1)], request_id="er-large")
    assert isinstance(small.names, InlineDigests)
    assert isinstance(large.names, ObjectRef)


def test_an_id_is_used_once(federation: SmallFederation[HashState]) -> None:
    """The same id for the same names is the same request, for other names a conflict (D4)."""
    first = federation.accept(subjects=["s1"], request_id="er-1")
    assert federation.accept(subjects=["s1"], request_id="er-1") == first
    with pytest.raises(Conflict, match="used before, for other subjects"):
        federation.accept(subjects=["s2"], request_id="er-1")


def test_a_failure_is_written_down(federation: SmallFederation[HashState]) -> None:
    """A request whose slice is damaged shows as failed, with the remedy, and is carried out once that is repaired."""
    federation.accept(subjects=["s1"], request_id="er-1")
    (place,) = find_points(federation.store, federation.state, [Demand(names=names_of(["s1"], []))])[0].removed
    key = federation.state.shards[place.shard].slices[place.slice - 1].parts[0].key
    payload = federation.store.get(key).payload
    federation.store.delete(key)
    with pytest.raises(Corrupt, match="missing|gone|lost"):
        federation.engine.remove_points()
    request = federation.state.request("er-1")
    assert request is not None
    assert request.shown is RequestState.FAILED
    assert request.failure
    federation.store.put_if_absent(key, payload)
    federation.engine.settle()
    done = federation.state.request("er-1")
    assert done is not None
    assert (done.shown, done.failure) == (RequestState.COMPLETE, None)


@pytest.mark.parametrize("is_first_look", [False, True])
def test_people_let_back_while_the_source_is_read_come_with_the_next_reading(
    federation: SmallFederation[HashState], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_first_look: bool
) -> None:
    """A readmission in the middle of an ingest has the source read again, although it does not change.

    The same holds for a readmission right after the ingest has first read the state.
    """
    federation.erase(subjects=["s7"], request_id="er-1")
    new = [*POINTS, Point(id="new", subject="s7", label="a", features=(1.0, 2.0))]
    columns = {"id": [each.id for each in new], "who": [each.subject for each in new]}
    columns |= {"label": [str(each.label) for each in new]}
    features = {f"x{n}": pa.array([each.features[n] for each in new], pa.float32()) for n in range(2)}
    pq.write_table(pa.table(columns | features), tmp_path / "new.parquet")
    source = open_source("new.parquet", tmp_path)
    looked = [is_first_look]

    def arrive(notice: object) -> None:
        if type(notice).__name__ == "IngestProgress" and not federation.state.readmissions:
            readmit()

    def readmit() -> None:
        names = names_of(["s7"], ())
        federation.engine.readmit(readmission_of(names, "re-1", "asked", federation.clock.now()), names)

    def look(engine: Engine) -> FederationState:
        found = engine._ledger.state
        if looked and looked.pop():
            readmit()
        return found

    def read() -> tuple[int, tuple[SourceFile, ...]]:
        federation.engine.ingest(source, _SPECIFICATION.data, _SPECIFICATION.partition, KEY)
        assert federation.state.data is not None
        return sum(shard.points for shard in federation.state.shards), federation.state.data.inventory

    federation.listener = arrive
    federation.restart()
    left = len(survivors(POINTS, subjects=["s7"]))
    monkeypatch.setattr(Engine, "state", property(look))
    assert read() == (left, ())
    assert read() == (left + 1, inventory(source))


def test_people_erased_while_the_source_is_read_stay_out(federation: SmallFederation[HashState]) -> None:
    """An erasure that comes in the middle of an ingest holds for what the ingest has already read (E12)."""
    fresh = [*POINTS, Point(id="new", subject="new", label="a", features=(1.0, 2.0))]
    heard: list[object] = []

    def arrive(notice: object) -> None:
        heard.append(notice)
        if type(notice).__name__ == "IngestProgress" and len(federation.state.requests) == 0:
            federation.accept(subjects=["s7", "s8"], request_id="er-1")
            federation.engine.remove_points()

    federation.listener = arrive
    federation.restart()
    federation.train(fresh)
    assert any(type(notice).__name__ == "IngestProgress" for notice in heard)
    request = federation.state.request("er-1")
    assert request is not None
    assert request.state is RequestState.COMPLETE
    alone: SmallFederation[HashState] = SmallFederation(
        specification=_SPECIFICATION,
        store=MemoryStore(f"removal-{next(_STORES)}"),
        learners=lambda _: HashLearner(slices=3),
        conditions=lambda _: plain_conditions(_SPECIFICATION),
    )
    alone.train(survivors(fresh, subjects=["s7", "s8"]))
    assert _contents(federation.state) == _contents(alone.state)
