"""Promises that are easily kept on the happy path only."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import cluster
import coordinator.engine.ledger
from storage.errors import Invalid, Unavailable
from tests.doubles.user_folder import MARKED, UserFolder, small_points


def test_stored_points_keep_their_meaning_when_the_source_is_gone(
    home: UserFolder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Without the source, other classes, label or features are refused; with it, the data are read again."""
    assert home.json("train").code == 0
    source = (home.folder / "train.parquet").read_bytes()
    (home.folder / "train.parquet").unlink()
    before = home.json("status").digests
    for changes in ({"data__classes": ["c", "b", "a"]}, {"data__features": ["x0*"]}):
        home.specify(**changes)
        said = home.json("train")
        assert said.code == 4
        assert "read under other settings" in said.error["message"]
    home.specify()
    assert home.json("status").digests == before
    (home.folder / "train.parquet").write_bytes(source)
    home.specify(data__classes=["c", "b", "a"])
    assert home.json("train").code == 0
    fresh = UserFolder(tmp_path_factory.mktemp("fresh")).fill(data__classes=["c", "b", "a"])
    assert fresh.json("train").digests == home.json("status").digests != before


def test_one_text_is_no_list_of_names(home: UserFolder) -> None:
    """A bare text is refused rather than taken letter by letter; whole numbers are names, other things are not."""
    home.write("train.parquet", small_points() | {"user_id": [number % 30 for number in range(120)]})
    with cluster.connect(home.config) as federation:
        federation.train()
        with pytest.raises(Invalid, match="subjects is one text, not a list of names"):
            federation.erase(subjects="17")
        with pytest.raises(Invalid, match="subjects holds a bool"):
            federation.erase(subjects=[True])
        with pytest.raises(Invalid, match="ids holds an empty name"):
            federation.price(ids=[""])
        assert federation.price(subjects=[17]).points == 4
        assert federation.erase(subjects=[17]).points == 4
        assert sum(each.points or 0 for each in federation.status().constituents) == 116


@pytest.mark.parametrize("request_id", ["", " ", "a\n"])
def test_an_id_that_cannot_be_shown_is_refused(request_id: str, home: UserFolder) -> None:
    """An id is drawn only if none is given: an empty one is refused before anything is erased."""
    with cluster.connect(home.config) as federation:
        federation.train()
        with pytest.raises(Invalid, match="a request id is 1 to 200 printable characters"):
            federation.erase(subjects=[MARKED], request_id=request_id)
        assert federation.status().requests == ()
        assert federation.erase(subjects=[MARKED]).request_id.startswith("er-")


def test_no_answer_comes_from_an_ensemble_below_the_floor(home: UserFolder) -> None:
    """An ensemble loaded before an erasure answers no more once the erasure has raised the floor (E10)."""
    with cluster.connect(home.config) as federation:
        federation.train()
        answers = federation.predict(home.folder / "train.parquet")
        federation.erase(subjects=[MARKED])
        with pytest.raises(Unavailable, match="an erasure has withdrawn the ensemble"):
            answers.write(home.folder / "out.csv")
        assert not (home.folder / "out.csv").exists()
        assert federation.predict(home.folder / "train.parquet").write(home.folder / "out.csv") == 120


class Frame:
    """A table of another library, with a column of its own."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table.append_column("__index_level_0__", pa.array(range(table.num_rows)))

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def test_answers_are_a_table_or_a_file(home: UserFolder) -> None:
    """A table in memory and a file, in as out, give the same answers."""
    table = pq.read_table(home.folder / "train.parquet")
    with cluster.connect(home.config) as federation:
        federation.train()
        federation.predict(home.folder / "train.parquet").write(home.folder / "out.parquet")
        answers = federation.predict(table).table()
        assert federation.predict(Frame(table)).table().equals(answers)
        assert federation.evaluate(Frame(table)) == federation.evaluate(home.folder / "train.parquet")
        with pytest.raises(Invalid, match=r"builtins\.int is not a table"):
            federation.predict(3)
    assert answers.equals(pq.read_table(home.folder / "out.parquet"))
    assert answers.column_names == ["id", "prediction", "probability_a", "probability_b", "probability_c"]


def test_training_that_diverges_is_said(home: UserFolder) -> None:
    """A learning rate that ends in infinities is an error with a remedy, not a model."""
    home.specify(training__learning_rate=1e38, data__scale=1.0)
    said = home.json("train")
    assert said.code == 2
    assert "training diverged" in said.error["message"]
    assert "learning_rate" in said.error["remedy"]


def test_when_everybody_is_erased_nothing_is_left_to_predict_with(home: UserFolder) -> None:
    """The last erasure succeeds; predicting then says that no data points are left."""
    assert home.json("train").code == 0
    people = sorted(set(small_points()["user_id"]))
    names = home.folder / "names.txt"
    names.write_text("\n".join(people), encoding="utf-8")
    said = home.json("erase", "--file", str(names))
    assert (said.data["state"], said.data["points"]) == ("complete", 120)
    said = home.json("predict", "train.parquet", "--out", "out.csv")
    assert said.code == 2
    assert "no data points are left" in said.error["message"]


def test_manifest_and_journal_stay_short_while_training(home: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """With many checkpoints the journal is cut on the way, not only at the end, and manifests do not pile up."""
    monkeypatch.setattr(coordinator.engine.ledger, "_SNAPSHOT_EVERY", 16)
    home.specify(partition__shards=10, partition__slices=8, training__epochs=5)
    seen = {"manifest": set[int](), "journal": set[int]()}

    def count(_: object) -> None:
        for folder, counts in seen.items():
            counts.add(len(list((home.store / folder).iterdir())))

    with cluster.connect(home.config, listener=count) as federation:
        assert federation.train().generation == 1
    assert seen["manifest"] == {1}
    assert max(seen["journal"]) == 15
