"""Moving a store: it is the same federation in its new place, and nothing is left in the old one."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cluster.backups.move import move
from cluster.writer.place import read_identity
from coordinator.engine.ledger import read_state
from storage.encryption.store import SealedStore
from storage.stores.local import LocalStore
from tests.doubles.stores.faulty_store import Crash, Fault, FaultyStore
from tests.doubles.user_folder import MARKED, UserFolder, run


def rest(folder: Path) -> list[str]:
    """Return what files are left in a folder, locks apart."""
    paths = (path for path in folder.rglob("*") if path.is_file() and ".locks" not in path.parts)
    return sorted(str(path.relative_to(folder)) for path in paths)


def test_it_is_the_same_federation_elsewhere(trained: UserFolder) -> None:
    """Id, constituents, receipts and tokens go along, and so do the keys in the store."""
    assert trained.json("erase", "--subject", "secret-person-001", "--request-id", "er-1").code == 0
    config = ("--config", str(trained.config), "--json")
    assert run("token", "create", "--role", "audit", *config).code == 0
    before, identity = trained.json("status").digests, read_identity(trained.objects)
    said = trained.json("move", "elsewhere")
    assert (said.code, said.data["left"]) == (0, 0), said
    assert rest(trained.store) == []
    assert trained.json("status").code == 2
    trained.specify(store="./elsewhere")
    assert trained.json("status").digests == before
    assert len(run("token", "list", *config).data["tokens"]) == 1
    assert trained.json("receipt", "er-1").code == 0
    assert trained.json("erase", "--subject", MARKED).data["points"] == 4
    assert trained.json("verify").code == 0
    moved = read_identity(LocalStore(str(trained.folder / "elsewhere")))
    assert identity is not None
    assert moved is not None
    assert (moved.id, moved.earlier) == (identity.id, ())


def test_what_is_kept_is_a_copy(home: UserFolder) -> None:
    """With --keep the old store is read alone, and keys in a place of their own belong to the new one."""
    home.specify(keys="./keys")
    assert home.json("train").code == 0
    said = home.run("move", "elsewhere", "--keep")
    assert said.code == 0, said.err
    assert f"stay in {home.store}: no erasure reaches them" in said.out
    assert "is a copy of" in home.refused("erase", "--subject", MARKED, code=4).error["message"]
    home.specify(keys="./keys", store="./elsewhere")
    assert home.json("erase", "--subject", MARKED).data["points"] == 4
    assert home.json("verify").code == 0


def test_places_that_are_refused(trained: UserFolder) -> None:
    """A place that is not empty, one in the store itself, and a store without a federation."""
    (trained.folder / "papers").mkdir()
    (trained.folder / "papers" / "Letter.txt").write_text("dear")
    assert "this place is not empty" in trained.refused("move", "papers", code=4).error["message"]
    assert "one contains the other" in trained.refused("move", "federation/inner").error["message"]
    trained.specify(store="./nothing")
    assert "there is no federation here" in trained.json("move", "elsewhere").error["message"]


@pytest.mark.parametrize("share", [0.05, 0.9, 1.0, 1.02, 1.1])
@pytest.mark.parametrize("side", ["new", "old"])
def test_killed_at_any_write_it_goes_on(trained: UserFolder, share: float, side: str) -> None:
    """Repeated, all is in the new place and nothing in the old one, wherever it was killed."""
    old, new = LocalStore(str(trained.store)), LocalStore(str(trained.folder / "elsewhere"))
    before = trained.json("status").digests
    count = sum(1 for _ in old.list(""))
    fault = Fault(when="after", operation="write", nth=max(1, int(count * share)), error=Crash)
    faulty = {"old": FaultyStore(old), "new": FaultyStore(new)}
    faulty[side].plan(fault)
    now = datetime(2026, 11, 29, tzinfo=UTC)
    try:
        move(SealedStore(faulty["old"]), faulty["new"], now=now, progress=lambda _done, _of: None)
    except Crash:
        move(SealedStore(old), new, now=now, progress=lambda _done, _of: None)
    assert rest(trained.store) == []
    assert read_state(old) is None
    trained.specify(store="./elsewhere")
    assert trained.json("status").digests == before
    assert trained.json("erase", "--subject", MARKED).data["points"] == 4


@pytest.mark.s3
def test_from_a_folder_to_a_bucket_and_back(trained: UserFolder, moto_endpoint: str) -> None:
    """Either way the objects are read back before the old ones go."""
    before = trained.json("status").digests
    place = f"s3://plain/moved/{secrets.token_hex(8)}"
    assert trained.json("move", place, "--endpoint", moto_endpoint).code == 0
    assert rest(trained.store) == []
    trained.specify(store=place, endpoint=moto_endpoint)
    assert trained.json("status").digests == before
    assert trained.json("erase", "--subject", MARKED).data["points"] == 4
    assert trained.json("move", "back").code == 0
    trained.specify(store="./back")
    assert trained.json("verify").code == 0
