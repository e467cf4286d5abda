"""``sisa keys``: listed, replaced, and everything signed before still verifies."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doubles.user_folder import UserFolder, run


@pytest.fixture
def erased(trained: UserFolder) -> UserFolder:
    """A trained federation with one complete erasure, er-1."""
    assert trained.json("erase", "--subject", "secret-person-001", "--request-id", "er-1").code == 0
    return trained


def _saved(home: UserFolder, request: str) -> Path:
    path = home.folder / f"{request}.json"
    path.write_text(home.run("receipt", request).out, encoding="utf-8")
    return path


def _published(home: UserFolder) -> list[str]:
    """Write the public keys to files as they would be handed out; return the options that name them."""
    options = []
    for each in home.json("keys").data["keys"]:
        path = home.folder / f"{each['key_id']}.pem"
        path.write_text(each["public_key"], encoding="ascii")
        options += ["--key", str(path)]
    return options


def test_keys_are_listed(trained: UserFolder) -> None:
    """Before the first receipt there are none; after it one for receipts and one for the log's checkpoints."""
    assert trained.json("keys").data == {"rotated": False, "keys": []}
    assert "no signing keys yet" in trained.run("keys").out
    refused = trained.refused("keys", "--rotate")
    assert refused.error["message"] == "there are no signing keys yet"
    assert trained.json("erase", "--subject", "secret-person-001").code == 0
    found = trained.json("keys").data["keys"]
    assert [(each["purpose"], each["state"], each["since"]) for each in found] == [
        ("checkpoints", "signs", None),
        ("receipts", "signs", None),
    ]
    said = trained.run("keys").out
    assert all(each["key_id"][:16] in said for each in found)


def test_what_was_signed_before_a_rotation_still_verifies(erased: UserFolder) -> None:
    """Receipts, log and store check out with keys new and old, and no old private key is left."""
    old, earlier = _saved(erased, "er-1"), erased.folder / "checkpoint"
    before = {each["key_id"] for each in erased.json("keys").data["keys"]}
    earlier.write_text(erased.json("log").data["checkpoint"], encoding="utf-8")
    rotated = erased.json("keys", "--rotate").data
    assert rotated["rotated"] is True
    states = {each["key_id"]: each["state"] for each in rotated["keys"]}
    assert {key for key, state in states.items() if state == "retired"} == before
    assert [state for key, state in states.items() if key not in before] == ["signs", "signs"]
    assert len(list((erased.store / "control" / "signing").rglob("0*"))) == 2
    assert erased.json("erase", "--subject", "secret-person-002", "--request-id", "er-2").code == 0
    new = _saved(erased, "er-2")
    assert _saved(erased, "er-1").read_text(encoding="utf-8") == old.read_text(encoding="utf-8")
    for receipt in (old, new):
        assert run("receipt", "--check", str(receipt), *_published(erased), "--json").data["valid"] is True
    said = erased.json("log", "--check", str(earlier))
    assert (said.code, said.data["earlier"], said.data["entries"]) == (0, 1, 2)
    assert erased.json("verify").code == 0


def test_every_rotation_is_one(erased: UserFolder) -> None:
    """Each call replaces both keys once, and says so to people as well."""
    for retired in (2, 4):
        said = erased.run("keys", "--rotate")
        assert said.code == 0
        assert "new keys sign from now on" in said.out
        found = erased.json("keys").data["keys"]
        assert [each["state"] for each in found] == ["signs"] * 2 + ["retired"] * retired
        assert found[0]["since"] is not None


def test_what_an_auditor_pins(erased: UserFolder) -> None:
    """One file has all keys, retired ones as well: it verifies receipts of before and after a rotation."""
    old, file = _saved(erased, "er-1"), erased.folder / "operator.keys"
    assert erased.json("keys", "--rotate").code == 0
    assert erased.json("erase", "--subject", "secret-person-002", "--request-id", "er-2").code == 0
    said = erased.run("keys", "--export", str(file))
    assert f"4 public keys are in {file}" in said.out
    assert file.read_text(encoding="utf-8").count("# verifies; its private half is destroyed") == 2
    for receipt in (old, _saved(erased, "er-2")):
        assert run("receipt", "--check", str(receipt), "--key", str(file), "--json").data["trusted"] is True


def test_files_that_are_no_keys(erased: UserFolder) -> None:
    """A file without keys, with half of one, or with something beside them is refused with what to give."""
    receipt, file = _saved(erased, "er-1"), erased.folder / "operator.keys"
    assert erased.json("keys", "--export", str(file)).code == 0
    text = file.read_text(encoding="utf-8")
    for wrong in ("", "# nothing but words\n", text[:-60], text + "more\n", f"more\n{text}", "\ud800"):
        file.write_bytes(wrong.encode("utf-8", "surrogatepass"))
        said = run("receipt", "--check", str(receipt), "--key", str(file), "--json")
        assert (said.code, "sisa keys --export" in said.error["remedy"]) == (2, True)


def test_nothing_is_exported_before_there_is_a_key(trained: UserFolder) -> None:
    """Keys are made with the first receipt."""
    file = trained.folder / "operator.keys"
    assert trained.refused("keys", "--export", str(file)).error["message"] == "there are no signing keys yet"
    assert not file.exists()
