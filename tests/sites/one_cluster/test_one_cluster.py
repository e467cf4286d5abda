"""Several sites on one Ray cluster, each with a store: predictions and erasures by a driver that reads no store."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from cluster.config.sites import read_sites
from cluster.sites.federation import SiteFederation, connect_sites
from cluster.sites.pinned import PinnedSite
from coordinator.ports import Remark
from coordinator.receipts.bundles import verify_bundle
from storage.errors import Unavailable
from storage.objects import object_key
from storage.s3.client import S3Store
from tests.doubles.stores.s3_servers import plain_client
from tests.doubles.user_folder import UserFolder
from tests.multinode.gate import MODULE, Gate
from tests.multinode.patience import until
from tests.sites.one_cluster.askers import RequestRecorder, overheard
from tests.sites.one_cluster.both_kinds import PERSON, POINT, FederationResult, InFolders, OnCluster, near_sites
from tests.sites.one_cluster.buckets import DRIVER
from tests.sites.one_cluster.nodes import SITES, Sites

pytestmark = [pytest.mark.multinode, pytest.mark.slow, pytest.mark.s3]

AWAY = "the site is away: no node of the cluster has the labels site=north"
LEAVES = {"north": "predictions", "south": "weights"}


@pytest.fixture(scope="module")
def in_folders(tmp_path_factory: pytest.TempPathFactory) -> InFolders:
    """What the federation comes to as folders of one machine."""
    return near_sites(tmp_path_factory.mktemp("in_folders"))


@pytest.fixture
def watched(endpoint: str) -> Iterator[tuple[str, RequestRecorder]]:
    """The S3 server's endpoint, with a record of the accounts that ask there."""
    with overheard(endpoint) as found:
        yield found


@pytest.fixture
def on_cluster(
    tmp_path: Path, sites: Sites, endpoint: str, watched: tuple[str, RequestRecorder], coordinators_end: None
) -> OnCluster:
    """The federation on the cluster, nothing trained."""
    return OnCluster(folder=tmp_path, endpoint=watched[0], address=sites.address).fill(endpoint).specify(leaves=LEAVES)


def test_each_site_s_data_are_met_by_its_own_nodes_only(
    on_cluster: OnCluster, in_folders: InFolders, sites: Sites, watched: tuple[str, RequestRecorder], endpoint: str
) -> None:
    """Trained, asked, erased and proved from a driver, the sites come to the bytes and answers that they come to as
    folders, though a process is lost; every request for anything of a site is signed by it, and the store refuses the
    driver.
    """
    _, askers = watched
    with connect_sites(on_cluster.config) as federation:
        federation.train()
        assert FederationResult.by(federation, in_folders.asked) == in_folders.trained
        assert federation.erase("north", subjects=[PERSON], request_id="er-1").state == "complete"
        _end_process(federation, sites)
        until(lambda: not federation.predict(in_folders.asked).absent, "the site's process, restarted")
        assert FederationResult.by(federation, in_folders.asked) == in_folders.erased
        assert federation.verify().holds
        receipt = federation.receipt("er-1")
        assert receipt.site == "north"
        assert verify_bundle(receipt.at_site, receipt.at_site.keys).is_valid
        _withdraw_south(federation, in_folders)
    assert askers.accounts() == {name: {f"id{name}"} for name in (*SITES, DRIVER)}
    client = plain_client(endpoint)
    there = {each["Key"] for each in client.list_objects_v2(Bucket="north")["Contents"]}
    client.close()
    data = askers.read("north", "train.parquet") & there
    slices = (askers.read("north", ".parquet") & there) - data
    assert data
    assert slices
    store = S3Store("north", "", endpoint, profile=DRIVER)
    for key in data | slices:
        with pytest.raises(Unavailable, match="the store does not allow this account what is asked of it"):
            store.get(object_key(key))


def _end_process(federation: SiteFederation, sites: Sites) -> None:
    """Kill the process by which north is reached, which is on north's node, while it is asked.

    The caller gets an error. The process is stopped first, so that it cannot answer, and killed when the caller has
    waited for it.
    """
    link = federation.link("north")
    assert isinstance(link, PinnedSite)
    actor = link._started()
    process = ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))
    assert sites.has("north", process)

    def kill() -> None:
        with suppress(ProcessLookupError):  # it has ended by now
            os.kill(process, signal.SIGKILL)

    os.kill(process, signal.SIGSTOP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(link, "_check_there", kill)
        with pytest.raises(Unavailable, match="the site is away: its process was lost, and is restarted"):
            link._answered(actor, "standing", (0,), math.inf)


def _withdraw_south(federation: SiteFederation, in_folders: InFolders) -> None:
    """Withdraw a site: from then on it has no part in answers, and it holds nothing."""
    assert federation.withdraw("south", "the contract ended").membership == "purged"
    answers = federation.predict(in_folders.asked)
    assert ([each.site for each in answers.sites], answers.absent) == (["north"], {})
    receipt = federation.receipt("withdrawal-of-south")
    assert receipt.site == "south"
    assert verify_bundle(receipt.at_federation, receipt.at_federation.keys).is_valid


def test_a_site_that_never_came(on_cluster: OnCluster) -> None:
    """Every question to a site without a node in the cluster ends in an error that says so, and none hangs."""
    north = read_sites(on_cluster.config).site("north")
    east = replace(north.specification, cluster=replace(north.specification.cluster, labels={"site": "east"}))
    link = PinnedSite(replace(north, specification=east), print)
    for act in (link.standing, link.status, link.train, link.verify, link.launch, link.stop):
        with pytest.raises(Unavailable, match=r"no node of the cluster has the labels site=east \[site=north\]"):
            act()
    link.close()


def test_a_site_that_is_lost_in_mid_retrain(
    on_cluster: OnCluster, in_folders: InFolders, sites: Sites, endpoint: str
) -> None:
    """The caller gets a message that the command waits for the site; the other site answers alone, and says so. What
    was accepted is carried out once a node with the label has joined; no answer in all that time is tainted.
    """
    gate = Gate(UserFolder(on_cluster.folder))
    on_cluster.specify(leaves=LEAVES, factory=f"{MODULE}:net")
    heard: list[object] = []
    with connect_sites(on_cluster.config, listener=heard.append) as federation:
        assert federation.launch() == dict.fromkeys(SITES, "its coordinator is at work")
        federation.link("north").train()
        on_cluster.share_rehearsals(endpoint)
        federation.train()
        assert FederationResult.by(federation, in_folders.asked) == in_folders.trained
        before = _generations(federation, in_folders)["north"]
        with gate.during(lambda: federation.erase("north", subjects=[PERSON], ids=[POINT], request_id="er-2")) as held:
            sites.lose("north")
            gate.open()
            with pytest.raises(Unavailable, match="the site is away"):
                held.answer.result()
        _go_on_without_north(federation, in_folders)
        assert Remark(text=f"waiting for site north: {AWAY}") in heard
        sites.bring_back("north")

        def is_complete() -> bool:
            assert _generations(federation, in_folders).get("north", before + 1) > before
            with suppress(Unavailable):
                return federation.request("er-2")[1].state == "complete"
            return False

        until(is_complete, "the erasure to be complete")
        assert FederationResult.by(federation, in_folders.asked) == in_folders.erased_also
        assert federation.receipt("er-2").site == "north"
        assert federation.stop() == dict.fromkeys(SITES, "its coordinator is stopped")
        assert federation.stop() == dict.fromkeys(SITES, "none was launched")


def _go_on_without_north(federation: SiteFederation, in_folders: InFolders) -> None:
    """See that everything says whom it waits for, and that nothing is promised in the absent one's name."""
    assert _generations(federation, in_folders).keys() == {"south"}
    assert federation.predict(in_folders.asked).absent == {"north": AWAY}
    status = federation.train()
    assert status.waits_for == ("north",)
    assert status.sites[0].reason == f"waiting for site north: {AWAY}"
    launched = federation.launch()
    assert launched == {"north": f"waiting for it: {AWAY}", "south": "its coordinator is at work"}
    with pytest.raises(Unavailable, match=AWAY):
        federation.erase("north", ids=[POINT], request_id="er-3")


def _generations(federation: SiteFederation, in_folders: InFolders) -> dict[str, int]:
    """Return who takes part in an answer, and with which generation."""
    return {each.site: each.generation for each in federation.predict(in_folders.asked).sites}
