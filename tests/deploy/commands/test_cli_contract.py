"""The contract at the edge: one JSON object, exit codes, usage errors, help."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.doubles.user_folder import MARKED, Columns, UserFolder, run

COMMANDS = ("demo", "init", "train", "predict", "evaluate", "erase", "status", "verify", "plan")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_of_every_command(command: str, word: str) -> None:
    """Help goes to stdout, mentions ``--json``, and succeeds."""
    said = run(command, word)
    assert said.code == 0
    assert "--json" in said.out
    assert f"sisa {command}" in said.out
    assert not said.err


def test_help_names_every_command() -> None:
    """``sisa --help`` lists all commands."""
    said = run("--help")
    assert said.code == 0
    assert all(command in said.out for command in COMMANDS)


def test_no_command_is_wrong_usage() -> None:
    """Without any word the help is shown, and the exit code is 2."""
    said = run()
    assert said.code == 2
    assert "Usage" in said.out + said.err


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_wrong_usage(command: str) -> None:
    """With ``--json`` wrong usage is an envelope, too."""
    said = run(command, "--no-such-option", "--json")
    assert said.code == 2
    assert said.error["kind"] == "usage"
    assert "--no-such-option" in said.error["message"]
    assert f"sisa {command} --help" in said.error["remedy"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("tarin",), "tarin"),
        (("predict", "data.csv"), "--out"),
        (("predict",), "data"),
        (("init",), "data"),
        (("plan", "--shards", "five"), "--shards"),
        (("verify", "--shard"), "--shard"),
    ],
)
def test_wrong_usage_names_the_word(words: tuple[str, ...], text: str) -> None:
    """A misspelt command, a missing argument, a value of the wrong type: the error names it, also with ``--json``."""
    said = run(*words, "--json")
    assert (said.code, said.error["kind"]) == (2, "usage")
    assert text in said.error["message"]
    plain = run(*words)
    assert plain.code == 2
    assert not plain.out
    assert text in plain.err


def test_every_command_gives_one_object(home: UserFolder) -> None:
    """From init to verify each command's stdout is exactly one envelope, and its exit code is 0."""
    home.config.unlink()
    init = home.json("init", "train.parquet")
    assert (init.data["config"], init.data["id"], init.data["left_out"]) == (str(home.config), "id", {})
    home.specify()
    planned = home.json("plan")
    assert planned.code == 0
    assert planned.data["measured"] is False
    train = home.json("train")
    assert train.code == 0
    shape = {"shard", "slices", "points", "digest", "slice_digests", "state"}
    assert all(shape <= each.keys() for each in train.data["constituents"])
    assert home.json("status").data == train.data
    evaluated = home.json("evaluate", "train.parquet")
    assert evaluated.code == 0
    assert {"accuracy", "per_class", "points"} <= evaluated.data.keys()
    predicted = home.json("predict", "train.parquet", "--out", "out.csv")
    by = {"generation": 1, "constituents": 3, "shards": 3, "guarantee": "exact"}
    assert predicted.data == {"out": "out.csv", "points": 120, **by}
    dry = home.json("erase", "--subject", MARKED, "--dry-run")
    assert (dry.code, dry.data["state"], dry.data["points"], dry.data["request_id"]) == (0, "dry-run", 4, None)
    erased = home.json("erase", "--subject", MARKED, "--request-id", "er-1", "--wait")
    assert {"request_id", "state", "shards", "points"} <= erased.data.keys()
    assert (erased.data["request_id"], erased.data["state"], erased.data["points"]) == ("er-1", "complete", 4)
    assert erased.data["shards"] == dry.data["shards"]
    assert home.json("status", "er-1").data | {"salt": erased.data["salt"]} == erased.data
    verified = home.json("verify")
    assert verified.data["exact"] is True
    assert verified.data["residue"]["found"] == []
    assert verified.data["receipts"] == {"checked": 1, "broken": []}
    assert all(each["digest"] == each["retrained_digest"] and each["exact"] for each in verified.data["shards"])
    measured = home.json("plan")
    assert measured.data["measured"] is True
    assert measured.data["points"] == 116


def test_text_for_people_goes_where_it_belongs(home: UserFolder) -> None:
    """Without ``--json`` results are on stdout, progress on stderr."""
    train = home.run("train")
    assert train.code == 0
    assert "120 data points in 3 shards × 2 slices" in train.out
    assert "shard 2: slice 2 of 2" in train.err
    assert "accuracy" in home.run("evaluate", "train.parquet").out
    assert "wrote 120 predictions to out.parquet" in home.run("predict", "train.parquet", "--out", "out.parquet").out
    assert "4 data points would be erased" in home.run("erase", "--subject", MARKED, "--dry-run").out
    erased = home.run("erase", "--subject", MARKED, "--request-id", "er-1")
    assert "request er-1: complete; 4 data points erased" in erased.out
    assert "request er-1: accepted" in erased.err
    assert "complete" in home.run("status").out
    request = home.run("status", "er-1").out
    assert all(state in request for state in ("accepted", "quarantined", "published", "complete"))
    assert "byte-equal, and nothing is left over" in home.run("verify").out
    assert "this federation's own training" in home.run("plan").out


def test_errors_for_people_go_to_stderr(home: UserFolder) -> None:
    """Without ``--json`` a failure is two lines on stderr: the fact and the remedy."""
    said = home.run("evaluate", "train.parquet")
    assert said.code == 2
    assert not said.out
    fact, remedy = said.err.splitlines()
    assert fact.startswith("error: the federation holds no data yet")
    assert remedy.strip() == "Run 'sisa train'."


def test_status_of_what_is_not_there(home: UserFolder) -> None:
    """Where no federation was begun there is no status; an unknown request of one has none."""
    for words in (("status",), ("status", "er-nobody")):
        assert "there is no federation here" in home.refused(*words).error["message"]
    assert home.json("train").code == 0
    unknown = home.refused("status", "er-nobody")
    assert "there is no such erasure request [request=er-nobody]" in unknown.error["message"]
    assert "sisa request list" in unknown.error["remedy"]


def test_reading_an_untrained_federation_makes_no_store(home: UserFolder) -> None:
    """Status, predict, evaluate and a priced erasure of a federation that is not there leave no folder behind."""
    for words in (
        ("status",),
        ("predict", "train.parquet", "--out", "out.csv"),
        ("evaluate", "train.parquet"),
        ("erase", "--subject", "x", "--dry-run"),
        ("plan",),
    ):
        home.run(*words)
    assert sorted(path.name for path in home.folder.iterdir()) == ["sisa.toml", "train.parquet"]


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "train.parquet", "--out", "out.csv"),
        ("evaluate", "train.parquet"),
        ("erase", "--subject", MARKED),
        ("erase", "--subject", MARKED, "--dry-run"),
        ("verify",),
    ],
)
def test_nothing_is_done_before_training(words: tuple[str, ...], home: UserFolder) -> None:
    """What needs a trained federation says to train it."""
    said = home.refused(*words)
    assert "holds no data yet" in said.error["message"]
    assert "sisa train" in said.error["remedy"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--slices", "9"), "epochs to at least"),
        (("--slices", "0"), "--slices"),
        (("--shards", "0"), "--shards"),
        (("--shards", "5000"), "--shards"),
        (("--requests", "0"), "--requests"),
        (("--points", "0"), "--points"),
        (("--points", "-5"), "--points"),
    ],
)
def test_an_impossible_plan_is_refused(words: tuple[str, ...], text: str, trained: UserFolder) -> None:
    """A plan for numbers that cannot be is wrong input, before and after training."""
    assert text in str(trained.refused("plan", *words).error)


def test_a_plan_for_other_numbers(trained: UserFolder) -> None:
    """Other S, R, K and numbers of points change the plan and nothing else."""
    own = trained.json("plan").data
    other = trained.json("plan", "--shards", "6", "--slices", "3", "--requests", "5", "--points", "1000").data
    assert (own["shards"], own["slices"], own["requests"], own["points"]) == (3, 2, 1, 120)
    assert (other["shards"], other["slices"], other["requests"], other["points"]) == (6, 3, 5, 1000)
    assert other["full_training_seconds"] > 0
    assert trained.json("status").data["shards"] == 3


def test_verify_of_a_shard_that_is_not_there(trained: UserFolder) -> None:
    """Chosen shards alone are proved; one that does not exist is refused."""
    said = trained.json("verify", "--shard", "1")
    assert [each["shard"] for each in said.data["shards"]] == [1]
    refused = trained.refused("verify", "--shard", "3")
    assert "there is no shard 3" in refused.error["message"]
    assert "Name shards from 0 to 2." in refused.error["remedy"]


def test_status_may_be_watched(trained: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--watch`` shows the status until it is interrupted, which counts as success."""

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupted)
    said = trained.run("status", "--watch")
    assert said.code == 0
    assert "120 data points in 3 shards × 2 slices" in said.out


def test_init_keeps_what_is_there(home: UserFolder) -> None:
    """An existing specification is replaced only when that is asked for."""
    before = home.config.read_bytes()
    said = home.json("init", "train.parquet")
    assert said.code == 4
    assert home.config.read_bytes() == before
    assert home.json("init", "train.parquet", "--force").code == 0
    assert home.config.read_bytes() != before
    assert home.json("train").code == 0


def test_a_second_writer_is_reported_who_holds_the_store(trained: UserFolder) -> None:
    """While one command writes, another is refused with exit code 4 and the name of the first; readers continue."""
    import cluster

    with cluster.connect(trained.config) as federation, federation._store.exclusive("writer", "'sisa train' (7)"):
        for words in (("train",), ("erase", "--subject", MARKED), ("verify",)):
            said = trained.refused(*words, code=4)
            assert "'sisa train' (7)" in said.error["message"]
        assert trained.json("evaluate", "train.parquet").code == 0


def test_an_interrupt_is_reported(home: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends with a sentence that says it is safe, and with no traceback."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cluster.federation.Federation.train", interrupted)
    said = home.json("train")
    assert (said.code, said.error["kind"]) == (1, "interrupted")


def test_a_bug_is_reported_without_its_text(home: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error gives its type alone, for its text may hold a person's data."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret-person-001")

    monkeypatch.setattr("cluster.federation.Federation.train", broken)
    said = home.json("train")
    assert (said.code, said.error["kind"]) == (1, "internal")
    assert "ZeroDivisionError" in said.error["message"]
    assert "secret" not in said.out + said.err


def test_json_is_utf8_whatever_the_names(tmp_path: Path, home: UserFolder) -> None:
    """Classes and requests with other letters come back as they are."""
    columns: Columns = {"id": ["a", "b", "c", "d"], "label": ["ä", "ß", "ä", "ß"], "x0": [1, 2, 3, 4]}
    home.write("train.parquet", columns)
    home.specify(data__subject=None, data__classes=["ä", "ß"], partition__shards=1, partition__slices=1)
    assert home.json("train").code == 0
    assert set(home.json("evaluate", "train.parquet").data["per_class"]) == {"ä", "ß"}
    assert json.loads(home.json("erase", "--id", "a", "--request-id", "straße").out)["data"]["request_id"] == "straße"
