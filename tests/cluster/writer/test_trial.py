"""What a learner costs is tried on data points like those that it will learn, and nothing is written."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from cluster.writer.trial import extrapolated, sample_of, seconds_to_take_out, tried
from shards.data.sources import table_source
from shards.learner_kinds.summation import RidgeArguments
from shards.learners.summation.ridge import Ridge
from shards.specification import DataSettings, ShardId
from tests.doubles.lineages import lineage_of
from tests.doubles.time_and_names import VirtualClock
from tests.shards.learners.direct import points_of

DATA = DataSettings(train="-", id="id", label="label", features=("x",), classes=("a", "b"))


def _ridge() -> Ridge:
    return Ridge(RidgeArguments(), inputs=2, outputs=2, target="class", seed=0)


def test_a_sample_is_from_all_places_of_the_source() -> None:
    """Data that are sorted by their label give a sample of both, in an order of its own, of at most the wanted size."""
    columns = {"id": [str(number) for number in range(1000)], "label": ["a"] * 500 + ["b"] * 500}
    source = table_source(pa.table(columns | {"x": np.arange(1000.0)}))
    found = sample_of(source, DATA, 1, 1000, 100)
    assert found.ends == (100,)
    assert sorted(found.features_NF[:, 0].tolist()) == list(range(0, 1000, 10))
    assert 10 < found.labels_N[:50].sum() < 40


def test_costs_grow_as_those_of_the_largest_parts_do() -> None:
    """Linearly with one size; and never faster than the tried sizes and a little more than linearly suggest."""
    assert extrapolated([500], [2.0], 1000) == 4.0
    assert extrapolated([500, 1000], [2.0, 2.0], 4000) == pytest.approx(2.0)
    assert extrapolated([500, 1000], [1.0, 8.0], 2000) == pytest.approx(8 * 2**1.2)
    assert extrapolated([500, 1000], [1.0, 0.5], 2000) == 0.5
    assert extrapolated([500, 1000], [1.0, 2.0], 1000) == 2.0


def test_parts_of_the_sample_are_tried_until_time_is_up() -> None:
    """With this clock every reading takes a second: two sizes, whose costs are equal."""
    features_NF = np.random.default_rng(2).normal(size=(4000, 2)).astype(np.float32)
    points = points_of(features_NF, (features_NF[:, 0] > 0).astype(np.int64))
    learner, clock = _ridge(), VirtualClock()
    found = tried(learner, points, 100_000, lineage_of(), clock)
    assert found.seconds == pytest.approx(1.0)
    assert found.direct_seconds == pytest.approx(1.0)
    assert found.checkpoint_bytes == len(learner.to_bytes(learner.initial(0), lineage_of()))  # type: ignore[arg-type]


def test_a_learner_that_cannot_take_points_out_has_no_such_cost() -> None:
    """Neither has one without a data point, or one that has to learn from nothing each time."""
    points = points_of(np.ones((4, 2)), np.array([0, 1, 0, 1]))
    learner = _ridge()
    payload = learner.to_bytes(learner.initial(ShardId(0)), lineage_of())
    nobody = points_of(np.ones((0, 2)), np.array([], dtype=np.int64))
    assert seconds_to_take_out(learner, payload, nobody, lineage_of(), VirtualClock()) is None
    learner.unlearn = lambda *_: None  # type: ignore[assignment,method-assign]
    assert seconds_to_take_out(learner, payload, points, lineage_of(), VirtualClock()) is None
