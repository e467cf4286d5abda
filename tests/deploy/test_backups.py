"""Backups by the command: made, restored after a loss or from a copy, and refused where places are not apart."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from cluster.backups.backup import back_up
from storage.stores.local import LocalStore
from tests.doubles.user_folder import MARKED, UserFolder

BACKUP = ("backup", "backup", "--keys", "backup-keys")
RESTORE = ("restore", "backup", "--keys", "backup-keys")


def files(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder, locks apart."""
    paths = (path for path in folder.rglob("*") if path.is_file() and ".locks" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def lose(home: UserFolder) -> None:
    """Lose the store, and the keys in it."""
    shutil.rmtree(home.store)


def test_a_restored_federation_is_the_one_that_was_backed_up(trained: UserFolder) -> None:
    """Same constituents, same receipts, and it goes on; the id is a new one, and it says what it does not know."""
    assert trained.json("erase", "--subject", "secret-person-001", "--request-id", "er-1").code == 0
    before = trained.json("status")
    made = trained.json(*BACKUP)
    assert made.code == 0, made.err
    assert (made.data["number"], made.data["keys"]) == (1, str(trained.folder / "backup-keys"))
    lose(trained)
    said = trained.json(*RESTORE)
    assert said.code == 0, said.err
    assert (said.data["at"], said.data["number"]) == (made.data["at"], 1)
    assert said.data["id"] != made.data["federation"]
    assert trained.json("status").digests == before.digests
    assert trained.json("verify").code == 0
    assert trained.json("receipt", "er-1").code == 0
    assert trained.json("erase", "--subject", MARKED).data["points"] == 4
    assert trained.json("verify").code == 0


def test_where_nobody_tells_what_was_erased_since_it_says_so(trained: UserFolder) -> None:
    """Loudly, with the moment, and what is to be done."""
    made = trained.json(*BACKUP)
    lose(trained)
    said = trained.run(*RESTORE)
    assert f"NO RECORD HERE SAYS WHAT WAS ERASED SINCE {made.data['at']}" in said.out
    assert "submit again every request" in said.out


def test_a_backup_is_dated_before_its_moment(trained: UserFolder) -> None:
    """Resubmitting all requests accepted since a backup's date includes those accepted while the backup was made."""
    seconds, copying = count(), list[datetime]()

    def now() -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=next(seconds))

    places = [LocalStore(str(trained.folder / name)) for name in ("backup", "backup-keys")]
    made = back_up(trained.objects, "small", *places, now=now, progress=lambda *_: copying.append(now()))
    assert copying
    assert datetime.fromisoformat(made.at) < min(copying)


def test_no_place_has_both_the_keys_and_what_they_open(trained: UserFolder) -> None:
    """The bytes are in one place, the keyrings, signing keys and partition key in the other; one place is refused."""
    trained.specify(partition__key=None, store="./drawn")
    assert trained.json("train").code == 0
    assert trained.json("erase", "--subject", MARKED).code == 0
    assert trained.json(*BACKUP).code == 0
    raw = files(trained.folder / "drawn")
    secrets = {
        payload
        for name, payload in raw.items()
        if name.startswith(("control/partition-key", "control/signing/", "keyrings/"))
    }
    assert len(secrets) > 5
    kept, keys = (set(files(trained.folder / name).values()) for name in ("backup", "backup-keys"))
    assert secrets <= keys
    assert not secrets & kept
    for words, reported in (
        (("backup", "other"), "a backup without its keys cannot be read"),
        (("backup", "other", "--keys", "other"), "are one place"),
        (("backup", "other", "--keys", "other/keys"), "one contains the other"),
        (("backup", "drawn/backup", "--keys", "other"), "one contains the other"),
        (("backup", "other", "--keys", "backup-keys"), "has the keys of the backups in another place"),
    ):
        assert reported in trained.refused(*words, code=4 if "another place" in reported else 2).error["message"]


def test_the_next_backup_takes_out_what_was_erased(trained: UserFolder) -> None:
    """No object that held the person, no key that opened it, is left in either place."""
    assert trained.json(*BACKUP).code == 0
    before = files(trained.folder / "backup"), files(trained.folder / "backup-keys")
    assert trained.json("erase", "--subject", MARKED).data["points"] == 4
    again = trained.json(*BACKUP)
    assert (again.data["number"], again.data["removed"] > 0) == (2, True)
    now = files(trained.folder / "backup"), files(trained.folder / "backup-keys")
    store = set(trained.raw().values())
    for earlier, later in zip(before, now, strict=True):
        gone = {name for name, payload in earlier.items() if name.startswith("blobs/") and payload not in store}
        assert gone
        assert not gone & later.keys()


@pytest.mark.parametrize("words", [RESTORE, ("restore", "copied"), ("restore", "copied", "--keys", "copied")])
def test_any_tools_copy_restores(trained: UserFolder, words: tuple[str, ...]) -> None:
    """A backup that was copied on, and a plain copy of the store itself, are as good as the first."""
    before = trained.json("status").digests
    assert trained.json(*BACKUP).code == 0
    shutil.copytree(trained.store, trained.folder / "copied")
    for name in ("backup", "backup-keys"):
        shutil.copytree(trained.folder / name, trained.folder / "carried" / name)
        shutil.rmtree(trained.folder / name)
        (trained.folder / "carried" / name).rename(trained.folder / name)
    lose(trained)
    assert trained.json(*words).code == 0
    assert trained.json("status").digests == before
    assert trained.json("verify").code == 0


def test_keys_that_have_survived_stay_as_they_are(home: UserFolder) -> None:
    """With 'keys' in another place: what was erased since the backup cannot be opened, restored or not."""
    home.specify(keys="./keys")
    assert home.json("train").code == 0
    assert home.json(*BACKUP).code == 0
    assert home.json("erase", "--subject", MARKED).data["points"] == 4
    keys = files(home.folder / "keys" / "keyrings")
    lose(home)
    assert home.json(*RESTORE).code == 0
    assert files(home.folder / "keys" / "keyrings") == keys
    assert home.json("evaluate", "train.parquet").code == 1


def test_keys_of_a_living_store_are_not_taken(home: UserFolder) -> None:
    """A drill that names the original's 'keys' is refused, until it is said that the original is lost."""
    home.specify(keys="./keys")
    assert home.json("train").code == 0
    assert home.json(*BACKUP).code == 0
    home.specify(keys="./keys", store="./drill")
    refused = home.json(*RESTORE)
    assert (refused.code, "belong to a store at another place" in refused.error["message"]) == (4, True)
    assert "this store is being restored" in home.json("status").error["message"]
    home.specify(keys="./keys")
    assert home.json("verify").code == 0
    home.specify(keys="./keys", store="./drill")
    assert home.json(*RESTORE, "--take-keys").code == 0
    assert home.json("verify").code == 0


def test_places_that_are_not_what_they_should_be(trained: UserFolder) -> None:
    """A folder of something else, another federation's backups, an empty place, a store that is there."""
    (trained.folder / "papers").mkdir()
    (trained.folder / "papers" / "Letter.txt").write_text("dear")
    assert "this place is not empty" in trained.refused("backup", "papers", "--without-keys", code=4).error["message"]
    assert trained.json(*BACKUP).code == 0
    assert "this place is not empty" in trained.refused(*RESTORE, code=4).error["message"]
    assert "there is no backup here" in trained.refused("restore", "papers").error["message"]
    assert "a backup of keys, not of objects" in trained.refused("restore", "backup-keys").error["message"]
    assert "there is no backup 7 here" in trained.refused(*RESTORE, "--number", "7").error["message"]
    trained.specify(store="./other")
    assert "there is no federation here" in trained.json("backup", "third", "--without-keys").error["message"]
    assert trained.json("train").code == 0
    said = trained.json(*BACKUP)
    assert (said.code, "backups of something else" in said.error["message"]) == (4, True)
    trained.specify(store="./third", keys="./keys")
    assert "the keys of what is to be restored were in the store itself" in trained.json(*RESTORE).error["message"]
    trained.specify(store="./third")
    assert "is of no use without its keys" in trained.json("restore", "backup").error["message"]


def test_a_damaged_backup_is_not_restored(trained: UserFolder) -> None:
    """Nothing is answered from the half that came before the damage was met."""
    assert trained.json(*BACKUP).code == 0
    blobs = sorted((trained.folder / "backup" / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    blobs[-1].write_bytes(blobs[-1].read_bytes()[:-1])
    lose(trained)
    said = trained.json(*RESTORE)
    assert said.code == 1
    assert "a part of the backup is damaged or gone" in said.error["message"]
    for words in (
        ("predict", "train.parquet", "--out", "out.csv"),
        ("train",),
        ("status",),
        ("adopt", "--reason", "x"),
    ):
        assert "this store is being restored" in trained.json(*words).error["message"]
