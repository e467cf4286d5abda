"""Stores that earlier releases wrote go on: they train, erase, serve and verify (E16).

Each archive in ``stores/`` holds a federation as that release left it (``people.csv``, ``sisa.toml``, ``federation/``,
with keys that open nothing else) and ``expected.json``: digests of its checkpoints then, and after what the test does,
as the same release computed them.

release-0.1.0   87 data points, adam; two erasures complete, one refused, one paused by a legal hold
"""

from __future__ import annotations

import base64
import json
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cluster.training.workers
from cluster.config.specification import read_specification
from coordinator.decisions import ended
from coordinator.engine.ledger import read_state
from shards.learners.torch.probe import probe
from shards.learners.torch.seeding import set_numerics
from storage.transparency import packs
from tests.doubles.user_folder import UserFolder, run
from tests.doubles.workers.local_workers import LocalWorkers
from tests.serving.world import coordinator_of, open_world

STORES = Path(__file__).parent / "stores"
OTHER_ARITHMETIC = {"0f295f2901c141baed6eaa68d7c83bc709c8d1b95cf6095c696dea941ac10a0d"}
"""Probes of processors that have the release's numerics profile and compute other bits: Intel's with AVX-512 FP16."""
REFUSED = "ticket-3"
HELD = "ticket-4"
TWO = ("ticket-1", "ticket-5")
"""The release's receipt, and one of this version."""


@pytest.fixture(params=sorted(path.name.removesuffix(".tar.gz") for path in STORES.iterdir()))
def earlier(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UserFolder:
    """The folder as the release left it; its constituents train in this process."""
    monkeypatch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
    monkeypatch.setattr(cluster.training.workers, "join_ray", lambda _: False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    with tarfile.open(STORES / f"{request.param}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return UserFolder(tmp_path)


def expected_digests(home: UserFolder) -> Iterator[list[list[str]]]:
    """Yield the digests of all checkpoints as the release computed them, moment after moment."""
    yield from json.loads((home.folder / "expected.json").read_text(encoding="utf-8")).values()


def digests(home: UserFolder) -> list[list[str]]:
    """Return the digests of all checkpoints as they are now."""
    return [constituent["slice_digests"] for constituent in home.json("status").data["constituents"]]


def is_of_this_profile(home: UserFolder) -> bool:
    """Return whether this machine computes the bits that the release's machine did (E7)."""
    state = read_state(home.objects)
    assert state is not None
    assert state.configuration is not None
    return state.configuration.profile == set_numerics(1, "cpu")


def computes_its_bits(home: UserFolder) -> bool:
    """Return whether this machine computes what the release's did, which recorded no probe of its processor (E7)."""
    return is_of_this_profile(home) and probe("cpu") not in OTHER_ARITHMETIC


def make_own(home: UserFolder) -> None:
    """Have the constituents carry this machine's bits: train again where the machine computes others."""
    if is_of_this_profile(home) and not computes_its_bits(home):  # what is not on record is not compared
        home.config.write_text(home.config.read_text("utf-8").replace("seed = 7", "seed = 8"), "utf-8")
    if not computes_its_bits(home):
        assert home.json("train").code == 0


def states(home: UserFolder) -> dict[str, str]:
    """Return the state of every request."""
    return {each["request_id"]: each["state"] for each in home.json("status").data["requests"]}


def test_what_it_says_is_read(earlier: UserFolder) -> None:
    """Status, receipts and the log read as they were written, and reading changes nothing."""
    before = earlier.raw()
    assert states(earlier) == {"ticket-1": "complete", "ticket-2": "complete", REFUSED: "refused", HELD: "waiting"}
    assert digests(earlier) == next(expected_digests(earlier))
    assert earlier.json("receipt", "ticket-1").code == 0
    assert earlier.json("log", "--check").code == 0
    assert earlier.raw() == before


def test_training_again_finds_nothing_to_do(earlier: UserFolder) -> None:
    """With the same settings and numerics profile no constituent is retrained; otherwise all are, exactly."""
    same = is_of_this_profile(earlier)
    alike = computes_its_bits(earlier)
    trained = earlier.json("train")
    assert trained.code == 0, trained.err
    if same:
        assert digests(earlier) == next(expected_digests(earlier))
    assert earlier.json("verify").data["exact"] == (alike or not same)  # a processor that differs is found out


def test_what_it_did_not_record_comes_with_the_next_training_of_all(earlier: UserFolder) -> None:
    """It has no probe of arithmetic, and the status says so, until a changed setting retrains everything (E16)."""
    same = is_of_this_profile(earlier)
    assert earlier.json("status").data["unrecorded"] == ["probe"]
    assert "recorded no probe of arithmetic" in earlier.run("status").out
    assert earlier.json("train").code == 0
    assert earlier.json("status").data["unrecorded"] == (["probe"] if same else [])
    earlier.config.write_text(earlier.config.read_text("utf-8").replace("seed = 7", "seed = 8"), "utf-8")
    assert earlier.json("train").code == 0
    assert earlier.json("status").data["unrecorded"] == []
    assert "probe" not in earlier.run("status").out
    assert earlier.json("erase", "--subject", "person-09", "--request-id", "ticket-5").code == 0
    receipts = [base64.b64decode(json.loads(earlier.run("receipt", each).out)["envelope"]["payload"]) for each in TWO]
    before, after = (json.loads(payload)["predicate"]["numerics_profile"] for payload in receipts)
    state = read_state(earlier.objects)
    assert state is not None
    assert state.configuration is not None
    assert "probe" not in before
    assert after["probe"] == state.configuration.profile.probe == probe("cpu")


def test_its_erasures_go_on(earlier: UserFolder) -> None:
    """What was paused is carried out once it is released, new requests are taken, and the bytes are the release's."""
    alike = computes_its_bits(earlier)
    make_own(earlier)
    assert run("request", "release", HELD, "--config", str(earlier.config)).code == 0
    erased: dict[str, Any] = earlier.json("erase", "--subject", "person-09", "--request-id", "ticket-5", "--wait").data
    assert erased["state"] == "complete"
    assert states(earlier)[HELD] == "complete"
    if alike:
        assert digests(earlier) == list(expected_digests(earlier))[-1]
    proof = earlier.json("verify").data
    assert (proof["exact"], proof["residue"]["found"], proof["receipts"]["broken"]) == (True, [], [])


def test_its_ended_requests_leave_the_state(earlier: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its next commit on they are in buckets, and everything about them is as the release left it (D4)."""
    monkeypatch.setattr(ended, "TOGETHER", 1)
    before = [earlier.json("status", each).data for each in ("ticket-1", "ticket-2", REFUSED)]
    assert earlier.json("train").code == 0
    state = read_state(earlier.objects)
    assert state is not None
    assert (state.ended.complete + state.ended.refused, len(state.requests)) == (2, 2)
    assert [earlier.json("status", each).data for each in ("ticket-1", "ticket-2", REFUSED)] == before
    again = earlier.json("erase", "--subject", "person-09", "--request-id", "ticket-1")
    assert (again.code, "this request id was used before" in again.out) == (4, True)
    assert earlier.json("receipt", "ticket-1").code == 0
    proof = earlier.json("verify").data
    assert (proof["residue"]["found"], proof["receipts"]["broken"]) == ([], [])


def test_its_receipts_are_packed(earlier: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the release issued go into packs with the next one, and are handed out as it wrote them."""
    if not is_of_this_profile(earlier):
        assert earlier.json("train").code == 0
    before = earlier.run("receipt", "ticket-1").out
    monkeypatch.setattr(packs, "TILE_ENTRIES", 2)
    assert earlier.json("erase", "--subject", "person-09", "--request-id", "ticket-5", "--wait").code == 0
    kept = [key for key in earlier.raw() if "/log/packs/" in f"/{key}"]
    assert len(kept) == 1, "packs"
    assert earlier.run("receipt", "ticket-1").out == before
    assert (earlier.json("receipt", "ticket-5").code, earlier.json("log", "--check").code) == (0, 0)
    proof = earlier.json("verify").data
    assert (proof["residue"]["found"], proof["receipts"]["broken"]) == ([], [])


def test_it_is_served(earlier: UserFolder) -> None:
    """A coordinator takes it over, and a replica answers from it."""
    if not is_of_this_profile(earlier):
        assert earlier.json("train").code == 0
    resident = coordinator_of(read_specification(earlier.config))
    world = open_world(earlier, resident)
    try:
        answer = world.predict({"points": [{"id": "new", "features": [2.0, -2.0, 0.0]}]})
        assert answer.status_code == 200, answer.text
        assert (answer.json()["constituents"], answer.json()["shards"]) == (2, 2)
    finally:
        world.service.close()
        resident.stop()


def test_erased_people_stay_out(earlier: UserFolder) -> None:
    """The file still holds whom the release erased; read again, they stay out."""
    with (earlier.folder / "people.csv").open("a", encoding="utf-8") as source:
        source.write("r900,person-07,red,0.1,0.2,0.3\nr901,somebody-new,red,0.1,0.2,0.3\n")
    trained = earlier.json("train")
    assert trained.code == 0, trained.err
    assert trained.data["points"] == 87 + 2 - 4 - 1 - 1  # ticket-1's four, ticket-2's one, and the new one of ticket-1


def test_whoever_comes_back_comes_back_whole(earlier: UserFolder) -> None:
    """The release kept no ids of what it erased by subject: a readmission says so, and its statement."""
    make_own(earlier)
    said = earlier.json("readmit", "--subject", "person-07", "--reason", "asked", "--request-id", "back-1")
    assert (said.data["subjects"], said.data["without_ids"]) == (1, 1)
    reported = earlier.run("readmit", "--subject", "person-07", "--reason", "asked", "--request-id", "back-1").out
    assert "it comes back if the source still has it" in reported
    assert earlier.json("train").data["points"] == 87 - 1  # ticket-2's one, by id, stays out
    statement = json.loads(base64.b64decode(json.loads(earlier.run("receipt", "back-1").out)["envelope"]["payload"]))
    assert statement["predicate"]["request"]["without_ids"] == 1
    assert earlier.json("erase", "--subject", "person-07").data["points"] == 4
    again = earlier.json("readmit", "--subject", "person-07", "--reason", "asked", "--request-id", "back-2")
    assert again.data["without_ids"] == 0
    assert earlier.json("train").data["points"] == 87 - 1 - 4
    assert earlier.json("verify").code == 0


def test_a_copy_is_of_use(earlier: UserFolder, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing in the store depends on the folder where it lies."""
    moved = UserFolder(tmp_path_factory.mktemp("moved"))
    shutil.copytree(earlier.folder, moved.folder, dirs_exist_ok=True)
    assert digests(moved) == next(expected_digests(earlier))
