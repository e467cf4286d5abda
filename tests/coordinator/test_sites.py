"""Sites: how answers are combined, what is remembered of a site, and who is part of the federation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.aggregation import Rule, aggregate
from coordinator.effects import HoldoutMeasure
from coordinator.sites import (
    Roster,
    SiteAnswer,
    SiteMark,
    SiteStanding,
    advanced,
    check_answer,
    combine,
    history_of,
    measured_together,
)
from shards.measures import Measures, class_measures, label_measures, number_measures
from shards.targets import Class
from storage.digests import sha256
from storage.errors import Conflict, Invalid, Unavailable
from tests.coordinator.records import request_of
from tests.coordinator.test_aggregation import predicted

CLASSES = Class(("a", "b", "c"))
AT = "2026-01-01T00:00:00.000+00:00"
REQUESTS = tuple(request_of(f"er-{number}") for number in range(4))


def standing(position: int = 5, floor: int = 2, requests: int = 2, known: int = 2) -> SiteStanding:
    """Return what a site says that has accepted ``requests`` requests, to one who knows of ``known`` of them."""
    return SiteStanding(
        identity="north-key",
        position=position,
        generation=3,
        floor=floor,
        requests=requests,
        history=history_of(REQUESTS[:requests]),
        history_then=history_of(REQUESTS[:requests][:known]),
        shards=2,
        features=("x*",),
        width=4,
        model_code=sha256(b"code"),
        checkpoints=((0, "aa"), (1, "bb")),
    )


MARK = advanced(None, standing(known=0), "north")


def answers_of(sites: list[int], points: int, seed: int, rule: Rule) -> tuple[list[SiteAnswer], np.ndarray]:
    """Return the answers of sites with so many constituents each, and the probabilities of all constituents."""
    generator = np.random.default_rng(seed)
    every = [generator.dirichlet(np.ones(3), size=(count, points)) for count in sites]
    answers = [
        SiteAnswer(
            generation=1,
            constituents=len(each),
            shards=len(each),
            scores_NS=aggregate(each, rule, CLASSES).astype(np.float32),
        )
        for each in every
    ]
    return answers, np.concatenate(every)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(1, 8), st.integers(0, 1000))
def test_the_mean_is_that_of_one_ensemble(sites: list[int], points: int, seed: int) -> None:
    """However constituents are spread over sites, the answer is the mean of all of them, as far as float32 carries."""
    answers, every = answers_of(sites, points, seed, "mean_probability")
    whole = aggregate(every, "mean_probability", CLASSES)
    assert combine(answers, "mean_probability", CLASSES) == pytest.approx(whole, abs=1e-6)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(1, 8), st.integers(0, 1000))
def test_votes_are_counted_exactly(sites: list[int], points: int, seed: int) -> None:
    """A vote is a vote wherever it was cast: the winner is that of one ensemble, ties included."""
    answers, every = answers_of(sites, points, seed, "majority_vote")
    whole = aggregate(every, "majority_vote", CLASSES)
    found = combine(answers, "majority_vote", CLASSES)
    assert predicted(found) == predicted(whole)
    assert found == pytest.approx(whole, abs=1e-12)


def test_nobody_answers_nothing() -> None:
    """Without any site there is no answer."""
    with pytest.raises(Unavailable, match="no site answers"):
        combine([], "mean_probability", CLASSES)


def test_a_site_moves_on() -> None:
    """More entries, a higher floor and further requests are news, and what was is part of what is."""
    after = advanced(MARK, standing(position=9, floor=4, requests=4), "north")
    assert (after.position, after.floor, after.requests) == (9, 4, 4)
    assert advanced(after, standing(position=9, floor=4, requests=4, known=4), "north") == after


@pytest.mark.parametrize(
    "said",
    [
        standing(position=4),
        standing(floor=1),
        standing(requests=1),
        replace(standing(position=90, floor=90, requests=3), history_then=history_of(REQUESTS[1:3])),
    ],
    ids=["shorter journal", "lower floor", "fewer requests", "longer, with other requests"],
)
def test_a_site_that_was_set_back_is_known(said: SiteStanding) -> None:
    """A site cannot hide that a request it had accepted is missing, regardless of what it has done since."""
    with pytest.raises(Unavailable, match="set back to an earlier moment"):
        advanced(MARK, said, "north")


def test_a_stranger_under_a_known_name() -> None:
    """Another partition key is another site."""
    with pytest.raises(Conflict, match="another site than the one that joined"):
        advanced(MARK, replace(standing(), identity="other"), "north")


@pytest.mark.parametrize(("generation", "is_good"), [(1, False), (2, True), (3, True)])
def test_an_answer_below_the_floor_is_none(generation: int, is_good: bool) -> None:
    """What a site is known to have withdrawn is in no answer (E10)."""
    answer = SiteAnswer(generation=generation, constituents=1, shards=1, scores_NS=np.ones((1, 1), np.float32))
    if is_good:
        check_answer(MARK, answer, "north")
    else:
        with pytest.raises(Unavailable, match="set back"):
            check_answer(MARK, answer, "north")


def test_joining_and_leaving() -> None:
    """A site joins once, leaves once, and does not come back under its name."""
    roster = Roster().joined("north", AT)
    assert roster.joined("north", "later") == roster
    gone = roster.withdrawn("north", AT, "a reason")
    assert gone.withdrawn("north", "later", "another") == gone
    assert roster.purged("north", AT) == roster  # a member has nothing to purge
    done = gone.purged("north", AT)
    assert done.purged("north", "later") == done
    for act in (lambda: done.joined("north", AT), lambda: gone.member("north")):
        with pytest.raises(Conflict, match="this site was withdrawn"):
            act()
    with pytest.raises(Invalid, match="no site of this name"):
        roster.withdrawn("south", AT, "a reason")


def test_a_mark_never_goes_back() -> None:
    """A slower writer's older mark changes nothing."""
    roster = Roster().joined("north", AT).marked("north", MARK)
    older = SiteMark(identity=MARK.identity, position=1, floor=1, requests=0, history=history_of(()))
    assert roster.marked("north", older) == roster


def _measured(kind: str, points: slice, seed: int) -> Measures:
    """Return the measures of some of 60 data points, made from ``seed``."""
    generator = np.random.default_rng(seed)
    probabilities_NC = generator.dirichlet(np.ones(3), size=60)[points]
    classes_N = generator.integers(0, 3, size=60, dtype=np.int32)[points]
    truth_NW, predicted_NW = generator.normal(size=(2, 60, 2))
    names = ("a", "b", "c")
    if kind == "class":
        return class_measures(names, classes_N, probabilities_NC)
    if kind == "multi_label":
        flags_NW = (truth_NW > 0)[points]
        return label_measures(names[:2], flags_NW, probabilities_NC[:, :2], probabilities_NC[:, :2] > 0.3)
    columns = slice(0, 1 if kind == "number" else 2)
    return number_measures(names[columns], truth_NW[points, columns], predicted_NW[points, columns])


@pytest.mark.parametrize(
    ("kind", "columns", "expected"),
    [
        ("class", 3, {"accuracy", "log_loss", "brier"}),
        ("multi_label", 2, {"accuracy"}),
        ("number", 1, {"mae", "rmse"}),
        ("numbers", 2, {"mae"}),
    ],
)
def test_sites_are_measured_together_as_all_their_points_would_be(kind: str, columns: int, expected: set[str]) -> None:
    """What is combined is what the measure over all points says; other metrics are not combined."""
    parts = [slice(0, 7), slice(7, 35), slice(35, 60)]
    measures = [HoldoutMeasure.of(_measured(kind, part, 5), 1, AT) for part in parts]
    whole = _measured(kind, slice(0, 60), 5).metrics
    together = measured_together(measures, columns)
    assert together == {name: pytest.approx(whole[name], abs=2e-6) for name in expected}
    assert measured_together(measures[:1], columns) == {
        name: pytest.approx(measures[0].metrics[name]) for name in expected
    }


def test_a_metric_that_a_site_lacks_is_not_combined() -> None:
    """Such as that of a site of another release; without sites there is nothing."""
    measures = [HoldoutMeasure.of(_measured("number", slice(0, 9), 1), 1, AT)] * 2
    lacking = replace(measures[1], metrics={"rmse": 0.5})
    assert measured_together([measures[0], lacking], 1).keys() == {"rmse"}
    assert measured_together([], 1) == {}
