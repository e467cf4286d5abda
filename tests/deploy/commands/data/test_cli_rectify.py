"""``sisa rectify``: corrected rows from a file, to the bytes of a federation that only ever saw them."""

from __future__ import annotations

import pyarrow as pa
import pytest

import cluster
import cluster.training.workers
from cluster.coordinator_actor.resident import Resident
from cluster.writer.corrections import draft_correction
from cluster.writer.training_data import source_of
from cluster.writer.writer import WriterSetup, writer_setup
from coordinator.requests import RequestState
from shards.data.sources import Source
from storage.errors import Unavailable
from tests.deploy.commands.test_cli_erase import fresh_digests
from tests.doubles.user_folder import MARKED, Columns, UserFolder, as_table, run, small_points, without

ROWS = (3, 40, 71)
"""Rows of the small data set that are corrected."""


def rows(*numbers: int, shift: int = 5) -> Columns:
    """Return these rows of the small data set, with other labels and features."""
    chosen: Columns = {name: [values[n] for n in numbers] for name, values in small_points().items()}
    chosen["label"] = ["abc"[(("abc".index(label)) + 1) % 3] for label in chosen["label"]]
    for name in chosen:
        if name.startswith("x"):
            chosen[name] = [(value + shift) % 256 for value in chosen[name]]
    return chosen


def corrected(*numbers: int) -> Columns:
    """Return the small data set with these rows corrected."""
    columns, new = small_points(), rows(*numbers)
    for name, values in columns.items():
        for position, number in enumerate(numbers):
            values[number] = new[name][position]
    return columns


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_corrected_data_points_never_were_otherwise(trained: UserFolder, ending: str) -> None:
    """The constituents are those of a federation of the corrected data, and the receipt says what was done."""
    file = str(trained.write(f"right.{ending}", rows(*ROWS)))
    said = trained.json("rectify", "--file", file, "--request-id", "c-1")
    assert (said.data["kind"], said.data["state"], said.data["points"]) == ("rectification", "complete", 3)
    fresh = fresh_digests(trained.folder / "fresh", corrected(*ROWS))
    assert trained.json("status").digests == fresh
    again = trained.run("train")
    assert "the old values of 3 data points corrected by request" in again.err
    assert trained.json("status").digests == fresh
    assert "corrected by request: the corrected values are kept" in trained.run("status").out
    assert trained.json("verify").code == 0
    receipt = trained.folder / "c-1.json"
    receipt.write_text(trained.run("receipt", "c-1").out, encoding="utf-8")
    ids = [word for id_ in rows(*ROWS)["id"] for word in ("--id", id_)]
    checked = trained.run("receipt", "--check", str(receipt), "--salt", said.data["salt"], *ids)
    assert "receipt for a request to correct data points" in checked.out
    assert "corrected: 3 data points" in checked.out
    trained.write("train.parquet", corrected(*ROWS))
    assert "corrected by request" not in trained.run("train").err
    assert trained.json("status").digests == fresh


def test_a_dry_run_changes_nothing(trained: UserFolder) -> None:
    """It says what it would cost, and which rows are unknown."""
    columns = rows(3, 40)
    columns["id"][1] = "nobody"
    file = str(trained.write("right.parquet", columns))
    before = trained.raw()
    said = trained.json("rectify", "--file", file, "--dry-run")
    assert (said.data["points"], said.data["unknown"], said.data["unknown_rows"]) == (1, 1, [2])
    assert "1 data points would be corrected" in trained.run("rectify", "--file", file, "--dry-run").out
    assert trained.raw() == before
    done = trained.run("rectify", "--file", file)
    assert f"no data point here of these rows of {file}: 2" in done.out


def test_bad_rows_are_refused_and_leave_nothing(trained: UserFolder) -> None:
    """The error names the row; nothing of the file is in the store."""
    before = trained.slice_files()
    bad = {
        "undeclared": {**rows(3, 40), "label": ["a", "x"]},
        "moved": {**rows(3, 40), "user_id": [rows(3)["user_id"][0], MARKED]},
        "narrow": {name: values for name, values in rows(3, 40).items() if name != "x07"},
        "twice": rows(3, 40, 3),
        "empty": rows(),
    }
    for name, columns in bad.items():
        said = trained.json("rectify", "--file", str(trained.write(f"{name}.csv", columns)))
        assert said.code == 2, name
        assert said.error["kind"] == "invalid", name
        if name in {"undeclared", "moved"}:
            assert "row=2" in said.error["message"]
    assert trained.slice_files() == before
    assert trained.json("status").data["requests"] == []


def test_a_request_id_names_one_correction(trained: UserFolder) -> None:
    """The same rows are the same request; others are a conflict; what is right already is refused."""
    file = str(trained.write("right.parquet", rows(3)))
    first = trained.json("rectify", "--file", file, "--request-id", "c-1")
    assert trained.json("rectify", "--file", file, "--request-id", "c-1").data["times"] == first.data["times"]
    other = str(trained.write("other.parquet", rows(3, shift=9)))
    assert trained.json("rectify", "--file", other, "--request-id", "c-1").code == 4
    refused = trained.json("rectify", "--file", file, "--request-id", "c-2")
    assert (refused.code, refused.error["kind"]) == (2, "refused")
    assert "salt" not in refused.data


@pytest.mark.parametrize("name", [MARKED, MARKED.upper(), small_points()["id"][29]])
def test_a_request_id_is_no_name_in_the_file(trained: UserFolder, name: str) -> None:
    """It is neither a data point's name nor its person's, because the log keeps request ids forever."""
    assert small_points()["user_id"][29] == MARKED
    file = str(trained.write("right.csv", rows(29)))
    said = trained.refused("rectify", "--file", file, "--request-id", name)
    assert "the request id is one of the names" in said.error["message"]
    assert name not in said.out + said.err


def test_a_paused_correction_is_released_extended_and_withdrawn(trained: UserFolder) -> None:
    """The commands are those for a paused erasure."""
    file = str(trained.write("right.parquet", rows(3)))
    held = trained.run("rectify", "--file", file, "--request-id", "c-1", "--hold", "court")
    assert "nothing of it is corrected while it is paused" in held.out
    config = ("--config", str(trained.config))
    assert run("request", "extend", "c-1", "--days", "5", "--reason", "many", *config).code == 0
    assert run("request", "release", "c-1", *config).code == 0
    assert trained.json("status", "c-1").data["state"] == "complete"
    other = str(trained.write("other.parquet", rows(40)))
    assert trained.json("rectify", "--file", other, "--request-id", "c-2", "--hold", "court").code == 0
    cancelled = run("request", "cancel", "c-2", "--reason", "by mistake", *config, "--json")
    assert cancelled.data["state"] == "cancelled"
    assert trained.json("verify").code == 0


def test_python_takes_tables(trained: UserFolder) -> None:
    """``Federation.rectify`` takes a table in memory, and the answer has the positions of unknown rows."""
    table = as_table(rows(3, 40)).append_column("note", pa.array(["a", "b"]))
    unknown = table.set_column(0, "id", pa.array(["secret-id-0003", "nobody"]))
    with cluster.connect(trained.config) as federation:
        answer = federation.rectify(unknown, request_id="c-1")
        assert (answer.kind, answer.points, answer.unknown_ids) == ("rectification", 1, (1,))
        assert federation.rectify(table, request_id="c-2").points == 1
    assert trained.json("status").digests == fresh_digests(trained.folder / "fresh", corrected(3, 40))


def test_a_coordinator_gets_names_of_drafts_alone(trained: UserFolder) -> None:
    """The caller writes encrypted drafts under a reserved name, and hands over a request without any value."""
    with cluster.connect(trained.config) as federation:
        specification = federation.specification
    resident = Resident(lambda listener: writer_setup(specification, listener=listener))
    try:
        setup = writer_setup(specification, listener=lambda _: None)
        source = source_of(specification, as_table(rows(*ROWS)), lambda _: None)
        name = resident.reserve()
        made = draft_correction(setup, source, name, request_id="c-1")
        keys = [part.key for placed in made.request.drafts for part in placed.record.parts]
        raw = trained.raw()
        assert all(name in key and b"PAR1" not in raw[key] for key in keys)
        accepted = resident.accept(made.request, made.names)
        resident.give_back(name)
        assert accepted.correction is not None
        heard = resident.hear(0, 0.0)
        while resident.request("c-1").state is not RequestState.COMPLETE:
            heard = resident.hear(heard.upto, 10.0)
        late_rows = source_of(specification, as_table(rows(9)), print)
        with pytest.raises(Unavailable, match="no longer in the store"):  # swept already, or found not to be reserved
            _late(setup, late_rows, resident)
    finally:
        resident.stop()
    assert trained.json("status").digests == fresh_digests(trained.folder / "fresh", corrected(*ROWS))
    assert trained.json("train").code == 0
    assert trained.json("verify").code == 0


def _late(setup: WriterSetup, source: Source, resident: Resident) -> None:
    late = draft_correction(setup, source, "gone", request_id="c-2")
    resident.accept(late.request, late.names)


@pytest.mark.parametrize("fault", ["no label", "no features", "another class", "no value"])
def test_remedies_of_a_correction_do_not_change_settings(trained: UserFolder, fault: str) -> None:
    """Data points were read by the current settings, so it is the file that must be corrected."""
    columns = rows(3)
    if fault == "no label":
        del columns["label"]
    elif fault == "no features":
        columns = {name: values for name, values in columns.items() if not name.startswith("x")}
    elif fault == "another class":
        columns["label"] = ["z"]
    else:
        columns[next(name for name in columns if name.startswith("x"))] = [float("nan")]
    trained.write("right.parquet", columns)
    refused = trained.json("rectify", "--file", "right.parquet")
    assert refused.code == 2
    assert refused.error["remedy"].startswith("Correct the file: each row needs all columns that [data] names")


def test_a_file_that_is_not_there_is_not_that_of_training(trained: UserFolder) -> None:
    """The remedy asks for another file to correct or evaluate, and does not mention the training data."""
    for command in (("rectify", "--file", "none.parquet"), ("evaluate", "none.parquet")):
        refused = trained.json(*command)
        assert refused.error["remedy"].startswith("Name a file, folder or glob of ")


def test_training_goes_on_beside_a_correction_whose_values_are_lost(trained: UserFolder) -> None:
    """Everything else is done; the command says what to do about that request, whose failure is on record."""
    trained.write("right.parquet", rows(3))
    stored = set(trained.slice_files())
    assert trained.json("rectify", "--file", "right.parquet", "--request-id", "c-1", "--hold", "dispute").code == 0
    (draft,) = set(trained.slice_files()) - stored
    (trained.store / draft).unlink()
    config = ("--config", str(trained.config))
    run("request", "release", "c-1", *config)
    trained.write("train.parquet", without(small_points(), ids=small_points()["id"][:4]))
    said = trained.run("train")
    assert (said.code, trained.json("status").data["points"]) == (0, 116)
    assert "the new values that a request keeps in the store are missing or damaged [request=c-1]" in said.err
    assert "run 'sisa request cancel c-1'" in said.err
    assert trained.json("status", "c-1").data["state"] == "failed"
    erased = trained.json("erase", "--id", small_points()["id"][20], "--request-id", "er-1")
    assert (erased.code, erased.data["state"], "salt" in erased.data) == (0, "complete", True)
    assert run("request", "cancel", "c-1", "--reason", "lost", *config).code == 0
    assert trained.run("train").err.count("new values") == 0
