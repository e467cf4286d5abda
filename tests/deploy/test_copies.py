"""A copy is recognized by its place and by the keys it shares; it destroys none, and may be written once adopted."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import pytest

from cluster.coordinator_actor import launch
from cluster.writer.place import read_identity
from storage.errors import Unavailable
from tests.doubles.user_folder import MARKED, UserFolder, run

REASON = "the original's disk is lost"


@pytest.fixture
def original(home: UserFolder) -> UserFolder:
    """A trained federation whose keys lie elsewhere."""
    folder = home.folder / "original"
    folder.mkdir()
    made = UserFolder(folder).fill(keys=str(home.folder / "keys"))
    assert made.json("train").code == 0
    return made


@pytest.fixture
def copy(original: UserFolder) -> UserFolder:
    """A copy of it, whose specification names the same keys."""
    return UserFolder(Path(shutil.copytree(original.folder, original.folder.parent / "copy")))


@pytest.mark.parametrize("words", [("erase", "--subject", MARKED), ("train",)])
def test_no_copy_destroys_the_keys_of_the_original(
    original: UserFolder, copy: UserFolder, words: tuple[str, ...]
) -> None:
    """Reading works in the copy, writing is refused; in the original nothing is lost."""
    said = copy.refused(*words, code=4)
    assert f"this store is a copy of {original.store}, whose keys it shares" in said.error["message"]
    assert "sisa adopt" in said.error["remedy"]
    assert copy.json("evaluate", "train.parquet").code == 0
    assert original.json("verify").code == 0
    assert original.json("erase", "--subject", MARKED).data["points"] == 4


def test_an_adopted_copy_takes_the_originals_place(original: UserFolder, copy: UserFolder) -> None:
    """Afterwards the original is refused, because only one store at a time may write with the keys."""
    assert original.json("adopt", "--reason", REASON).code == 4
    assert copy.json("adopt", "--reason", REASON).code == 0
    assert copy.json("erase", "--subject", MARKED).data["points"] == 4
    assert "is a copy of" in original.refused("train", code=4).error["message"]


def test_a_store_that_was_moved_is_the_same(original: UserFolder) -> None:
    """On its machine a folder may get another name, or another folder its place: both go on without a word."""
    moved = UserFolder(original.folder.parent / "moved")
    original.folder.rename(moved.folder)
    assert moved.json("erase", "--subject", MARKED).data["points"] == 4
    moved.folder.rename(original.folder)
    assert original.json("verify").code == 0
    shutil.copytree(original.store, original.folder / "restored")
    shutil.rmtree(original.store)
    (original.folder / "restored").rename(original.store)
    assert original.json("verify").code == 0


def test_of_a_store_and_what_it_was_restored_from_one_writes(original: UserFolder) -> None:
    """Both look like the one on record, by its path and by its folder: whichever writes first is it from then on."""
    aside = UserFolder(original.folder.parent / "aside")
    original.folder.rename(aside.folder)
    shutil.copytree(aside.folder, original.folder)
    assert original.json("train").code == 0
    assert f"is a copy of {original.store}" in aside.refused("erase", "--subject", MARKED, code=4).error["message"]
    assert original.json("verify").code == 0


def test_a_store_of_an_earlier_release_is_recorded_at_the_next_write(original: UserFolder) -> None:
    """Such a store records no owner; its first writer becomes the owner."""
    owners = original.folder.parent / "keys" / "owners"
    shutil.rmtree(owners)
    copy = UserFolder(Path(shutil.copytree(original.folder, original.folder.parent / "copy")))
    assert original.json("train").code == 0
    assert len(list(owners.iterdir())) == 1
    assert "is a copy of" in copy.refused("train", code=4).error["message"]


@pytest.fixture
def plain(trained: UserFolder) -> UserFolder:
    """A copy of a trained folder, of which nothing but its place tells that it is one."""
    assert trained.json("erase", "--subject", "secret-person-001", "--request-id", "er-0").code == 0
    return UserFolder(Path(shutil.copytree(trained.folder, trained.folder.parent / f"{trained.folder.name}-copy")))


@pytest.mark.parametrize(
    "words",
    [
        ("erase", "--subject", MARKED),
        ("train",),
        ("launch",),
        ("request", "hold", "er-0", "--reason", "a dispute"),
        ("readmit", "--subject", "secret-person-001", "--reason", "back"),
        ("keys", "--rotate"),
        ("token", "create", "--role", "audit"),
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_a_copy_at_another_place_is_not_written(trained: UserFolder, plain: UserFolder, words: tuple[str, ...]) -> None:
    """The id with another place suffices to recognise a copy: no coordinator's record or keys elsewhere are needed."""
    before = plain.raw()
    said = run(*words, "--config", str(plain.config), "--json")
    assert (said.code, said.error["kind"]) == (4, "conflict"), said
    assert f"this store is a copy of {trained.store}" in said.error["message"]
    assert "nothing was done" in said.error["message"]
    assert "sisa adopt" in said.error["remedy"]
    assert plain.raw() == before


def test_a_copy_at_another_place_is_read_and_verified(plain: UserFolder) -> None:
    """To look at a copy needs no adoption, and does not make it anything else than a copy."""
    for words in (("status",), ("evaluate", "train.parquet"), ("verify",), ("log", "--check"), ("receipt", "er-0")):
        assert plain.json(*words).code == 0, words
    plain.refused("erase", "--subject", MARKED, code=4)


def test_an_adopted_copy_is_a_federation_of_its_own(trained: UserFolder, plain: UserFolder) -> None:
    """It gets an id of its own and remembers the original's; both are written to from then on."""
    before = read_identity(trained.objects)
    adopted = plain.json("adopt", "--reason", "a drill")
    after = read_identity(plain.objects)
    assert before is not None
    assert after is not None
    assert adopted.data["original"] == ""
    assert (after.id, after.earlier) == (adopted.data["id"], (before.id,))
    for each in (trained, plain):
        assert each.json("erase", "--subject", MARKED).data["points"] == 4
    assert read_identity(trained.objects) == before
    assert "nothing to adopt" in plain.refused("adopt", "--reason", "again", code=4).error["message"]


def test_an_adoption_that_was_interrupted_is_repeated(plain: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the end the copy is one, and the way out is the same command."""
    with monkeypatch.context() as patch:
        patch.setattr(launch, "take_place", lambda *_: (_ for _ in ()).throw(Unavailable("the disk is away", "later")))
        assert plain.json("adopt", "--reason", "a drill").code == 5
    assert plain.json("erase", "--subject", MARKED).code == 4
    assert plain.json("adopt", "--reason", "a drill").code == 0
    assert plain.json("erase", "--subject", MARKED).data["points"] == 4


def test_a_folder_that_was_renamed_or_restored_in_place_goes_on(trained: UserFolder) -> None:
    """Two of path, machine and inode are as they were."""
    assert trained.json("train").code == 0
    trained.store.rename(trained.folder / "elsewhere")
    shutil.copytree(trained.folder / "elsewhere", trained.store)
    assert trained.json("erase", "--subject", MARKED).data["points"] == 4
    trained.store.rename(trained.folder / "renamed")
    trained.specify(store="./renamed")
    assert trained.json("erase", "--subject", "secret-person-001").data["points"] == 4


def test_what_another_machine_mounts_elsewhere_is_adopted(trained: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the same path it is the same store; at another path it cannot be distinguished from a copy."""
    monkeypatch.setattr(platform, "node", lambda: "another")
    assert trained.json("erase", "--subject", "secret-person-001").data["points"] == 4
    monkeypatch.setattr(platform, "node", lambda: "a-third")
    trained.store.rename(trained.folder / "mounted")
    trained.specify(store="./mounted")
    trained.refused("erase", "--subject", MARKED, code=4)
    assert trained.json("adopt", "--reason", "it is mounted here now").code == 0
    assert trained.json("erase", "--subject", MARKED).data["points"] == 4


def test_a_store_of_an_earlier_release_gets_its_id_at_the_next_write(trained: UserFolder) -> None:
    """Until then copies cannot be recognised. Reading does not draw an id, and nothing else is written for it."""
    identity = trained.store / "control" / "identity"
    identity.unlink()
    assert trained.json("status").code == 0
    assert not identity.exists()
    before = set(trained.kept())
    assert trained.json("train").code == 0
    assert identity.exists()
    assert set(trained.kept()) == before
