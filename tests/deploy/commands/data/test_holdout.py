"""Hold-out points, as people see them: status, evaluate, dry run, erasure, verify, doctor."""

from __future__ import annotations

import json
from base64 import b64decode

import pytest

import cluster.doctor
from tests.doubles.user_folder import MARKED, MARKER, UserFolder, small_points, without

SHARE = 0.4


@pytest.fixture(autouse=True)
def _doctor_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let 'sisa doctor' ask no Ray."""
    monkeypatch.setattr(cluster.doctor, "worker_count", lambda _settings, tasks: tasks)
    monkeypatch.setattr(cluster.doctor, "command_lines", list)


def _held_out(home: UserFolder) -> list[str]:
    """Return the people who are held out, found by what a dry run says of each."""
    people = dict.fromkeys(small_points()["user_id"])
    found = {each: home.json("erase", "--subject", each, "--dry-run").data for each in people}
    assert all(each["plan"]["held_out"] in {0, each["points"]} for each in found.values())
    return [each for each, dry in found.items() if dry["plan"]["held_out"]]


def test_a_share_is_held_out_measured_and_erased(home: UserFolder) -> None:
    """From the first training to the verification after an erasure, without a file of its own."""
    home.specify(data__holdout=SHARE)
    status = home.json("train").data
    held = _held_out(home)
    assert 0 < len(held) < 30
    assert (status["held_out"], status["points"]) == (4 * len(held), 120 - 4 * len(held))
    assert f"and {4 * len(held)} hold-out points;" in home.run("status").out
    measured = home.json("evaluate").data
    assert (measured["points"], measured["generation"]) == (4 * len(held), 1)
    assert f"on {4 * len(held)} data points" in home.run("evaluate").out
    dry = home.run("erase", "--subject", held[0], "--dry-run").out
    assert "4 data points would be erased (4 of them hold-out points)" in dry
    done = home.json("erase", "--subject", held[0], "--request-id", "er-1").data
    assert (done["state"], done["points"], done["held_out"], done["shards"]) == ("complete", 4, 4, [])
    assert (
        "4 data points erased (4 of them hold-out points), shards retrained: none"
        in home.run("erase", "--subject", held[1]).out
    )
    assert home.json("evaluate").data["points"] == 4 * len(held) - 8
    assert home.json("verify").code == 0
    assert home.json("status").data["generation"] == 1
    payload = json.loads(home.run("receipt", "er-1").out)["envelope"]["payload"]
    assert json.loads(b64decode(payload))["predicate"]["holdout"]["erased"] == 4
    checks = {each["check"]: each["message"] for each in home.json("doctor").data["checks"]}
    assert f"{4 * len(held) - 8} hold-out points" in checks["federation"]
    assert "still hold erased people: train.parquet (8 data points)" in checks["erased in sources"]


def test_files_of_their_own_are_held_out(home: UserFolder) -> None:
    """A person in both files is erased from both, nothing of theirs is left in the store, and doctor names both."""
    columns = small_points()
    train, held = without(columns, ids=columns["id"][-60:]), without(columns, ids=columns["id"][:60])
    home.write("train.parquet", train)
    home.write("held/part.csv", held)
    home.specify(data__holdout="held/*.csv")
    status = home.json("train").data
    assert (status["points"], status["held_out"]) == (60, 60)
    assert home.json("evaluate").data["points"] == 60
    done = home.json("erase", "--subject", MARKED).data
    assert (done["points"], done["held_out"], len(done["shards"])) == (4, 2, 1)
    assert not [key for key, payload in home.slice_files().items() if MARKER in payload]
    assert home.json("verify").code == 0
    checks = {each["check"]: each["message"] for each in home.json("doctor").data["checks"]}
    assert checks["data"].startswith("1 files, and 1 of hold-out points, 16 features")
    assert "held/part.csv (2 data points), train.parquet (2 data points)" in checks["erased in sources"]
    home.write("held/part.csv", without(held, subjects=[MARKED]))
    assert home.json("train").data["held_out"] == 58


def test_another_share_is_refused_until_it_is_trained(trained: UserFolder) -> None:
    """Nothing becomes a hold-out point silently: other commands refuse the setting, and training says what moves."""
    digests = trained.json("status").digests
    trained.specify(data__holdout=SHARE)
    refused = trained.json("erase", "--subject", MARKED)
    assert refused.code == 4
    assert "data.holdout" in refused.error["message"]
    assert "run 'sisa train'" in refused.error["remedy"]
    said = trained.run("train")
    assert "[data] holdout was not set and is 0.4: data points that become hold-out points" in said.err
    moved = trained.json("status")
    assert moved.data["held_out"] > 0
    assert moved.data["generation"] == 3
    trained.specify()
    trained.run("train")
    assert trained.json("status").digests == digests
    assert trained.json("status").data["held_out"] is None


def test_evaluate_needs_data_without_hold_out_points(trained: UserFolder) -> None:
    """The error names both ways out."""
    found = trained.json("evaluate")
    assert (found.code, found.error["message"]) == (2, "the federation has no hold-out points")
    assert found.error["remedy"] == "Name a labelled file, or set [data] holdout and train."


@pytest.mark.parametrize("holdout", [0, 1, 1.5, True, ""])
def test_a_bad_share_is_refused_with_its_line(home: UserFolder, holdout: object) -> None:
    """By the specification's reader, like any other setting."""
    home.specify(data__holdout=holdout)
    found = home.json("train")
    assert found.code == 2
    assert "holdout" in found.error["message"]
    assert "line " in found.error["message"]


def test_a_share_that_is_a_text_is_refused(home: UserFolder) -> None:
    """It would be taken for the name of a file."""
    home.specify(data__holdout="0.1")
    found = home.refused("train")
    assert "holdout is the text '0.1': write a share without quotation marks" in found.error["message"]


@pytest.mark.parametrize("holdout", ["train.parquet", "./*.parquet"])
def test_the_training_file_is_not_held_out(home: UserFolder, holdout: str) -> None:
    """The error names the file instead of one of its rows, and the way to hold out a part of it."""
    home.specify(data__holdout=holdout)
    found = home.refused("train")
    assert "a file is named both to train on and as hold-out points [file=train.parquet]" in found.error["message"]
    assert "a share such as 0.1" in found.error["remedy"]


def test_an_erasure_is_measured_before_and_after(home: UserFolder) -> None:
    """Status and request have both measures, which are those that evaluate gives, and the alarm of a set margin."""
    home.specify(data__holdout=SHARE, erasure__alarm_margin=1e-9)
    first = home.json("train").data
    assert first["is_measured"] is True
    assert first["measure"]["metrics"]["accuracy"] == pytest.approx(home.json("evaluate").data["accuracy"], abs=1e-6)
    held = _held_out(home)
    trained = [each for each in dict.fromkeys(small_points()["user_id"]) if each not in held]
    words = [word for each in trained[:-2] for word in ("--subject", each)]
    done = home.json("erase", *words, "--subject", held[0], "--request-id", "er-1").data
    effect = done["effect"]
    assert (effect["before"]["generation"], effect["before"]["points"]) == (1, 4 * len(held))
    assert (effect["after"]["generation"], effect["after"]["points"]) == (3, 4 * len(held) - 4)
    assert effect["before"] == first["measure"]
    now = home.json("evaluate").data
    assert effect["after"]["metrics"]["accuracy"] == pytest.approx(now["accuracy"], abs=1e-6)
    assert effect["after"]["per_class"] == pytest.approx(now["per_class"], abs=1e-6)
    shown = home.run("status", "er-1").out
    assert "hold-out points: accuracy" in shown
    fell = [name for name, was in effect["before"]["per_class"].items() if effect["after"]["per_class"][name] < was]
    assert done["alarms"] == fell
    assert ("ALARM: worse by more than 1e-09" in shown) == bool(fell)
    assert home.json("verify").code == 0


def test_numbers_are_measured_as_well(home: UserFolder) -> None:
    """The measures of the target are stored; there are no classes."""
    columns = small_points()
    columns["label"] = [float("abc".index(each)) for each in columns["label"]]
    home.write("train.parquet", columns)
    home.specify(data__holdout=SHARE, data__target="number", data__classes=None)
    measure = home.json("train").data["measure"]
    assert measure["per_class"] is None
    assert measure["metrics"]["rmse"] == pytest.approx(home.json("evaluate").data["metrics"]["rmse"], abs=1e-5)


def test_a_hold_out_point_is_corrected(home: UserFolder) -> None:
    """Nothing is retrained, the hold-out points are measured again, and a larger share keeps the corrected value."""
    columns = small_points()
    home.specify(data__holdout=SHARE)
    before = home.json("train").data
    held = _held_out(home)
    place = columns["user_id"].index(held[0])
    was = columns["label"][place]
    row = {name: values[place : place + 1] for name, values in columns.items()}
    home.write("rows.parquet", row | {"label": ["b" if was == "a" else "a"]})
    dry = home.run("rectify", "--file", "rows.parquet", "--dry-run").out
    assert "1 data points would be corrected (1 of them hold-out points), retraining 0.0%" in dry
    done = home.json("rectify", "--file", "rows.parquet", "--request-id", "c-1").data
    assert (done["state"], done["points"], done["held_out"], done["shards"]) == ("complete", 1, 1, [])
    after = home.json("status").data
    assert after["generation"] == before["generation"] == done["effect"]["after"]["generation"]
    assert after["measure"]["metrics"]["accuracy"] == pytest.approx(home.json("evaluate").data["accuracy"], abs=1e-6)
    bundle = home.run("receipt", "c-1").out
    receipt = json.loads(b64decode(json.loads(bundle)["envelope"]["payload"]))["predicate"]
    assert (receipt["rectified"]["points"], receipt["holdout"]["rectified"], receipt["shards"]) == (1, 1, [])
    (home.folder / "c-1.json").write_text(bundle)
    assert "corrected: 1 data points, of which hold-out points: 1" in home.run("receipt", "--check", "c-1.json").out
    home.specify(data__holdout=0.9)
    said = home.run("train")
    assert "the source still has the old values of 1 data point corrected by request" in said.err
    assert home.json("verify").code == 0


def test_a_share_that_holds_everybody_out_is_refused(home: UserFolder) -> None:
    """There is nothing to train on; the store keeps nothing of the data."""
    columns = small_points()
    mine = columns["user_id"].index(MARKED)
    home.write("train.parquet", {name: values[mine : mine + 1] for name, values in columns.items()})
    home.specify(data__holdout=0.999999)
    refused = home.json("train")
    assert refused.code == 2
    assert (
        "[data] holdout = 0.999999 holds out everybody: of 1 data points, none is left to" in refused.error["message"]
    )
    assert refused.error["remedy"].startswith("Set a smaller share")
    assert not home.slice_files()


def test_a_share_that_holds_nobody_out_is_reported(home: UserFolder) -> None:
    """Training goes on, and says why nothing is measured."""
    home.specify(data__holdout=1e-9)
    said = home.run("train")
    assert (said.code, home.json("status").data["held_out"]) == (0, 0)
    assert "[data] holdout = 1e-09 holds out none of the 30 subjects, so nothing is measured" in said.err


def test_remedies_name_the_setting_of_hold_out_files(home: UserFolder) -> None:
    """An error about these files does not advise to change ``[data] train``; doctor gives the same advice."""
    home.specify(data__holdout="held.parquet")
    missing = home.json("train")
    assert missing.error["remedy"].startswith("Set [data] holdout to a file, folder or glob")
    home.write("held.parquet", without(small_points(), ids=small_points()["id"]))
    empty = home.json("train")
    assert empty.error["remedy"] == "Set [data] holdout to files that hold some."
    checks = {each["check"]: each for each in home.json("doctor").data["checks"]}
    assert "Set [data] holdout to files that hold some." in checks["data"]["remedy"]
