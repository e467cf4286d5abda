"""Measures on hold-out points: of each generation, before and after each erasure."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from coordinator.decisions import ended
from coordinator.effects import ErasureEffect, HoldoutMeasure
from coordinator.engine.codec import decode_state, encode_state
from coordinator.engine.ledger import read_state
from coordinator.requests import ErasureRequest, RequestState
from coordinator.settings import ErasureSettings
from coordinator.state import FederationState
from coordinator.status import describe_federation
from shards.measures import Measures
from shards.slices.held_out import labelled_batches
from storage.errors import Invalid, Unavailable
from tests.coordinator.engine.test_holdout import BY_SHARE, HELD, HELD_OUT, PLAIN, POINTS, Federation, federation_of
from tests.doubles.stores.faulty_store import Crash

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Judge:
    """Measures what is held out, without a model: the share of a class falls with the generation."""

    federation: Federation
    measured: list[tuple[int, int]] = field(default_factory=list)
    """Generation and points of each call."""
    error: BaseException | None = None
    meanwhile: Callable[[], object] = lambda: None

    def __call__(self, state: FederationState) -> Measures:
        """Read the hold-out points of the state."""
        points = sum(len(each.features_NF) for each in labelled_batches(self.federation.store, state.holdout, 1.0))
        self.measured.append((state.generation, points))
        self.meanwhile()
        if self.error is not None:
            raise self.error
        share = 1.0 - state.generation / 10
        return Measures(points=points, metrics={"accuracy": share}, per_class={"a": share, "b": None})


@pytest.fixture
def judge() -> Judge:
    """The judge of a trained federation with a share of hold-out points."""
    federation = federation_of(BY_SHARE)
    made = Judge(federation)
    federation.measure = made
    federation.train(POINTS)
    return made


def _effect(federation: Federation, request_id: str) -> ErasureEffect:
    request = federation.state.request(request_id)
    assert request is not None
    assert request.effect is not None
    return request.effect


def test_each_generation_is_measured_once(judge: Judge) -> None:
    """After the training, and after an erasure; nothing is measured again without a change."""
    federation, held = judge.federation, len(HELD_OUT)
    assert judge.measured == [(1, held)]
    federation.train()
    federation.erase(subjects=["s9"], request_id="er-1")
    federation.engine.settle()
    assert judge.measured == [(1, held), (3, held)]
    measure = federation.state.measure
    assert measure is not None
    assert (measure.generation, measure.metrics, measure.per_class) == (3, {"accuracy": 0.7}, {"a": 0.7, "b": None})
    assert federation.state.is_measured


def test_a_generation_in_quarantine_is_not_measured(judge: Judge) -> None:
    """Status says that the last measure is of an earlier generation, until that without the points is measured."""
    federation = judge.federation
    assert describe_federation(federation.state, "here", NOW).is_measured
    federation.accept(subjects=["s9"], request_id="er-1")
    federation.engine.remove_points()
    measure = federation.state.measure
    assert measure is not None
    assert (measure.generation, federation.state.generation) == (1, 2)
    assert not describe_federation(federation.state, "here", NOW).is_measured
    federation.engine.settle(hurry=True)
    assert describe_federation(federation.state, "here", NOW).is_measured


def test_a_request_has_the_measures_before_and_after(judge: Judge) -> None:
    """Before: the last measure when its points were removed. After: that of the generation without them."""
    federation = judge.federation
    federation.erase(subjects=["s9"], request_id="er-1")
    effect = _effect(federation, "er-1")
    assert effect.before is not None
    assert effect.after is not None
    assert (effect.before.generation, effect.after.generation, effect.margin) == (1, 3, 0.05)
    assert effect.alarms == ("a",)
    assert decode_state(encode_state(federation.state)) == federation.state


def test_erased_hold_out_points_are_measured_no_more(judge: Judge) -> None:
    """The generation stays, and what is left is measured."""
    federation, held = judge.federation, len(HELD_OUT)
    federation.erase(subjects=["s4"], request_id="er-1")
    assert judge.measured == [(1, held), (1, held - 2)]
    effect = _effect(federation, "er-1")
    assert effect.before is not None
    assert effect.after is not None
    assert (effect.before.points, effect.after.points, effect.alarms) == (held, held - 2, ())


def test_no_measure_outlives_the_last_hold_out_point(judge: Judge) -> None:
    """The state has none on people who were erased; the request has the one before."""
    federation = judge.federation
    federation.erase(subjects=HELD, request_id="er-1")
    assert (federation.state.held_out, federation.state.measure, federation.state.is_measured) == (0, None, False)
    assert _effect(federation, "er-1").before is not None


def test_a_store_without_hold_out_points_has_the_older_format_again(judge: Judge) -> None:
    """Once the setting is left out and trained, so that earlier releases can read it (E16)."""
    federation = judge.federation
    assert encode_state(federation.state)["format_version"] == 6
    federation.respecify(PLAIN)
    federation.train(POINTS)
    assert encode_state(federation.state)["format_version"] < 6


def test_a_failing_measure_blocks_no_request(judge: Judge) -> None:
    """The request completes, the listener receives the reason, and a later process measures."""
    federation, heard = judge.federation, list[object]()
    federation.listener = heard.append
    federation.restart()
    judge.error = Invalid("the model fails", "Repair it.")
    done = federation.erase(subjects=["s9"], request_id="er-1")
    assert done.state is RequestState.COMPLETE
    calls = len(judge.measured)
    federation.engine.settle()
    assert len(judge.measured) == calls
    assert any("the hold-out points were not measured: the model fails" in str(each) for each in heard)
    assert read_state(federation.store) == replace(federation.state, is_measured=False)
    assert _effect(federation, "er-1").after is None
    judge.error = None
    federation.restart()
    federation.engine.settle()
    assert federation.state.is_measured
    assert _effect(federation, "er-1").after == federation.state.measure


@pytest.mark.parametrize("error", [Crash(), Unavailable("no worker", "Wait.")])
def test_a_death_between_publication_and_measure_is_made_up_for(judge: Judge, error: BaseException) -> None:
    """The request is complete before anything is measured; the next process measures."""
    federation = judge.federation
    judge.error = error
    with suppress(Crash):
        federation.erase(subjects=["s9", "s4"], request_id="er-1")
    state = read_state(federation.store)
    assert state is not None
    (request,) = state.requests
    assert request.state is RequestState.COMPLETE
    judge.error = None
    federation.restart()
    federation.engine.settle()
    assert _effect(federation, "er-1").after == federation.state.measure


def test_points_erased_meanwhile_make_a_measure_void(judge: Judge) -> None:
    """What was measured on points that were erased meanwhile is not recorded; the rest is measured."""
    federation, held = judge.federation, len(HELD_OUT)

    def erase() -> None:
        judge.meanwhile = lambda: None
        federation.accept(subjects=["s4"], request_id="er-2")
        federation.engine.remove_points()

    judge.meanwhile = erase
    federation.erase(subjects=["s9"], request_id="er-1")
    assert not federation.state.is_measured
    federation.engine.settle()
    assert judge.measured[1:] == [(3, held), (3, held - 2)]
    assert federation.state.measure is not None
    assert federation.state.measure.points == held - 2
    assert [_effect(federation, each).after for each in ("er-1", "er-2")] == [federation.state.measure] * 2


def test_nothing_is_measured_without_hold_out_points() -> None:
    """Nothing is recorded either: the state is that of a federation without measures."""
    federation = federation_of(PLAIN)
    federation.measure = judge = Judge(federation)
    federation.train(POINTS)
    done = federation.erase(subjects=["s9"], request_id="er-1")
    assert judge.measured == []
    assert done.effect is None
    assert "measure" not in encode_state(federation.state)["state"]


def _measure(generation: int, shares: dict[str, float | None] | None, **metrics: float) -> HoldoutMeasure:
    return HoldoutMeasure(generation=generation, points=9, metrics=metrics, per_class=shares, at="now")


def test_alarms_name_what_fell_by_more_than_the_margin() -> None:
    """Classes by their share, numbers and clusters by their error, recommendations by their hits; with a margin of 1
    nothing has an alarm.
    """
    before = _measure(1, {"a": 0.9, "b": 0.9, "c": None, "d": 0.5})
    after = _measure(2, {"a": 0.84, "b": 0.86, "c": 0.1, "d": None})
    assert ErasureEffect(before=before, after=after, margin=0.05).alarms == ("a",)
    assert ErasureEffect(before=before, after=after, margin=1.0).alarms == ()
    assert ErasureEffect(before=None, after=after, margin=0.05).alarms == ()
    assert ErasureEffect(before=before, margin=0.05).alarms == ()
    small, large = _measure(1, None, rmse=2.0), _measure(2, None, rmse=2.2)
    assert ErasureEffect(before=small, after=large, margin=0.05).alarms == ("rmse",)
    assert ErasureEffect(before=large, after=small, margin=0.05).alarms == ()
    near, far = _measure(1, None, inertia=2.0), _measure(2, None, inertia=2.2)
    assert ErasureEffect(before=near, after=far, margin=0.05).alarms == ("inertia",)
    assert ErasureEffect(before=near, after=far, margin=0.2).alarms == ()
    good, worse = _measure(1, None, hit_rate=0.5, mrr=0.4), _measure(2, None, hit_rate=0.4, mrr=0.1)
    assert ErasureEffect(before=good, after=worse, margin=0.05).alarms == ("hit_rate",)
    assert ErasureEffect(before=good, after=worse, margin=0.2).alarms == ()
    assert ErasureEffect(before=worse, after=good, margin=0.05).alarms == ()


def test_a_margin_is_above_0() -> None:
    """A margin of 0 would alarm for rounding."""
    assert replace(ErasureSettings(), alarm_margin=1.0).alarm_margin == 1.0
    with pytest.raises(Invalid, match="alarm_margin must be above 0, got 0"):
        ErasureSettings(alarm_margin=0.0)


def test_a_request_that_leaves_the_state_unmeasured_says_so(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    """While workers fail, those that ended first leave with a reason; the others get the next measure."""
    monkeypatch.setattr(ended, "TOGETHER", 1)
    federation = judge.federation
    judge.error = Unavailable("no worker is here", "Start one.")
    for number in (3, 9, 10):
        federation.erase(subjects=[f"s{number}"], request_id=f"er-{number}")
    judge.error = None
    federation.erase(subjects=["s11"], request_id="er-11")
    gone = [each for each in map(federation.engine.find, ("er-3", "er-9")) if isinstance(each, ErasureRequest)]
    assert all(federation.state.request(each.request_id) is None for each in gone)
    found = [each.effect for each in gone if each.effect is not None]
    assert [each.after for each in found] == [None, None]
    assert all("no generation could be measured" in each.unmeasured for each in found)
    last = federation.engine.find("er-11")
    assert isinstance(last, ErasureRequest)
    assert last.effect is not None
    assert last.effect.after == federation.state.measure
    assert last.effect.unmeasured == ""
