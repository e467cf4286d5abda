"""Batches: requests share a retrain from the earliest slice, in time, and at most at the cost of separate retrains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.decisions.batching import AT_ONCE, RequestBatch, plan_batch, retrain_start
from coordinator.decisions.decide import decide
from coordinator.decisions.events import (
    CheckpointLost,
    CheckpointWritten,
    DueExtended,
    ErasureAccepted,
    Ingested,
    PointsRemoved,
    RequestReleased,
    TrainingConfigured,
)
from coordinator.decisions.plan import plan_retrain
from coordinator.requests import Cost, ErasureRequest, RequestState
from coordinator.settings import BatchUntil, ErasureSettings
from coordinator.state import FederationState
from shards.routing import SliceId
from shards.specification import ShardId, SliceIndex
from tests.coordinator.decisions.test_decide import AT, learn, learn_all, place, removal
from tests.coordinator.records import DATA, checkpoint_of, configuration, federation, paused, request_of, slice_of

EPOCHS = 6
RECEIVED = datetime(2026, 1, 1, tzinfo=UTC)
DUE = datetime(2026, 1, 31, tzinfo=UTC)
WINDOW = ErasureSettings(batch_window_seconds=2.0)
UNTIL_DUE = ErasureSettings(batch="until_due", lead_days=3.0)


def configured(state: FederationState, number: int = 0) -> FederationState:
    """Return the state after training was requested, with e'."""
    settings = {"training": {"epochs": EPOCHS}}
    return decide(state, TrainingConfigured(settings=settings, configuration=configuration(number)))[0]


def trained(*shards: tuple[int, ...]) -> FederationState:
    """Return a trained federation whose shards have slices of these sizes."""
    return learn_all(configured(federation(*shards)))


def arrived(state: FederationState, request: ErasureRequest) -> FederationState:
    """Return the state with the request."""
    return decide(state, ErasureAccepted(request=request))[0]


def erased(state: FederationState, *places: SliceId, request_id: str = "er-1") -> FederationState:
    """Return the state after a request has taken one point out of each of these slices."""
    if state.request(request_id) is None:
        state = arrived(state, request_of(request_id))
    event: PointsRemoved = removal(state, *places, request_id=request_id)
    return decide(state, replace(event, expected=plan_retrain(state, event.removed, EPOCHS).expected))[0]


def alone(state: FederationState, request: ErasureRequest) -> RequestBatch:
    """Return the batch that the request would have alone."""
    return plan_batch(replace(state, requests=(request,)), EPOCHS)


def only(state: FederationState) -> ErasureRequest:
    """Return the state's one request."""
    (request,) = state.requests
    return request


@st.composite
def batches(draw: st.DrawFn) -> FederationState:
    """Return a federation after up to five requests, each with points in up to three slices, were quarantined."""
    slices = draw(st.integers(1, 4))
    sizes = draw(st.lists(st.tuples(*[st.integers(1, 6)] * slices), min_size=1, max_size=4))
    state = trained(*sizes)
    places = [place(shard, slice_) for shard in range(len(sizes)) for slice_ in range(1, slices + 1)]
    for number in range(draw(st.integers(1, 5))):
        left = [where for where in places if state.slice(where).points]
        if not left:
            break
        chosen = draw(st.lists(st.sampled_from(left), min_size=1, max_size=3, unique=True))
        days = draw(st.integers(1, 60))
        request = replace(request_of(f"er-{number}"), due_at=(RECEIVED + timedelta(days=days)).isoformat())
        state = erased(arrived(state, request), *chosen, request_id=request.request_id)
    return state


@given(state=batches())
def test_a_batch_touches_affected_shards_from_their_earliest_slice(state: FederationState) -> None:
    """Only shards that held data points of the requests are in it; each begins at its earliest request's slice."""
    batch = plan_batch(state, EPOCHS)
    assert batch.requests == tuple(request.request_id for request in state.requests)
    assert [each.shard for each in batch.shards] == sorted(
        {s for request in state.requests for s in request.found.shards}
    )
    for each in batch.shards:
        own = [
            request.found.from_slices[each.shard] for request in state.requests if each.shard in request.found.shards
        ]
        assert each.from_slice == min(own) == len(state.shards[each.shard].chain) + 1
    untouched = {ShardId(number) for number in range(len(state.shards))} - {each.shard for each in batch.shards}
    assert untouched.isdisjoint(state.untrained())


@given(state=batches())
def test_a_batch_costs_no_more_than_its_requests_alone(state: FederationState) -> None:
    """Shared work is done once: compared with the same remaining points, and with each request's expectation."""
    batch = plan_batch(state, EPOCHS).expected
    singly = [alone(state, request).expected for request in state.requests]
    foretold = [request.found.expected for request in state.requests if request.found.expected]
    assert len(foretold) == len(singly)
    assert max(each.point_epochs for each in singly) <= batch.point_epochs <= sum(each.point_epochs for each in singly)
    assert batch.point_epochs <= sum(each.point_epochs for each in foretold)
    # One pace for all where checkpoints are left; else each request has only its own expectation to go by.
    compared = singly if any(shard.chain for shard in state.shards) else foretold
    assert batch.seconds <= sum(each.seconds for each in compared) + 0.001 * len(state.shards)


@given(
    state=batches(),
    policy=st.sampled_from(["window", "until_due"]),
    seconds=st.floats(0, 86_400),
    lead=st.floats(0, 30),
    steps=st.integers(0, 3),
)
def test_retraining_never_starts_after_the_earliest_due_date(
    state: FederationState, policy: BatchUntil, seconds: float, lead: float, steps: int
) -> None:
    """Under every policy the batch starts by the earliest due date; once begun, it goes on without waiting."""
    settings = ErasureSettings(batch=policy, batch_window_seconds=seconds, lead_days=lead)
    start = retrain_start(state, settings)
    assert start is not None
    assert AT_ONCE < start <= min(datetime.fromisoformat(request.due_at) for request in state.requests)
    shard = plan_batch(state, EPOCHS).shards[0].shard
    left = len(state.shards[shard].slices) - len(state.shards[shard].chain)
    begun = learn(state, shard, min(steps, left))
    if begun.published:
        assert retrain_start(begun, settings) is None
    elif begun is not state:
        assert retrain_start(begun, settings) == AT_ONCE


@given(state=batches())
def test_what_was_spent_is_what_the_batch_was_expected_to_cost(state: FederationState) -> None:
    """Without new requests, a retrain costs what its plan says, and every request is charged its own part in full."""
    singly = [alone(state, request).expected.point_epochs for request in state.requests]
    done = learn_all(state)
    assert [request.state for request in done.requests] == [RequestState.PUBLISHED] * len(done.requests)
    assert [request.spent.point_epochs for request in done.requests] == singly
    assert not done.at_once


def test_nothing_to_train_has_no_start() -> None:
    """Neither a trained federation nor an unconfigured one waits for anything."""
    for state in (trained((3, 3)), federation((3, 3)), replace(configured(federation((3, 3))), data=None)):
        assert retrain_start(state, WINDOW) is None
        assert plan_batch(state, EPOCHS) == RequestBatch(requests=(), shards=())
    assert plan_batch(trained((3, 3)), EPOCHS).expected == Cost()


def test_a_window_counts_from_the_first_request() -> None:
    """Requests that join a batch do not delay its start."""
    state = erased(trained((3, 3), (3, 3)), place(0, 1))
    assert retrain_start(state, WINDOW) == RECEIVED + timedelta(seconds=2)
    later = replace(request_of("er-2"), received_at="2026-01-01T00:00:01+00:00")
    joined = erased(arrived(state, later), place(1, 2), request_id="er-2")
    assert retrain_start(joined, WINDOW) == RECEIVED + timedelta(seconds=2)
    assert plan_batch(joined, EPOCHS).requests == ("er-1", "er-2")


def test_a_request_that_only_waits_for_its_removal_is_in_no_batch() -> None:
    """A request that is only accepted does not start a retrain."""
    state = arrived(erased(trained((3, 3)), place(0, 1)), request_of("er-2"))
    assert plan_batch(state, EPOCHS).requests == ("er-1",)


def test_until_due_leaves_room_for_the_work() -> None:
    """Retraining starts the lead and the expected seconds before the earliest due date."""
    state = erased(trained((3, 3), (3, 3)), place(0, 1))
    expected = plan_batch(state, EPOCHS).expected
    assert expected.seconds > 0
    assert retrain_start(state, UNTIL_DUE) == DUE - timedelta(days=3, seconds=expected.seconds)
    sooner = replace(request_of("er-2"), due_at="2026-01-20T00:00:00+00:00")
    joined = erased(arrived(state, sooner), place(0, 2), request_id="er-2")
    fewer = plan_batch(joined, EPOCHS).expected
    assert fewer.seconds < expected.seconds
    assert retrain_start(joined, UNTIL_DUE) == DUE - timedelta(days=11 + 3, seconds=fewer.seconds)


def test_an_extension_lets_the_batch_wait() -> None:
    """An extension of the earliest request gives other requests more time to join."""
    state = erased(trained((3, 3), (3, 3)), place(0, 1))
    before = retrain_start(state, UNTIL_DUE)
    later = DueExtended(request_id="er-1", due_at="2026-02-10T00:00:00+00:00", reason="many", at=AT)
    after = retrain_start(decide(state, later)[0], UNTIL_DUE)
    assert before is not None
    assert after == before + timedelta(days=10)


def test_a_pause_does_not_count_as_waiting_for_others() -> None:
    """The window of a request that was paused begins with its release."""
    state = arrived(trained((3, 3)), paused(request_of("er-1")))
    released = "2026-01-05T00:00:00+00:00"
    state = erased(decide(state, RequestReleased(request_id="er-1", at=released))[0], place(0, 1))
    assert retrain_start(state, WINDOW) == datetime.fromisoformat(released) + timedelta(seconds=2)


def test_a_first_training_does_not_wait() -> None:
    """A retrain in progress does not wait, not even for a request that arrives meanwhile and affects the next slice."""
    state = learn(configured(federation((3, 3))), 0)
    assert retrain_start(state, UNTIL_DUE) == AT_ONCE
    assert retrain_start(erased(state, place(0, 2)), UNTIL_DUE) == AT_ONCE


def quarantined() -> FederationState:
    """A batch that waits: one request, into slice 2 of shard 0."""
    return erased(trained((3, 3, 3), (3, 3, 3)), place(0, 2))


def other_settings() -> FederationState:
    """Another configuration while it waits."""
    return configured(quarantined(), 1)


def changed_data() -> FederationState:
    """Another content of a slice behind the cut."""
    return decide(quarantined(), Ingested(data=DATA, slices={place(0, 3): slice_of([900])}))[0]


def lost_elsewhere() -> FederationState:
    """A damaged checkpoint in a shard that the request does not concern."""
    return decide(quarantined(), CheckpointLost(shard=ShardId(1), slice=SliceIndex(3)))[0]


def lost_before() -> FederationState:
    """A damaged checkpoint of the request's shard, before its slice."""
    return decide(quarantined(), CheckpointLost(shard=ShardId(0), slice=SliceIndex(1)))[0]


@pytest.mark.parametrize("state", [other_settings, changed_data, lost_elsewhere, lost_before])
def test_what_is_no_erasure_does_not_wait(state: Callable[[], FederationState]) -> None:
    """Training for any other reason starts at once and includes the batch; the next batch waits again."""
    assert quarantined().at_once is False
    found = state()
    assert retrain_start(found, UNTIL_DUE) == retrain_start(found, WINDOW) == AT_ONCE
    done = learn_all(found)
    assert done.published
    again = erased(done, place(1, 1), request_id="er-2")
    assert retrain_start(again, WINDOW) == RECEIVED + timedelta(seconds=2)


def test_asking_again_for_the_same_training_hastens_nothing() -> None:
    """Reading the same data and settings once more leaves the batch waiting."""
    state = quarantined()
    same = {place(s, r): state.slice(place(s, r)) for s in range(2) for r in (1, 2, 3)}
    assert configured(decide(state, Ingested(data=DATA, slices=same))[0]) == state


def test_requests_join_a_retrain_that_has_begun() -> None:
    """A request for a slice not yet reached joins the retrain, one for an earlier slice restarts it (D7)."""
    begun = learn(erased(trained((3, 3, 3)), place(0, 1)), 0)
    assert only(begun).state is RequestState.RETRAINING
    folded = erased(begun, place(0, 3), request_id="er-2")
    superseded = erased(begun, place(0, 1), request_id="er-3")
    assert (len(folded.shards[0].chain), len(superseded.shards[0].chain)) == (1, 0)
    for state in (folded, superseded):
        assert retrain_start(state, UNTIL_DUE) == AT_ONCE
        assert len(plan_batch(state, EPOCHS).requests) == 2
    # Both of the second attempt's checkpoints of slice 1 count for the first request, although one was discarded.
    first = [each.spent.point_epochs for each in (only(begun), *learn_all(superseded).requests)]
    alone_again = alone(superseded, superseded.requests[0]).expected.point_epochs
    assert first == [first[0], first[0] + alone_again, alone_again]


def test_shared_work_counts_in_full_and_other_work_not_at_all() -> None:
    """A request pays for its own shards from its own slice on, regardless of other requests, and for no other shard."""
    state = erased(trained((4, 5), (3, 3)), place(0, 2))
    state = erased(state, place(0, 1), place(1, 2), request_id="er-2")
    done = learn_all(state)
    second_slice = 4 * (3 + 4)  # slice_epochs(6, 2) == (4, 4)
    assert done.requests[0].spent == Cost(point_epochs=second_slice, seconds=1.0)
    assert done.requests[1].spent == Cost(point_epochs=4 * 3 + second_slice + 4 * (3 + 2), seconds=3.0)


def test_seconds_are_spent_even_where_epochs_are_not_known() -> None:
    """Settings that do not say how long training takes leave the point-epochs at 0."""
    state = learn_all(decide(federation((2, 2)), TrainingConfigured(settings={}, configuration=configuration()))[0])
    done = learn_all(erased(state, place(0, 2)))
    assert only(done).spent == Cost(point_epochs=0, seconds=1.0)
    start = retrain_start(erased(state, place(0, 2)), UNTIL_DUE)
    assert start == DUE - timedelta(days=3)


def test_a_repeated_checkpoint_costs_nothing() -> None:
    """Work that is reported twice is counted once."""
    state = erased(trained((3, 3)), place(0, 1))
    event = CheckpointWritten(shard=ShardId(0), checkpoint=checkpoint_of(state.lineages(ShardId(0))[0]), at=AT)
    once = decide(state, event)[0]
    assert decide(once, event)[0] == once
    assert only(once).spent.seconds == 1.0


def test_seconds_come_from_what_is_left_or_from_what_was_expected() -> None:
    """The pace comes from the remaining checkpoints, without any from the expectations; without those it is unknown."""
    state = erased(trained((4, 4), (4, 4)), place(0, 1))
    # 2 s for 4·4 + 4·8 point-epochs in shard 1; shard 0 has 4·3 + 4·7 to do.
    assert plan_batch(state, EPOCHS).expected == Cost(point_epochs=40, seconds=round(40 * 2 / 48, 3))
    bare = erased(trained((4, 4)), place(0, 1))
    assert plan_batch(bare, EPOCHS).expected == only(bare).found.expected == Cost(point_epochs=40, seconds=2.0)
    unknown = replace(bare, requests=(replace(only(bare), found=replace(only(bare).found, expected=None)),))
    assert plan_batch(unknown, EPOCHS).expected == Cost(point_epochs=40, seconds=0.0)
