"""``sisa plan`` for learners that take points out directly: prices of both ways, before training and after."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.config.specification import read_specification
from cluster.training.workers import Workers
from cluster.writer.forecast import measured_basis, stored_basis
from cluster.writer.trial import stored_sample
from coordinator.engine.ledger import read_state
from storage.errors import Invalid
from tests.doubles.time_and_names import VirtualClock
from tests.doubles.user_folder import MARKED, UserFolder

NO_RECIPE = {"training__epochs": None, "training__batch_size": None, "training__learning_rate": None}


@pytest.mark.parametrize("learner", ["ridge", "forest"])
def test_a_trained_store_is_tried_and_left_as_it_is(learner: str, home: UserFolder) -> None:
    """Both ways have a price: before training, after it, and after an erasure, which says nothing about learning."""
    arguments = {"trees": 3} if learner == "forest" else {"penalty": 1.0}
    direct: dict[str, Any] = {"model__factory": None, "model__learner": learner, "model__arguments": arguments}
    home.fill(**NO_RECIPE, **direct, partition__shards=1)
    before = home.json("plan").data
    assert before["direct_seconds"] > 0 < before["erasure_seconds"]
    assert home.run("train").code == 0
    files = sorted((path, path.read_bytes()) for path in home.store.rglob("*") if path.is_file())
    trained = home.json("plan", "--requests", "5").data
    assert sorted((path, path.read_bytes()) for path in home.store.rglob("*") if path.is_file()) == files
    assert trained["measured"]
    assert trained["direct_batch_seconds"] == pytest.approx(5 * trained["direct_seconds"])
    assert home.json("erase", "--subject", MARKED, "--wait").code == 0
    (home.folder / "train.parquet").unlink()
    state, specification = read_state(home.objects), read_specification(home.config)
    assert state is not None
    assert measured_basis(state) is None
    basis = stored_basis(specification, home.objects, state, VirtualClock())
    assert basis is not None
    assert basis.points == 116
    assert basis.direct_seconds is not None
    text = home.run("plan").out
    assert "erase one data point, directly" in text
    assert "erase one data point, by retraining" in text


def test_a_damaged_store_has_no_sample(home: UserFolder) -> None:
    """Then a trial needs the source again."""
    direct: dict[str, Any] = {"model__factory": None, "model__learner": "ridge", "model__arguments": None}
    home.fill(**NO_RECIPE, **direct, partition__shards=1)
    assert home.run("train").code == 0
    state = read_state(home.objects)
    assert state is not None
    whole = stored_sample(home.objects, state, 255.0, 10_000)
    few = stored_sample(home.objects, state, 255.0, 1)
    assert whole is not None
    assert few is not None
    assert len(whole.keys_N) == 120 > len(few.keys_N) >= 1
    for record in state.shards[0].slices:
        for part in record.parts:
            home.objects.delete(part.key)
    assert stored_sample(home.objects, state, 255.0, 10_000) is None


def test_the_data_in_a_store_are_tried_where_they_may_be_read(
    home: UserFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A federation whose data may be read on some nodes only has a plan there, and not elsewhere."""

    def elsewhere(_workers: Workers) -> None:
        raise Invalid("this process is not on a node with the labels site=north", "Run the command on one.")

    direct: dict[str, Any] = {"model__factory": None, "model__learner": "ridge", "model__arguments": None}
    home.fill(**NO_RECIPE, **direct, partition__shards=1)
    assert home.run("train").code == 0
    home.specify(**NO_RECIPE, **direct, partition__shards=1, cluster__labels={"site": "north"})
    monkeypatch.setattr(Workers, "check_own_place", elsewhere)
    assert "not on a node with the labels site=north" in home.refused("plan").error["message"]
    monkeypatch.setattr(Workers, "check_own_place", lambda _workers: None)
    assert home.json("plan").data["direct_seconds"] > 0
