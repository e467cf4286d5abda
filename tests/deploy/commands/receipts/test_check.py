"""``sisa-check``: what an auditor runs, with cryptography alone, on files that were handed over."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from coordinator.receipts.issuer import Registrar
from deploy.commands.check import main
from deploy.commands.keys import keys_outcome
from deploy.views.output import envelope
from deploy.views.receipts import log_outcome
from storage.stores.memory import MemoryStore
from tests.coordinator.receipts.facts import evidence_of
from tests.doubles.time_and_names import CountingNames, VirtualClock

ROOT = Path(__file__).parents[4]


@pytest.fixture
def registrar() -> Iterator[Registrar]:
    """A registrar that has issued one receipt, for the request ``first``."""
    yield from _registrar("check-ours")


@pytest.fixture
def folder(registrar: Registrar, tmp_path: Path) -> Path:
    """What an auditor has: a receipt, a checkpoint from then, a later one with its proof, and the operator's keys."""
    (tmp_path / "receipt.json").write_bytes(registrar.find("first").to_bytes())
    (tmp_path / "old.txt").write_text(registrar.find("first").checkpoint, encoding="utf-8")
    registrar.issue_all([evidence_of(f"er-{number}") for number in range(4)])
    _write_growth(registrar, tmp_path / "new.json")
    keys_outcome(registrar, "ours", rotate=False, export=tmp_path / "operator.keys")
    return tmp_path


def _registrar(name: str) -> Iterator[Registrar]:
    store = MemoryStore(name)
    store.forget()
    found = Registrar(store, VirtualClock(), CountingNames(name))
    found.issue(evidence_of("first"))
    yield found
    store.forget()


def _write_growth(registrar: Registrar, file: Path) -> None:
    """Write what ``sisa log CHECKPOINT --json`` prints for the checkpoint in the receipt of ``first``."""
    found = log_outcome(registrar.check_log(registrar.find("first").checkpoint))
    file.write_text(json.dumps(envelope(found)), encoding="utf-8")


def check(*words: str | Path) -> tuple[int, dict[str, Any]]:
    """Run the command with ``--json``; return its exit code and what it printed."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(io.StringIO()), pytest.raises(SystemExit, match="[0-6]") as ended:
        main([*map(str, words), "--json"])
    assert isinstance(ended.value.code, int)
    return ended.value.code, json.loads(out.getvalue())


def test_a_receipt(folder: Path) -> None:
    """With the operator's keys it is genuine (0), without any it is intact (6), altered it is neither (3)."""
    receipt, keys = folder / "receipt.json", folder / "operator.keys"
    code, said = check("receipt", receipt, "--key", keys)
    assert (code, said["status"], said["data"]["trusted"], said["data"]["request_id"]) == (0, "ok", True, "first")
    code, said = check("receipt", receipt)
    assert (code, said["data"]["valid"], said["data"]["trusted"], said["error"]["kind"]) == (
        6,
        True,
        False,
        "untrusted",
    )
    receipt.write_text(json.dumps(json.loads(receipt.read_text(encoding="utf-8")), indent=4), encoding="utf-8-sig")
    assert check("receipt", receipt, "--key", keys)[0] == 0
    receipt.write_text(receipt.read_text(encoding="utf-8").replace('"index": 0', '"index": 1'), encoding="utf-8")
    code, said = check("receipt", receipt, "--key", keys)
    assert (code, said["error"]["kind"]) == (3, "proof_failed")


@pytest.mark.parametrize("earlier", ["old.txt", "receipt.json"])
def test_a_log_that_goes_on(folder: Path, earlier: str) -> None:
    """Two files, without the store, prove that the later checkpoint continues the earlier one, or that of a receipt."""
    code, said = check("log", folder / earlier, folder / "new.json", "--key", folder / "operator.keys")
    assert (code, said["data"]["consistent"], said["data"]["earlier"], said["data"]["log_size"]) == (0, True, 1, 5)
    assert check("log", folder / earlier, folder / earlier, "--key", folder / "operator.keys")[0] == 0


def test_a_log_that_was_rewritten(folder: Path, registrar: Registrar) -> None:
    """A log with other entries, a log cut back, another proof, and one signed by others do not continue it."""
    keys = ("--key", folder / "operator.keys")
    new = json.loads((folder / "new.json").read_text(encoding="utf-8"))
    proof = new["data"]["consistency"]
    assert len(proof) > 1
    new["data"]["consistency"] = [*proof[:-1], proof[0]]
    (folder / "wrong.json").write_text(json.dumps(new), encoding="utf-8")
    code, said = check("log", folder / "old.txt", folder / "wrong.json", *keys)
    assert (code, said["data"]["consistent"]) == (3, False)
    assert "does not begin with the earlier one's entries" in said["data"]["failures"][0]
    code, said = check("log", folder / "new.json", folder / "old.txt", *keys)
    assert (code, "fewer than the earlier one" in said["data"]["failures"][0]) == (3, True)
    for other in _registrar("check-others"):
        _write_growth(other, folder / "other.json")
        keys_outcome(other, "others", rotate=False, export=folder / "other.keys")
    code, said = check("log", folder / "old.txt", folder / "other.json", *keys)
    assert (code, "signed by none of the known keys" in said["data"]["failures"][0]) == (3, True)
    code, said = check("log", folder / "old.txt", folder / "other.json", *keys, "--key", folder / "other.keys")
    assert (code, said["data"]["failures"]) == (3, ["the two checkpoints are of different logs"])


def test_new_keys_are_signed_by_old_ones(folder: Path, registrar: Registrar) -> None:
    """An auditor with the first keys accepts those of two rotations, but not another operator's keys or no keys."""
    old, new = folder / "operator.keys", folder / "new.keys"
    assert check("keys", old, "--key", old)[1]["data"] == {"trusted": True, "new": [], "unsigned": []}
    for _ in range(2):
        keys_outcome(registrar, "ours", rotate=True, export=new)
    code, said = check("keys", new, "--key", old)
    assert (code, said["data"]["trusted"], len(said["data"]["new"])) == (0, True, 4)
    registrar.issue(evidence_of("after"))
    (folder / "after.json").write_bytes(registrar.find("after").to_bytes())
    assert [check("receipt", folder / "after.json", "--key", each)[0] for each in (old, new)] == [3, 0]
    for other in _registrar("check-others"):
        keys_outcome(other, "others", rotate=True, export=folder / "other.keys")
    code, said = check("keys", folder / "other.keys", "--key", old)
    assert (code, said["data"]["trusted"], len(said["data"]["unsigned"])) == (3, False, 4)
    without = "".join(line for line in new.read_text().splitlines(keepends=True) if "endorsement" not in line)
    new.write_text(without, encoding="utf-8")
    assert check("keys", new, "--key", old)[0] == 3
    assert check("keys", new)[0] == 2


def test_what_cannot_be_checked_is_bad_input(folder: Path) -> None:
    """No proof, no key, no such file, no checkpoint and half an opening end with 2 and a remedy."""
    keys, old, new = ("--key", folder / "operator.keys"), folder / "old.txt", folder / "new.json"
    reported = json.loads(new.read_text(encoding="utf-8"))
    (folder / "bare.txt").write_text(reported["data"]["checkpoint"], encoding="utf-8")
    (folder / "empty.json").write_text("[]", encoding="utf-8")
    (folder / "odd.json").write_text('{"checkpoint": "x", "consistency": [3]}', encoding="utf-8")
    for words, fact in (
        (("log", old, folder / "bare.txt", *keys), "holds no proof"),
        (("log", old, new), "--key"),
        (("log", old, folder / "none", *keys), "there is no such file"),
        (("log", old, folder / "empty.json", *keys), "holds no checkpoint"),
        (("log", old, folder / "odd.json", *keys), "holds no checkpoint"),
        (("log", old, new, "--key", old), "holds no public keys"),
        (("receipt", folder / "receipt.json", "--key", folder / "none"), "there is no such file"),
        (("receipt", folder / "receipt.json", "--salt", "00"), "--salt goes with the names"),
        (("anything",), "invalid choice"),
        ((), "required"),
    ):
        code, said = check(*words)
        assert (code, fact in said["error"]["message"], bool(said["error"]["remedy"])) == (2, True, True), said


def test_it_runs_with_cryptography_alone(folder: Path, tmp_path: Path) -> None:
    """In a Python that has none of the other libraries it does what it does here."""
    site = tmp_path / "site"
    site.mkdir()
    for room in ("storage", "shards", "coordinator", "cluster", "deploy"):
        (site / room).symlink_to(ROOT / room)
    for name in ("cryptography", "cffi", "_cffi_backend"):  # and what it is built on
        found = importlib.util.find_spec(name)
        assert found is not None
        assert found.origin is not None
        path = Path(found.origin)
        path = path.parent if path.name == "__init__.py" else path
        (site / path.name).symlink_to(path)
    for words, code in (
        (("receipt", "receipt.json", "--key", "operator.keys"), 0),
        (("receipt", "receipt.json"), 6),
        (("log", "receipt.json", "new.json", "--key", "operator.keys"), 0),
        (("receipt", "new.json", "--key", "operator.keys"), 3),
    ):
        done = subprocess.run(
            [sys.executable, "-S", "-m", "deploy.commands.check", *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
