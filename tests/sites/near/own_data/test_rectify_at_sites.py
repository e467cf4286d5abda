"""``sisa --site NAME rectify``: each site corrects its own people's data points, and its federation shows it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import cluster
from cluster.federation import Federation
from cluster.sites.federation import SiteFederation, connect_sites
from cluster.training.workers import Workers
from cluster.writer.corrections import draft_correction
from cluster.writer.training_data import source_of
from cluster.writer.writer import writer_setup
from coordinator.receipts.bundles import statement_of
from coordinator.receipts.kinds import RECTIFICATION_TYPE
from coordinator.requests import RequestState
from coordinator.status import FederationStatus
from storage.errors import Invalid, ObjectMissing
from tests.doubles.user_folder import Columns, run, small_points
from tests.sites.near.served import served
from tests.sites.near.site_folders import SiteFolders, people_of

ROWS = (3, 17, 40)
"""Rows of north's data that are corrected."""
MARKER = 251.0


@pytest.fixture
def folders(tmp_path: Path) -> SiteFolders:
    """Two sites, nothing trained."""
    return SiteFolders(tmp_path, names=("north", "south")).fill()


def right(*numbers: int, site: str = "north") -> Columns:
    """Return these rows of a site, with right values in place of those that it has."""
    columns = people_of(site, 0)
    chosen: Columns = {name: [values[number] for number in numbers] for name, values in columns.items()}
    chosen["x03"] = [MARKER] * len(numbers)
    chosen["label"] = ["abc"["cab".index(label)] for label in chosen["label"]]
    return chosen


def corrected(*numbers: int) -> Columns:
    """Return all of north's data with these rows corrected."""
    columns, new = people_of("north", 0), right(*numbers)
    for name, values in columns.items():
        for position, number in enumerate(numbers):
            values[number] = new[name][position]
    return columns


def digests(status: FederationStatus) -> list[str | None]:
    """Return the digests of a site's constituents."""
    return [each.digest for each in status.constituents]


def digests_of(folders: SiteFolders, columns: Columns) -> list[str | None]:
    """Return the digests of north's constituents if it had only ever seen these data."""
    fresh = SiteFolders(folders.folder / "fresh", names=folders.names)
    fresh.folder.mkdir()
    fresh.fill()
    fresh.write("north", columns)
    with cluster.connect(fresh.site("north").specification) as alone:
        return digests(alone.train())


def asked(federation: SiteFederation, folders: SiteFolders) -> tuple[list[dict[str, object]], dict[str, int]]:
    """Return the federation's answers to some data points, and how many constituents of each site gave them."""
    path = folders.write("asked", small_points(people=5))
    answers = federation.predict(path)
    return answers.table().to_pylist(), {each.site: each.constituents for each in answers.sites}


@pytest.mark.parametrize("leaves", ["predictions", "weights"])
def test_a_site_corrects_its_own_people(folders: SiteFolders, leaves: str) -> None:
    """Its constituents never saw the old values, the asking side has none that did, and the other site is untouched."""
    folders.specify(each=f'leaves = "{leaves}"')
    with connect_sites(folders.config) as federation:
        federation.train()
        before, _ = asked(federation, folders)
        old = federation.link("north").standing().checkpoints
        south = folders.raw("south")
        file = folders.write("right", right(*ROWS))
        said = folders.json("rectify", "--site", "north", "--file", str(file), "--request-id", "c-1").data
        assert (said["kind"], said["state"], said["points"]) == ("rectification", "complete", 3)
        after, constituents = asked(federation, folders)
        assert constituents == {"north": 2, "south": 2}
        assert after != before
        assert folders.raw("south") == south
        status = federation.status().sites[0].status
        assert status is not None
        assert digests(status) == digests_of(folders, corrected(*ROWS))
        for shard, digest in set(old) - set(federation.link("north").standing().checkpoints):
            with pytest.raises((Invalid, ObjectMissing), match="no weights leave|serves no such checkpoint"):
                federation.link("north").checkpoint(shard, digest)
        assert federation.verify().holds
    with connect_sites(folders.config) as federation:
        assert asked(federation, folders)[0] == after


@pytest.mark.parametrize("leaves", ["predictions", "weights"])
def test_it_is_quarantined_at_once(folders: SiteFolders, leaves: str) -> None:
    """Until its shards are retrained nothing at the asking side answers from the old values."""
    folders.specify(settings="[sites]\nquorum = 1", each=f'leaves = "{leaves}"\nerasure.batch = "until_due"')
    file = folders.write("right", right(*range(48)))
    with connect_sites(folders.config) as federation, cluster.connect(folders.site("north").specification) as alone:
        federation.train()
        before, constituents = asked(federation, folders)
        assert constituents == {"north": 2, "south": 2}
        assert alone.rectify(file, request_id="c-1", wait=False).state == "quarantined"
        within, constituents = asked(federation, folders)
        assert constituents == {"south": 2}, "all slices of north have points that are corrected"
        assert federation.request("c-1")[1].state == "quarantined"
        alone.train()
        after, constituents = asked(federation, folders)
        assert constituents == {"north": 2, "south": 2}
        assert federation.request("c-1")[1].state == "complete"
    assert before != within != after


def test_the_federation_shows_it(folders: SiteFolders) -> None:
    """By site in the status, by its id, with the site's receipt and the federation's own; and so does HTTP."""
    folders.write("right", right(*ROWS))
    with served(folders) as world:
        north = world.sites["north"]
        setup = writer_setup(north.site.specification, listener=lambda _: None)
        source = source_of(north.site.specification, folders.folder / "right.parquet", lambda _: None)
        with connect_sites(folders.config) as federation:
            federation.train()
            before, _ = asked(federation, folders)
            name = north.resident.reserve()
            made = draft_correction(setup, source, name, request_id="c-1")
            north.resident.accept(made.request, made.names)
            north.resident.give_back(name)
            heard = north.resident.hear(0, 0.0)
            while north.resident.request("c-1").state is not RequestState.COMPLETE:
                heard = north.resident.hear(heard.upto, 10.0)
            site, found = federation.request("c-1")
            assert (site, found.kind, found.state, found.points) == ("north", "rectification", "complete", 3)
            listed = {each.site: each.status.requests for each in federation.status().sites if each.status is not None}
            assert [(each.request_id, each.kind) for each in listed["north"]] == [("c-1", "rectification")]
            assert listed["south"] == ()
            assert asked(federation, folders)[0] != before
            receipt = federation.receipt("c-1")
            assert receipt.site == "north"
            assert statement_of(receipt.at_site)["predicateType"] == RECTIFICATION_TYPE
            assert statement_of(receipt.at_federation)["predicate"]["site"]["request"] == "c-1"
        said = run("status", "c-1", "--config", str(folders.config)).out
        assert said.startswith("site north: request c-1")
        assert "3 data points corrected" in said
        assert "corrected" in run("receipt", "c-1", "--config", str(folders.config)).err


def test_all_sites_together_refuse_it(folders: SiteFolders) -> None:
    """The rows of a file are values of people at one site, and the command says where to take it."""
    file = folders.write("right", right(*ROWS))
    for words in ((), ("--dry-run",)):
        said = folders.json("rectify", "--file", str(file), *words)
        assert said.code == 2
        assert "which do not leave their site" in said.error["message"]
        assert "'sisa --site NAME rectify'" in said.error["remedy"]


@pytest.fixture
def trained(folders: SiteFolders) -> SiteFolders:
    """The same, trained."""
    assert folders.json("train").code == 0
    return folders


def test_a_file_of_another_site_changes_nothing(trained: SiteFolders) -> None:
    """Its data points are unknown here; those whose ids are in use here have other people."""
    file = trained.write("right", right(*ROWS, site="south"))
    raw = {name: trained.raw(name) for name in trained.names}
    dry = trained.json("rectify", "--site", "north", "--file", str(file), "--dry-run").data
    assert (dry["points"], dry["unknown_rows"]) == (0, [1, 2, 3])
    assert {name: trained.raw(name) for name in trained.names} == raw
    refused = trained.json("rectify", "--site", "north", "--file", str(file), "--request-id", "c-1")
    assert (refused.code, refused.error["kind"], refused.data["unknown_rows"]) == (2, "refused", [1, 2, 3])
    assert trained.raw("south") == raw["south"]
    mixed = right(*ROWS)
    mixed["user_id"] = right(*ROWS, site="south")["user_id"]
    said = trained.json("rectify", "--site", "north", "--file", str(trained.write("mixed", mixed)))
    assert (said.code, "has another subject in the federation" in said.error["message"]) == (2, True)
    assert not [key for key in trained.raw("north") if "draft" in key]
    assert trained.json("verify").data["exact"]


def test_what_cannot_be_corrected_here(trained: SiteFolders) -> None:
    """A site that is not in the file, one whose store is elsewhere, one that was withdrawn."""
    file = str(trained.write("right", right(*ROWS)))
    said = trained.json("rectify", "--site", "east", "--file", file)
    assert (said.code, "no site 'east'" in said.error["message"]) == (2, True)
    config = ("--config", str(trained.config), "--json")
    assert run("site", "withdraw", "north", "--reason", "it leaves", *config).data["membership"] == "purged"
    gone = trained.json("rectify", "--site", "north", "--file", file, "--request-id", "c-1")
    assert (gone.code, gone.error["kind"], gone.data["unknown_rows"]) == (2, "refused", [1, 2, 3])
    shutil.move(trained.folder / "sites" / "south", trained.folder / "elsewhere")
    away = trained.json("rectify", "--site", "south", "--file", str(trained.write("s", right(3, site="south"))))
    assert (away.code, "the federation holds no data yet" in away.error["message"]) == (2, True)


def test_a_site_that_is_away_corrects_and_is_seen_when_it_is_back(trained: SiteFolders) -> None:
    """A correction needs the site alone; one that was set back to old values has no part in answers afterwards."""
    file = str(trained.write("right", right(*ROWS)))
    shutil.copytree(trained.folder / "sites" / "north", trained.folder / "backup")
    assert trained.json("rectify", "--site", "north", "--file", file, "--request-id", "c-1").data["state"] == "complete"
    trained.specify(settings="[sites]\nquorum = 1")
    with connect_sites(trained.config) as federation:
        constituents = asked(federation, trained)[1]
        assert constituents == {"north": 2, "south": 2}
    shutil.rmtree(trained.folder / "sites" / "north")
    shutil.move(trained.folder / "backup", trained.folder / "sites" / "north")
    with connect_sites(trained.config) as federation:
        assert asked(federation, trained)[1] == {"south": 2}
        assert "set back" in (federation.status().sites[0].reason or "")


def test_beside_held_requests_and_a_withdrawal(trained: SiteFolders) -> None:
    """A released erasure takes the corrected values, too; a withdrawal takes the drafts of a held correction."""
    person = right(*ROWS)["user_id"][0]
    config = ("--config", str(trained.config))
    held = run("site", "erase", "north", "--subject", person, "--request-id", "er-1", "--hold", "court", *config)
    assert held.code == 0
    file = str(trained.write("right", right(*ROWS)))
    first = trained.json("rectify", "--site", "north", "--file", file, "--request-id", "c-1").data
    assert (first["state"], first["points"]) == ("complete", 3)
    assert run("--site", "north", "request", "release", "er-1", *config).code == 0
    status = trained.json("status", "--site", "north").data
    assert {each["request_id"]: each["state"] for each in status["requests"]} == {"c-1": "complete", "er-1": "complete"}
    columns = corrected(*ROWS)
    kept = [number for number, name in enumerate(columns["user_id"]) if name != person]
    fresh = digests_of(trained, {name: [values[number] for number in kept] for name, values in columns.items()})
    assert [each["digest"] for each in status["constituents"]] == fresh
    other = str(trained.write("other", right(44)))
    waiting = trained.json("rectify", "--site", "north", "--file", other, "--request-id", "c-2", "--hold", "court")
    assert waiting.data["state"] == "waiting"
    with connect_sites(trained.config) as federation:
        assert federation.request("c-2")[1].held == "court"
        assert federation.withdraw("north", "it leaves").membership == "purged"
    assert trained.json("verify", "--site", "north").code == 0
    assert trained.json("status", "--site", "north").data["points"] == 0
    assert not [key for key in trained.raw("north") if "/slices/" in key]


class FarCoordinator:
    """A coordinator that runs on a node of the site, for a caller that is not on one."""

    def reserve(self) -> str:
        """Return a name for drafts."""
        return "drafts"

    def give_back(self, name: str) -> None:
        """End its reservation."""


def test_rows_are_read_only_at_the_site(trained: SiteFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command elsewhere on the cluster reads no slice and writes no draft, even if a coordinator runs at the site."""

    def elsewhere(_: Workers) -> None:
        raise Invalid("this process is not on a node with the labels site=north", "Run the command on one.")

    monkeypatch.setattr(Workers, "check_own_place", elsewhere)
    monkeypatch.setattr(Federation, "_coordinator", lambda _: FarCoordinator())
    file = trained.write("right", right(*ROWS))
    own = trained.site("north").specification
    pinned = replace(own, cluster=replace(own.cluster, labels={"site": "north"}))
    raw = trained.raw("north")
    with cluster.connect(pinned) as federation:
        for act in (federation.rectify, federation.price_correction):
            with pytest.raises(Invalid, match="not on a node with the labels site=north"):
                act(file)
    assert trained.raw("north") == raw
