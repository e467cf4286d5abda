"""The trial that a plan rests on before anything is trained."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.config.specification import FederationSpecification, read_specification
from cluster.writer.forecast import Basis, _random_points, plan_for, trial_basis, trial_points
from shards.data.sources import table_source
from shards.specification import ModelSettings, TrainingSettings
from shards.targets import Class
from tests.doubles.federation import source_of, specification_of
from tests.doubles.time_and_names import VirtualClock
from tests.doubles.user_folder import UserFolder
from tests.exactness.federations import make_points

MEBIBYTE = 2**20


@pytest.mark.parametrize(
    ("batch_size", "width", "points", "expected"),
    [
        (16, 784, 60_000, 4800),  # 300 steps
        (1, 10, 60_000, 300),
        (4096, 784, 60_000, 64 * MEBIBYTE // (4 * 784 + 16)),
        (64, 1_000_000, 60_000, 64),  # a whole batch, even if it exceeds the limit
        (10**9, 1_000_000, 120, 120),  # no batch is larger than the data
        (10**9, 10**9, 0, 1),
    ],
)
def test_the_size_of_the_trial(batch_size: int, width: int, points: int, expected: int) -> None:
    """The trial takes 300 steps within the memory limit, and never less than one batch of the available data."""
    assert trial_points(batch_size, width, points) == expected


def test_points_are_made_without_larger_arrays() -> None:
    """Making the trial's points takes hardly more memory than they fill, and none of their features are all zero."""
    tracemalloc.start()
    made = _random_points(2000, 2000, Class(("a", "b", "c")))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert made.features_NF.dtype == np.float32
    assert made.features_NF.shape == (2000, 2000)
    assert peak < 1.25 * made.features_NF.nbytes
    assert made.features_NF.any(axis=1).all()


def test_a_plan_for_wide_data_stays_small(tmp_path: Path) -> None:
    """The trial for wide data and large batches learns as many points as take 64 MiB."""
    width, points = 4000, 20
    UserFolder(tmp_path).specify(
        data__subject=None, data__features=["x"], training__batch_size=256, model__arguments={"hidden": [2]}
    )
    values = pa.array(np.ones(points * width, dtype=np.float32))
    columns = {
        "id": [str(number) for number in range(points)],
        "label": ["a"] * points,
        "x": pa.FixedSizeListArray.from_arrays(values, width),
    }
    source = table_source(pa.table(columns))
    basis = trial_basis(read_specification(tmp_path / "sisa.toml"), source, None, VirtualClock())
    assert (basis.points, basis.width) == (points, width)
    # By this clock the trial took a second.
    assert round(1 / basis.seconds_per_point_epoch) == trial_points(256, width, points)


def _direct(learner: str, arguments: dict[str, Any]) -> FederationSpecification:
    return specification_of(
        shards=4,
        slices=8,
        model=ModelSettings(learner=learner, arguments=arguments),
        training=TrainingSettings(epochs=1, batch_size=1, learning_rate=1.0),
    )


def test_a_learner_of_codes_is_tried_on_codes() -> None:
    """Naive Bayes of the form categorical refuses everything else."""
    specification = _direct("naive_bayes", {"form": "categorical", "values": 2})
    basis = trial_basis(specification, source_of(make_points(1, 8)), 1000, VirtualClock())
    assert basis.checkpoint_bytes > 0


def test_slices_neither_speed_up_nor_multiply_what_is_learned_at_once() -> None:
    """There is one checkpoint a shard, and an erasure costs at most the shard."""
    basis = Basis(
        points=1000, width=4, feature_bytes=4, seconds_per_point_epoch=0.01, checkpoint_bytes=50, measured=True
    )
    specification = _direct("forest", {"trees": 2})
    plan = plan_for(specification, basis, shards=None, slices=None, requests=1, workers=1)
    found = plan.forecast
    assert (plan.partition.slices, found.checkpoint_bytes) == (8, 4 * 50)
    assert (found.erasure_speed_up, found.batch_fraction) == (4.0, 0.25)
