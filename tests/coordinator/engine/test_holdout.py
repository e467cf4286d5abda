"""Hold-out points: never trained on, found and erased like all others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest

from cluster.config.specification import FederationSpecification
from coordinator.engine.lookup import load_tombstones
from coordinator.engine.removal import Demand, everyone, find_points, put_digests
from coordinator.receipts.evidence import HoldoutEvidence, ScanEvidence, StoreEvidence, collect_evidence
from coordinator.receipts.issuer import Registrar
from coordinator.requests import RequestState, Segment
from coordinator.state import FederationState
from coordinator.verification import scan_residue
from shards.routing import SliceId
from shards.specification import DataSettings, ShardId, SliceIndex
from storage.errors import Corrupt, Invalid
from storage.objects import ObjectStore
from storage.stores.memory import MemoryStore
from tests.doubles.federation import (
    KEY,
    Point,
    SmallFederation,
    names_of,
    plain_conditions,
    source_of,
    specification_of,
    survivors,
)
from tests.doubles.workers.fake_learner import HashLearner, HashState

_STORES = count()
SHARE = 0.25
POINTS = [Point(id=f"p{n}", subject=f"s{n // 2}", label="ab"[n % 2], features=(float(n), 1.0)) for n in range(40)]
HELD = ("s0", "s1", "s2", "s4", "s5", "s6", "s7", "s8", "s18")
"""The subjects whose digests are below ``SHARE``, under the tests' key."""
TRAINED = survivors(POINTS, subjects=HELD)
HELD_OUT = [point for point in POINTS if point.subject in HELD]
BY_SHARE = specification_of(shards=2, slices=3, holdout=SHARE)
BY_FILES = specification_of(shards=2, slices=3, holdout="holdout.parquet")
PLAIN = specification_of(shards=2, slices=3)

Federation = SmallFederation[HashState]


def federation_of(specification: FederationSpecification, store: ObjectStore | None = None) -> Federation:
    """A federation that holds nothing yet."""
    return SmallFederation(
        specification=specification,
        store=store or MemoryStore(f"holdout-{next(_STORES)}"),
        learners=lambda _: HashLearner(slices=3),
        conditions=lambda _: plain_conditions(specification),
    )


@pytest.fixture
def federation() -> Iterator[Federation]:
    """A trained federation with a share of hold-out points."""
    store = MemoryStore(f"holdout-{next(_STORES)}")
    made = federation_of(BY_SHARE, store)
    made.train(POINTS)
    yield made
    store.forget()


def _constituents(state: FederationState) -> list[list[tuple[str, str]]]:
    return [[(each.lineage, each.digest) for each in shard.chain] for shard in state.shards]


def _contents(state: FederationState) -> list[str]:
    return [record.content_digest for _, record in state.slices()]


def test_constituents_are_those_of_a_federation_that_has_the_other_points_alone(federation: Federation) -> None:
    """Hold-out points change neither the lineage nor the bytes of a constituent, nor where other points belong."""
    plain = federation_of(PLAIN)
    plain.train(TRAINED)
    assert _constituents(federation.state) == _constituents(plain.state)
    assert _contents(federation.state)[:6] == _contents(plain.state)
    assert (federation.state.held_out, plain.state.held_out) == (len(HELD_OUT), 0)
    assert federation.state.settings == plain.state.settings


def test_files_of_hold_out_points_are_held_out_as_a_share_of_the_source_is(federation: Federation) -> None:
    """The same points end in the same slices, whether they are drawn or have a file of their own."""
    apart = federation_of(BY_FILES)
    apart.train(TRAINED, HELD_OUT)
    assert _contents(apart.state) == _contents(federation.state)
    assert _constituents(apart.state) == _constituents(federation.state)
    assert apart.state.data is not None
    assert len(apart.state.data.inventory) == 2


def test_an_erasure_of_hold_out_points_retrains_nothing_and_leaves_nothing(federation: Federation) -> None:
    """The generation stays, the points are gone from the store and stay out, and the request says what they were."""
    before = federation.state
    done = federation.erase(subjects=["s4"], request_id="er-1")
    after = federation.state
    assert (done.state, done.found.points, done.found.held_out, done.found.shards) == (RequestState.COMPLETE, 2, 2, ())
    assert (after.generation, after.floor, after.shards) == (before.generation, before.floor, before.shards)
    assert after.held_out == len(HELD_OUT) - 2
    assert scan_residue(federation.store, after).found == ()
    assert Registrar(federation.store, federation.clock, federation.names).check_all(["er-1"]).broken == ()
    federation.train(POINTS)
    assert federation.state.held_out == len(HELD_OUT) - 2
    assert federation.state.data is not None
    assert federation.state.data.refused == 2


def test_an_erasure_ends_as_if_the_points_had_never_been_held_out(federation: Federation) -> None:
    """With a subject on each side and one point by id: slices and constituents are those of a fresh federation."""
    done = federation.erase(subjects=["s4", "s9"], ids=["p3"], request_id="er-1")
    assert (done.found.points, done.found.held_out) == (5, 3)
    fresh = federation_of(BY_SHARE)
    fresh.train(survivors(POINTS, subjects=["s4", "s9"], ids=["p3"]))
    assert _contents(federation.state) == _contents(fresh.state)
    assert _constituents(federation.state) == _constituents(fresh.state)


def test_requests_that_arrive_together_share_the_rewritten_slices(federation: Federation) -> None:
    """Each point is counted for the first request that names it; one that finds nothing is refused."""
    federation.accept(subjects=["s4"], request_id="er-1")
    federation.accept(subjects=["s4", "s5", "s9"], request_id="er-2")
    federation.accept(subjects=["s5"], request_id="er-3")
    federation.engine.settle()
    assert [(each.found.points, each.found.held_out) for each in federation.state.requests] == [(2, 2), (4, 2), (0, 0)]
    assert [each.state.value for each in federation.state.requests] == ["complete", "complete", "refused"]
    assert federation.state.held_out == len(HELD_OUT) - 4


def test_a_subject_on_both_sides_is_erased_on_both() -> None:
    """A person whose points are in the files to train on and in those held out leaves both."""
    apart = federation_of(BY_FILES)
    more = [replace(POINTS[20], id="other", subject="s4"), replace(POINTS[21], id="spelt", subject="S4")]
    apart.train([*TRAINED, *more], HELD_OUT)
    demands = [Demand(names=names_of(["s4"], [])), Demand(names=names_of(["s4"], []), include_similar=True)]
    found = find_points(apart.store, apart.state, demands, apart=True)
    assert [sum(each.removed.values()) for each in found] == [3, 4]
    assert found[0].similar.points == 1
    done = apart.erase(subjects=["s4"], request_id="er-1")
    assert (done.found.points, done.found.held_out, len(done.found.shards)) == (3, 2, 1)
    assert scan_residue(apart.store, apart.state).found == ()
    apart.train([*TRAINED, *more], HELD_OUT)
    assert apart.state.data is not None
    assert (apart.state.data.refused, apart.state.held_out) == (3, len(HELD_OUT) - 2)


def test_further_subjects_are_found_among_hold_out_points() -> None:
    """A recipient of a held-out message is erased with it."""
    specification = specification_of(shards=2, slices=3, further=1, holdout=SHARE)
    federation = federation_of(specification)
    federation.train([replace(point, others=("bob",) if point.id == "p8" else ("",)) for point in POINTS])
    done = federation.erase(subjects=["bob"], request_id="er-1")
    assert (done.found.points, done.found.held_out, done.found.shards) == (1, 1, ())
    tombstones = load_tombstones(federation.store, federation.state.tombstone_objects())
    assert tombstones == names_of(["bob"], ["p8"])


def test_everyone_includes_those_who_are_held_out(federation: Federation) -> None:
    """A federation that is withdrawn erases hold-out points as well."""
    assert everyone(federation.store, federation.state) == names_of({point.subject for point in POINTS}, [])


def test_residue_among_hold_out_points_is_seen(federation: Federation) -> None:
    """An erased person's hold-out points, and damaged files of hold-out points, are findings."""
    ref = put_digests(federation.store, federation.names, "tombstones", names_of(["s4"], []))
    state = replace(federation.state, segments=(Segment(ref=ref, digests=1),))
    (found,) = [line for line in scan_residue(federation.store, state).found if "erased data points" in line]
    assert found == "2 erased data points in the hold-out points slice 1"
    part = federation.state.holdout[0].parts[0]
    federation.store.delete(part.key)
    assert f"object missing or damaged: {part.key}" in scan_residue(federation.store, federation.state).found
    assert federation.engine.audit() == {SliceId(ShardId(2), SliceIndex(1))}
    federation.train(POINTS)
    assert scan_residue(federation.store, federation.state).found == ()


@pytest.mark.parametrize(
    ("first", "then"),
    [(PLAIN, BY_SHARE), (BY_SHARE, PLAIN), (specification_of(shards=2, slices=3, holdout=0.1), BY_SHARE)],
)
def test_another_share_moves_points_and_retrains(first: FederationSpecification, then: FederationSpecification) -> None:
    """No constituent remains that has seen a point now held out: all are those of a fresh federation."""
    federation = federation_of(first)
    federation.train(POINTS)
    federation.respecify(then)
    federation.train(POINTS)
    fresh = federation_of(then)
    fresh.train(POINTS)
    assert _constituents(federation.state) == _constituents(fresh.state)
    assert _contents(federation.state) == _contents(fresh.state)
    assert federation.state.generation > 1
    assert federation.state.generation == federation.state.floor + 1
    assert scan_residue(federation.store, federation.state).found == ()


def test_an_id_on_both_sides_is_refused() -> None:
    """It would be measured on what it was trained on; nothing of either source is left in the store."""
    federation = federation_of(BY_FILES)
    with pytest.raises(Invalid, match="two data points have the same id"):
        federation.train(POINTS, HELD_OUT)
    assert list(federation.store.list("shards/")) == []


def test_other_features_are_refused() -> None:
    """Hold-out files need the columns of the files to train on; nothing is left in the store."""
    federation = federation_of(BY_FILES)
    wider = [replace(point, features=(*point.features, 2.0)) for point in HELD_OUT]
    with pytest.raises(Invalid, match="the hold-out files have other features than those to train on: 3 in"):
        federation.train(TRAINED, wider)
    assert list(federation.store.list("shards/")) == []


def test_subjects_erased_while_sources_are_read_stay_out(federation: Federation) -> None:
    """A request that is carried out between the reading of the sources and its commit is not undone by it."""
    engine, specification = federation.engine, BY_SHARE
    fresh = source_of([*POINTS, Point(id="new", subject="s4", label="a", features=(1.0, 1.0))])
    tools = engine._tools
    reads = tools.ingest

    def slow(task: object) -> object:
        result = reads(task)  # type: ignore[arg-type]
        federation.accept(subjects=["s4"], request_id="er-1")
        engine.remove_points()
        return result

    engine._tools = replace(tools, ingest=slow)  # type: ignore[arg-type]
    engine.ingest(fresh, specification.data, specification.partition, KEY)
    engine.settle()
    assert federation.state.held_out == len(HELD_OUT) - 2
    assert scan_residue(federation.store, federation.state).found == ()


def test_the_receipt_states_what_was_held_out(federation: Federation) -> None:
    """It has the counts of hold-out points and names the purged files; one without hold-out points has no such part."""
    before = federation.state
    federation.erase(subjects=["s4", "s9"], request_id="er-1")
    federation.erase(subjects=["s10"], request_id="er-2")
    facts = [
        collect_evidence(
            each,
            before,
            federation.state,
            manifests={},
            scan=ScanEvidence(objects=0, bytes=0, findings=0),
            store=StoreEvidence(kind="memory"),
        )
        for each in ("er-1", "er-2")
    ]
    held = len(HELD_OUT)
    assert facts[0].holdout == HoldoutEvidence(
        points=2, slices=(SliceIndex(1),), points_before=held, points_after=held - 2
    )
    assert facts[0].predicate("now")["holdout"]["erased"] == 2
    assert "holdout" not in facts[1].predicate("now")
    (old,) = (part.key for part in before.holdout[0].parts)
    assert old in {each.key for each in facts[0].purged}


@pytest.mark.parametrize("holdout", [0.0, 1.0, -0.1, float("nan"), ""])
def test_a_holdout_is_a_share_or_a_place(holdout: float | str) -> None:
    """Anything else is refused where it is declared."""
    with pytest.raises(Invalid, match="holdout"):
        DataSettings(train="t", id="id", label="l", features=("x",), classes=("a", "b"), holdout=holdout)


def test_a_damaged_hold_out_slice_stops_an_erasure(federation: Federation) -> None:
    """As with a damaged slice of a shard, the request is accepted and continues once the slice can be read again."""
    (part,) = federation.state.holdout[0].parts
    federation.store.delete(part.key)
    with pytest.raises(Corrupt, match="a slice file is missing"):
        federation.erase(subjects=["s4"], request_id="er-1")
    engine = federation.engine
    engine.ingest(source_of(POINTS), BY_SHARE.data, BY_SHARE.partition, KEY, engine.audit())
    engine.settle()
    done = federation.state.request("er-1")
    assert done is not None
    assert (done.state, done.found.held_out) == (RequestState.COMPLETE, 2)
