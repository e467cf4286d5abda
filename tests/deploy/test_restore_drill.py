"""The drill: all is lost but a backup and the witness; who was erased since is erased before the first answer."""

from __future__ import annotations

import json
import shutil

import pytest

from cluster.writer.notices import WitnessNotices
from cluster.writer.place import read_identity
from shards.routing import PartitionKey
from storage.errors import Corrupt, Unavailable
from storage.stores.local import LocalStore
from storage.transparency.witness import Witness
from tests.doubles.user_folder import UserFolder, run, small_points, without

BACKUP = ("backup", "backup", "--keys", "backup-keys")
RESTORE = ("restore", "backup", "--keys", "backup-keys")
SINCE = [f"secret-person-00{number}" for number in (2, 3, 4)]


@pytest.fixture
def witnessed(trained: UserFolder) -> UserFolder:
    """A federation with a witness, one erasure, and a backup after it."""
    trained.specify(receipts__witness="./witness")
    assert trained.json("erase", "--subject", "secret-person-001", "--request-id", "er-1").code == 0
    assert trained.json(*BACKUP).code == 0
    return trained


def erase_three(home: UserFolder) -> None:
    """Erase three people, each by a request of its own."""
    for number, name in enumerate(SINCE, start=2):
        assert home.json("erase", "--subject", name, "--request-id", f"er-{number}").code == 0


def test_the_drill(witnessed: UserFolder) -> None:
    """Backup, three more erasures, loss of everything, restore: the three are gone before anything is answered.

    The result has the bytes of a federation that never had them, the receipts that were handed out before, and a
    log that its witness still knows. It is not the original.
    """
    erase_three(witnessed)
    (witnessed.folder / "er-3.json").write_text(witnessed.run("receipt", "er-3").out)
    ends = witnessed.json("status").digests
    original = read_identity(witnessed.objects)
    shutil.rmtree(witnessed.store)
    said = witnessed.json(*RESTORE)
    assert said.code == 0, said.err
    erased = said.data["erased"]
    assert (erased["again"], erased["entries"], erased["behind"]) == (["er-2", "er-3", "er-4"], 3, 0)
    assert (erased["forgotten"], erased["is_known"]) == ([], True)
    status = witnessed.json("status").data
    assert {each["request_id"]: each["state"] for each in status["requests"] if each["points"]} | {"er-1": ""} == {
        "er-1": "",
        "er-2": "quarantined",
        "er-3": "quarantined",
        "er-4": "quarantined",
    }
    assert status["points"] == 120 - 4 * 4
    first = witnessed.json("predict", "train.parquet", "--out", "out.csv")
    assert (first.code, "er-2, er-3, er-4" in first.error["message"]) == (1, True)
    assert witnessed.json("train").code == 0
    assert witnessed.json("status").digests == ends
    assert witnessed.json("predict", "train.parquet", "--out", "out.csv").code == 0
    assert witnessed.json("verify").code == 0
    assert witnessed.json("log").data["problems"] == []
    before = (witnessed.folder / "er-3.json").read_text()
    assert json.loads(witnessed.run("receipt", "er-3").out)["envelope"] == json.loads(before)["envelope"]
    assert witnessed.json("keys", "--export", "keys.txt").code == 0
    assert run("receipt", "--check", "er-3.json", "--key", "keys.txt").code == 0
    restored = read_identity(witnessed.objects)
    assert original is not None
    assert restored is not None
    assert (restored.id == original.id, restored.earlier) == (False, (original.id,))


def test_a_source_that_still_has_them_brings_nobody_back(witnessed: UserFolder) -> None:
    """Training reads the source again, and tombstones keep out whom the backup did not know to be erased."""
    erase_three(witnessed)
    shutil.rmtree(witnessed.store)
    assert witnessed.json(*RESTORE).code == 0
    witnessed.write("train.parquet", without(small_points(), subjects=["secret-person-005"]))
    assert witnessed.json("train").data["points"] == 120 - 5 * 4


def test_what_was_cancelled_or_held_since_is_not_carried_out(witnessed: UserFolder) -> None:
    """A legal hold, and a request that was withdrawn, outlast the loss; one that was released is carried out."""
    for name in ("cancelled", "held", "released"):
        words = ("--subject", f"secret-person-00{len(name)}", "--request-id", name, "--hold", "a dispute")
        assert witnessed.json("erase", *words).data["state"] == "waiting"
    config = ("--config", str(witnessed.config), "--json")
    assert run("request", "cancel", "cancelled", "--reason", "a mistake", *config).code == 0
    assert run("request", "release", "released", *config).code == 0
    shutil.rmtree(witnessed.store)
    assert witnessed.json(*RESTORE).data["erased"]["again"] == ["held", "released"]
    assert witnessed.json("train").code == 0
    requests = {each["request_id"]: each["state"] for each in witnessed.json("status").data["requests"]}
    assert requests == {"er-1": "complete", "held": "waiting", "released": "complete"}
    assert witnessed.json("verify").code == 0


def test_the_witness_learns_no_name(witnessed: UserFolder) -> None:
    """Neither names nor keyed digests are in it unencrypted, and another partition key opens nothing."""
    erase_three(witnessed)
    witness = Witness(LocalStore(str(witnessed.folder / "witness")))
    identity = read_identity(witnessed.objects)
    assert identity is not None
    kept = [fields for _, fields in witness.noted(identity.id)]
    assert len(kept) == 4
    assert {tuple(sorted(each)) for each in kept} == {("sealed", "stands")}
    notices = WitnessNotices(witness=witness, federation=identity.id, key=PartitionKey(bytes(16)), tell=print)
    with pytest.raises(Corrupt, match="an encrypted object is not what was written"):
        notices.noted([identity.id])


def test_a_witness_that_is_away_holds_the_restore(witnessed: UserFolder) -> None:
    """Nothing is answered and nothing trained before it is back, and the same command goes on then."""
    erase_three(witnessed)
    shutil.rmtree(witnessed.store)
    notice = next(path for path in (witnessed.folder / "witness" / "erasures").rglob("*") if path.is_file())
    kept = notice.read_bytes()
    notice.write_bytes(b"{}")
    assert witnessed.json(*RESTORE).code == 1
    for words in (("predict", "train.parquet", "--out", "out.csv"), ("train",), ("adopt", "--reason", "impatience")):
        assert "this store is being restored" in witnessed.json(*words).error["message"]
    notice.write_bytes(kept)
    assert len(witnessed.json(*RESTORE).data["erased"]["again"]) == 3
    assert witnessed.json("train").code == 0


def test_a_witness_of_an_earlier_release_says_how_much_is_missing(witnessed: UserFolder) -> None:
    """It has checkpoints alone: how many statements there were, and not whom they are about."""
    erase_three(witnessed)
    shutil.rmtree(witnessed.store)
    for name in ("entries", "erasures"):
        shutil.rmtree(witnessed.folder / "witness" / name)
    said = witnessed.run(*RESTORE)
    assert said.code == 0, said.err
    assert "THE WITNESS KNOWS OF 3 MORE STATEMENTS" in said.out


def test_where_the_names_are_lost_nothing_is_answered_before_they_are_given(witnessed: UserFolder) -> None:
    """The log's entries alone name the requests; they are submitted again under their ids."""
    erase_three(witnessed)
    shutil.rmtree(witnessed.store)
    shutil.rmtree(witnessed.folder / "witness" / "erasures")
    said = witnessed.run(*RESTORE)
    assert "THE NAMES IN THEM ARE NOT KNOWN HERE: er-2, er-3, er-4" in said.out
    assert witnessed.json("predict", "train.parquet", "--out", "out.csv").code == 1
    erase_three(witnessed)
    assert witnessed.json("predict", "train.parquet", "--out", "out.csv").code == 0
    assert witnessed.json("verify").code == 0


def test_a_witness_gets_the_entries_from_before_it_was_named(trained: UserFolder) -> None:
    """However late it is named, the whole log can be restored from it."""
    for number, name in enumerate(SINCE, start=2):
        assert trained.json("erase", "--subject", name, "--request-id", f"er-{number}").code == 0
    trained.specify(receipts__witness="./witness")
    assert trained.json("erase", "--subject", "secret-person-006", "--request-id", "er-6").code == 0
    (folder,) = (trained.folder / "witness" / "entries").iterdir()
    assert sorted(int(path.name) for path in folder.iterdir()) == [0, 1, 2, 3]


def test_a_witness_that_does_not_take_a_notice_stops_no_erasure(
    witnessed: UserFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command says so, and the request is carried out."""

    def away(*_: object) -> None:
        raise Unavailable("the witness is away", "wait")

    monkeypatch.setattr(Witness, "note", away)
    said = witnessed.run("erase", "--subject", SINCE[0], "--request-id", "er-2")
    assert said.code == 0
    assert "the witness did not take the notice of a request: the witness is away" in said.err
