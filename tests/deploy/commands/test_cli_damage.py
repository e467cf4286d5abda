"""A damaged store through the command: refused by name, rebuilt to the same bytes where that can be done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doubles.user_folder import MARKED, UserFolder, small_points


def _flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    payload = bytearray(path.read_bytes())
    payload[len(payload) // 2] ^= 1
    path.write_bytes(payload)


def _last_checkpoint(home: UserFolder, shard: int) -> Path:
    (path,) = (home.store / f"shards/{shard:04d}/checkpoints/0002").iterdir()
    return path


def _slice_file(home: UserFolder, shard: int) -> Path:
    return next((home.store / f"shards/{shard:04d}").rglob("*.parquet"))


@pytest.mark.parametrize("gone", [False, True], ids=["corrupt", "deleted"])
def test_a_lost_checkpoint_is_named_and_rebuilt(gone: bool, trained: UserFolder) -> None:
    """Predictions refuse a checkpoint whose digest differs and name it; ``sisa train`` makes it again, byte for byte,
    and it alone.
    """
    before = trained.json("status")
    path = _last_checkpoint(trained, 1)
    key = path.relative_to(trained.store).as_posix()
    if gone:
        path.unlink()
    else:
        _flip(path)
    for words in (("predict", "train.parquet", "--out", "out.csv"), ("evaluate", "train.parquet")):
        said = trained.refused(*words, code=1)
        assert said.error["kind"] == "corrupt"
        assert key in said.error["message"]
        assert "sisa train" in said.error["remedy"]
    assert not (trained.folder / "out.csv").exists()
    broken = trained.json("verify")
    assert broken.code == 3
    found = broken.data["residue"]["found"]
    assert f"object missing or damaged: {key}" in found
    assert all(key in each for each in found)
    rebuilt = trained.run("train")
    assert "shard 1: slice 2 of 2" in rebuilt.err
    assert "slice 1 of 2" not in rebuilt.err
    assert "shard 0" not in rebuilt.err
    assert trained.json("status").digests == before.digests
    assert trained.json("verify").code == 0


def test_a_corrupt_checkpoint_does_not_stop_an_erasure(trained: UserFolder) -> None:
    """An erasure in a shard whose checkpoint is damaged ends as in an undamaged store."""
    shard = trained.json("erase", "--subject", MARKED, "--dry-run").data["shards"][0]
    _flip(_last_checkpoint(trained, shard))
    assert trained.json("erase", "--subject", MARKED).data["state"] == "complete"
    assert trained.json("train").code == 0
    assert trained.json("verify").code == 0


def test_a_corrupt_slice_file_is_read_again_from_the_source(trained: UserFolder) -> None:
    """``verify`` names a damaged slice file; ``sisa train`` reads the source once more and ends in the same bytes."""
    before = trained.json("status")
    path = _slice_file(trained, 2)
    _flip(path)
    broken = trained.json("verify")
    assert broken.code != 0
    assert path.name in broken.out
    assert trained.json("train").digests == before.digests
    assert trained.json("verify").code == 0


def test_a_corrupt_slice_file_without_source_is_reported(trained: UserFolder) -> None:
    """Where the source is gone as well, nothing is touched, and the remedy says what to bring back."""
    _flip(_slice_file(trained, 2))
    (trained.folder / "train.parquet").rename(trained.folder / "away.parquet")
    said = trained.refused("train", code=1)
    assert said.error["kind"] == "corrupt"
    assert "1 slice files are damaged" in said.error["message"]
    assert "[data] train" in said.error["remedy"]
    (trained.folder / "away.parquet").rename(trained.folder / "train.parquet")
    assert trained.json("train").code == 0
    assert trained.json("verify").code == 0


def test_a_corrupt_slice_file_stops_an_erasure_that_needs_it(trained: UserFolder) -> None:
    """An erasure never completes on a slice that cannot be read; after ``sisa train`` it is carried out."""
    shard = trained.json("erase", "--subject", MARKED, "--dry-run").data["shards"][0]
    for path in (trained.store / f"shards/{shard:04d}").rglob("*.parquet"):
        _flip(path)
    said = trained.json("erase", "--subject", MARKED, "--request-id", "er-1")
    assert (said.code, said.error["kind"]) == (1, "corrupt")
    assert "sisa train" in said.error["remedy"]
    assert trained.json("train").code == 0
    assert trained.json("status", "er-1").data["state"] == "complete"
    assert trained.json("verify").code == 0
    assert MARKED.encode() not in b"".join(path.read_bytes() for path in trained.store.rglob("*") if path.is_file())


@pytest.mark.parametrize("words", [("train",), ("status",), ("evaluate", "train.parquet"), ("verify",)])
def test_a_corrupt_manifest_is_named(words: tuple[str, ...], trained: UserFolder) -> None:
    """A manifest that does not prove itself whole stops every command, is named, and is kept."""
    latest = max((trained.store / "manifest").iterdir())
    _flip(latest)
    kept = trained.kept() | {"manifest": latest.read_bytes()}
    said = trained.json(*words)
    assert (said.code, said.error["kind"]) == (1, "corrupt")
    assert f"manifest/{latest.name}" in said.error["message"]
    assert said.error["remedy"]
    assert trained.kept() | {"manifest": latest.read_bytes()} == kept


def test_a_damaged_partition_key_is_named(home: UserFolder) -> None:
    """A drawn key that cannot be read stops the command: with another key no point would be found again."""
    home.specify(partition__key=None)
    assert home.json("train").code == 0
    key = home.store / "control/partition-key"
    key.write_bytes(b"not a key")
    for words in (("train",), ("evaluate", "train.parquet"), ("erase", "--subject", MARKED)):
        said = home.json(*words)
        assert (said.code, said.error["kind"]) == (1, "corrupt")
        assert "partition key" in said.error["message"]
    assert key.read_bytes() == b"not a key"


def test_orphans_and_foreign_files_are_found(trained: UserFolder) -> None:
    """``verify`` ends with 3 and names what nobody refers to; ``sisa train`` removes orphans, not others' files."""
    orphan = trained.store / "shards/0001/checkpoints/0002/orphan.safetensors"
    orphan.write_bytes(b"left over")
    unfinished = trained.store / "shards/0001/.half.0123456789abcdef.tmp"
    unfinished.write_bytes(b"half")
    foreign = trained.store / "Notes of mine.txt"
    foreign.write_bytes(b"mine")
    said = trained.json("verify")
    assert said.code == 3
    assert said.error["kind"] == "proof_failed"
    assert said.data["exact"] is True
    found = said.data["residue"]["found"]
    assert any("shards/0001/checkpoints/0002/orphan.safetensors" in each for each in found)
    assert any("Notes of mine.txt" in each for each in found)
    assert any(".half." in each for each in found)
    assert trained.json("train").code == 0
    assert not orphan.exists()
    assert not unfinished.exists()
    assert foreign.exists()
    again = trained.json("verify")
    assert again.code == 3
    assert len(again.data["residue"]["found"]) == 1
    foreign.unlink()
    assert trained.json("verify").code == 0


def test_an_erasure_removes_orphans(trained: UserFolder) -> None:
    """A purge takes what an interrupted writer left behind: it may hold the erased points."""
    orphan = trained.store / "shards/0000/slices/0001/orphan.parquet"
    orphan.parent.mkdir(parents=True, exist_ok=True)
    orphan.write_bytes(MARKED.encode())
    assert trained.json("erase", "--subject", MARKED).data["state"] == "complete"
    assert not orphan.exists()


def test_data_that_came_back_are_found(trained: UserFolder) -> None:
    """A copy of an erased person's slice file, put back by hand, is residue."""
    old = _slice_copies(trained)
    assert trained.json("erase", "--subject", MARKED).data["state"] == "complete"
    for path, payload in old.items():
        if not path.exists():
            path.write_bytes(payload)
    said = trained.json("verify")
    assert said.code == 3
    assert any("nothing refers to" in each for each in said.data["residue"]["found"])
    assert trained.json("train").code == 0
    assert trained.json("verify").code == 0


def _slice_copies(home: UserFolder) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in home.store.rglob("*.parquet")}


def test_a_federation_of_nothing_but_erased_people(home: UserFolder) -> None:
    """When everyone is erased, every constituent abstains, and prediction says that nothing is left to wait for."""
    people = small_points(people=2, each=3)
    home.write("train.parquet", people)
    home.specify(data__classes=["a", "b", "c"])
    assert home.json("train").code == 0
    assert home.json("erase", "--subject", MARKED, "secret-person-000").data["points"] == 6
    said = home.refused("evaluate", "train.parquet")
    assert "no data points are left" in said.error["message"]
    assert home.json("verify").code == 0
    assert home.json("status").data["points"] == 0


@pytest.mark.parametrize("words", [("status",), ("status", "er-1")])
def test_a_store_at_a_wrong_path(home: UserFolder, words: tuple[str, ...]) -> None:
    """Where nothing is, there is no federation: none of 0 points, and nothing is made there."""
    home.specify(store="./mistyped")
    said = home.refused(*words)
    assert "there is no federation here" in said.error["message"]
    assert str(home.folder / "mistyped") in said.error["message"]
    assert not (home.folder / "mistyped").exists()
