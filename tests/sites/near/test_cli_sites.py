"""The commands, where the specification has several sites: all of them together, or one that is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cluster.config.sites import read_sites
from cluster.config.specification import settings_record
from storage.errors import Invalid
from storage.transparency import packs
from tests.doubles.user_folder import run, small_points
from tests.sites.near.site_folders import SITES, SiteFolders

PERSON = "north-secret-person-003"


@pytest.fixture
def trained(site_folders: SiteFolders) -> SiteFolders:
    """Three sites, trained."""
    assert site_folders.json("train").code == 0
    return site_folders


def test_the_story(trained: SiteFolders) -> None:
    """Train, predict, evaluate, erase at a site, receipt, verify, withdraw: each says who took part."""
    status = trained.json("status").data
    assert [each["site"] for each in status["sites"]] == list(SITES)
    assert [(each["site"], each["shard"]) for each in status["constituents"]] == [(n, s) for n in SITES for s in (0, 1)]
    asked = trained.write("asked", small_points(people=5))
    out = trained.folder / "out.csv"
    said = trained.json("predict", str(asked), "--out", str(out)).data
    assert (said["constituents"], said["shards"], said["absent"]) == (6, 6, {})
    assert len(out.read_text().splitlines()) == 21
    assert 0 <= trained.json("evaluate", str(asked)).data["accuracy"] <= 1
    words = ("north", "--subject", PERSON, "--request-id", "er-1", "--wait")
    erased = run("site", "erase", *words, "--config", str(trained.config), "--json").data
    assert (erased["site"], erased["state"], erased["points"]) == ("north", "complete", 4)
    assert trained.json("status", "er-1").data["site"] == "north"
    receipt = trained.json("receipt", "er-1").data
    assert receipt["site"] == "north"
    letter = trained.folder / "letter.html"
    assert trained.json("report", "er-1", "--out", str(letter)).data["receipt"] == "receipt-er-1.json"
    assert "Yes, your data is erased." in letter.read_text(encoding="utf-8")
    traced = run("--site", "north", "trace", "--subject", PERSON, "--config", str(trained.config), "--json").data
    assert [each["request_id"] for each in traced["subjects"][0]["requests"]] == ["er-1"]
    for name in ("bundle", "federation_bundle"):
        file = trained.folder / f"{name}.json"
        file.write_text(json.dumps(receipt[name], sort_keys=True, separators=(",", ":")))
        assert run("receipt", "--check", str(file), "--json").code == 6
        keys, site = trained.folder / f"{name}.keys", ("--site", "north") if name == "bundle" else ()
        assert run(*site, "keys", "--export", str(keys), "--config", str(trained.config)).code == 0
        assert run("receipt", "--check", str(file), "--key", str(keys), "--json").data["trusted"] is True
    assert trained.json("verify").data["exact"]
    assert trained.json("log", "--check").data["entries"] == 1
    gone = run("site", "withdraw", "west", "--reason", "it leaves", "--config", str(trained.config), "--json").data
    assert gone["membership"] == "purged"
    assert "west" not in [each["site"] for each in trained.json("predict", str(asked), "--out", str(out)).data["sites"]]
    assert trained.json("verify").data["sites"].keys() == {"north", "south"}


def test_sites_read_all_receipts_on_demand(trained: SiteFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verification of all sites leaves out at each what was found sound before, and ``--all`` reads it again."""
    monkeypatch.setattr(packs, "TILE_ENTRIES", 1)
    words = ("north", "--subject", PERSON, "--request-id", "er-1", "--wait")
    assert run("site", "erase", *words, "--config", str(trained.config), "--json").code == 0
    found = [trained.json("verify", *options).data["sites"] for options in ((), (), ("--all",))]
    assert [each["north"]["receipts"] for each in found] == [
        {"checked": 1, "broken": []},
        {"checked": 0, "broken": [], "unread": 1},
        {"checked": 1, "broken": []},
    ]
    assert found[1]["south"]["receipts"] == {"checked": 0, "broken": []}


def test_a_federation_that_no_site_has_joined(site_folders: SiteFolders) -> None:
    """With every site away, training says so, names each, and does not end as if it had trained."""
    away = 'url = "http://127.0.0.1:1"\ntoken_file = "token"'
    site_folders.specify(each=away)
    token = site_folders.folder / "token"
    token.touch(mode=0o600)
    said = site_folders.json("train")
    assert (said.code, said.error["kind"]) == (5, "unavailable")
    assert said.error["message"].startswith("no site has joined the federation: north: ")
    assert [each["membership"] for each in said.data["sites"]] == ["new"] * 3


def test_progress_says_of_which_site(site_folders: SiteFolders) -> None:
    """Progress of shards is under the site's name; each site's ingest is reported, even that of a small one."""
    told = run("train", "--config", str(site_folders.config)).err.splitlines()
    begins = [told.index(f"site {name}") for name in SITES]
    for begin, end in zip(begins, [*begins[1:], len(told)], strict=True):
        lines = told[begin + 1 : end]
        assert lines[0].startswith("ingest: ")
        assert any(line.startswith("shard 1: slice 2 of 2, loss ") for line in lines)
    verified = run("verify", "--config", str(site_folders.config)).err.splitlines()
    assert [line for line in verified if line.startswith("site ")] == [f"site {name}" for name in SITES]


def test_one_site_is_a_federation_of_its_own(trained: SiteFolders) -> None:
    """With --site, before or behind the command, every command acts as that site on its own store."""
    alone = trained.json("status", "--site", "south").data
    assert alone["name"] == "hospitals.south"
    together = trained.json("status").data
    theirs = [each["digest"] for each in together["constituents"] if each["site"] == "south"]
    assert [each["digest"] for each in alone["constituents"]] == theirs
    first = run("--site", "south", "verify", "--config", str(trained.config), "--json")
    assert first.data["exact"]
    assert trained.json("erase", "--site", "south", "--subject", "south-secret-person-001").data["state"] == "complete"


def test_simulating_touches_no_site(site_folders: SiteFolders) -> None:
    """With --simulate everything is in folders next to the specification, and the constituents are the very same."""
    assert site_folders.json("train", "--simulate").code == 0
    assert not (site_folders.folder / "sites").exists()
    simulated = [each["digest"] for each in site_folders.json("status", "--simulate").data["constituents"]]
    assert site_folders.json("train").code == 0
    assert [each["digest"] for each in site_folders.json("status").data["constituents"]] == simulated


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("erase", "--subject", PERSON), "this command acts on one of them"),
        (("plan",), "this command acts on one of them"),
        (("status", "--site", "east"), "no site 'east'"),
        (("receipt", "er-9"), "no site has this"),
    ],
)
def test_what_is_not_clear_is_refused(trained: SiteFolders, words: tuple[str, ...], message: str) -> None:
    """A command about one site has to name it, and a named site or request has to exist."""
    said = trained.json(*words)
    assert message in said.error["message"], said
    assert said.error["remedy"]


def test_a_withdrawal_needs_a_reason(trained: SiteFolders) -> None:
    """An empty reason does not count."""
    said = run("site", "withdraw", "west", "--reason", " ", "--config", str(trained.config), "--json")
    assert (said.code, "needs a reason" in said.error["message"]) == (2, True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "south"', 'name = "north"', "two sites have the name north"),
        ("./sites/south", "./sites/north", "two sites have the store ./sites/north"),
        ("./sites/south", "./office", "has the federation's own store"),
        ('name = "south"', 'name = "South"', "name must be 1 to 31 lower-case"),
        ('name = "south"', 'name = "south"\ntraining.epochs = 9', "[training] epochs is the federation's"),
        ('name = "south"', 'name = "south"\ntraining.kernels = "fused"', "[training] kernels is the federation's"),
        ('name = "south"', 'name = "south"\ndata.classes = ["a"]', "[data] classes is the federation's"),
        ('name = "south"', 'name = "south"\nleaves = "rows"', "leaves must be one of predictions, weights"),
        ('name = "south"', 'name = "south"\nurl = "https://south.example"', "url and token_file go together"),
        ('name = "south"', 'name = "south"\ncolour = "red"', "colour is not a known setting"),
        ('data.train = "south.parquet"', "", "site 'south'"),
        ("[data]", "[sites]\nquorum = 4\n[data]", "quorum is 4, and there are 3 sites"),
        ("[data]", "[sites]\ntimeout_seconds = 0.0\n[data]", "timeout_seconds must be"),
    ],
)
def test_bad_specifications(site_folders: SiteFolders, old: str, new: str, message: str) -> None:
    """The error names what two sites share, a setting that no site may override, and a value out of range."""
    text = site_folders.config.read_text()
    assert old in text
    site_folders.config.write_text(text.replace(old, new, 1))
    with pytest.raises(Invalid, match=".") as refused:
        read_sites(site_folders.config)
    assert message in refused.value.message
    assert site_folders.json("status").code == 2


def test_all_sites_train_with_the_same_kernels(site_folders: SiteFolders) -> None:
    """Their constituents answer together, and each site's record says it. A site with GPUs cannot."""
    text = site_folders.config.read_text().replace("seed = 7", 'seed = 7\nkernels = "fused"')
    site_folders.config.write_text(text)
    records = [settings_record(each.specification) for each in read_sites(site_folders.config).sites]
    assert [record["training"]["kernels"] for record in records] == ["fused"] * len(SITES)
    site_folders.config.write_text(text.replace('name = "south"', 'name = "south"\ncluster.gpus_per_worker = 1'))
    with pytest.raises(Invalid, match='(?s)site .south.*kernels = "fused" is for CPUs'):
        read_sites(site_folders.config)


RECIPE = "epochs = 4\nbatch_size = 8\nlearning_rate = 0.1\n"


def test_sites_with_a_learner_that_forgets_directly(site_folders: SiteFolders) -> None:
    """Forests are trained and asked at their sites, one forgets a person, and none may leave its site."""
    text = site_folders.config.read_text()
    assert RECIPE in text
    forest = text.replace("arguments = { hidden = [6] }", 'learner = "forest"\narguments = { trees = 4, min_leaf = 2 }')
    site_folders.config.write_text(forest.replace(RECIPE, ""))
    assert site_folders.json("train").code == 0
    asked = site_folders.write("asked", small_points(people=5))
    out = site_folders.folder / "out.csv"
    assert site_folders.json("predict", str(asked), "--out", str(out)).data["constituents"] == 6
    words = ("north", "--subject", PERSON, "--request-id", "er-1", "--wait", "--config", str(site_folders.config))
    assert run("site", "erase", *words, "--json").data["state"] == "complete"
    assert site_folders.json("verify").data["exact"]
    site_folders.config.write_text(
        forest.replace(RECIPE, "").replace('name = "south"', 'name = "south"\nleaves = "weights"')
    )
    said = site_folders.json("status")
    assert said.code == 2
    assert "site 'south': leaves = 'weights', and constituents of the learner forest hold" in said.error["message"]


@pytest.mark.parametrize("leaves", ["predictions", "weights"])
@pytest.mark.parametrize(("target", "learner"), [("cluster", "k_means"), ("recommend", "cooccurrence")])
def test_sites_have_no_clusters_and_no_recommendations_together(
    target: str, learner: str, leaves: str, site_folders: SiteFolders
) -> None:
    """Centroids, sizes and counts are sums of data points, which must not leave; a cluster's number says nothing."""
    text = site_folders.config.read_text().replace(RECIPE, "").replace("arguments = { hidden = [6] }", "")
    assert all(line in text for line in ('label = "label"\n', 'classes = ["a", "b", "c"]\n'))
    text = text.replace('label = "label"\n', "").replace('classes = ["a", "b", "c"]', f'target = "{target}"')
    text = text.replace('features = ["x*"]', 'features = ["x0", "x1"]')
    text = text.replace('name = "south"', f'name = "south"\nleaves = "{leaves}"')
    site_folders.config.write_text(text.replace("[model]", f'[model]\nlearner = "{learner}"'))
    said = site_folders.json("status")
    assert said.code == 2
    assert f"target {target} is not available to federations of several sites" in said.error["message"]


def test_a_choice_without_sites(tmp_path: Path) -> None:
    """--site is refused for a federation without sites."""
    file = tmp_path / "sisa.toml"
    file.write_text('name = "one"\nstore = "./f"\n')
    said = run("status", "--site", "north", "--config", str(file), "--json")
    assert (said.code, "has no sites" in said.error["message"]) == (2, True)


def test_a_copy_of_the_federations_own_store_commands_no_site(trained: SiteFolders) -> None:
    """The sites are the original's: from a copy nothing is erased there and none is withdrawn, until it is adopted."""
    shutil.copytree(trained.folder / "office", trained.folder / "drill")
    original = trained.config.read_text(encoding="utf-8")
    trained.config.write_text(original.replace('store = "./office"', 'store = "./drill"'), encoding="utf-8")
    assert trained.json("status").code == 0
    config = ("--config", str(trained.config), "--json")
    for words in (
        ("site", "withdraw", "north", "--reason", "a drill"),
        ("site", "erase", "north", "--subject", PERSON),
        ("train",),
        ("keys", "--rotate"),
        ("token", "create", "--role", "audit"),
    ):
        said = run(*words, *config)
        assert said.code == 4, said
        assert f"this store is a copy of {trained.folder / 'office'}" in said.error["message"]
    assert run("adopt", "--reason", "the office is lost", *config).code == 0
    assert run("site", "withdraw", "north", "--reason", "it leaves", *config).data["membership"] == "purged"
