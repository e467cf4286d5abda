"""What changes between two commands: settings, the store's federation, the model's code, the source."""

from __future__ import annotations

import os

import pytest

from storage.errors import StoreFull
from storage.objects import ObjectKey, VersionTag
from storage.stores.local import LocalStore
from tests.deploy.commands.test_cli_erase import fresh_digests
from tests.doubles.user_folder import MARKED, UserFolder, run, small_points, without

OTHERS: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "name": ({"name": "other"}, ("name", '"small"', '"other"')),
    "shards": ({"partition__shards": 4}, ("partition.shards", "3", "4")),
    "slices": ({"partition__slices": 3}, ("partition.slices", "2", "3")),
    "subject": ({"data__subject": None}, ("data.subject", '"user_id"', '"id"')),
    "key": ({"partition__key": "ab" * 16}, ("partition.key", "another key", "this key")),
}
"""Settings that make it another federation."""

RETRAINED: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "learning rate": ({"training__learning_rate": 0.2}, ("training.learning_rate", "0.1", "0.2")),
    "seed": ({"training__seed": 8}, ("training.seed", "7", "8")),
    "batch size": ({"training__batch_size": 4}, ("training.batch_size", "8", "4")),
    "optimizer": ({"training__optimizer": "adam"}, ("training.optimizer", '"sgd"', '"adam"')),
    "model": ({"model__arguments": {"hidden": [7]}}, ("model.arguments.hidden", "[6]", "[7]")),
    "scale": ({"data__scale": 1.0}, ("data.scale", "255.0", "1.0")),
    "features": ({"data__features": ["x0*"]}, ("data.features", '["x*"]', '["x0*"]')),
    "classes": ({"data__classes": ["c", "b", "a"]}, ("data.classes",)),
    "threads": ({"cluster__threads_per_worker": 2}, ("cluster.threads_per_worker", "1", "2")),
}
"""Settings that give the same federation's constituents other bytes."""

HARMLESS: dict[str, dict[str, object]] = {
    "workers": {"cluster__workers": 1},
    "deadline": {"erasure__deadline_days": 3},
    "rule": {"aggregation__rule": "majority_vote"},
    "memory": {"data__ingest_memory_mb": 300},
}
"""Settings that change no constituent."""

COMMANDS = (
    ("evaluate", "train.parquet"),
    ("predict", "train.parquet", "--out", "out.csv"),
    ("erase", "--subject", MARKED),
    ("erase", "--subject", MARKED, "--dry-run"),
    ("verify",),
)


@pytest.mark.parametrize("case", OTHERS)
def test_a_store_of_another_specification_is_refused(case: str, trained: UserFolder) -> None:
    """No command touches a store that holds another federation: both settings stand side by side, exit code 4."""
    changes, texts = OTHERS[case]
    trained.specify(**changes)
    for words in (("train",), *COMMANDS):
        kept = trained.kept()
        said = trained.json(*words)
        assert said.code == 4, said
        assert "the store belongs to another specification" in said.error["message"]
        assert "another store" in said.error["remedy"]
        for text in (*texts, "in the store", "in the specification"):
            assert text in said.error["message"]
        assert trained.kept() == kept
        assert "ab" * 16 not in said.out
    trained.specify()
    assert trained.json("verify").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("case", RETRAINED)
def test_changed_settings_are_refused_until_trained_anew(case: str, trained: UserFolder) -> None:
    """Predictions and erasures under changed settings are refused with both values; ``sisa train`` says what differs,
    retrains, and ends in the bytes of a fresh federation.
    """
    changes, texts = RETRAINED[case]
    before = trained.json("status").digests
    trained.specify(**changes)
    status = trained.json("status").data
    assert any(each in texts[0] for each in status["differences"])
    for words in COMMANDS:
        kept = trained.kept()
        said = trained.json(*words)
        assert said.code == 4, said
        assert "settings differ" in said.error["message"]
        for text in texts:
            assert text in said.error["message"]
        assert "sisa train" in said.error["remedy"]
        assert trained.kept() == kept
    trained_anew = trained.run("train")
    assert trained_anew.code == 0
    assert "settings changed, so constituents are retrained" in trained_anew.err
    digests = trained.json("status").digests
    assert digests == fresh_digests(trained.folder / "fresh", small_points(), **changes)
    if case != "threads":  # so small a model has the same bits under two threads
        assert not set(digests) & set(before)
    assert trained.json("verify").code == 0


@pytest.mark.parametrize("case", HARMLESS)
def test_other_settings_change_no_byte(case: str, trained: UserFolder) -> None:
    """Settings without influence on the constituents may change at any time, and nothing is trained."""
    before = trained.json("status").digests
    trained.specify(**HARMLESS[case])
    assert trained.json("evaluate", "train.parquet").code == 0
    said = trained.run("train")
    assert said.code == 0
    assert "slice" not in said.err
    assert trained.json("status").digests == before


def test_settings_put_back_find_nothing_stale(trained: UserFolder) -> None:
    """There and back again ends in the first bytes."""
    before = trained.json("status").digests
    trained.specify(training__seed=8)
    trained.json("train")
    trained.specify()
    assert trained.json("train").digests == before


def test_another_source_file_of_the_same_data(trained: UserFolder) -> None:
    """Another format, another order, several files: the same bytes, and nothing is trained."""
    before = trained.json("status").digests
    columns = small_points()
    turned = {name: values[::-1] for name, values in columns.items()}
    half = {name: values[:50] for name, values in columns.items()}, {n: v[50:] for n, v in columns.items()}
    trained.write("turned.csv", turned)
    trained.write("parts/a.parquet", half[1])
    trained.write("parts/b.parquet", half[0])
    for train in ("turned.csv", "parts", "parts/*.parquet"):
        trained.specify(data__train=train)
        if train == "turned.csv":
            # A CSV file has no bytes, only numbers: the features are stored wider, and trained to the same values.
            assert trained.json("train").digests == before
            continue
        said = trained.run("train")
        assert said.code == 0
        assert trained.json("status").digests == before


def test_a_source_that_changed(trained: UserFolder) -> None:
    """Added, removed and changed data points: a fresh federation's bytes, and untouched shards stay."""
    before = trained.json("status").digests
    columns = without(small_points(), subjects=["secret-person-003"])
    more = small_points(people=32)
    new = [position for position, who in enumerate(more["user_id"]) if who == "secret-person-030"]
    for name, values in columns.items():
        values.extend(more[name][position] if name != "id" else f"secret-new-{position}" for position in new)
    trained.write("train.parquet", columns)
    after = trained.json("train").digests
    assert after == fresh_digests(trained.folder / "fresh", columns)
    assert after != before
    assert trained.json("verify").code == 0


def test_a_source_that_changed_after_an_erasure(trained: UserFolder) -> None:
    """What was erased stays out of a new source that still holds it."""
    trained.json("erase", "--subject", MARKED)
    columns = without(small_points(), subjects=["secret-person-003"])
    trained.write("train.parquet", columns)
    survivors = without(columns, subjects=[MARKED])
    assert trained.json("train").digests == fresh_digests(trained.folder / "fresh", survivors)


def test_a_source_that_is_gone(trained: UserFolder) -> None:
    """Without the source a trained federation continues with what it ingested, and says so; erasures need no source."""
    before = trained.json("status").digests
    (trained.folder / "train.parquet").unlink()
    said = trained.run("train")
    assert said.code == 0
    assert "there is no such file or folder: train.parquet: continuing with the data ingested before" in said.err
    assert trained.json("status").digests == before
    assert trained.json("erase", "--subject", MARKED).code == 0
    assert trained.json("verify").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("full_at", ["slices", "checkpoints", "manifest", "requests", "tombstones"])
def test_a_full_disk_loses_nothing(full_at: str, home: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store without room stops the command with exit code 5 and the remedy; with room again the next one goes on."""
    if full_at in ("requests", "tombstones"):
        assert home.json("train").code == 0
    words = ("erase", "--subject", MARKED) if full_at in ("requests", "tombstones") else ("train",)
    whole = LocalStore.put_if_absent
    puts: list[ObjectKey] = []

    def full(store: LocalStore, key: ObjectKey, payload: bytes) -> VersionTag:
        if full_at in key:
            puts.append(key)
            if len(puts) > 1 or full_at in ("requests", "tombstones"):
                raise StoreFull("the store has no room for the object; nothing was published", "Free space.", key=key)
        return whole(store, key, payload)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "put_if_absent", full)
        said = home.json(*words)
    assert (said.code, said.error["kind"]) == (5, "unavailable")
    assert "no room" in said.error["message"]
    assert home.json("train").code == 0
    assert home.json("erase", "--subject", MARKED).code in (0, 2)
    survivors = without(small_points(), subjects=[MARKED])
    assert home.json("status").digests == fresh_digests(home.folder / "fresh", survivors)
    assert home.json("verify").code == 0


def test_a_store_that_cannot_be_a_folder(home: UserFolder) -> None:
    """If the store's path is a file, the error says so."""
    (home.folder / "federation").write_text("a file", encoding="utf-8")
    said = home.json("train")
    assert said.code in (2, 5)
    assert "folder" in said.error["message"] + said.error["remedy"]
    assert (home.folder / "federation").read_text(encoding="utf-8") == "a file"


def test_two_federations_in_one_folder(trained: UserFolder) -> None:
    """Another specification beside the first, with a store of its own, does not touch it."""
    before = trained.json("status").out
    first = trained.config.read_bytes()
    other = trained.specify(name="other", store="./other", partition__shards=2).rename(trained.folder / "other.toml")
    trained.config.write_bytes(first)
    assert UserFolder(trained.folder).run("train").code == 0
    assert run("train", "--config", str(other), "--json").digests != []
    assert trained.json("status").out == before


def test_a_user_s_model_beside_the_specification(home: UserFolder) -> None:
    """A module beside ``sisa.toml`` is the model of every command, wherever it is started."""
    code = "from torch import nn\n\ndef net(inputs, classes):\n    return nn.Linear(inputs, classes)\n"
    (home.folder / "net_beside.py").write_text(code, encoding="utf-8")
    home.specify(model__factory="net_beside:net", model__arguments={})
    for words in (("plan",), ("train",), ("evaluate", "train.parquet")):
        assert home.json(*words).code == 0


@pytest.mark.slow
def test_a_model_that_does_not_repeat_itself_learns_from_nobody(home: UserFolder) -> None:
    """A model with randomness of its own is refused before any data point is read into the store."""
    code = (
        "import os\nfrom torch import nn\n\nclass Net(nn.Module):\n    def __init__(self, inputs, classes):\n"
        "        super().__init__()\n        self.out = nn.Linear(inputs, classes)\n\n"
        "    def forward(self, x):\n        return self.out(x + os.urandom(1)[0] / 256)\n"
    )
    (home.folder / "net_of_chance.py").write_text(code, encoding="utf-8")
    home.specify(model__factory="net_of_chance:Net", model__arguments={})
    said = home.json("train")
    assert (said.code, said.error["kind"]) == (2, "invalid")
    assert "the model does not repeat itself" in said.error["message"]
    assert "that is not seeded" in said.error["remedy"]
    assert not (home.store / "shards").exists()
    assert not (home.store / "rehearsals").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_may_not_be_written(trained: UserFolder) -> None:
    """A read-only store gives an error with a remedy, and loses nothing."""
    folders = [path for path in trained.store.rglob("*") if path.is_dir()]
    for folder in (trained.store, *folders):
        folder.chmod(0o500)
    try:
        said = trained.json("erase", "--subject", MARKED)
    finally:
        for folder in (trained.store, *folders):
            folder.chmod(0o700)
    assert (said.code, said.error["kind"]) == (5, "unavailable")
    assert "write access" in said.error["remedy"]
    assert trained.json("verify").code == 0
