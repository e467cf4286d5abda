"""One cluster per site: a federation that reaches its sites over their own HTTP APIs, and nothing else of them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from starlette.types import Receive, Scope, Send

import cluster.training.workers
from cluster.sites.federation import connect_sites
from cluster.sites.link import NearSite
from coordinator.receipts.bundles import verify_bundle
from shards.data.messages import table_of_stream
from storage.errors import Conflict, Invalid, ObjectMissing, Unavailable
from tests.doubles.user_folder import Columns, small_points
from tests.sites.near.asked import CLASSES, NAMES, PERSON, PREDICTIONS, features, joined, remote, unheard
from tests.sites.near.served import Served, served
from tests.sites.near.site_folders import COMMON, SITES, SiteFolders, people_of


@pytest.fixture
def alive(site_folders: SiteFolders) -> Iterator[Served]:
    """Three served sites of this test's own."""
    with served(site_folders) as made:
        yield made


@pytest.mark.parametrize("points", [0, 1, 5, 1000])
@pytest.mark.parametrize("site", SITES)
def test_answers_are_those_of_the_site_itself(world: Served, site: str, points: int) -> None:
    """Asked over HTTP a site says, bit for bit, what it says to one who stands beside its store."""
    link = remote(world, site)
    near = NearSite(world.link_site(site), unheard)
    found, expected = link.answer(features(points), NAMES), near.answer(features(points), NAMES)
    assert found.scores_NS.tobytes() == expected.scores_NS.tobytes()
    assert found.scores_NS.shape == (points, 3)
    assert (found.generation, found.constituents, found.shards) == (
        expected.generation,
        expected.constituents,
        expected.shards,
    )
    assert link.standing(0) == near.standing(0)
    link.close()


def test_the_federation_answers_as_if_its_sites_were_near(world: Served) -> None:
    """Which way sites are reached changes no bit of the federation's answers."""
    asked = world.site_folders.write("asked", small_points(people=25))
    with joined(world) as federation:
        far = federation.predict(asked).table()
    with connect_sites(world.site_folders.config, link_to=NearSite) as federation:
        assert federation.predict(asked).table().equals(far)


@pytest.mark.parametrize("target", ["number", "multi_label"])
def test_sites_of_every_target_answer_and_are_measured(target: str, tmp_path: Path) -> None:
    """Over HTTP as near: predictions have the target's columns, and the evaluation measures exactly those."""
    declared = f'label = ["x00", "x01"]\nfeatures = ["x02", "x03"]\ntarget = "{target}"'
    common = COMMON.replace('label = "label"', declared).replace('features = ["x*"]\n', "")
    folders = SiteFolders(tmp_path, names=SITES[:2], common=common.replace('classes = ["a", "b", "c"]\n', ""))
    for number, name in enumerate(folders.names):
        folders.write(name, _labels_of(target, people_of(name, number)))
    asked = folders.write("asked", columns := _labels_of(target, small_points(people=5)))
    with served(folders) as world:
        with joined(world) as federation:
            answers = federation.predict(asked).table()
            measured = federation.evaluate(asked).overall
        with connect_sites(folders.config, link_to=NearSite) as federation:
            assert federation.predict(asked).table().equals(answers)
            assert federation.evaluate(asked).overall == measured
    assert (measured.target, measured.points, measured.constituents) == (target, 20, 4)
    assert measured.trained_on is None  # whose data a site has is not looked up
    assert list(measured.breakdown) == ["x00", "x01"]
    lines = answers.to_pylist()
    if target == "number":
        off = [abs(line["prediction_x01"] - value) for line, value in zip(lines, columns["x01"], strict=True)]
        assert measured.breakdown["x01"]["mae"] == pytest.approx(sum(off) / 20, rel=1e-5)
        assert all(line["spread_x00"] >= 0 for line in lines)
    else:
        given = [[name for name in ("x00", "x01") if columns[name][number]] for number in range(20)]
        right = sum(line["labels"] == names for line, names in zip(lines, given, strict=True))
        assert measured.accuracy == right / 20


def _labels_of(target: str, columns: Columns) -> Columns:
    """Return the columns with labels of the target in place of the first two features."""
    if target == "number":
        return columns
    return columns | {name: [int(value > 100) for value in columns[name]] for name in ("x00", "x01")}


def test_large_questions_travel_in_pieces(world: Served) -> None:
    """A site that takes few data points at once is asked several times, and the answer is one."""
    world.specify(each="serve.max_points = 7\n")
    link = remote(world)
    expected = NearSite(world.link_site("north"), unheard).answer(features(30), NAMES)
    scores_NS = link.answer(features(30), NAMES).scores_NS
    # The last bits of a matrix product depend on how many points it has.
    np.testing.assert_allclose(scores_NS, expected.scores_NS, rtol=1e-5)
    assert [each.path for each in world.sites["north"].boundary.crossed] == ["/v1/standing"] + [PREDICTIONS] * 5
    link.close()


def test_only_features_and_predictions_cross(world: Served) -> None:
    """Where only predictions leave, no id, label, other column or weight is in any request or answer."""
    with joined(world) as federation:
        for site in world.sites.values():
            site.boundary.crossed.clear()
        columns = small_points(people=5)
        columns["note"] = [f"secret-note-{number}" for number in range(20)]
        list(federation.predict(world.site_folders.write("asked", columns)).batches)
    for site in world.sites.values():
        crossed = site.boundary.crossed
        assert {(each.method, each.path) for each in crossed} == {("POST", PREDICTIONS), ("GET", "/v1/standing")}
        for each in crossed:
            assert b"secret" not in each.asked + each.answered
        for each in (each for each in crossed if each.path == PREDICTIONS):
            asked, answered = table_of_stream(each.asked, 100), table_of_stream(each.answered, 100)
            assert asked.column_names == list(NAMES)
            assert set(asked.schema.types) == {pa.float32()}
            assert answered.column_names == ["prediction", *(f"probability_{name}" for name in CLASSES)]
            assert len(each.answered) < 4000


def test_only_standing_and_checkpoints_cross(site_folders: SiteFolders) -> None:
    """Where weights leave, what is asked does not travel: constituents are fetched once, and answer here."""
    with served(site_folders, each='leaves = "weights"') as world, joined(world) as federation:
        for site in world.sites.values():
            site.boundary.crossed.clear()
        asked = world.site_folders.write("asked", small_points(people=5))
        carried = federation.predict(asked).table()
        assert federation.predict(asked).table().equals(carried)
        for site in world.sites.values():
            paths = [each.path.rpartition("/")[0] for each in site.boundary.crossed]
            assert set(paths) == {"/v1/checkpoints/0", "/v1/checkpoints/1", "/v1"}
            assert paths.count("/v1/checkpoints/0") == 1
            assert {each.asked for each in site.boundary.crossed} == {b""}
        with connect_sites(site_folders.config, link_to=NearSite) as near:
            assert near.predict(asked).table().equals(carried)


def test_a_site_decides_itself_what_leaves_it(world: Served) -> None:
    """A federation whose copy of the specification says that weights leave gets none from a site that does not."""
    with joined(world):
        world.specify(each='leaves = "weights"')
        link = remote(world)
        shard, digest = link.standing().checkpoints[0]
        with pytest.raises(Invalid, match="no weights leave this site"):
            link.checkpoint(shard, digest)
        assert world.sites["north"].boundary.crossed[-1].status == 403
        link.close()


def test_an_erasure_from_the_federation_to_the_receipt(alive: Served) -> None:
    """A person is erased at their site, which signs for it; the federation's own receipt names that one."""
    with joined(alive) as federation:
        before = {name: site.resident.state().generation for name, site in alive.sites.items()}
        status = federation.erase("north", subjects=[PERSON], request_id="er-1")
        assert (status.state, status.points) == ("complete", 4)
        after = {name: site.resident.state().generation for name, site in alive.sites.items()}
        assert [name for name in SITES if after[name] != before[name]] == ["north"]
        assert federation.request("er-1") == ("north", status.request)
        again = federation.erase("north", subjects=[PERSON], request_id="er-1")
        assert replace(again, salt=status.salt) == status
        assert not again.salt
        with pytest.raises(Conflict, match="er-1"):
            federation.erase("north", subjects=["north-secret-person-004"], request_id="er-1")
        receipt = federation.receipt("er-1")
        with cluster.connect(alive.site_folders.site("north").specification) as alone:
            assert verify_bundle(receipt.at_site, alone.registrar.public_keys()).is_valid
        assert verify_bundle(receipt.at_federation, federation.registrar.public_keys()).is_valid
        with pytest.raises(ObjectMissing, match="no site has this"):
            federation.receipt("er-2")
        answers = federation.predict(alive.site_folders.write("asked", small_points(people=5)))
        assert next(each.generation for each in answers.sites if each.site == "north") >= 2
        names = b"".join(each.asked for name in ("south", "west") for each in alive.sites[name].boundary.crossed)
        assert PERSON.encode() not in names


def test_a_held_request_waits_at_its_site(alive: Served) -> None:
    """A request's status is the one that its site reports; a request whose names are all unknown is refused there."""
    with joined(alive) as federation:
        held = federation.erase("north", subjects=[PERSON], request_id="er-1", held="legal hold 17")
        assert (held.state, held.held) == ("waiting", "legal hold 17")
        stranger = federation.erase("south", subjects=[PERSON], request_id="er-1")
        assert (stranger.state, stranger.points) == ("refused", 0)
        assert federation.status().sites[0].status is not None


def test_a_site_withdraws_over_http(alive: Served) -> None:
    """Everybody at the site is erased there, with a receipt; the federation answers without it at once."""
    with joined(alive) as federation:
        status = federation.withdraw("west", "the hospital leaves the study")
        assert (status.membership, status.reason) == ("purged", "the hospital leaves the study")
        assert sum(shard.points for shard in alive.sites["west"].resident.state().shards) == 0
        answers = federation.predict(alive.site_folders.write("asked", small_points(people=5)))
        assert [each.site for each in answers.sites] == ["north", "south"]
        receipt = federation.receipt("withdrawal-of-west").at_federation
        assert verify_bundle(receipt, federation.registrar.public_keys()).is_valid
        assert federation.withdraw("west", "again").membership == "purged"


def test_an_id_that_was_used_withdraws_nobody(alive: Served) -> None:
    """A request for one person under the withdrawal's id is not taken for the withdrawal."""
    north = alive.sites["north"]
    link = remote(alive)
    link.erase(subjects=[PERSON], ids=[], request_id="withdrawal-of-north", held="", wait=True)
    with pytest.raises(Conflict, match="there are data points here"):
        link.erase_everyone("withdrawal-of-north")
    assert sum(shard.points for shard in north.resident.state().shards) == 44
    link.close()


def test_training_and_proof_are_the_sites_own(world: Served) -> None:
    """A trained site can join, and the error for a verification names the place where it is possible."""
    link = remote(world)
    assert link.train().generation == 1
    with pytest.raises(Unavailable, match="can only be verified there.* Ask .* 'sisa verify --site north' there"):
        link.verify()
    status = json.loads(world.sites["north"].boundary.crossed[-1].answered)
    world.sites["north"].boundary.forged["/v1/status"] = (200, json.dumps({**status, "generation": 0}).encode())
    with pytest.raises(Unavailable, match="not trained yet.* Ask .* 'sisa train --site north' there"):
        link.train()
    link.close()


def test_questions_do_not_wait_for_each_other(world: Served) -> None:
    """While a site's answer is held up, another question to it uses another connection."""
    boundary = world.sites["north"].boundary
    link = remote(world)
    link.standing()
    reached, released = threading.Event(), threading.Event()
    app = boundary.app

    async def held(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == PREDICTIONS:
            reached.set()
            await asyncio.to_thread(released.wait)
        await app(scope, receive, send)

    boundary.app = held
    try:
        asking = threading.Thread(target=link.answer, args=(features(), NAMES))
        asking.start()
        reached.wait()
        assert link.standing().shards == 2
    finally:
        released.set()
        asking.join()
        boundary.app = app
        link.close()
