"""Item-to-item counts: Jaccard similarities, pairs that vanish with the last basket, one answer of several shards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shards.learner_kinds.summation import CooccurrenceArguments
from shards.learners.protocol import answering
from shards.learners.summation.cooccurrence import Cooccurrence
from storage.errors import Invalid
from tests.doubles.lineages import lineage_of
from tests.shards.learners.direct import SHARD, chosen, learned, moved, points_of

BASKETS_NF = np.array(
    [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 2, 0.5, 1], [0, 0, 0, 0, 0]], dtype=np.float32
)
"""Five baskets of five items, of which the fourth is in none: 0.5 is not there yet."""
LABELS_N = np.zeros(5, dtype=np.int64)


def _learner(items: int = 5) -> Cooccurrence:
    return Cooccurrence(CooccurrenceArguments(), items, items, "recommend", 0)


def test_counts_are_of_items_and_of_pairs_in_canonical_order() -> None:
    """No cell is zero: neither of the item that is in no basket, nor of items that are in none together."""
    values = learned(_learner(), points_of(BASKETS_NF, LABELS_N)).values
    cells = zip(values["cells"].tolist(), values["counts"][:, 0].tolist(), strict=True)
    assert list(cells) == [
        ([0, 0], 2),
        ([0, 1], 2),
        ([0, 2], 1),
        ([1, 1], 3),
        ([1, 2], 2),
        ([2, 2], 3),
        ([2, 4], 1),
        ([4, 4], 1),
    ]
    assert {values[name].dtype for name in values} == {np.dtype(np.int64)}


def test_scores_are_sums_of_jaccard_similarities() -> None:
    """Items in the basket get no score; an empty or unknown basket gives no scores."""
    learner = _learner()
    state = learned(learner, points_of(BASKETS_NF, LABELS_N))
    asked_NF = np.array([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 0]], dtype=np.float32)
    expected = [[0, 2 / 3, 1 / 4, 0, 0], [0, 0, 1 / 4 + 2 / 4, 0, 0], [0] * 5, [0] * 5]
    assert learner.probabilities(state, asked_NF) == pytest.approx(np.array(expected))
    assert learner.probabilities(state, asked_NF[:0]).shape == (0, 5)
    assert not learner.probabilities(learner.initial(SHARD), asked_NF).any()


@settings(max_examples=60)
@given(
    baskets=arrays(np.int8, (14, 6), elements=st.integers(0, 1)),
    was=arrays(np.bool_, 14),
    now=arrays(np.bool_, 14),
)
def test_any_baskets_leave_the_bytes_of_a_run_without_them(baskets: object, was: object, now: object) -> None:
    """Any of them may leave and come; and two shards answer as one that has learned the baskets of both."""
    features_NF = np.asarray(baskets, dtype=np.float32)
    every, learner = points_of(features_NF, np.zeros(14, dtype=np.int64)), _learner(6)
    was_N, now_N = np.asarray(was), np.asarray(now)
    state = moved(learner, learned(learner, chosen(every, was_N)), every, was_N, now_N)
    fresh = learned(learner, chosen(every, now_N))
    assert learner.to_bytes(state, lineage_of(1)) == learner.to_bytes(fresh, lineage_of(1))
    assert state.values["counts"].all()
    rest = learned(learner, chosen(every, ~now_N))
    (both,) = answering(learner, [state, rest])
    assert learner.digest(both) == learner.digest(learned(learner, every))


def test_an_amount_below_zero_is_refused() -> None:
    """The error does not quote the value."""
    with pytest.raises(Invalid, match="one is below 0") as refused:
        learned(_learner(), points_of(-7.25 * BASKETS_NF, LABELS_N))
    assert "7.25" not in str(refused.value)


def test_constituents_keep_their_bytes() -> None:
    """Another digest of these counts needs a higher version in ``LEARNERS``."""
    learner = _learner()
    state = learned(learner, points_of(BASKETS_NF, LABELS_N))
    again = learner.from_bytes(learner.to_bytes(state, lineage_of(1)), SHARD)
    assert learner.digest(again) == learner.digest(state)
    assert learner.digest(state) == "cbb780400f8881b1457ba2e6c3545c11241b72480f1121d2c603122fc736150e"
