"""An auditor's view over HTTP: keys and checkpoints with their proofs, in the form that ``sisa-check`` reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.commands.check import main
from tests.doubles.user_folder import MARKED
from tests.serving.world import World, error_of

OTHER = "secret-person-001"


def exit_code(*words: str | Path) -> object:
    """Run ``sisa-check``; return its exit code."""
    with pytest.raises(SystemExit, match="[0-6]") as ended:
        main([*map(str, words)])
    return ended.value.code


def test_nothing_is_there_before_the_first_receipt(world: World) -> None:
    """There are neither keys nor checkpoints yet, and the answers say from when on there are."""
    for path in ("/v1/log/checkpoint", "/v1/keys"):
        assert "first receipt" in error_of(world.get(path), 404, "missing")["remedy"]


def test_an_auditor_needs_no_store(world: World, tmp_path: Path) -> None:
    """With a token of the role audit somebody pins keys, checks receipts, follows the log and a rotation of keys."""
    keys, receipt, later, new = (tmp_path / name for name in ("a.keys", "receipt.json", "later.json", "b.keys"))
    world.erase(MARKED, key="er-1")
    world.until_idle()
    keys.write_text(world.get("/v1/keys").text, encoding="utf-8")
    receipt.write_bytes(world.get("/v1/erasures/er-1/receipt").content)
    assert exit_code("receipt", receipt, "--key", keys) == 0
    first = world.get("/v1/log/checkpoint").json()
    assert (first["size"], first["consistency"]) == (1, [])
    world.erase(OTHER, key="er-2")
    world.until_idle()
    later.write_bytes(world.get("/v1/log/checkpoint?earlier=1").content)
    assert exit_code("log", receipt, later, "--key", keys) == 0
    later.write_bytes(world.get("/v1/log/checkpoint").content)
    assert exit_code("log", receipt, later, "--key", keys) == 2
    error_of(world.get("/v1/log/checkpoint?earlier=3"), 422, "invalid")
    world.service.registrar.rotate_keys()
    new.write_text(world.get("/v1/keys").text, encoding="utf-8")
    assert exit_code("keys", new, "--key", keys) == 0
