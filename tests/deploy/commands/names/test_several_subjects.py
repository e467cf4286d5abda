"""``[data] subject`` with several columns, through the command: sender and recipient."""

from __future__ import annotations

import pytest

import cluster.doctor
from shards.routing import NOBODY, Naming, PartitionKey, SubjectDigest, subject_digest
from shards.slices.files import decode_part
from tests.deploy.commands.test_cli_erase import fresh_digests
from tests.doubles.user_folder import MARKED, Columns, UserFolder, small_points

SUBJECT = ["user_id", "recipient"]
STRANGER = "secret-stranger"
"""Receives messages and sends none."""


def messages() -> Columns:
    """Return the small data set with a recipient for every data point but each fifth."""
    columns = small_points()
    count = len(columns["id"])
    recipients = [None if n % 5 == 4 else f"secret-person-{n * 7 % 29:03d}" for n in range(count)]
    recipients[3] = recipients[50] = STRANGER
    return columns | {"recipient": recipients}


def without_people(columns: Columns, *gone: str) -> Columns:
    """Return the columns without what these people sent or received."""
    pairs = zip(columns["user_id"], columns["recipient"], strict=True)
    keep = [not {sender, recipient} & set(gone) for sender, recipient in pairs]
    return {name: [value for value, kept in zip(values, keep, strict=True) if kept] for name, values in columns.items()}


@pytest.fixture
def post(home: UserFolder) -> UserFolder:
    """A trained federation of messages."""
    home.fill(messages(), data__subject=SUBJECT)
    assert home.json("train").code == 0
    return home


@pytest.mark.parametrize("person", [STRANGER, MARKED, "secret-person-007"])
def test_an_erased_person_was_never_there(person: str, post: UserFolder) -> None:
    """Sender, recipient or both: all their messages leave models and files, at the cost that was forecast."""
    left = without_people(messages(), person)
    count = len(messages()["id"]) - len(left["id"])
    dry = post.json("erase", "--subject", person, "--dry-run").data
    said = post.json("erase", "--subject", person).data
    assert dry["points"] == said["points"] == count > 1
    assert dry["shards"] == said["shards"]
    fresh = fresh_digests(post.folder / "fresh", left, data__subject=SUBJECT)
    assert post.json("status").digests == fresh
    assert post.json("verify").code == 0
    secret = subject_digest(PartitionKey(bytes(range(16))), person, Naming(form="trimmed", by_skeleton=True))
    assert not any(bytes(secret) in payload for payload in post.slice_files().values())
    assert secret not in people_of(post)


def people_of(home: UserFolder) -> set[SubjectDigest]:
    """Return the subjects whose data points are in the store."""
    blocks = [decode_part(payload) for payload in home.slice_files().values()]
    columns = [column for block in blocks for column in block.people]
    return {SubjectDigest(bytes(digest)) for column in columns for digest in column.tolist()} - {NOBODY}


def test_a_source_that_still_holds_them_is_named_and_left_out(
    post: UserFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training again brings nobody back; the doctor counts what the files hold of recipients, too."""
    gone = len(messages()["id"]) - len(without_people(messages(), STRANGER)["id"])
    assert post.json("erase", "--subject", STRANGER).code == 0
    before = post.json("status").digests
    assert post.json("train").code == 0
    assert post.json("status").digests == before
    monkeypatch.setattr(cluster.doctor, "worker_count", lambda _settings, tasks: tasks)
    checks = {each["check"]: each for each in post.json("doctor").data["checks"]}
    assert f"train.parquet ({gone} data points)" in checks["erased in sources"]["message"]


def test_who_comes_back_brings_new_messages_alone(post: UserFolder) -> None:
    """After a readmission the messages that were erased stay out by id; new ones are taken."""
    assert post.json("erase", "--subject", STRANGER).code == 0
    before = post.json("status").digests
    assert post.json("readmit", "--subject", STRANGER, "--reason", "asked to").code == 0
    assert post.json("train").code == 0
    assert post.json("status").digests == before
    columns = messages()
    new = {name: [*values, values[0]] for name, values in columns.items()}
    new["id"][-1], new["recipient"][-1] = "secret-id-new", STRANGER
    post.write("train.parquet", new)
    assert post.json("train").code == 0
    assert post.json("erase", "--subject", STRANGER, "--dry-run").data["points"] == 1


def test_a_name_in_any_column_is_known(post: UserFolder) -> None:
    """Only a person who is neither a sender nor a recipient is unknown."""
    data = post.json("erase", "--subject", STRANGER, "--subject", "no such person", "--dry-run").data
    assert (data["points"], data["unknown"]) == (2, 1)


def test_another_list_is_another_federation(post: UserFolder) -> None:
    """The columns and their order identify the federation; a plain column's record is as it was."""
    for other in (["recipient", "user_id"], ["user_id"], "user_id", ["user_id", "recipient", "label2"]):
        post.specify(data__subject=other)
        said = post.json("verify")
        assert said.code == 4
        assert 'data.subject  ["user_id","recipient"]' in said.error["message"]


def test_a_list_of_one_is_the_same_federation(trained: UserFolder) -> None:
    """A federation of one column goes on under a list of it."""
    trained.specify(data__subject=["user_id"])
    assert trained.json("verify").code == 0


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ([], "[data] subject is an empty list"),
        (["user_id", "user_id"], "[data] subject names 'user_id' more than once"),
        (["user_id", "id"], "[data] subject names the id column, 'id', and other columns"),
        ([1], "[data] subject must be text or a list of texts"),
    ],
)
def test_lists_that_make_no_sense_are_refused(subject: list[object], expected: str, home: UserFolder) -> None:
    """The error names the line of the specification."""
    home.specify(data__subject=subject)
    said = home.json("train")
    assert said.code == 2
    assert expected in said.error["message"]
    assert "line 7: " in said.error["message"]
