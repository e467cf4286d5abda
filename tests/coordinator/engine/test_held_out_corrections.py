"""Corrections of hold-out points: their slices have the new values, no constituent is trained again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

import pytest

from cluster.config.specification import FederationSpecification
from coordinator.interventions import Release
from coordinator.ports import IngestProgress, Notice
from coordinator.receipts.evidence import HoldoutEvidence, ScanEvidence, StoreEvidence, collect_evidence
from coordinator.receipts.issuer import Registrar
from coordinator.requests import RequestState
from coordinator.verification import scan_residue
from shards.measures import Measures
from shards.routing import SliceId
from shards.specification import ShardId, SliceIndex
from storage.errors import Corrupt
from storage.stores.memory import MemoryStore
from tests.coordinator.engine.test_corrections import POINTS, corrected, intervene, made, other, standing
from tests.doubles.corrected import essence
from tests.doubles.federation import Point, SmallFederation, specification_of
from tests.doubles.workers.fake_learner import HashState

_STORES = count()
SHARE = 0.16
BY_SHARE = specification_of(shards=2, slices=3, holdout=SHARE)
WIDER = specification_of(shards=2, slices=3, holdout=0.2)
BY_FILES = specification_of(shards=2, slices=3, holdout="holdout.parquet")
PLAIN = specification_of(shards=2, slices=3)
HELD = ("s0", "s4", "s5", "s6")
"""The subjects whose digests are below ``SHARE``, under the tests' key; ``WIDER`` holds out s1 and s2 as well."""

Federation = SmallFederation[HashState]


@pytest.fixture
def federation() -> Iterator[Federation]:
    """A trained federation with a share of hold-out points."""
    store = MemoryStore(f"held-out-corrections-{next(_STORES)}")
    federation = made(store, BY_SHARE)
    federation.train(POINTS)
    assert federation.state.held_out == 2 * len(HELD)
    yield federation
    store.forget()


def assert_fresh(federation: Federation, points: Sequence[Point], held_out: Sequence[Point] | None = None) -> None:
    """Check that everything is as in a new run on these data points, and that nothing is left over."""
    fresh = made(specification=federation.specification)
    fresh.train(points, held_out)
    assert essence(federation.state) == essence(fresh.state)
    assert scan_residue(federation.store, federation.state).found == ()


def test_a_hold_out_point_is_corrected_and_nothing_is_retrained(federation: Federation) -> None:
    """Its slice has the new value, the generation stays, the old file is gone, and the receipt says what was done."""
    before = federation.state
    old = {part.key for record in before.holdout for part in record.parts}
    done = federation.rectify([other(8)], request_id="c-1")
    after = federation.state
    assert (done.state, done.found.points, done.found.held_out, done.found.shards) == (RequestState.COMPLETE, 1, 1, ())
    assert (after.generation, after.floor, after.shards) == (before.generation, before.floor, before.shards)
    assert_fresh(federation, corrected(other(8)))
    (superseded,) = old - {part.key for record in after.holdout for part in record.parts}
    assert superseded not in {info.key for info in federation.store.list("")}
    evidence = collect_evidence(
        "c-1",
        before,
        after,
        manifests={},
        scan=ScanEvidence(objects=0, bytes=0, findings=0),
        store=StoreEvidence(kind="memory"),
    )
    assert evidence.holdout == HoldoutEvidence(points=1, slices=(SliceIndex(1),), points_before=8, points_after=8)
    assert evidence.predicate("now")["holdout"]["rectified"] == 1
    assert evidence.shards == ()
    assert superseded in {each.key for each in evidence.purged}
    assert Registrar(federation.store, federation.clock, federation.names).check_all(["c-1"]).broken == ()


def test_points_on_both_sides_are_corrected_by_one_request(federation: Federation) -> None:
    """Only the shards of the others are trained again."""
    done = federation.rectify([other(8), other(9, label="b"), other(3)], request_id="c-1")
    assert (done.state, done.found.points, done.found.held_out) == (RequestState.COMPLETE, 3, 2)
    assert done.found.shards == (POINTS[3].slice_id(2, 3).shard,)
    assert_fresh(federation, corrected(other(8), other(9, label="b"), other(3)))


def test_an_unchanged_source_brings_no_old_value_back(federation: Federation) -> None:
    """This holds for hold-out points and others; the state says for how many data points the source has old values."""
    federation.rectify([other(8), other(3)], request_id="c-1")
    settled = essence(federation.state)
    federation.train(POINTS)
    assert federation.state.data is not None
    assert (essence(federation.state), federation.state.data.outdated) == (settled, 2)
    federation.rectify([POINTS[8]], request_id="c-2")
    federation.train(POINTS)
    assert federation.state.data.outdated == 1
    assert_fresh(federation, corrected(other(3)))


@pytest.mark.parametrize("then", [WIDER, PLAIN], ids=["a larger share", "no share"])
def test_corrected_values_move_with_their_points(federation: Federation, then: FederationSpecification) -> None:
    """With another share the source's old values stay out on the side to which a point moves, and back again."""
    rows = [other(8), other(3), other(15)]  # held out; held out by the larger share; never
    federation.rectify(rows, request_id="c-1")
    for specification in (then, BY_SHARE):
        federation.respecify(specification)
        federation.train(POINTS)
        assert federation.state.data is not None
        assert federation.state.data.outdated == 3
        assert_fresh(federation, corrected(*rows))
    federation.respecify(then)
    federation.train(POINTS)
    federation.rectify([POINTS[8], POINTS[3]], request_id="c-2")  # their first values are right again
    federation.train(POINTS)
    assert federation.state.data is not None
    assert federation.state.data.outdated == 1
    assert_fresh(federation, corrected(other(15)))


def test_corrected_values_move_between_files() -> None:
    """A row that the operator moves from the files to train on into those held out keeps its corrected value."""
    federation = made(specification=BY_FILES)
    federation.train(POINTS[:8], POINTS[8:])
    federation.rectify([other(3), other(8)], request_id="c-1")
    train = [*POINTS[:3], *POINTS[4:9]]
    held_out = [POINTS[3], *POINTS[9:]]
    federation.train(train, held_out)
    assert federation.state.data is not None
    assert federation.state.data.outdated == 2
    by_id = {point.id: point for point in corrected(other(3), other(8))}
    assert_fresh(federation, [by_id[each.id] for each in train], [by_id[each.id] for each in held_out])


@pytest.mark.parametrize(("first", "then"), [(BY_SHARE, PLAIN), (PLAIN, BY_SHARE)], ids=["trained on", "held out"])
def test_a_paused_correction_finds_a_point_that_has_moved(
    first: FederationSpecification, then: FederationSpecification
) -> None:
    """It was accepted while the data point was on the other side."""
    federation = made(specification=first)
    federation.train(POINTS)
    federation.propose([other(8)], request_id="c-1", held="hold")
    federation.respecify(then)
    federation.train(POINTS)
    intervene(federation, "c-1", Release())
    federation.engine.settle()
    assert standing(federation, "c-1").found.held_out == (1 if then is BY_SHARE else 0)
    assert_fresh(federation, corrected(other(8)))


def test_a_correction_during_an_ingest_under_another_share_is_kept() -> None:
    """What is corrected while a source with old values is read stays corrected on the side where it belongs now."""
    federation = made(specification=PLAIN)
    federation.train(POINTS)

    def correct_once(notice: Notice) -> None:
        if isinstance(notice, IngestProgress) and federation.state.request("c-1") is None:
            federation.propose([other(3), other(8)], request_id="c-1")
            federation.engine.remove_points()

    federation.respecify(BY_SHARE)
    federation.listener = correct_once
    federation.train(POINTS)
    assert standing(federation, "c-1").state is RequestState.COMPLETE
    assert_fresh(federation, corrected(other(3), other(8)))


def test_erased_people_leave_nothing_of_their_corrections(federation: Federation) -> None:
    """Neither digests of old values nor drafts are left, except those of other people in the same slice."""
    federation.rectify([other(8), other(0)], request_id="c-1")
    federation.propose([other(9), other(1)], request_id="c-2", held="hold")
    federation.erase(subjects=["s4"], request_id="er-1")
    assert sum(rows.record.points for rows in federation.state.corrected) == 1
    assert sum(rows.record.points for rows in standing(federation, "c-2").drafts) == 1
    federation.train(POINTS)
    assert_fresh(federation, [point for point in corrected(other(0)) if point.subject != "s4"])


def test_a_damaged_hold_out_slice_does_not_bring_old_values_back(federation: Federation) -> None:
    """Its corrected values are lost, so the source must have them."""
    federation.rectify([other(8)], request_id="c-1")
    for part in federation.state.holdout[0].parts:
        federation.store.delete(part.key)
    assert federation.engine.audit() == {SliceId(ShardId(2), SliceIndex(1))}
    with pytest.raises(Corrupt, match="corrected by request"):
        federation.train(POINTS)
    federation.train(corrected(other(8)))
    assert_fresh(federation, corrected(other(8)))


def test_the_generation_is_measured_on_the_corrected_values() -> None:
    """The measure before the correction is kept, and the one after it is computed from the new slices."""
    federation = made(specification=BY_SHARE)
    seen = []

    def measure(state: object) -> Measures:
        seen.append(federation.state.holdout)
        return Measures(points=8, metrics={"accuracy": 1 / len(seen)}, per_class={"a": 0.5, "b": 0.5})

    federation.measure = measure
    federation.train(POINTS)
    done = federation.rectify([other(8)], request_id="c-1")
    assert seen[-1] == federation.state.holdout != seen[0]
    assert len(seen) == 2
    assert done.effect is not None
    assert done.effect.before is not None
    assert done.effect.after is not None
    assert (done.effect.before.generation, done.effect.after.generation) == (1, 1)
    assert done.effect.after.metrics["accuracy"] == 0.5
