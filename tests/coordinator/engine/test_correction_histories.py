"""Any history of corrections, erasures and trainings ends as a new run on the corrected data."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.config.specification import FederationSpecification
from coordinator.interventions import Release
from coordinator.verification import scan_residue
from tests.coordinator.engine.test_corrections import POINTS, corrected, intervene, made
from tests.coordinator.engine.test_held_out_corrections import assert_fresh
from tests.doubles.corrected import Truth
from tests.doubles.federation import Point, specification_of
from tests.volume import examples

_ROWS = st.dictionaries(st.integers(0, 15), st.sampled_from([1.0, 2.0, 3.0]), min_size=1, max_size=4).map(
    lambda found: [replace(POINTS[n], features=(float(n), value)) for n, value in sorted(found.items())]
)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("rectify"), _ROWS),
        st.tuples(st.just("hold"), _ROWS),
        st.tuples(st.just("release"), st.integers(0, 2)),
        st.tuples(st.just("erase"), st.lists(st.integers(0, 7), min_size=1, max_size=1)),
        st.tuples(st.just("erase ids"), st.lists(st.integers(0, 15), min_size=1, max_size=2)),
        st.tuples(st.just("train"), _ROWS | st.just([])),
        st.tuples(st.just("hold out"), st.sampled_from([None, 0.16, 0.2, "evens", "thirds"])),
        st.tuples(st.just("settle"), st.none()),
    ),
    min_size=2,
    max_size=7,
)


_HOLDOUTS = st.sampled_from([None, 0.16, "evens"])


class _Both:
    """A federation, and what it must hold."""

    def __init__(self, holdout: float | str | None) -> None:
        self.holdout = holdout
        self.source = POINTS
        self.federation, self.truth = made(specification=_specification(holdout)), Truth()
        self.federation.train(*split(POINTS, holdout))
        self.truth.train(POINTS)
        self.waiting: dict[int, Any] = {}
        """What was accepted and is not carried out, by its number."""
        self.numbers = count()

    def do(self, step: tuple[str, Any]) -> None:
        """Do it with both."""
        kind, what = step
        if kind in ("rectify", "hold"):
            number = next(self.numbers)
            self.federation.propose(what, request_id=f"r-{number:03}", held="hold" if kind == "hold" else "")
            if kind == "hold":
                self.truth.hold(f"r-{number:03}", what)
            else:
                self.waiting[number] = what
        elif kind == "release" and len(self.truth.held) > what:
            request_id = list(self.truth.held)[what]
            intervene(self.federation, request_id, Release())
            self.waiting[int(request_id[2:])] = list(self.truth.held.pop(request_id).values())
        elif kind.startswith("erase"):
            number = next(self.numbers)
            subjects, ids = ([], [f"p{n}" for n in what]) if kind == "erase ids" else ([f"s{n}" for n in what], [])
            self.federation.accept(request_id=f"r-{number:03}", subjects=subjects, ids=ids)
            self.waiting[number] = (subjects, ids)
        elif kind == "train":
            self._train(corrected(*what))
        elif kind == "hold out":
            self.holdout = what
            self.federation.respecify(_specification(what))
            self._train(self.source)
        elif kind == "settle":
            self.federation.engine.settle()
            self._settled()

    def _train(self, source: list[Point]) -> None:
        self.source = source
        self._settled()
        outdated = self.truth.train(source)
        self.federation.train(*split(source, self.holdout))
        assert self.federation.state.data is not None
        assert self.federation.state.data.outdated == outdated

    def _settled(self) -> None:
        for number, what in sorted(self.waiting.items()):
            if isinstance(what, tuple):
                self.truth.erase(*what)
            else:
                self.truth.rectify(what, [each for each in self.truth.held if int(each[2:]) < number])
        self.waiting.clear()


@settings(max_examples=12)
@given(steps=_STEPS, holdout=_HOLDOUTS)
def test_any_history_ends_as_a_new_run_on_the_corrected_data(
    steps: list[tuple[str, Any]], holdout: float | str | None
) -> None:
    """Corrections, erasures, pauses, trainings and moves to and from hold-out points leave the bytes of a new run.

    Digests are kept of exactly the contents that were corrected, and drafts of exactly what is paused.
    """
    check_steps(steps, holdout)


@pytest.mark.slow
@pytest.mark.volume
@settings(max_examples=examples(400, few=10))
@given(steps=_STEPS, holdout=_HOLDOUTS)
def test_more_histories_end_as_a_new_run_on_the_corrected_data(
    steps: list[tuple[str, Any]], holdout: float | str | None
) -> None:
    """The same over more histories."""
    check_steps(steps, holdout)


def _specification(holdout: float | str | None) -> FederationSpecification:
    return specification_of(shards=2, slices=3, holdout=holdout)


def split(points: list[Point], holdout: float | str | None) -> tuple[list[Point], list[Point] | None]:
    """Return the data points of the files to train on, and those of hold-out files if there are any."""
    if not isinstance(holdout, str):
        return points, None
    step = 2 if holdout == "evens" else 3
    are_held = [int(point.id[1:]) % step == 0 for point in points]
    pairs = list(zip(points, are_held, strict=True))
    return [point for point, is_held in pairs if not is_held], [point for point, is_held in pairs if is_held]


def check_steps(steps: list[tuple[str, Any]], holdout: float | str | None) -> None:
    """Do the steps, and compare with a new run."""
    both = _Both(holdout)
    for step in [*steps, ("settle", None)]:
        both.do(step)
    federation, truth = both.federation, both.truth
    train, held_out = split(list(truth.present.values()), both.holdout)
    if train and held_out != []:  # a source without any data point cannot be read
        assert_fresh(federation, train, held_out)
    assert sum(record.points for _, record in federation.state.slices()) == len(truth.present)
    assert sum(rows.record.points for rows in federation.state.corrected) == len(truth.old)
    drafts = [rows for request in federation.state.requests for rows in request.drafts]
    assert sum(rows.record.points for rows in drafts) == sum(map(len, truth.held.values()))
    assert scan_residue(federation.store, federation.state).found == ()
