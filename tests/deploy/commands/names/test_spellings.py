"""Names on the command line and in files: spellings, unknown names, those who come back, statements (E15)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import cluster
from cluster.doctor import _Examination
from storage.errors import SisaError
from tests.doubles.user_folder import MARKED, Columns, UserFolder, ids_of, run, small_points, without

SPELLINGS = {
    "case": ("mia@example.com", "Mia@Example.com"),
    "punctuation": ("van der Berg", "van-der-Berg"),
    "whole numbers": ("17", "17.0"),
    "leading zeros": ("17", "0017"),
}


def renamed(**names: str) -> Columns:
    """Return the small data set with people under other names: ``person_003="Mia"``."""
    columns = small_points()
    other = {f"secret-{old.replace('_', '-')}": new for old, new in names.items()}
    columns["user_id"] = [other.get(name, name) for name in columns["user_id"]]
    return columns


def federation(home: UserFolder, columns: Columns, **changes: object) -> UserFolder:
    """Return the home with a federation trained on these columns."""
    home.write("train.parquet", columns)
    home.specify(erasure__batch_window_seconds=0.0, **changes)
    trained = home.json("train")
    assert trained.code == 0, trained.err
    return home


def sources_reported(home: UserFolder) -> str:
    """Return what ``doctor`` finds of erased people in the source; its other checks want Ray."""
    with cluster.connect(home.config) as connected, pytest.raises(SisaError, match="source files") as found:
        _Examination(connected)._sources()
    return found.value.fact


@pytest.mark.parametrize("kind", SPELLINGS)
def test_the_other_spelling_is_reported(home: UserFolder, kind: str) -> None:
    """A name of another spelling stays, and training, dry run, erasure, status and doctor all say so."""
    one, other = SPELLINGS[kind]
    federation(home, renamed(person_003=one, person_004=other))
    assert home.json("status").data["similar_subjects"] == 2
    assert "2 subjects have names that differ from another's only in case or spacing" in home.run("status").out
    reported = "4 data points belong to 1 subject whose name differs only in case or spacing"
    dry = home.run("erase", "--subject", one, "--dry-run")
    assert reported in dry.out
    priced = home.json("erase", "--subject", one, "--dry-run").data
    assert (priced["points"], priced["unknown"], priced["similar"]) == (4, 0, {"points": 4, "subjects": 1})
    erased = home.run("erase", "--subject", one, "--request-id", "er-1")
    assert reported in erased.out.splitlines()[0]
    assert reported in home.run("status", "er-1").out
    assert home.json("status", "er-1").data["similar"] == {"points": 4, "subjects": 1}
    assert "4 data points of subjects spelt like an erased one" in sources_reported(home)
    home.write("train.parquet", without(renamed(person_003=one, person_004=other), subjects=[one]))
    assert sources_reported(home).startswith("source files hold 4 data points of subjects spelt like an erased one")


def test_similar_names_are_taken_along(home: UserFolder) -> None:
    """With --include-similar all spellings go; the same id without it is another request."""
    federation(home, renamed(person_003="Mia", person_004="mia", person_005="M.I.A."))
    words = ("erase", "--subject", "mia", "--request-id", "er-1")
    priced = home.json("erase", "--subject", "mia", "--dry-run", "--include-similar").data
    erased = home.json(*words, "--include-similar").data
    assert (priced["points"], erased["points"], erased["include_similar"]) == (12, 12, True)
    assert erased["similar"] == {"points": 0, "subjects": 0}
    assert home.refused(*words, code=4).error["kind"] == "conflict"
    assert erased.pop("salt")
    assert home.json(*words, "--include-similar").data == erased
    assert home.json("verify").data["exact"]


@pytest.mark.parametrize(
    ("form", "spellings"),
    [
        ("trimmed", ("Zoë", "Zoe\u0308", " Zoë\u200b")),
        ("email", ("Mia@Example.com", "mia@example.com", "MIA@EXAMPLE.COM ")),
        ("casefold", ("STRASSE", "straße", "Strasse")),
        ("phone", ("+49 30 1234", "0049301234", "(49) 30-1234")),
    ],
)
def test_what_the_form_unites_goes_together(home: UserFolder, form: str, spellings: tuple[str, ...]) -> None:
    """By any spelling, all data points of the person are erased, and no similar spelling is reported."""
    people = {f"person_{number:03d}": f"0{number}" for number in range(29)}  # phone numbers all
    people |= dict(zip(("person_003", "person_004", "person_005"), spellings, strict=True))
    columns = renamed(**people)
    columns["user_id"] = ["99" if name == "marked-person" else name for name in columns["user_id"]]
    federation(home, columns, data__subject_form=form)
    erased = home.json("erase", "--subject", spellings[1], "--request-id", "er-1").data
    assert (erased["state"], erased["points"], erased["similar"]["points"]) == ("complete", 12, 0)
    refused = home.json("erase", "--subject", spellings[0], "--request-id", "er-2")
    assert (refused.code, refused.data["state"]) == (2, "refused")
    assert home.json("status").data["subject_form"] == form


def test_the_form_stays_what_it_was(home: UserFolder) -> None:
    """Another form would make other people of the names in the store: refused, with both."""
    federation(home, small_points())
    assert home.json("status").data["subject_form"] == "trimmed"
    home.specify(data__subject_form="email")
    for command in (("train",), ("erase", "--subject", "nobody"), ("erase", "--subject", "nobody", "--dry-run")):
        refused = home.json(*command)
        assert refused.code == 4
        assert "data.subject_form" in refused.error["message"]
        assert '"trimmed"' in refused.error["message"]
        assert '"email"' in refused.error["message"]
    home.specify(data__subject_form="trimmed")
    assert home.json("train").code == 0


def test_an_unknown_form_is_refused(home: UserFolder) -> None:
    """The message lists what there is."""
    home.specify(data__subject_form="surname")
    assert "trimmed, casefold, email, phone, integer" in home.json("train").error["message"]


def test_unknown_names_of_the_call_are_named(home: UserFolder) -> None:
    """By name, in the order of the call, in dry runs and when it is carried out; repeats tell it again."""
    federation(home, small_points())
    names = ("erase", "--subject", "nobody", "--subject", "secret-person-003", "--id", "no-id")
    dry = home.json(*names, "--dry-run").data
    assert (dry["subjects"], dry["ids"], dry["unknown"], dry["unknown_names"]) == (2, 1, 2, ["nobody", "no-id"])
    said = home.json(*names, "--request-id", "er-1").data
    assert (said["unknown"], said["unknown_names"]) == (2, ["nobody", "no-id"])
    assert home.json(*names, "--request-id", "er-1").data["unknown_names"] == ["nobody", "no-id"]
    assert "no data point here of: nobody, no-id" in home.run(*names, "--request-id", "er-1").out
    kept = json.dumps(home.json("status").envelope) + "".join(map(str, home.raw().values()))
    assert "nobody" not in kept


def test_unknown_lines_of_a_file_are_named(home: UserFolder, tmp_path: Path) -> None:
    """By number, many or few, beside names on the command line."""
    federation(home, small_points())
    file = tmp_path / "names.txt"
    file.write_text("user\nsecret-person-003\n  secret-person-004 \nSECRET-PERSON-005\n", encoding="utf-8")
    words = ("erase", "--subject", "nobody", "--file", str(file))
    dry = home.json(*words, "--dry-run").data
    assert (dry["unknown_names"], dry["unknown_lines"], dry["points"]) == (["nobody"], [1, 4], 8)
    assert "2 of 5 names" not in home.run(*words, "--dry-run").out
    assert "3 of 5 names are unknown here" in home.run(*words, "--dry-run").out
    said = home.run(*words, "--request-id", "er-1")
    assert f"no data point here of the names in these lines of {file}: 1, 4" in said.out
    file.write_text("\n".join(["secret-person-006", *(f"stranger-{n}" for n in range(200))]) + "\n", encoding="utf-8")
    many = home.json("erase", "--file", str(file), "--request-id", "er-2").data
    assert many["unknown_lines"] == list(range(2, 202))
    assert "21 and 180 more" in home.run("erase", "--file", str(file), "--request-id", "er-2").out


@pytest.mark.parametrize("words", [("--dry-run",), ("--request-id", "er-1")])
def test_a_name_without_the_form_is_reported_by_its_line(home: UserFolder, words: tuple[str, ...]) -> None:
    """The error gives the number of the only line that is not an integer, and the form of names, but not the name."""
    columns = small_points()
    columns["user_id"] = [str(int(name[-3:])) if name != MARKED else "29" for name in columns["user_id"]]
    federation(home, columns, data__subject_form="integer")
    file = home.folder / "names.txt"
    lines = [str(number) for number in range(5000)]
    file.write_text("\n".join([*lines[:4500], "secret", *lines[4500:]]) + "\n", encoding="utf-8")
    refused = home.refused("erase", "--subject", "7", "--file", str(file), *words).error
    assert f"[file={file} line=4501]" in refused["message"]
    assert "secret" not in refused["message"]
    assert "the form 'integer' here" in refused["remedy"]
    refused = home.refused("erase", "--subject", "7", "secret", "--file", str(file), *words).error
    assert "[subject_number=2]" in refused["message"]


def test_a_refused_request_counts_right(home: UserFolder) -> None:
    """``subjects``, ``ids`` and ``unknown`` say what was named; nothing of it is here."""
    federation(home, small_points())
    said = home.json("erase", "--subject", "nobody", "--subject", "none", "--id", "no-id", "--request-id", "er-1")
    assert said.code == 2
    data: dict[str, Any] = said.data
    assert [data[name] for name in ("state", "subjects", "ids", "points", "unknown")] == ["refused", 2, 1, 0, 3]
    assert data["unknown_names"] == ["nobody", "none", "no-id"]


@pytest.mark.parametrize("request_id", ["secret-person-003", "Secret-Person-003 ", "SECRET.PERSON.003"])
@pytest.mark.parametrize("option", ["--subject", "--id"])
def test_a_request_id_that_is_the_name_is_refused(home: UserFolder, request_id: str, option: str) -> None:
    """Every spelling of it is refused, because it would stay in the journal, in the receipt and in the log forever."""
    federation(home, small_points())
    refused = home.refused("erase", option, "secret-person-003", "--request-id", request_id)
    assert "the request id is one of the names that it erases" in refused.error["message"]
    assert "person" not in refused.error["message"].lower()
    kept = {name: payload.lower() for name, payload in home.raw().items() if "journal" in name or "log" in name}
    assert kept
    assert all(b"secret" not in payload for payload in kept.values())


@pytest.mark.parametrize("request_id", ["49301234", "0049 30/1234", "ticket +49 30 1234"])
def test_a_request_id_that_is_the_telephone_number_is_refused(home: UserFolder, request_id: str) -> None:
    """The same holds if id and number differ only in punctuation; ids of data points are not compared as numbers."""
    numbers = {f"secret-person-{n:03d}": f"+49 (30) {1231 + n}" for n in range(30)} | {MARKED: "+1 555 0100"}
    columns = {**small_points(), "user_id": [numbers[name] for name in small_points()["user_id"]]}
    federation(home, columns, data__subject_form="phone")
    refused = home.refused("erase", "--subject", "+49 (30) 1234", "--request-id", request_id)
    assert "the request id is one of the names that it erases" in refused.error["message"]
    assert home.json("erase", "--id", "secret-id-0003", "--request-id", "ticket-0003").code == 0


def test_merged_accounts_bring_nothing_back(home: UserFolder) -> None:
    """The erased data points of one account stay out when the source gives them to another, and that is said."""
    federation(home, small_points())
    assert home.json("erase", "--subject", "secret-person-003").data["points"] == 4
    home.write("train.parquet", renamed(person_003="secret-person-004"))
    trained = home.json("train").data
    assert (trained["points"], trained["tombstoned_at_ingest"], trained["kept_out_by_id"]) == (116, 4, 4)
    assert (
        "4 data points of the source are kept out, because they were erased, 4 of them by id" in home.run("status").out
    )
    assert "train.parquet (4 data points); 4 of them by id" in sources_reported(home)
    assert home.json("verify").data["residue"]["found"] == []


@pytest.mark.parametrize("how", ["one by one", "readmitted"])
def test_why_data_points_stay_out_by_id(home: UserFolder, how: str) -> None:
    """Whose name is still the same is not said to have another one, by training and by the doctor alike."""
    federation(home, small_points())
    if how == "readmitted":
        home.json("erase", "--subject", "secret-person-003")
        home.json("readmit", "--subject", "secret-person-003", "--reason", "a new contract")
    else:
        home.json("erase", "--id", *ids_of(small_points(), "secret-person-003"))
    assert "train.parquet (4 data points); 4 of them by id" in sources_reported(home)
    home.write("train.parquet", without(small_points(), subjects=["secret-person-004"]))
    trained = home.run("train")
    reported = "4 of them by id: they were erased one by one, or their subject was readmitted"
    assert f"because they were erased, {reported}" in trained.out


def test_somebody_comes_back(home: UserFolder) -> None:
    """New data points are taken from then on, those that were erased are not; it is recorded, signed, idempotent."""
    federation(home, small_points())
    home.json("erase", "--subject", "secret-person-003")
    words = ("readmit", "--subject", "secret-person-003", "--reason", "a new contract", "--request-id", "back-1")
    back = home.json(*words)
    assert (back.code, back.data["request_id"], back.data["subjects"]) == (0, "back-1", 1)
    assert home.json(*words).data["at"] == back.data["at"]
    other = ("readmit", "--subject", "secret-person-004", "--reason", "why", "--request-id", "back-1")
    assert home.json(*other).code == 4
    columns = small_points()
    for name, values in small_points().items():
        columns[name] += values[3:4]
    columns["id"][-1] = "new-id"
    home.write("train.parquet", columns)
    trained = home.json("train").data
    assert (trained["points"], trained["tombstoned_at_ingest"], trained["kept_out_by_id"]) == (117, 4, 4)
    receipt = home.run("receipt", "back-1")
    assert "readmission back-1" in receipt.err
    assert "reason: a new contract" in receipt.err
    verified = home.json("verify").data
    assert (verified["exact"], verified["receipts"]["checked"]) == (True, 2)


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (("--subject", "nobody", "--reason", "why"), "none of these subjects was erased here"),
        (("--subject", "secret-person-003", "--reason", ""), "reason"),
        (
            ("--subject", "secret-person-003", "--reason", "why", "--request-id", "secret-person-003"),
            "one of the names",
        ),
    ],
)
def test_a_readmission_that_cannot_be(home: UserFolder, words: tuple[str, ...], fact: str) -> None:
    """Bad input, and nothing changes."""
    federation(home, small_points())
    home.json("erase", "--subject", "secret-person-003")
    assert fact in home.refused("readmit", *words).error["message"]


def test_we_hold_nothing_on_you(home: UserFolder, tmp_path: Path) -> None:
    """The statement is printed and checked offline, and only the salt, shown once, proves whom it is about."""
    federation(home, small_points())
    said = home.json("erase", "--subject", "nobody", "--request-id", "er-1").data
    salt = said["salt"]
    assert home.json("erase", "--subject", "nobody", "--request-id", "er-1").data.get("salt") is None
    printed = home.run("receipt", "er-1")
    assert "nothing found for erasure request er-1" in printed.err
    assert "nothing of any of them among 120 data points" in printed.err
    file = tmp_path / "statement.json"
    file.write_text(printed.out, encoding="utf-8")
    check = ("receipt", "--check", str(file), "--json")
    assert run(*check).data["valid"]
    about = run(*check, "--salt", salt, "--subject", "nobody")
    assert (about.code, about.data["about_these_names"]) == (6, True)
    keys = ("--key", str(tmp_path / "operator.keys"))
    assert home.json("keys", "--export", keys[1]).code == 0
    assert run(*check, *keys, "--salt", salt, "--subject", "nobody").code == 0
    for wrong in (
        ("--salt", salt, "--subject", "somebody"),
        ("--salt", "0" * 32, "--subject", "nobody"),
        ("--salt", salt, "--id", "nobody"),
        ("--salt", salt, "--subject", "nobody", "--subject", "somebody"),
    ):
        assert run(*check, *wrong).code == 3
    assert run(*check, "--salt", salt).code == 2
    assert all(salt.encode() not in payload for payload in home.raw().values())
    assert home.json("verify").data["receipts"] == {"checked": 1, "broken": []}


def test_a_receipt_is_about_whom_the_salt_shows(home: UserFolder, tmp_path: Path) -> None:
    """The asker's salt, and nothing in the store, shows that a receipt is about the names that were given."""
    federation(home, small_points())
    words = ("erase", "--subject", "secret-person-003", "--subject", "nobody", "--request-id", "er-1")
    salt = home.json(*words).data["salt"]
    assert "salt" not in home.json(*words).data
    printed, file = home.run("receipt", "er-1"), tmp_path / "receipt.json"
    assert "commitment to the names, which needs the asker's salt" in printed.err
    file.write_text(printed.out, encoding="utf-8")
    check = ("receipt", "--check", str(file), "--json")
    names = ("--subject", "secret-person-003", "--subject", "nobody")
    about = run(*check, "--salt", salt, *names)
    assert (about.code, about.data["about_these_names"]) == (6, True)
    for wrong in (("--salt", salt, *names[:2]), ("--salt", "0" * 32, *names), ("--salt", f"{salt}subject", *names)):
        said = run(*check, *wrong)
        assert (said.code, "not about these names" in said.error["message"]) == (3, True)
        assert "not genuine" not in said.error["message"]  # what to look at is what was typed
    assert all(salt.encode() not in payload for payload in home.raw().values())


def test_a_salt_shows_no_other_name(home: UserFolder, tmp_path: Path) -> None:
    """A name that holds another one, behind what parts salts from names, does not make the receipt that other's."""
    federation(home, small_points())
    salt = home.json("erase", "--subject", "xsubject\0alice", "--request-id", "er-1").data["salt"]
    file = tmp_path / "receipt.json"
    file.write_text(home.run("receipt", "er-1").out, encoding="utf-8")
    check = ("receipt", "--check", str(file), "--json")
    assert run(*check, "--salt", salt, "--subject", "xsubject\0alice").code == 6
    assert run(*check, "--salt", f"{salt}subject\0x", "--subject", "alice").code == 3


def test_a_salt_needs_a_commitment(home: UserFolder, tmp_path: Path) -> None:
    """A readmission commits to no names: asked whom it is about, it says so."""
    federation(home, small_points())
    home.json("erase", "--subject", "secret-person-003", "--request-id", "er-1")
    home.json("readmit", "--subject", "secret-person-003", "--reason", "back", "--request-id", "re-1")
    file = tmp_path / "receipt.json"
    file.write_text(home.run("receipt", "re-1").out, encoding="utf-8")
    said = run("receipt", "--check", str(file), "--salt", "00", "--subject", "x", "--json")
    assert (said.code, "commits to no names" in said.error["message"]) == (2, True)


def test_ids_that_are_subjects_take_the_form(home: UserFolder) -> None:
    """Where each data point is its own subject, ids are compared in the form, and somebody can come back."""
    columns = small_points()
    columns["id"][5] = "Mia"
    federation(home, columns, data__subject=None, data__features=["x*"])
    assert home.json("erase", "--id", " Mia\u200b", "--request-id", "er-1").data["points"] == 1
    assert home.json("train").data["points"] == 119
    home.write("train.parquet", columns)
    assert home.json("readmit", "--subject", "Mia", "--reason", "back").code == 0
    columns["x00"][0] = 250
    home.write("train.parquet", columns)
    assert home.json("train").data["points"] == 120


def test_who_was_not_erased_is_named_to_who_readmits(home: UserFolder) -> None:
    """A misspelt name is reported, not ignored; only the requester sees the names."""
    federation(home, small_points())
    home.json("erase", "--subject", "secret-person-003")
    names = ("--subject", "secret-person-003", "--subject", "secret-person-3", "--subject", "secret-person-004")
    words = ("readmit", *names, "--reason", "a new contract", "--request-id")
    reported = home.json(*words, "back-1").data
    assert (reported["subjects"], reported["unknown_names"]) == (1, ["secret-person-3", "secret-person-004"])
    assert home.json(*words, "back-1").data["unknown_names"] == [], "by then nothing keeps anybody out"
    home.json("erase", "--subject", "secret-person-004")
    said = home.run(*words, "back-2")
    assert "not erased here, so that nothing keeps them out: secret-person-003, secret-person-3\n" in said.out
    assert all(b"person-3" not in payload for payload in home.raw().values())


def test_a_readmission_repeated_after_another_erasure(home: UserFolder) -> None:
    """It is recorded and applied once: a person who is erased again stays out, and the command says so."""
    federation(home, small_points())
    words = ("readmit", "--subject", "secret-person-003", "--reason", "a new contract", "--request-id", "back-1")
    home.json("erase", "--subject", "secret-person-003")
    assert home.json(*words).data["erased_since"] == 0
    new = {name: [*values, values[0]] for name, values in small_points().items()}
    new["id"][-1], new["user_id"][-1] = "new-id", "secret-person-003"
    home.write("train.parquet", new)
    assert home.json("train").data["points"] == 117
    assert home.json("erase", "--subject", "secret-person-003").data["points"] == 1
    assert home.json(*words).data["erased_since"] == 1
    assert "1 of them were erased since then and stay out" in home.run(*words).out
    assert home.json("train").data["points"] == 116
