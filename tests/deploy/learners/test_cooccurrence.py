"""Recommended items, through the commands: baskets without labels, from the draft to verification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

import sisa
from tests.deploy.learners.test_learners import NO_RECIPE, assert_everybody_may_be_erased
from tests.doubles.user_folder import MARKED, UserFolder, small_points, without

ITEMS = ("bread", "butter", "eggs", "tea", "milk")


def _baskets() -> dict[str, list[Any]]:
    """Return baskets of the usual people; bread goes with butter, and tea with milk."""
    points, generator = small_points(), np.random.default_rng(4)
    found: dict[str, list[Any]] = {name: points[name] for name in ("id", "user_id")}
    kinds_N = generator.integers(2, size=len(found["id"]))
    present_NI = generator.random((len(kinds_N), len(ITEMS))) < np.where(kinds_N, 0.1, 0.8)[:, None]
    present_NI[:, 3:] = generator.random((len(kinds_N), 2)) < np.where(kinds_N, 0.8, 0.1)[:, None]
    return found | {item: present_NI[:, place].astype(int).tolist() for place, item in enumerate(ITEMS)}


def _specified(home: UserFolder, columns: Any = None, **changes: object) -> UserFolder:
    own: dict[str, object] = {
        "model__learner": "cooccurrence",
        "model__factory": None,
        "model__arguments": {"top": 2},
        "data__target": "recommend",
        "data__features": list(ITEMS),
        "data__label": None,
        "data__classes": None,
        "data__scale": None,
    }
    return home.fill(columns or _baskets(), **NO_RECIPE, **own | changes)


def test_a_person_is_taken_out_of_what_is_recommended(home: UserFolder, tmp_path: Path) -> None:
    """Train, predict, evaluate, erase and verify; three shards answer as one federation of one shard does."""
    _specified(home, data__holdout=0.2)
    with sisa.connect(home.config) as federation:
        assert not federation.faults()
    assert home.run("train").code == 0
    held_out = home.run("evaluate")
    assert held_out.code == 0, held_out.err
    assert "hit_rate" in held_out.out
    found = home.json("evaluate", "train.parquet").data
    assert found["target"] == "recommend"
    assert 0.4 < found["metrics"]["mrr"] < found["metrics"]["hit_rate"] < 1
    sizes = np.stack([_baskets()[item] for item in ITEMS]).sum(axis=0)
    assert found["points"] == (sizes > 1).sum()
    assert home.json("erase", "--subject", MARKED, "--wait", "--request-id", "r-1").data["state"] == "complete"
    assert home.json("verify").data["exact"]
    assert home.run("receipt", "r-1").code == 0
    assert "hold-out points: hit_rate" in home.run("status", "r-1").out
    assert home.json("predict", "train.parquet", "--out", "answers.parquet").code == 0
    answers = pq.read_table(home.folder / "answers.parquet")
    assert answers.column_names == ["id", "item_1", "score_1", "item_2", "score_2"]
    with sisa.connect(home.config) as federation:
        milk = federation.predict([{item: float(item == "milk") for item in ITEMS}]).table().to_pylist()
    assert milk[0]["item_1"] == "tea"
    assert milk[0]["score_1"] > milk[0]["score_2"] > 0
    assert home.json("predict", "train.parquet", "--out", "answers.csv").code == 0
    assert pacsv.read_csv(home.folder / "answers.csv").num_rows == answers.num_rows
    (tmp_path / "other").mkdir()
    other = UserFolder(tmp_path / "other")
    _specified(other, without(_baskets(), subjects=[MARKED]), data__holdout=0.2)
    assert other.run("train").code == 0
    assert other.json("status").digests == home.json("status").digests
    _specified(other, without(_baskets(), subjects=[MARKED]), partition__shards=1, store="./one", data__holdout=0.2)
    assert other.run("train").code == 0
    assert other.json("predict", str(home.folder / "train.parquet"), "--out", "others.parquet").code == 0
    assert pq.read_table(Path.cwd() / "others.parquet").equals(answers)


def test_everybody_may_be_erased_from_what_is_recommended(home: UserFolder) -> None:
    """Then nothing is left to answer, and verification holds."""
    _specified(home)
    assert_everybody_may_be_erased(home)


def test_amounts_below_zero_are_refused(home: UserFolder) -> None:
    """By the ingest, with their place."""
    columns = _baskets()
    columns["tea"] = [-1, *columns["tea"][1:]]
    _specified(home, columns)
    message = home.refused("train").error["message"]
    assert "has a feature outside 0 .. inf" in message
    assert "tea" in message


def test_a_draft_for_recommendations_trains(home: UserFolder) -> None:
    """Columns of 0 and 1 alone are items; naming a label is refused, and so are data with fewer than two items."""
    columns = _baskets() | {"amount": list(range(120)), "label": ["a", "b"] * 60}
    columns["eggs"] = [None if number < 5 else bool(value) for number, value in enumerate(columns["eggs"])]
    home.write("train.parquet", columns)
    words = ("init", "train.parquet", "--label", "label", "--learner", "cooccurrence", "--force")
    assert "have no label" in home.refused(*words).error["message"]
    drafted = home.json("init", "train.parquet", "--learner", "cooccurrence", "--force").data
    assert (drafted["label"], drafted["target"]) == (None, "recommend")
    assert drafted["features"] == list(ITEMS)
    assert {"label", "amount"} <= set(drafted["left_out"])
    assert home.run("train").code == 0
    assert home.json("evaluate", "train.parquet").data["metrics"]["hit_rate"] > 0
    home.write("few.parquet", {name: columns[name] for name in ("id", "user_id", "tea", "amount")})
    few = home.refused("init", "few.parquet", "--learner", "cooccurrence", "--force").error["message"]
    assert "1 columns of the data hold 0 and 1" in few
