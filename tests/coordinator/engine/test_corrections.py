"""Corrections: the same slices and constituents as a new run on the corrected data, in any order with erasures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from cluster.config.specification import FederationSpecification
from cluster.writer.drafting import request_of
from coordinator.decisions.events import ErasureAccepted
from coordinator.decisions.policy import ruling
from coordinator.engine.codec import decode_event, decode_state, encode_event, encode_state
from coordinator.engine.removal import everyone
from coordinator.engine.sweep import RESERVED_SECONDS
from coordinator.interventions import Cancel, Hold, Intervention, Release
from coordinator.ports import IngestProgress, Notice
from coordinator.requests import ErasureRequest, RequestState
from coordinator.settings import ErasureSettings
from coordinator.verification import scan_residue
from shards.routing import PartitionKey, point_digest
from storage.errors import Conflict, Corrupt, Invalid, Unavailable
from storage.objects import ObjectKey, ObjectStore
from storage.stores.memory import MemoryStore
from tests.doubles.corrected import essence
from tests.doubles.federation import (
    KEY,
    Point,
    SmallFederation,
    names_of,
    plain_conditions,
    source_of,
    specification_of,
)
from tests.doubles.workers.fake_learner import HashLearner, HashState

_STORES = count()
_SPECIFICATION = specification_of(shards=2, slices=3)
POINTS = [Point(id=f"p{n}", subject=f"s{n // 2}", label="ab"[n % 2], features=(float(n), 1.0)) for n in range(16)]


def made(
    store: ObjectStore | None = None, specification: FederationSpecification = _SPECIFICATION
) -> SmallFederation[HashState]:
    """Return a federation that holds nothing yet."""
    return SmallFederation(
        specification=specification,
        store=store or MemoryStore(f"corrections-{next(_STORES)}"),
        learners=lambda _: HashLearner(slices=3),
        conditions=lambda _: plain_conditions(_SPECIFICATION),
    )


@pytest.fixture
def federation() -> Iterator[SmallFederation[HashState]]:
    """A trained federation."""
    store = MemoryStore(f"corrections-{next(_STORES)}")
    federation = made(store)
    federation.train(POINTS)
    yield federation
    store.forget()


def other(number: int, value: float = 2.0, label: str = "a") -> Point:
    """Return a data point with other values."""
    return replace(POINTS[number], features=(float(number), value), label=label)


def corrected(*rows: Point) -> list[Point]:
    """Return the data points with these values."""
    by_id = {row.id: row for row in rows}
    return [by_id.get(point.id, point) for point in POINTS]


def assert_fresh(federation: SmallFederation[HashState], points: Sequence[Point]) -> None:
    """Check that everything is as in a new run on these data points, and that nothing is left over."""
    fresh = made()
    fresh.train(points)
    assert essence(federation.state) == essence(fresh.state)
    assert scan_residue(federation.store, federation.state).found == ()


def standing(federation: SmallFederation[HashState], request_id: str) -> ErasureRequest:
    """Return the request."""
    found = federation.state.request(request_id)
    assert found is not None
    return found


def intervene(federation: SmallFederation[HashState], request_id: str, wanted: Intervention) -> None:
    """Intervene in a request."""
    federation.engine.intervene(
        lambda state: ruling(
            state, request_id, wanted, settings=federation.specification.erasure, at=federation.engine.now()
        )
    )


def test_corrected_values_are_as_in_a_new_run(federation: SmallFederation[HashState]) -> None:
    """Labels and features change, chains before the slice stay, and the receipt says what was done."""
    before = federation.state
    request = federation.rectify([other(3), other(9, label="b")], request_id="c-1")
    assert (request.state, request.found.points, request.found.unknown) == (RequestState.COMPLETE, 2, 0)
    assert (request.kind, request.drafts, request.names) == ("rectification", (), None)
    assert_fresh(federation, corrected(other(3), other(9, label="b")))
    for shard, from_slice in request.found.from_slices.items():
        assert federation.state.shards[shard].chain[: from_slice - 1] == before.shards[shard].chain[: from_slice - 1]
    assert request.receipt is not None
    assert federation.state.generation == before.generation + 2  # quarantine, then the retrained constituents


def test_quarantine_comes_before_training(federation: SmallFederation[HashState]) -> None:
    """Once values are corrected, no constituent that has seen the old ones may answer."""
    federation.propose([other(3)], request_id="c-1")
    served = [shard.serving for shard in federation.state.shards]
    federation.engine.remove_points()
    request = standing(federation, "c-1")
    assert request.state is RequestState.QUARANTINED
    (shard,) = request.found.shards
    assert federation.state.shards[shard].serving == request.found.from_slices[shard] - 1 < served[shard]
    assert federation.state.floor == federation.state.generation


def test_an_unchanged_source_does_not_bring_old_values_back(federation: SmallFederation[HashState]) -> None:
    """The corrected values stay, and the state says of how many data points the source has old ones."""
    federation.rectify([other(3), other(9)], request_id="c-1")
    settled = essence(federation.state)
    federation.train(POINTS)
    assert essence(federation.state) == settled
    assert federation.state.data is not None
    assert federation.state.data.outdated == 2
    federation.train(corrected(other(3)))
    assert (essence(federation.state), federation.state.data.outdated) == (settled, 1)
    # Values that were never corrected are taken, as from any source that has changed.
    federation.train(corrected(other(3, 7.0), other(9)))
    assert federation.state.data.outdated == 0
    assert_fresh(federation, corrected(other(3, 7.0), other(9)))
    federation.train(POINTS)
    assert_fresh(federation, corrected(other(3, 7.0), other(9)))


def test_old_values_stay_out_when_the_data_point_is_gone(federation: SmallFederation[HashState]) -> None:
    """A source that drops a corrected data point and brings it back with old values does not get it in."""
    federation.rectify([other(3)], request_id="c-1")
    left = [point for point in POINTS if point.id != "p3"]
    federation.train(left)
    federation.train(POINTS)
    assert_fresh(federation, left)


def test_values_can_be_corrected_back(federation: SmallFederation[HashState]) -> None:
    """Then the first values are right, and the others are the old ones."""
    federation.rectify([other(3)], request_id="c-1")
    federation.rectify([POINTS[3]], request_id="c-2")
    assert_fresh(federation, POINTS)
    federation.train(POINTS)
    assert federation.state.data is not None
    assert federation.state.data.outdated == 0
    federation.train(corrected(other(3)))
    assert_fresh(federation, POINTS)


def test_what_cancels_out_needs_no_training(federation: SmallFederation[HashState]) -> None:
    """Two corrections that together change nothing are complete without a new generation."""
    before = federation.state
    federation.propose([other(3)], request_id="c-1")
    federation.propose([POINTS[3]], request_id="c-2")
    federation.engine.settle()
    assert standing(federation, "c-1").state is standing(federation, "c-2").state is RequestState.COMPLETE
    assert federation.state.generation == before.generation
    assert_fresh(federation, POINTS)


def test_what_is_so_already_or_unknown_is_refused(federation: SmallFederation[HashState]) -> None:
    """It says which of the two it is; unknown data points beside known ones are counted."""
    stranger = Point(id="new", subject="s1", label="a", features=(1.0, 1.0))
    same = federation.rectify([POINTS[3]], request_id="c-1")
    unknown = federation.rectify([stranger], request_id="c-2")
    both = federation.rectify([stranger, other(5)], request_id="c-3")
    assert (same.state, same.found.unknown) == (RequestState.REFUSED, 0)
    assert "have these values already" in (same.reason or "")
    assert (unknown.state, unknown.found.unknown) == (RequestState.REFUSED, 1)
    assert "are not here" in (unknown.reason or "")
    assert (both.state, both.found.points, both.found.unknown) == (RequestState.COMPLETE, 1, 1)
    assert same.receipt is None
    assert_fresh(federation, corrected(other(5)))


def test_the_erased_are_unknown(federation: SmallFederation[HashState]) -> None:
    """Nothing of theirs is written, and nothing comes back."""
    federation.erase(subjects=["s1"], request_id="er-1")
    request = federation.rectify([other(2), other(5)], request_id="c-1")
    assert (request.found.points, request.found.unknown) == (1, 1)
    assert_fresh(federation, [point for point in corrected(other(5)) if point.subject != "s1"])


def test_another_subject_is_refused(federation: SmallFederation[HashState]) -> None:
    """The error names the row, and how such a change is made."""
    with pytest.raises(Invalid, match="another subject") as caught:
        federation.propose([other(2), replace(other(3), subject="s7")], request_id="c-1")
    assert caught.value.context["row"] == 2
    assert "sisa erase --id" in caught.value.remedy
    assert scan_residue(federation.store, federation.state).found == ()


def test_an_id_that_occurs_twice_is_refused(federation: SmallFederation[HashState]) -> None:
    """It is not clear which values are right."""
    with pytest.raises(Invalid, match="same id") as caught:
        federation.propose([other(2), other(3), other(2, 5.0)], request_id="c-1")
    assert (caught.value.context["row"], caught.value.context["other_row"]) == (1, 3)


def test_a_request_is_the_same_with_the_same_rows(federation: SmallFederation[HashState]) -> None:
    """In any order, also after it ended; with other rows the id is a conflict (D4)."""
    first = federation.rectify([other(3), other(5)], request_id="c-1")
    again = federation.propose([other(5), other(3)], request_id="c-1")
    assert again == first
    with pytest.raises(Conflict, match="used before"):
        federation.propose([other(5), other(3, 9.0)], request_id="c-1")
    with pytest.raises(Conflict, match="used before"):
        federation.accept(ids=["p3", "p5"], request_id="c-1")
    federation.engine.settle()
    assert scan_residue(federation.store, federation.state).found == ()


def test_old_values_are_gone_from_the_store(federation: SmallFederation[HashState]) -> None:
    """No object that held old values or drafts is left, and the receipt lists them."""
    (place,) = {POINTS[3].slice_id(2, 3)}
    old = {part.key for part in federation.state.slice(place).parts}
    federation.propose([other(3)], request_id="c-1")
    drafts = {part.key for rows in standing(federation, "c-1").drafts for part in rows.record.parts}
    federation.engine.settle()
    assert drafts
    assert not (old | drafts) & {info.key for info in federation.store.list("")}


def test_an_erasure_takes_people_out_of_paused_corrections(federation: SmallFederation[HashState]) -> None:
    """Their new values are destroyed at once, and the rest is corrected after the release."""
    federation.propose([other(2), other(5)], request_id="c-1", held="hold")
    federation.propose([other(3)], request_id="c-2", held="hold")
    federation.erase(subjects=["s1"], request_id="er-1")
    assert sum(rows.record.points for rows in standing(federation, "c-1").drafts) == 1
    assert standing(federation, "c-2").drafts == ()
    assert scan_residue(federation.store, federation.state).found == ()
    for request_id in ("c-1", "c-2"):
        intervene(federation, request_id, Release())
    federation.engine.settle()
    assert standing(federation, "c-2").state is RequestState.REFUSED
    assert_fresh(federation, [point for point in corrected(other(5)) if point.subject != "s1"])


def test_an_erasure_of_nobody_here_takes_drafts_along(federation: SmallFederation[HashState]) -> None:
    """A source has dropped the person; new values in a paused correction go when the person is to be erased."""
    federation.propose([other(2)], request_id="c-1", held="hold")
    federation.train([point for point in POINTS if point.subject != "s1"])
    assert federation.erase(subjects=["s1"], request_id="er-1").state is RequestState.REFUSED
    assert standing(federation, "c-1").drafts == ()


def test_a_later_correction_wins_over_a_paused_one(federation: SmallFederation[HashState]) -> None:
    """Regardless of when each is released, the values that were given last stay."""
    federation.propose([other(2, 8.0), other(5, 8.0)], request_id="c-1", held="hold")
    federation.propose([other(2, 9.0), other(7, 9.0)], request_id="c-2", held="hold")
    federation.rectify([other(5, 3.0)], request_id="c-3")
    for request_id in ("c-2", "c-1"):
        intervene(federation, request_id, Release())
        federation.engine.settle()
    assert_fresh(federation, corrected(other(2, 9.0), other(7, 9.0), other(5, 3.0)))
    assert standing(federation, "c-1").state is RequestState.REFUSED


def test_corrections_and_erasures_share_a_retrain(federation: SmallFederation[HashState]) -> None:
    """With ``until_due`` both are quarantined at once, and retrained together when they are due."""
    engine = federation.engine
    engine._tools = replace(engine._tools, erasure=ErasureSettings(batch="until_due"))
    federation.propose([other(3)], request_id="c-1")
    federation.accept(subjects=["s4"], request_id="er-1")
    trained = federation.pool.slices_learned
    assert federation.engine.settle(hurry=False) is not None
    assert {standing(federation, each).state for each in ("c-1", "er-1")} == {RequestState.QUARANTINED}
    assert federation.pool.slices_learned == trained
    federation.propose([other(5)], request_id="c-2")
    federation.engine.settle()
    assert_fresh(federation, [point for point in corrected(other(3), other(5)) if point.subject != "s4"])
    shared = {standing(federation, each).times["published"] for each in ("c-1", "er-1", "c-2")}
    assert len(shared) == 1


def test_a_cancelled_correction_leaves_nothing(federation: SmallFederation[HashState]) -> None:
    """Its drafts are purged, and it can no longer be paused or withdrawn once it is carried out."""
    federation.propose([other(2)], request_id="c-1", held="hold")
    intervene(federation, "c-1", Cancel(reason="a mistake"))
    federation.engine.settle()
    assert standing(federation, "c-1").state is RequestState.CANCELLED
    assert_fresh(federation, POINTS)
    federation.rectify([other(2)], request_id="c-2")
    with pytest.raises(Conflict, match="is complete already"):
        intervene(federation, "c-2", Hold(reason="late"))


def test_values_read_under_other_settings_are_refused(federation: SmallFederation[HashState]) -> None:
    """A paused correction whose numbers have another meaning by now changes nothing, and says so."""
    federation.propose([other(2)], request_id="c-1", held="hold")
    specification = specification_of(shards=2, slices=3, features=("x1",))
    federation.respecify(specification)
    federation.conditions = lambda _: plain_conditions(specification)
    federation.train(POINTS)
    intervene(federation, "c-1", Release())
    federation.engine.settle()
    request = standing(federation, "c-1")
    assert (request.state, request.found.unknown) == (RequestState.REFUSED, 1)
    assert "submit it again" in (request.reason or "")


def test_everyone_includes_those_whose_values_a_paused_correction_alone_has(
    federation: SmallFederation[HashState],
) -> None:
    """The source dropped their data points; who erases everybody leaves no values of theirs."""
    federation.propose([other(2), other(3)], request_id="c-1", held="to be looked at")
    federation.rectify([other(4), other(5)], request_id="c-2")
    federation.train([point for point in POINTS if point.subject not in {"s1", "s2"}])
    assert everyone(federation.store, federation.state) == names_of({point.subject for point in POINTS}, ())
    federation.erase(subjects=[point.subject for point in POINTS], request_id="e-1")
    assert (standing(federation, "c-1").drafts, federation.state.corrected) == ((), ())


def test_other_settings_need_a_corrected_source(federation: SmallFederation[HashState]) -> None:
    """Old values cannot be recognised when they are read in another way, so the source must have the new ones first."""
    federation.rectify([other(3)], request_id="c-1")
    specification = specification_of(shards=2, slices=3, features=("x1",))

    def respecify() -> None:
        federation.respecify(specification)
        federation.conditions = lambda _: plain_conditions(specification)

    respecify()
    with pytest.raises(Conflict, match="corrected by request"):
        federation.train(POINTS)
    federation.respecify(_SPECIFICATION)
    federation.train(POINTS)
    respecify()
    with pytest.raises(Conflict, match="corrected by request"):
        federation.train(corrected(other(3)))
    federation.respecify(_SPECIFICATION)
    federation.train(corrected(other(3)))
    respecify()
    federation.train(corrected(other(3)))
    assert federation.state.corrected == ()
    assert scan_residue(federation.store, federation.state).found == ()


def test_a_correction_during_an_ingest_is_kept(federation: SmallFederation[HashState]) -> None:
    """What is corrected while a source with old values is read stays corrected."""
    read: list[Notice] = []

    def correct_once(notice: Notice) -> None:
        if isinstance(notice, IngestProgress) and not read:
            read.append(notice)
            federation.propose([other(3)], request_id="c-1")
            federation.engine.remove_points()

    federation.restart()
    federation.listener = correct_once
    federation.train([*POINTS, Point(id="q", subject="t", label="a", features=(3.0, 3.0))])
    assert read
    assert_fresh(federation, [*corrected(other(3)), Point(id="q", subject="t", label="a", features=(3.0, 3.0))])


def test_a_correction_during_an_ingest_under_other_settings_is_not_undone(
    federation: SmallFederation[HashState],
) -> None:
    """Old values could not be recognised: what was read is given up."""
    specification = specification_of(shards=2, slices=3, features=("x1",))

    def correct_once(notice: Notice) -> None:
        if isinstance(notice, IngestProgress) and federation.state.request("c-1") is None:
            federation.propose([other(n) for n in range(16)], request_id="c-1")
            federation.engine.remove_points()

    federation.restart()
    federation.listener = correct_once
    with pytest.raises(Conflict, match="were corrected"):
        federation.engine.ingest(source_of(POINTS), specification.data, specification.partition, KEY)
    federation.engine.settle()
    assert standing(federation, "c-1").state is RequestState.COMPLETE
    assert_fresh(federation, [other(n) for n in range(16)])


def test_damaged_drafts_stop_no_erasure(federation: SmallFederation[HashState]) -> None:
    """Other requests are carried out, the failure is on record, and the request can be withdrawn."""
    federation.propose([other(3)], request_id="c-1")
    federation.accept(subjects=["s4"], request_id="er-1")
    ((rows),) = standing(federation, "c-1").drafts
    federation.store.delete(rows.record.parts[0].key)
    with pytest.raises(Corrupt, match="new values"):
        federation.engine.settle()
    assert standing(federation, "er-1").state is RequestState.COMPLETE
    assert standing(federation, "c-1").shown is RequestState.FAILED
    intervene(federation, "c-1", Cancel(reason="damaged"))
    federation.engine.settle()
    assert_fresh(federation, [point for point in POINTS if point.subject != "s4"])


def test_damaged_drafts_keep_nothing_of_the_erased(federation: SmallFederation[HashState]) -> None:
    """The intact part of a paused correction is searched, too; the request stays one that cannot be carried out."""
    held = federation.propose([other(2), other(5)], request_id="c-1", held="hold")
    erased, damaged = sorted(held.drafts, key=lambda rows: rows.place != POINTS[2].slice_id(2, 3))
    federation.store.delete(damaged.record.parts[0].key)
    assert federation.erase(subjects=["s1"], request_id="er-1").state is RequestState.COMPLETE
    assert [rows.place for rows in standing(federation, "c-1").drafts] == [damaged.place]
    assert not {part.key for part in erased.record.parts} & {info.key for info in federation.store.list("")}
    intervene(federation, "c-1", Release())
    with pytest.raises(Corrupt, match="new values"):
        federation.engine.settle()
    intervene(federation, "c-1", Cancel(reason="damaged"))
    federation.engine.settle()
    assert_fresh(federation, [point for point in POINTS if point.subject != "s1"])


def test_a_damaged_slice_does_not_bring_old_values_back(federation: SmallFederation[HashState]) -> None:
    """Its corrected values are lost, so the source must have them."""
    federation.rectify([other(3)], request_id="c-1")
    place = POINTS[3].slice_id(2, 3)
    for part in federation.state.slice(place).parts:
        federation.store.delete(part.key)
    with pytest.raises(Corrupt, match="corrected by request"):
        federation.train(POINTS)
    federation.train(corrected(other(3)))
    assert_fresh(federation, corrected(other(3)))


def test_drafts_are_swept_unless_they_are_reserved(federation: SmallFederation[HashState]) -> None:
    """A client that dies between drafts and request leaves nothing; one that is late has to submit again."""
    rows = federation.rows(source_of([other(3)]))
    name = federation.engine.reserve()
    given, correction = rows.draft(name)
    keys = {part.key for each in correction.drafts for part in each.record.parts}
    request = request_of(_SPECIFICATION, given.names, "c-1", federation.clock.now(), correction=correction)
    federation.erase(subjects=["s4"], request_id="er-1")  # sweeps
    assert keys <= {info.key for info in federation.store.list("")}
    federation.clock.advance_to(federation.clock.now() + timedelta(seconds=RESERVED_SECONDS + 1))
    with pytest.raises(Unavailable, match="no longer in the store"):
        federation.engine.accept(request, given.names)
    federation.engine.give_back(name)
    federation.engine.settle()
    assert not keys & {info.key for info in federation.store.list("")}
    again = federation.engine.reserve()
    later = replace(rows, state=federation.state)
    later.discard(later.draft(again)[1])
    with pytest.raises(Unavailable, match="no longer in the store"):
        federation.engine.accept(request, given.names)


def test_drafts_of_a_client_that_died_are_swept_once_their_name_expires(federation: SmallFederation[HashState]) -> None:
    """Nobody gives the name back or reserves another one; the engine says when it has to sweep."""
    rows = federation.rows(source_of([other(2)]))
    _, correction = rows.draft(federation.engine.reserve())
    keys = {part.key for each in correction.drafts for part in each.record.parts}
    expiry = federation.engine.settle(hurry=False)
    assert expiry is not None
    assert keys <= {info.key for info in federation.store.list("")}
    federation.clock.advance_to(expiry)
    assert federation.engine.settle(hurry=False) is None
    assert not keys & {info.key for info in federation.store.list("")}


def test_an_erasure_spares_no_drafts_under_an_expired_name(federation: SmallFederation[HashState]) -> None:
    """A complete erasure leaves no new values of the person, and its receipt counts what is left."""
    rows = federation.rows(source_of([other(2)]))
    rows.draft(federation.engine.reserve())
    federation.clock.advance_to(federation.clock.now() + timedelta(seconds=RESERVED_SECONDS + 1))
    assert federation.erase(subjects=["s1"], request_id="er-1").state is RequestState.COMPLETE
    assert scan_residue(federation.store, federation.state).found == ()


def test_rows_of_erased_people_are_not_written(
    federation: SmallFederation[HashState], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not stored before the request is accepted, nor in a draft that is made smaller afterwards."""
    federation.erase(subjects=["s1"], request_id="er-1")
    written = []
    put = MemoryStore.put_if_absent

    def noted(store: MemoryStore, key: ObjectKey, payload: bytes) -> object:
        written.append(key)
        return put(store, key, payload)

    monkeypatch.setattr(MemoryStore, "put_if_absent", noted)
    given, correction = federation.rows(source_of([other(2)])).draft(federation.engine.reserve())
    assert (len(given.unknown), correction.drafts, written) == (1, (), [])


def test_people_erased_while_a_correction_is_drafted_stay_out(federation: SmallFederation[HashState]) -> None:
    """Their rows leave the drafts before the request is acknowledged."""
    rows = federation.rows(source_of([other(2), other(5)]))
    name = federation.engine.reserve()
    given, correction = rows.draft(name)
    federation.erase(subjects=["s1"], request_id="er-1")
    held = request_of(_SPECIFICATION, given.names, "c-1", federation.clock.now(), held="hold", correction=correction)
    request = federation.engine.accept(replace(held, body=given.body), given.names)
    federation.engine.give_back(name)
    assert sum(each.record.points for each in request.drafts) == 1
    federation.engine.settle()
    assert scan_residue(federation.store, federation.state).found == ()


def test_the_request_s_body_tells_nothing_without_the_key(federation: SmallFederation[HashState]) -> None:
    """Two federations with different keys give the same rows different bodies."""
    bodies = set()
    for key in (KEY, PartitionKey(bytes(32))):
        rows = federation.rows(source_of([other(3)]), key)
        bodies.add(rows.read().body)
    assert len(bodies) == 2
    assert point_digest(KEY, "p3").hex() not in "".join(bodies)


def test_states_and_events_with_corrections_are_stored(federation: SmallFederation[HashState]) -> None:
    """They are read as they were written, in a format that earlier releases refuse."""
    federation.rectify([other(3)], request_id="c-1")
    federation.propose([other(5)], request_id="c-2", held="hold")
    state = federation.state
    record = encode_state(state)
    assert decode_state(record) == state
    assert record["format_version"] == 5
    event = ErasureAccepted(request=standing(federation, "c-2"))
    written = encode_event(event)
    assert decode_event(written) == event
    assert written["format_version"] == 5


def test_the_rows_are_read_once(federation: SmallFederation[HashState]) -> None:
    """A file that changes between two readings would put other values into the store than the request's digest has."""
    federation.erase(subjects=["s4"], request_id="er-1")
    source, readings = (
        source_of([other(3), other(5), other(8), Point(id="new", subject="s1", label="a", features=(1.0, 1.0))]),
        count(),
    )

    class Once:
        """Counts how often the data points are read."""

        def __getattr__(self, name: str) -> object:
            return getattr(source, name)

        def batches(self, *arguments: Any) -> object:
            next(readings)
            return source.batches(*arguments)

    wrapped: Any = Once()
    store = federation.store
    rows = federation.rows(wrapped)
    given, correction = rows.draft(federation.engine.reserve())
    assert next(readings) == 1
    assert (len(given.names), len(given.unknown)) == (4, 2)
    assert sum(each.record.points for each in correction.drafts) == 2
    drafts = {part.key for each in correction.drafts for part in each.record.parts}
    slices = {part.key for _, record in federation.state.slices() for part in record.parts}
    kept = {part.key for rows in federation.state.corrected for part in rows.record.parts}
    assert {info.key for info in store.list("shards/") if "/slices/" in info.key} == slices | drafts | kept
