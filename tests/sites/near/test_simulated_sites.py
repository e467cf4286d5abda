"""Sites as folders on one machine: training, predictions, erasures, withdrawal."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import cluster.training.workers
from cluster.config.sites import ListedSite
from cluster.config.specification import ClusterSettings
from cluster.coordinator_actor.record import RECORD_KEY, Launched
from cluster.results.sites import SitesStatus
from cluster.sites.federation import SiteFederation, connect_sites
from cluster.sites.link import NearSite
from coordinator.decisions import ended
from coordinator.engine.ledger import read_state
from coordinator.ports import Clock, Listener
from coordinator.receipts.bundles import statement_of, verify_bundle
from coordinator.receipts.checking import ReceiptsCheck
from storage.digests import canonical_json, sha256
from storage.errors import Conflict, Invalid, ObjectMissing, Unavailable
from tests.doubles.time_and_names import VirtualClock
from tests.doubles.user_folder import small_points
from tests.sites.near.site_folders import SITES, SiteFolders, people_of

PERSON = "north-secret-person-003"


def digests(status: SitesStatus) -> dict[str, list[str | None]]:
    """Return the digests of all constituents, by site."""
    return {
        each.site: [constituent.digest for constituent in each.status.constituents]
        for each in status.sites
        if each.status is not None
    }


def ask(federation: SiteFederation, site_folders: SiteFolders) -> list[dict[str, object]]:
    """Return what the federation says of some data points."""
    path = site_folders.folder / "asked.parquet"
    if not path.exists():
        site_folders.write("asked", small_points(people=5))
    answers: list[dict[str, object]] = federation.predict(path).table().to_pylist()
    return answers


class Unreachable:
    """Whether sites are away, for links that ask it first."""

    def __init__(self) -> None:
        self.away: set[str] = set()

    def link(self, site: ListedSite, listener: Listener, clock: Clock) -> NearSite:
        """Return a link to a site that may be away."""
        return _Fickle(site, listener, clock, self.away)


class _Fickle(NearSite):
    """A near site that can be away."""

    def __init__(self, site: ListedSite, listener: Listener, clock: Clock, away: set[str]) -> None:
        self._away = away
        super().__init__(site, listener, clock)

    def __getattribute__(self, name: str) -> object:
        if not name.startswith("_") and name not in {"name", "close"} and self.name in self._away:
            raise Unavailable("the site does not answer", "wait")
        found: object = super().__getattribute__(name)
        return found


def test_constituents_are_those_of_each_site_alone(site_folders: SiteFolders, tmp_path: Path) -> None:
    """A site's constituents have exactly the bytes that it would train as a separate federation."""
    with connect_sites(site_folders.config) as federation:
        together = digests(federation.train())
    shutil.rmtree(site_folders.folder / "sites")
    for name in SITES:
        with cluster.connect(site_folders.site(name).specification) as alone:
            assert [each.digest for each in alone.train().constituents] == together[name]


def test_an_answer_counts_every_constituent_alike(site_folders: SiteFolders) -> None:
    """The federation's answer is the mean of the sites', each as often as it has constituents that answer."""
    site_folders.specify(each="")
    text = site_folders.config.read_text().replace('name = "south"\n', 'name = "south"\npartition.shards = 3\n')
    site_folders.config.write_text(text)
    with connect_sites(site_folders.config) as federation:
        federation.train()
        answers = federation.predict(str(site_folders.write("asked", small_points(people=5))))
        assert {each.site: each.constituents for each in answers.sites} == {"north": 2, "south": 3, "west": 2}
        assert (answers.constituents, answers.shards, answers.absent) == (7, 7, {})
        found = answers.table().to_pylist()
    parts: Mapping[str, list[dict[str, float]]] = {}
    for name in SITES:
        with cluster.connect(site_folders.site(name).specification) as alone:
            parts = {**parts, name: alone.predict(site_folders.folder / "asked.parquet").table().to_pylist()}
    for number, answer in enumerate(found):
        for label in "abc":
            column = f"probability_{label}"
            expected = sum(parts[name][number][column] * (3 if name == "south" else 2) for name in SITES) / 7
            assert answer[column] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("rule", ["mean_probability", "majority_vote"])
def test_weights_or_predictions_leave_and_answers_are_the_same(site_folders: SiteFolders, rule: str) -> None:
    """Whether constituents answer at their site or where the question is asked changes no bit of any answer."""
    aggregation = f'[aggregation]\nrule = "{rule}"'
    site_folders.specify(settings=aggregation, each='leaves = "predictions"')
    with connect_sites(site_folders.config) as federation:
        federation.train()
        there = ask(federation, site_folders)
    site_folders.specify(settings=aggregation, each='leaves = "weights"')
    with connect_sites(site_folders.config) as federation:
        assert ask(federation, site_folders) == there
        federation.erase("north", subjects=[PERSON])
        after = ask(federation, site_folders)
    site_folders.specify(settings=aggregation, each='leaves = "predictions"')
    with connect_sites(site_folders.config) as federation:
        assert ask(federation, site_folders) == after


def test_no_weights_leave_a_site_that_lets_only_predictions_go(site_folders: SiteFolders) -> None:
    """A site that lets only predictions leave gives no checkpoint to anybody."""
    with connect_sites(site_folders.config) as federation:
        federation.train()
        link = federation.link("north")
        shard, digest = link.standing().checkpoints[0]
        with pytest.raises(Invalid, match="no weights leave this site"):
            link.checkpoint(shard, digest)


def test_an_erasure_touches_one_site(site_folders: SiteFolders) -> None:
    """A person is erased where they are; no byte of any other site's store changes."""
    with connect_sites(site_folders.config) as federation:
        before = digests(federation.train())
        others = {name: site_folders.raw(name) for name in SITES[1:]}
        status = federation.erase("north", subjects=[PERSON], request_id="er-1")
        assert (status.state, status.points) == ("complete", 4)
        assert {name: site_folders.raw(name) for name in SITES[1:]} == others
        after = digests(federation.status())
        assert after["north"] != before["north"]
        assert {name: after[name] for name in SITES[1:]} == {name: before[name] for name in SITES[1:]}
        assert federation.verify().holds
        found = federation.receipt("er-1")
        with cluster.connect(site_folders.site("north").specification) as alone:
            keys = alone.registrar.public_keys()
        assert (found.site, verify_bundle(found.at_site, keys).is_valid) == ("north", True)
        assert verify_bundle(found.at_federation, federation.registrar.public_keys()).is_valid
        link = statement_of(found.at_federation)["predicate"]
        assert (link["request"]["id"], link["site"]["receipt"]) == ("north:er-1", sha256(found.at_site.to_bytes()))
        assert not verify_bundle(found.at_site, federation.registrar.public_keys()).is_valid
        assert federation.registrar.check_all(["north:er-1"]) == ReceiptsCheck(checked=1, broken=())


def test_a_person_of_one_site_is_nobody_at_another(site_folders: SiteFolders) -> None:
    """Ids are matched within a site: the same id elsewhere is nothing to erase, and nothing is."""
    with connect_sites(site_folders.config) as federation:
        federation.train()
        status = federation.erase("south", subjects=[PERSON], request_id="er-1")
        assert (status.state, status.points) == ("refused", 0)
        with pytest.raises(ObjectMissing, match="no site has this"):
            federation.request("er-1", "north")
        assert federation.request("er-1")[0] == "south"


def test_a_site_that_is_away_is_waited_for(site_folders: SiteFolders) -> None:
    """Training continues at the other sites; the site trains when it is back; until then its answers are missing."""
    unreachable = Unreachable()
    unreachable.away.add("west")
    site_folders.specify(settings="[sites]\nquorum = 2\ngrace_seconds = 60.0\n")
    with connect_sites(site_folders.config, link_to=unreachable.link) as federation:
        status = federation.train()
        assert status.waits_for == ("west",)
        assert "waiting for site west" in status.sites[2].reason
        answers = federation.predict(str(site_folders.write("asked", small_points(people=5))))
        assert [each.site for each in answers.sites] == ["north", "south"]
        assert answers.absent == {"west": "it has not joined yet"}
        unreachable.away.clear()
        assert federation.train().waits_for == ()
        assert len(federation.predict(site_folders.folder / "asked.parquet").sites) == 3
        unreachable.away.add("west")
        answers = federation.predict(site_folders.folder / "asked.parquet")
        assert [each.site for each in answers.sites] == ["north", "south"]
        assert answers.absent == {"west": "the site does not answer"}


def test_a_new_site_joins(site_folders: SiteFolders) -> None:
    """A site that is added to the specification has no part and hinders nobody until it is trained; then it has."""
    site_folders.specify(names=["north", "south"])
    with connect_sites(site_folders.config) as federation:
        others = digests(federation.train())
        before = ask(federation, site_folders)
    site_folders.specify()
    unreachable = Unreachable()
    unreachable.away.add("west")
    with connect_sites(site_folders.config, link_to=unreachable.link) as federation:
        federation.train()
        assert federation.status().sites[2].membership == "new"
        assert ask(federation, site_folders) == before
        unreachable.away.clear()
        assert federation.train().sites[2].membership == "member"
        assert ask(federation, site_folders) != before
        after = digests(federation.status())
        assert {name: after[name] for name in others} == others


def test_too_few_sites_answer_nothing(site_folders: SiteFolders) -> None:
    """Without a quorum there is no answer, and the error says which sites are missing and why."""
    unreachable = Unreachable()
    with connect_sites(site_folders.config, link_to=unreachable.link) as federation:
        federation.train()
        unreachable.away.add("south")
        with pytest.raises(Unavailable, match="2 of 3 sites answer, and the quorum is 3: south: the site does not"):
            ask(federation, site_folders)


def test_an_erasure_at_a_site_that_is_away_is_not_accepted(site_folders: SiteFolders) -> None:
    """Nothing is promised that nobody has written down."""
    unreachable = Unreachable()
    with connect_sites(site_folders.config, link_to=unreachable.link) as federation:
        federation.train()
        unreachable.away.add("north")
        with pytest.raises(Unavailable, match="the site does not answer"):
            federation.erase("north", subjects=[PERSON], request_id="er-1")
        unreachable.away.clear()
        with pytest.raises(ObjectMissing, match="no site has this"):
            federation.request("er-1")


@pytest.mark.parametrize("is_asked", [True, False], ids=["asked since", "not asked since"])
def test_a_site_restored_from_an_old_backup_has_no_part(
    site_folders: SiteFolders, tmp_path: Path, is_asked: bool
) -> None:
    """A site restored from a backup with erased data has no part in answers, even if it accepts new requests since.

    It is enough that the federation has submitted the erasure; no further question to the site is needed.
    """
    site_folders.specify(settings="[sites]\nquorum = 2\ngrace_seconds = 60.0\n")
    with connect_sites(site_folders.config) as federation:
        federation.train()
        shutil.copytree(site_folders.folder / "sites" / "north", tmp_path / "backup")
        federation.erase("north", subjects=[PERSON], request_id="er-1")
        site_folders.write("asked", small_points(people=5))
        if is_asked:
            assert len(federation.predict(site_folders.folder / "asked.parquet").sites) == 3
    shutil.rmtree(site_folders.folder / "sites" / "north")
    shutil.copytree(tmp_path / "backup", site_folders.folder / "sites" / "north")
    with connect_sites(site_folders.config) as federation:
        answers = federation.predict(site_folders.folder / "asked.parquet")
        assert [each.site for each in answers.sites] == ["south", "west"]
        assert "set back to an earlier moment" in answers.absent["north"]
        assert "set back to an earlier moment" in federation.status().sites[0].reason
        with pytest.raises(Unavailable, match="set back to an earlier moment"):
            federation.erase("north", subjects=["north-secret-person-004"])
    with cluster.connect(site_folders.site("north").specification) as alone:
        alone.erase(subjects=["north-secret-person-004"])
        alone.erase(subjects=["north-secret-person-005"])  # further than it ever was, and not where it was
    with connect_sites(site_folders.config) as federation:
        assert (
            "set back to an earlier moment" in federation.predict(site_folders.folder / "asked.parquet").absent["north"]
        )


def test_a_site_whose_requests_have_left_its_state_is_the_site_it_was(
    site_folders: SiteFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered of its first requests still fits, and one that was set back still does not."""
    with connect_sites(site_folders.config) as federation:
        federation.train()
        site_folders.write("asked", small_points(people=5))
        for number in range(3):
            federation.erase("north", subjects=[f"north-secret-person-00{number}"], request_id=f"er-{number}")
        assert len(federation.predict(site_folders.folder / "asked.parquet").sites) == 3
    shutil.copytree(site_folders.folder / "sites" / "north", tmp_path / "backup")
    monkeypatch.setattr(ended, "TOGETHER", 1)
    with connect_sites(site_folders.config) as federation:
        federation.erase("north", subjects=["north-secret-person-003"], request_id="er-3")
        state = read_state(site_folders.objects("north"))
        assert state is not None
        assert (len(state.requests), state.ended.requests) == (1, 3)
        assert len(federation.predict(site_folders.folder / "asked.parquet").sites) == 3
        assert federation.request("er-0")[1].state == "complete"
    shutil.rmtree(site_folders.folder / "sites" / "north")
    shutil.copytree(tmp_path / "backup", site_folders.folder / "sites" / "north")
    with (
        connect_sites(site_folders.config) as federation,
        pytest.raises(Unavailable, match="set back to an earlier moment"),
    ):
        federation.predict(site_folders.folder / "asked.parquet")


def test_another_site_under_the_same_name_is_refused(site_folders: SiteFolders) -> None:
    """A store with another partition key is another site, and takes no part under the first one's name."""
    with connect_sites(site_folders.config) as federation:
        federation.train()
    shutil.rmtree(site_folders.folder / "sites" / "north")
    text = site_folders.config.read_text().replace(b"north".hex(), b"nirth".hex())
    site_folders.config.write_text(text)
    with (
        connect_sites(site_folders.config) as federation,
        pytest.raises(Conflict, match="this is another site than the one"),
    ):
        federation.train()


def test_withdrawing_a_site(site_folders: SiteFolders) -> None:
    """Its constituents leave the answers at once, all its data points are erased, and a receipt says so."""
    with connect_sites(site_folders.config) as federation:
        federation.train()
        status = federation.withdraw("west", "the hospital leaves the study")
        assert (status.membership, status.reason) == ("purged", "the hospital leaves the study")
        assert status.status is not None
        assert status.status.points == 0
        assert [each.site for each in federation.predict(str(site_folders.write("asked", small_points(5)))).sites] == [
            "north",
            "south",
        ]
        receipt = federation.receipt("withdrawal-of-west")
        assert statement_of(receipt.at_site)["predicate"]["erased"]["points"] == 48
        assert statement_of(receipt.at_federation)["predicate"]["site"]["name"] == "west"
        with pytest.raises(Conflict, match="was withdrawn"):
            federation.erase("west", subjects=["west-secret-person-001"])
        assert len(federation.train().sites) == 3
        assert federation.withdraw("west", "again").reason == "the hospital leaves the study"
        proof = federation.link("west").verify()  # what is there was trained on nothing, and nothing else is there
        assert proof.holds


def test_a_request_under_the_name_of_a_withdrawal_is_none(site_folders: SiteFolders) -> None:
    """A site is not taken for purged because somebody has used the id before for a few people."""
    with connect_sites(site_folders.config) as federation:
        federation.train()
        federation.erase("west", subjects=["west-secret-person-001"], request_id="withdrawal-of-west")
        with pytest.raises(Conflict, match="the request id was used before, and there are data points here"):
            federation.withdraw("west", "contract over")
        assert federation.status().sites[2].membership == "withdrawn"


def test_weights_of_a_site_that_describes_data_points_otherwise(site_folders: SiteFolders) -> None:
    """A site with another number of features is absent, wherever its constituents are evaluated."""
    columns = people_of("west", 2)
    del columns["x07"]
    site_folders.write("west", columns)
    for leaves in ("predictions", "weights"):
        site_folders.specify(settings="[sites]\nquorum = 2\ngrace_seconds = 60.0\n", each=f'leaves = "{leaves}"')
        with connect_sites(site_folders.config) as federation:
            federation.train()
            answers = federation.predict(str(site_folders.write("asked", small_points(people=5))))
            assert [each.site for each in answers.sites] == ["north", "south"]
            assert "have 16 features, this site's have 15: it has no 'x07'" in answers.absent["west"]


class _FakeRay:
    """Says whether somebody has started it, and remembers who started and ended it."""

    def __init__(self) -> None:
        self.reported: list[str] = []
        self.is_started = False

    def join(self, _: ClusterSettings) -> bool:
        """Start, or be joined."""
        was_started, self.is_started = self.is_started, True
        self.reported += [] if was_started else ["started"]
        return not was_started

    def leave(self) -> None:
        """End."""
        self.is_started = False
        self.reported.append("ended")


def test_all_sites_of_a_machine_share_one_ray(site_folders: SiteFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray, which starts slowly, is started once for all sites, and ended after the last one, also when one fails."""
    fake = _FakeRay()
    monkeypatch.setattr(cluster.training.workers, "join_ray", fake.join)
    monkeypatch.setattr(cluster.training.workers, "leave_ray", fake.leave)
    whole = (site_folders.folder / "west.parquet").read_bytes()
    (site_folders.folder / "west.parquet").write_bytes(b"no parquet")
    with connect_sites(site_folders.config) as federation:
        with pytest.raises(Invalid, match="west.parquet"):
            federation.train()
        assert fake.reported == ["started", "ended"]
        (site_folders.folder / "west.parquet").write_bytes(whole)
        federation.train()
        assert federation.verify().holds
        assert fake.reported == ["started", "ended"] * 3


def test_a_site_with_a_coordinator_of_its_own_is_looked_for_where_that_is(
    site_folders: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sites do not share one Ray if a site's coordinator is on another Ray, where it could not be found."""
    fake = _FakeRay()
    monkeypatch.setattr(cluster.training.workers, "join_ray", fake.join)
    monkeypatch.setattr(cluster.training.workers, "leave_ray", fake.leave)
    launched = Launched(address="127.0.0.1:1", namespace="sisa-north", head=None)
    site_folders.objects("north").put_if_absent(RECORD_KEY, canonical_json(asdict(launched)))
    with connect_sites(site_folders.config) as federation:
        federation.train()
    assert fake.reported == ["started", "ended"] * len(SITES)


class _Mistaken(NearSite):
    """A near site that gives one constituent, whichever is asked for."""

    def checkpoint(self, shard: int, sha256: str) -> bytes:
        """Return the first shard's constituent, which is whole and sound."""
        return super().checkpoint(*self.standing().checkpoints[0])


def test_a_constituent_that_is_another_one_than_was_asked_for(site_folders: SiteFolders) -> None:
    """A constituent counts for what its bytes are: a site that gives others than it names has no part in the answer."""

    def link(site: ListedSite, listener: Listener, clock: Clock) -> NearSite:
        return (_Mistaken if site.name == "west" else NearSite)(site, listener, clock)

    site_folders.specify(settings="[sites]\nquorum = 2\ngrace_seconds = 60.0\n", each='leaves = "weights"')
    with connect_sites(site_folders.config, link_to=link) as federation:
        federation.train()
        answers = federation.predict(str(site_folders.write("asked", small_points(people=5))))
        assert [each.site for each in answers.sites] == ["north", "south"]
        assert "came from its site with another digest" in answers.absent["west"]


def test_a_withdrawn_site_that_is_away_is_purged_later(site_folders: SiteFolders) -> None:
    """It has no part in any answer from the moment of its withdrawal; its data go when it is back."""
    unreachable = Unreachable()
    with connect_sites(site_folders.config, link_to=unreachable.link) as federation:
        federation.train()
        unreachable.away.add("west")
        assert federation.withdraw("west", "contract over").membership == "withdrawn"
        unreachable.away.clear()
        assert [each["prediction"] for each in ask(federation, site_folders)]
        assert len(federation.predict(site_folders.folder / "asked.parquet").sites) == 2
        assert federation.status().sites[2].status is not None
        federation.train()
        assert federation.status().sites[2].membership == "purged"


def test_evaluating_counts_all_sites(site_folders: SiteFolders) -> None:
    """Accuracy is that of the federation's own answers."""
    with connect_sites(site_folders.config) as federation:
        federation.train()
        path = site_folders.write("labelled", people_of("north", 0))
        found = federation.evaluate(path)
        table = federation.predict(path).table()
        truth = people_of("north", 0)["label"]
        right = np.mean(
            [said == true for said, true in zip(table.column("prediction").to_pylist(), truth, strict=True)]
        )
        assert found.overall.accuracy == pytest.approx(right)
        assert len(found.sites) == 3


@pytest.mark.parametrize("years", [-30, 30])
def test_a_site_with_a_wrong_clock(site_folders: SiteFolders, years: int) -> None:
    """Times in its receipts are wrong, as its clock is; what it answers, erases and proves is not."""
    clock = VirtualClock(years * 365 * 86_400)

    def link(site: ListedSite, listener: Listener, own: Clock) -> NearSite:
        return NearSite(site, listener, clock if site.name == "north" else own)

    with connect_sites(site_folders.config, link_to=link) as federation:
        federation.train()
        before = ask(federation, site_folders)
        assert federation.erase("north", subjects=[PERSON], request_id="er-1").state == "complete"
        assert ask(federation, site_folders) != before
        assert federation.verify().holds
        stated = statement_of(federation.receipt("er-1").at_site)["predicate"]["request"]["times"]
        assert {moment[:4] for moment in stated.values()} == {str(clock.now().year)}
    with connect_sites(site_folders.config) as federation:
        assert len(federation.predict(site_folders.folder / "asked.parquet").sites) == 3


def test_a_text_is_no_list_of_names(site_folders: SiteFolders) -> None:
    """A single text is never taken for a list of its characters, whichever link leads to the site."""
    with connect_sites(site_folders.config) as federation:
        federation.train()
        with pytest.raises(Invalid, match="subjects is one text, not a list of names"):
            federation.erase("north", subjects=PERSON)
