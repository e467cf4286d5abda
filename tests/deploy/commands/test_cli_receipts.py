"""``sisa receipt``, ``sisa log`` and ``sisa doctor`` through the command."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import cluster.doctor
from cluster.config.specification import read_specification
from cluster.writer.drafting import readmission_of, roll_of
from cluster.writer.identity import trained
from cluster.writer.writer import draft, writer_setup, writing
from coordinator.engine.ledger import read_state
from tests.doubles.user_folder import MARKED, CommandResult, UserFolder, ids_of, run, small_points, without


@pytest.fixture
def erased(home: UserFolder) -> UserFolder:
    """A trained federation with one complete erasure, er-1."""
    assert home.json("train").code == 0
    assert home.json("erase", "--subject", MARKED, "--request-id", "er-1").data["state"] == "complete"
    return home


def saved(home: UserFolder, *words: str) -> Path:
    """Save what ``sisa receipt`` prints."""
    path = home.folder / "receipt.json"
    path.write_text(home.run("receipt", "er-1", *words).out, encoding="utf-8")
    return path


def pinned(home: UserFolder) -> Path:
    """Export the operator's public keys."""
    path = home.folder / "operator.keys"
    assert home.json("keys", "--export", str(path)).data["exported"] == str(path)
    return path


def checked(receipt: Path, *keys: Path) -> CommandResult:
    """Check a receipt offline."""
    return run("receipt", "--check", str(receipt), *(word for key in keys for word in ("--key", str(key))), "--json")


def test_a_receipt_is_printed_to_be_saved_and_checked(erased: UserFolder) -> None:
    """What goes to stdout is the receipt alone; saved, it is genuine by the operator's keys."""
    assert "erasure request er-1" in erased.run("receipt", "er-1").err
    receipt, keys = saved(erased), pinned(erased)
    said = checked(receipt, keys)
    assert said.code == 0
    assert said.data["request_id"] == "er-1"
    assert (said.data["valid"], said.data["trusted"], said.data["respelled"]) == (True, True, False)
    single = [path for path in (erased.store / "log" / "keys").rglob("*") if path.is_file()]
    assert checked(receipt, *single).code == 0
    assert "genuine" in run("receipt", "--check", str(receipt), "--key", str(keys)).out


def test_without_a_trusted_key_nobody_vouches(erased: UserFolder) -> None:
    """Intact is not trusted: exit code 6, and the receipt's content is still printed."""
    receipt = saved(erased)
    said = checked(receipt)
    assert (said.code, said.error["kind"]) == (6, "untrusted")
    assert "--key" in said.error["remedy"]
    assert (said.data["valid"], said.data["trusted"], said.data["request_id"]) == (True, False, "er-1")
    shown = run("receipt", "--check", str(receipt))
    assert "WHOSE it is was not checked" in shown.out
    assert "no trusted key was given" in shown.err


def test_a_forger_is_not_trusted(erased: UserFolder, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A receipt that another federation signed is intact by itself, and not genuine by the operator's keys."""
    other = UserFolder(tmp_path_factory.mktemp("forger")).fill()
    assert other.json("train").code == 0
    assert other.json("erase", "--subject", MARKED, "--request-id", "er-1").code == 0
    forged = saved(other)
    assert checked(forged).code == 6
    said = checked(forged, pinned(erased))
    assert (said.code, said.data["trusted"]) == (3, False)


def test_what_json_printed_can_be_checked_as_well(erased: UserFolder) -> None:
    """The envelope of ``--json`` is taken for the receipt in it."""
    said = checked(saved(erased, "--json"), pinned(erased))
    assert (said.code, said.data["respelled"]) == (0, False)


SPELLINGS: Mapping[str, Callable[[str], bytes]] = {
    "pretty-printed": lambda text: json.dumps(json.loads(text), indent=2).encode(),
    "in another order": lambda text: json.dumps(dict(reversed(json.loads(text).items()))).encode(),
    "escaped": lambda text: text.replace("payload", "\\u0070ayload").encode(),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "pretty-printed with CRLF": lambda text: json.dumps(json.loads(text), indent=4).replace("\n", "\r\n").encode(),
    "UTF-8 with a mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16 with a mark": lambda text: text.replace("\n", "\r\n").encode("utf-16"),
    "UTF-16, the other way round": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "UTF-32": lambda text: text.encode("utf-32"),
    "with empty lines": lambda text: f"\n{text}\n\n".encode(),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_receipt_spelt_anew_is_genuine(erased: UserFolder, name: str) -> None:
    """What editors and shells do to a file on its way takes nothing from the statement in it, and it is said."""
    receipt, keys = saved(erased), pinned(erased)
    receipt.write_bytes(SPELLINGS[name](receipt.read_text(encoding="utf-8")))
    said = checked(receipt, keys)
    assert (said.code, said.data["trusted"], said.data["respelled"]) == (0, True, True)
    assert "reformatted the file" in run("receipt", "--check", str(receipt), "--key", str(keys)).out
    assert checked(receipt).code == 6
    receipt.write_bytes(SPELLINGS[name](receipt_of(erased).replace('"index":0', '"index":1')))
    assert checked(receipt, keys).code == 3


def receipt_of(home: UserFolder) -> str:
    """Return the receipt as it is printed."""
    return home.run("receipt", "er-1").out


def test_a_key_that_stands_twice_is_no_spelling(erased: UserFolder) -> None:
    """A file of which readers take different halves is not genuine."""
    receipt = saved(erased)
    receipt.write_text(receipt_of(erased).replace('{"envelope":', '{"envelope":{},"envelope":', 1), encoding="utf-8")
    assert checked(receipt, pinned(erased)).code == 3


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_keys_and_checkpoints_may_be_spelt_anew(erased: UserFolder, encoding: str) -> None:
    """What an auditor keeps may go through the same hands."""
    receipt, keys = saved(erased), pinned(erased)
    keys.write_bytes(keys.read_text(encoding="utf-8").replace("\n", "\r\n").encode(encoding))
    assert checked(receipt, keys).code == 0
    kept = erased.folder / "checkpoint.txt"
    kept.write_bytes(erased.json("log").data["checkpoint"].replace("\n", "\r\n").encode(encoding))
    assert erased.json("log", "--check", str(kept)).data["earlier"] == 1


@pytest.mark.parametrize(("was", "now"), [('"index":0', '"index":1'), ('"proof":[]', '"proof":["00"]'), ("a", "b")])
def test_an_altered_receipt_is_refused(erased: UserFolder, was: str, now: str) -> None:
    """Any change ends in exit code 3 and says that the receipt is not genuine."""
    receipt = saved(erased)
    text = receipt_of(erased)
    assert was in text
    receipt.write_text(text.replace(was, now, 1), encoding="utf-8")
    for said in (checked(receipt), checked(receipt, pinned(erased))):
        assert (said.code, said.error["kind"], said.data["valid"]) == (3, "proof_failed", False)
        assert said.data["trusted"] is False


def test_a_receipt_names_nobody(erased: UserFolder) -> None:
    """Neither the subject nor an id of theirs is in the receipt."""
    text = erased.run("receipt", "er-1").out
    assert not [name for name in (MARKED, *ids_of(small_points(), MARKED)) if name in text]


def test_receipts_that_are_not_there(erased: UserFolder) -> None:
    """An unknown request, a withdrawn one, a missing file, and a call that names nothing are bad input."""
    assert erased.json("erase", "--subject", "secret-person-001", "--request-id", "er-2", "--hold", "court").code == 0
    assert run("request", "cancel", "er-2", "--reason", "withdrawn", "--config", str(erased.config)).code == 0
    for words in (("receipt", "er-9"), ("receipt", "er-2"), ("receipt", "--check", "none.json"), ("receipt",)):
        said = erased.json(*words)
        assert (said.code, said.envelope["status"]) == (2, "error"), words


def test_the_log_continues_an_earlier_checkpoint(erased: UserFolder) -> None:
    """A checkpoint kept from earlier is consistent with the longer log, and a foreign one is not."""
    first = erased.json("log", "--check")
    assert (first.code, first.data["entries"], first.data["sound"]) == (0, 1, True)
    kept = erased.folder / "checkpoint.txt"
    kept.write_text(first.data["checkpoint"], encoding="utf-8")
    assert erased.json("erase", "--subject", "secret-person-001").code == 0
    later = erased.json("log", "--check", str(kept))
    assert (later.code, later.data["entries"], later.data["earlier"]) == (0, 2, 1)
    kept.write_text(first.data["checkpoint"].replace("\n1\n", "\n2\n", 1), encoding="utf-8")
    assert erased.json("log", "--check", str(kept)).code == 3


def test_verify_finds_a_missing_receipt_and_a_cut_log(erased: UserFolder) -> None:
    """A receipt or a log entry that is gone breaks the proof."""
    assert erased.json("verify").data["receipts"] == {"checked": 1, "broken": []}
    (entry,) = (erased.store / "log" / "entries").iterdir()
    payload = entry.read_bytes()
    entry.write_bytes(payload[:-1])
    assert erased.json("verify").code == 3
    entry.write_bytes(payload)
    (bundle,) = (erased.store / "receipts" / "bundles").iterdir()
    bundle.unlink()
    said = erased.json("verify")
    assert (said.code, len(said.data["receipts"]["broken"]) > 0, said.data["exact"]) == (3, True, True)


def test_a_statement_that_is_still_owed_is_not_missing(erased: UserFolder) -> None:
    """A command that dies before the statements of a refusal and a readmission are signed breaks no receipt."""
    setup = writer_setup(read_specification(erased.config), listener=lambda _: None)
    nobody = draft(setup, subjects=["nobody"], ids=(), request_id="er-2", held="")
    state, key = trained(read_state(setup.store), setup.store, setup.specification)
    back = roll_of(setup.specification, key, state.naming, [MARKED], ()).names
    with writing(setup, "erase") as writer:
        writer.accept(nobody.request, nobody.names)
        writer.quarantine()
        writer.readmit(readmission_of(back, "back-1", "a new contract", setup.clock.now()), back)
    said = erased.json("verify")  # still exit code 3: the tombstones replaced are not purged yet
    assert said.data["receipts"] == {"checked": 1, "broken": []}
    assert "restore" not in said.error["remedy"]
    assert erased.json("train").code == 0
    assert erased.json("verify").data["receipts"] == {"checked": 3, "broken": []}
    for bundle in (erased.store / "receipts" / "bundles").iterdir():
        bundle.unlink()
    broken = erased.json("verify").data["receipts"]["broken"]
    assert {f"request {each}: it has no receipt" for each in ("er-1", "er-2", "back-1")} <= set(broken)


def test_the_doctor_names_sources_that_still_hold_the_erased(
    erased: UserFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the source file is reported; once it is rewritten, nothing is."""
    monkeypatch.setattr(cluster.doctor, "worker_count", lambda _settings, tasks: tasks)
    said = erased.json("doctor")
    failed = [each["check"] for each in said.data["checks"] if not each["ok"]]
    assert (said.code, failed) == (1, ["erased in sources"])
    assert "train.parquet (4 data points)" in json.dumps(said.data)
    erased.write("train.parquet", without(small_points(), subjects=[MARKED]))
    said = erased.json("doctor")
    assert (said.code, said.data["healthy"]) == (0, True)


def test_the_doctor_names_what_ray_keeps_of_the_erased(erased: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Command lines of programs that joined the cluster are looked at, however a name stands in them."""
    monkeypatch.setattr(cluster.doctor, "worker_count", lambda _settings, tasks: tasks)
    erased.write("train.parquet", without(small_points(), subjects=[MARKED]))
    lines = ["python job.py --verbose=yes secret-person-001", "sisa erase @memory:3", "echo 'a b"]
    monkeypatch.setattr(cluster.doctor, "command_lines", lambda: lines)
    assert erased.json("doctor").code == 0
    for line in (
        f"sisa erase --subject={MARKED}",
        f"job '{MARKED.upper()} '",
        f"x {ids_of(small_points(), MARKED)[0]}",
    ):
        lines.append(line)
        said = erased.json("doctor")
        (failed,) = [each for each in said.data["checks"] if not each["ok"]]
        assert (said.code, failed["check"]) == (1, "erased in Ray")
        assert "name 1 of those who are erased" in failed["message"]
        assert "RAY_gcs_storage_path" in failed["remedy"]
        assert MARKED not in said.out
        lines.remove(line)


def test_the_doctor_goes_on_after_a_failed_check(home: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing data fail what needs them; the other checks are still made."""
    monkeypatch.setattr(cluster.doctor, "worker_count", lambda _settings, tasks: tasks)
    (home.folder / "train.parquet").unlink()
    said = home.json("doctor")
    found = {each["check"]: each["ok"] for each in said.data["checks"]}
    assert said.code == 1
    assert found == {
        "installation": True,
        "store": True,
        "disk": True,
        "federation": True,
        "clock": True,
        "data": False,
        "erased in sources": True,
        "token for Ray": True,
        "ray": True,
        "erased in Ray": True,
        "model": False,
    }
