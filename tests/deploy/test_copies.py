"""A copy whose keys lie in another place shares them with the original, and destroys none of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.doubles.home import MARKED, Home

REASON = "the original's disk is lost"


@pytest.fixture
def original(home: Home) -> Home:
    """A trained federation whose keys lie elsewhere."""
    folder = home.folder / "original"
    folder.mkdir()
    made = Home(folder).fill(keys=str(home.folder / "keys"))
    assert made.json("train").code == 0
    return made


@pytest.fixture
def copy(original: Home) -> Home:
    """A copy of it, whose specification names the same keys."""
    return Home(Path(shutil.copytree(original.folder, original.folder.parent / "copy")))


@pytest.mark.parametrize("words", [("erase", "--subject", MARKED), ("train",)])
def test_no_copy_destroys_the_keys_of_the_original(original: Home, copy: Home, words: tuple[str, ...]) -> None:
    """Reading works in the copy, writing is refused; in the original nothing is lost."""
    said = copy.refused(*words, code=4)
    assert f"this store is a copy of {original.store}, whose keys it shares" in said.error["message"]
    assert "sisa adopt" in said.error["remedy"]
    assert copy.json("evaluate", "train.parquet").code == 0
    assert original.json("verify").code == 0
    assert original.json("erase", "--subject", MARKED).data["points"] == 4


def test_an_adopted_copy_takes_the_originals_place(original: Home, copy: Home) -> None:
    """From then on it is the original that is refused: one store at a time writes with the keys."""
    assert original.json("adopt", "--reason", REASON).code == 4
    assert copy.json("adopt", "--reason", REASON).code == 0
    assert copy.json("erase", "--subject", MARKED).data["points"] == 4
    assert "is a copy of" in original.refused("train", code=4).error["message"]


def test_a_store_that_was_moved_is_the_same(original: Home) -> None:
    """On its machine a folder may get another name, or another folder its place: both go on without a word."""
    moved = Home(original.folder.parent / "moved")
    original.folder.rename(moved.folder)
    assert moved.json("erase", "--subject", MARKED).data["points"] == 4
    moved.folder.rename(original.folder)
    assert original.json("verify").code == 0
    shutil.copytree(original.store, original.folder / "restored")
    shutil.rmtree(original.store)
    (original.folder / "restored").rename(original.store)
    assert original.json("verify").code == 0


def test_of_a_store_and_what_it_was_restored_from_one_writes(original: Home) -> None:
    """Both look like the one on record, by its path and by its folder: whichever writes first is it from then on."""
    aside = Home(original.folder.parent / "aside")
    original.folder.rename(aside.folder)
    shutil.copytree(aside.folder, original.folder)
    assert original.json("train").code == 0
    assert f"is a copy of {original.store}" in aside.refused("erase", "--subject", MARKED, code=4).error["message"]
    assert original.json("verify").code == 0


def test_a_store_of_an_earlier_release_is_recorded_at_the_next_write(original: Home) -> None:
    """Such a store says nothing of an owner; whoever writes first is it."""
    owners = original.folder.parent / "keys" / "owners"
    shutil.rmtree(owners)
    copy = Home(Path(shutil.copytree(original.folder, original.folder.parent / "copy")))
    assert original.json("train").code == 0
    assert len(list(owners.iterdir())) == 1
    assert "is a copy of" in copy.refused("train", code=4).error["message"]
