"""Hold-out points at sites: each holds out its own people, and measures its own constituents on them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import cluster
from cluster.config.sites import read_sites
from cluster.sites.federation import SiteFederation, connect_sites
from cluster.sites.link import NearSite
from cluster.sites.simulation import simulated
from coordinator.engine.ledger import read_state
from coordinator.status import RequestStatus
from storage.errors import Conflict, Invalid
from tests.doubles.user_folder import Columns, run, without
from tests.sites.near.served import served
from tests.sites.near.site_folders import SiteFolders, people_of

SHARE = 0.4
COMMON_SHARE = f"[data]\nholdout = {SHARE}"


@pytest.fixture
def folders(tmp_path: Path) -> SiteFolders:
    """Two sites that hold out a share of their people, nothing trained."""
    return held_out(tmp_path)


def held_out(folder: Path, **settings: str) -> SiteFolders:
    """Return two sites that hold out a share of their people."""
    common = SiteFolders(folder).common.replace("[data]", COMMON_SHARE)
    return SiteFolders(folder, names=("north", "south"), common=common).fill(**settings)


def people_held_out(folders: SiteFolders, site: str) -> set[str]:
    """Return whom a site holds out, found by what a dry run says of each."""
    names = dict.fromkeys(people_of(site, folders.names.index(site))["user_id"])
    with cluster.connect(folders.site(site).specification) as alone:
        found = {name: alone.price(subjects=[name]) for name in names}
    assert all(each.held_out in {0, each.points} for each in found.values())
    return {name for name, each in found.items() if each.held_out}


def statuses(federation: SiteFederation) -> dict[str, Any]:
    """Return each site's status, as its federation sees it."""
    return {each.site: each.status for each in federation.status().sites}


def test_each_site_holds_out_its_own_people(folders: SiteFolders) -> None:
    """By its own key: trained are the others alone, and the site measures its constituents on those held out."""
    with connect_sites(folders.config) as federation:
        federation.train()
        status = statuses(federation)
        digests = {name: [each.digest for each in status[name].constituents] for name in folders.names}
    for number, name in enumerate(folders.names):
        held = people_held_out(folders, name)
        assert 0 < len(held) < 12
        assert (status[name].points, status[name].held_out) == (48 - 4 * len(held), 4 * len(held))
        measured = folders.json("evaluate", "--site", name).data
        assert measured["points"] == 4 * len(held)
        alone = folders.json("status", "--site", name).data
        assert alone["is_measured"]
        assert alone["measure"]["metrics"]["accuracy"] == pytest.approx(measured["accuracy"], abs=1e-6)
        fresh = SiteFolders(folders.folder / name, names=folders.names)
        fresh.folder.mkdir()
        fresh.specify()
        fresh.write(name, without(people_of(name, number), subjects=held))
        with cluster.connect(fresh.site(name).specification) as trained:
            assert [each.digest for each in trained.train().constituents] == digests[name]


def test_one_key_holds_a_person_out_everywhere(folders: SiteFolders) -> None:
    """With one partition key at both sites a person is on the same side at both; with keys of their own not."""
    columns = people_of("north", 0)
    for name in folders.names:
        folders.write(name, columns)
    own = {name: _held_out_of(folders, name, columns) for name in folders.names}
    assert own["north"] != own["south"]
    text = folders.config.read_text(encoding="utf-8")
    key = "0123456789abcdef" * 2
    lines = [f'partition.key = "{key}"' if line.startswith("partition.key") else line for line in text.splitlines()]
    shared = SiteFolders(folders.folder / "shared", names=folders.names, common=folders.common)
    shared.folder.mkdir()
    shared.config.write_text("\n".join(lines), encoding="utf-8")
    for name in folders.names:
        shared.write(name, columns)
    one = {name: _held_out_of(shared, name, columns) for name in folders.names}
    assert one["north"] == one["south"]


def _held_out_of(folders: SiteFolders, site: str, columns: Columns) -> set[str]:
    with cluster.connect(folders.site(site).specification) as alone:
        alone.train()
        names = dict.fromkeys(columns["user_id"])
        return {name for name in names if alone.price(subjects=[name]).held_out}


def test_a_site_has_a_share_or_files_of_its_own(tmp_path: Path) -> None:
    """Its table may say so; another site may hold out nobody."""
    folders = SiteFolders(tmp_path, names=("north", "south")).fill()
    text = folders.config.read_text(encoding="utf-8")
    folders.config.write_text(
        text.replace('name = "north"\n', 'name = "north"\ndata.holdout = "held.parquet"\n'), encoding="utf-8"
    )
    columns = people_of("north", 0)
    folders.write("north", without(columns, ids=columns["id"][:12]))
    folders.write("held", {name: values[:12] for name, values in columns.items()})
    assert folders.json("train").code == 0
    with connect_sites(folders.config) as federation:
        assert {name: each.held_out for name, each in statuses(federation).items()} == {"north": 12, "south": None}
    said = folders.json("evaluate", "--site", "south")
    assert (said.code, said.error["message"]) == (2, "the federation has no hold-out points")
    place = "s3://bucket/held.parquet"
    text = folders.config.read_text(encoding="utf-8")
    own = f'holdout = "{place}"\ndata.endpoint = "http://127.0.0.1:9"'
    folders.config.write_text(text.replace('holdout = "held.parquet"', own), encoding="utf-8")
    data = simulated(read_sites(folders.config)).site("north").specification.data
    assert (data.holdout, data.endpoint) == (place, "http://127.0.0.1:9")


def test_an_erasure_is_measured_at_its_site_alone(tmp_path: Path) -> None:
    """The site's officer sees measures and alarm; over its link the federation sees neither, near or over HTTP."""
    folders = held_out(tmp_path, each="erasure.alarm_margin = 1e-9")
    assert folders.json("train").code == 0
    held = people_held_out(folders, "north")
    trained = sorted(set(people_of("north", 0)["user_id"]) - held)
    words = [word for name in (*trained[:-1], min(held)) for word in ("--subject", name)]
    config = ("--config", str(folders.config), "--json")
    done = run("site", "erase", "north", *words, "--request-id", "er-1", "--wait", *config).data
    assert (done["state"], done["held_out"], done["effect"], done["alarms"]) == ("complete", 4, None, [])
    own = folders.json("status", "er-1", "--site", "north").data
    before, after = own["effect"]["before"], own["effect"]["after"]
    assert (before["points"], after["points"]) == (4 * len(held), 4 * len(held) - 4)
    fell = [name for name, was in before["per_class"].items() if (after["per_class"][name] or 0.0) < was]
    assert own["alarms"] == [name for name in fell if after["per_class"][name] is not None]
    assert folders.json("verify").data["exact"]
    for status in (folders.json("status").data, folders.json("status", "er-1").data):
        assert '"before":' not in json.dumps(status)
    with connect_sites(folders.config) as federation:
        assert all(each.measure is None and not each.is_measured for each in statuses(federation).values())
        assert federation.link("south").train().measure is None
        assert federation.withdraw("north", "it leaves").membership == "purged"
    state = read_state(folders.objects("north"))
    assert state is not None
    assert not any(record.points for _, record in state.slices())


def test_a_withdrawn_site_with_hold_out_points_alone_is_not_purged(folders: SiteFolders) -> None:
    """A request id of a withdrawal that was used before erases nobody, and people who are held out count as data."""
    with connect_sites(folders.config) as federation:
        federation.train()
        federation.link("north").erase_everyone("withdrawal-of-north")
        others = people_of("north", 0)
        others["user_id"] = [f"new-{name}" for name in others["user_id"]]
        others["id"] = [f"new-{name}" for name in others["id"]]
        folders.write("north", others)
        federation.train()
        with cluster.connect(folders.site("north").specification) as alone:
            names = dict.fromkeys(others["user_id"])
            alone.erase(subjects=[name for name in names if not alone.price(subjects=[name]).held_out])
        assert (statuses(federation)["north"].points, bool(statuses(federation)["north"].held_out)) == (0, True)
        with pytest.raises(Conflict, match="the request id was used before"):
            federation.withdraw("north", "it leaves")
        assert federation.status().sites[0].membership == "withdrawn"
    with connect_sites(folders.config, link_to=_OfAnEarlierRelease) as federation:
        assert federation.withdraw("north", "it leaves").membership == "withdrawn"


class _OfAnEarlierRelease(NearSite):
    """A site whose server does not count hold-out points as data of the people who are erased."""

    def erase_everyone(self, request_id: str) -> RequestStatus:
        """Repeat a request that is complete."""
        return self.request(request_id)


def test_no_site_is_asked_that_keeps_its_measures(folders: SiteFolders) -> None:
    """That is the default; the error names what can be measured, by whom, and each site's reason."""
    assert folders.json("train").code == 0
    said = folders.json("evaluate")
    assert said.code == 2
    assert "north: it keeps its measures to itself: measures is false in its table" in said.error["message"]
    assert "'sisa --site NAME evaluate'" in said.error["remedy"]
    with connect_sites(folders.config) as federation, pytest.raises(Invalid, match="keeps its measures to itself"):
        federation.link("north").measure()


@pytest.mark.parametrize("is_near", [True, False])
def test_measures_of_sites_are_combined_by_points(tmp_path: Path, is_near: bool) -> None:
    """Each site measures at home; means over data points are combined by counts, near and over HTTP alike."""
    folders = held_out(tmp_path, each="measures = true")
    with served(folders, each="measures = true") as world:
        if is_near:
            for site in world.sites.values():
                site.resident.stop()
        with connect_sites(folders.config, **({"link_to": NearSite} if is_near else {})) as federation:
            federation.train()
            found = federation.measures()
        own = {name: folders.json("evaluate", "--site", name).data for name in folders.names}
        assert {name: each.points for name, each in found.sites.items()} == {n: own[n]["points"] for n in own}
        assert all(each.per_class is None for each in found.sites.values())  # of few people, it says who they are
        total = sum(each["points"] for each in own.values())
        assert found.points == total
        for metric in ("accuracy", "log_loss", "brier"):
            mean = sum(each["points"] * each["metrics"][metric] for each in own.values()) / total
            assert found.together[metric] == pytest.approx(mean, abs=1e-5)
        assert found.together.keys() <= {"accuracy", "log_loss", "brier"}
        said = run("evaluate", "--config", str(folders.config))
        assert said.out.startswith("each site's own constituents on its own hold-out points")
        assert [line.split()[0] for line in said.out.splitlines()[-3:]] == ["north", "south", "together"]
        if not is_near:
            world.sites["south"].boundary.forged["/v1/measure"] = (404, b"{}")
            with connect_sites(folders.config) as federation:
                old = federation.measures()
            assert (list(old.sites), old.absent) == (
                ["north"],
                {"south": "the site's server is too old to report measures"},
            )
            for points, value in ((0, "0.5"), (-8, "0.5"), ("1" * 400, "0.5"), (8, "1e200"), (8, "-1e999"), (8, "NaN")):
                body = f'{{"generation":1,"points":{points},"metrics":{{"accuracy":{value}}},"at":""}}'
                world.sites["south"].boundary.forged["/v1/measure"] = (200, body.encode())
                with connect_sites(folders.config) as federation:
                    forged = federation.measures()
                assert (list(forged.sites), bool(forged.absent["south"])) == (["north"], True)


def test_a_site_that_is_set_back_or_not_measured_reports_nothing(tmp_path: Path) -> None:
    """Its measure would be of constituents that nothing may answer from, or of an earlier generation."""
    folders = held_out(tmp_path, each='measures = true\nerasure.batch = "until_due"')
    with connect_sites(folders.config) as federation, cluster.connect(folders.site("north").specification) as alone:
        federation.train()
        shutil.copytree(folders.folder / "sites" / "north", folders.folder / "backup")
        trained = sorted(set(people_of("north", 0)["user_id"]) - people_held_out(folders, "north"))
        alone.erase(subjects=trained[:1], wait=False)
        found = federation.measures()
        assert not alone.status().is_measured
        assert list(found.sites) == ["south"]
        assert "is not measured yet" in found.absent["north"]
        alone.train()
        assert list(federation.measures().sites) == ["north", "south"]
        shutil.rmtree(folders.folder / "sites" / "north")
        shutil.move(folders.folder / "backup", folders.folder / "sites" / "north")
    with connect_sites(folders.config) as federation:
        assert "set back" in federation.measures().absent["north"]


@pytest.mark.parametrize(("share", "message"), [("1.5", "holdout must be a share"), ('"0.1"', "is the text '0.1'")])
def test_a_bad_share_of_a_site_names_the_site(folders: SiteFolders, share: str, message: str) -> None:
    """Like any other setting of its table."""
    text = folders.config.read_text(encoding="utf-8")
    folders.config.write_text(text.replace('name = "south"\n', f'name = "south"\ndata.holdout = {share}\n'))
    said = folders.json("status")
    assert (said.code, "site 'south'" in said.error["message"], message in said.error["message"]) == (2, True, True)


def test_a_site_corrects_people_whom_it_holds_out(folders: SiteFolders) -> None:
    """No constituent changes, and the site measures what it serves again."""
    assert folders.json("train").code == 0
    before = folders.json("status", "--site", "north").data
    held = people_held_out(folders, "north")
    columns = people_of("north", 0)
    number = next(number for number, name in enumerate(columns["user_id"]) if name in held)
    row: Columns = {name: [values[number]] for name, values in columns.items()}
    row["label"] = ["abc"["cab".index(row["label"][0])]]
    file = folders.write("right", row)
    said = folders.json("rectify", "--site", "north", "--file", str(file), "--request-id", "c-1").data
    assert (said["state"], said["points"], said["held_out"], said["shards"]) == ("complete", 1, 1, [])
    after = folders.json("status", "--site", "north").data
    assert after["constituents"] == before["constituents"]
    assert after["is_measured"]
    assert after["measure"]["metrics"] != before["measure"]["metrics"]
    assert folders.json("verify", "--site", "north").code == 0
