"""A federation on real Ray: the whole loop, the same bytes however it is run, and workers that die."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import ray

import cluster
from cluster.config.specification import FederationSpecification
from cluster.runtime.system import SystemClock
from cluster.tokens import TokenRegister, known_token
from cluster.training import deaths, pool
from cluster.writer.stores import open_objects
from coordinator.ports import Notice, Remark
from storage.errors import Invalid, Unavailable
from tests.doubles.user_folder import MARKED, UserFolder, ids_of, small_points, without
from tests.doubles.workers.local_workers import without_ray
from tests.ray.dying_model import (
    EVERYTHING,
    Undisturbed,
    checkpoint_files,
    deaths_left,
    give_dying_model,
    learned,
    plan_deaths,
)

pytestmark = pytest.mark.ray

FIRST_OF_MORTAL = "shards/0002/checkpoints/0001/"
"""Where the first slice's checkpoints are of the shard whose second one kills or fails."""


def _digests(status: Any) -> list[str]:
    return [each.digest for each in status.constituents]


def test_the_whole_loop(home: UserFolder) -> None:
    """Train, evaluate, erase by subject and by id, verify, status, on real workers: the result has the bytes of a
    federation that never saw the erased data, even one with another name, file format and order, and without Ray.
    """
    home.specify(cluster__workers=2)
    single = ids_of(small_points(), "secret-person-004")[2]
    with cluster.launch(home.config) as federation:
        before = federation.train()
        assert federation.evaluate(home.folder / "train.parquet").points == 120
        by_subject = federation.erase(subjects=[MARKED], request_id="er-1")
        by_id = federation.erase(ids=[single])
        assert (by_subject.state, by_subject.points, by_id.state, by_id.points) == ("complete", 4, "complete", 1)
        verification = federation.verify()
        assert verification.holds
        assert len(verification.shards) == 3
        after = federation.status()
    touched = {*by_subject.shards, *by_id.shards}
    for old, new in zip(before.constituents, after.constituents, strict=True):
        assert (old.digest != new.digest) == (new.shard in touched)
    survivors = without(small_points(), subjects=[MARKED], ids=[single])
    survivors = {name: values[::-1] for name, values in survivors.items()}
    (home.folder / "fresh").mkdir()
    fresh = UserFolder(home.folder / "fresh")
    fresh.write("points.csv", survivors)
    fresh.specify(name="other", data__train="points.csv", cluster__workers=1)
    with without_ray(), cluster.connect(fresh.config) as federation:
        assert _digests(federation.train()) == _digests(after)


def test_workers_that_die_are_replaced(home: UserFolder, undisturbed: Undisturbed) -> None:
    """A worker killed in mid-slice ends in the same bytes; the slice before is neither retrained nor replaced. Killed
    while it retrains after an erasure: the same bytes as without the person.
    """
    give_dying_model(home, undisturbed, deaths=1, cluster__workers=2)
    notices: list[Notice] = []
    with cluster.connect(home.config, listener=notices.append) as federation:
        assert _digests(federation.train()) == undisturbed.digests
        assert deaths_left(home) == 0
        assert learned(notices) == EVERYTHING
        plan_deaths(home, 1)
        other = ids_of(small_points(), MARKED)[0]
        done = federation.erase(ids=[other])
        assert (done.state, done.points) == ("complete", 1)
        assert deaths_left(home) == 0
        assert federation.verify().holds


def test_a_worker_that_dies_again_and_again(
    home: UserFolder, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After too many deaths in one slice the command gives up, names the slice, and keeps what was learned; the next
    command continues from there. A model's own exception reaches the user unchanged. In neither case anything hangs.
    """
    monkeypatch.setattr(deaths, "MOST_DEATHS", 2)
    give_dying_model(home, undisturbed, deaths=99, cluster__workers=1)
    with (
        cluster.connect(home.config) as federation,
        pytest.raises(Unavailable, match=r"workers died 2 times in a row .*shard=2 slice=2"),
    ):
        federation.train()
    assert deaths_left(home) == 97
    plan_deaths(home, "raise")
    said = home.json("train")
    assert (said.code, said.error["kind"]) == (1, "failed")
    assert "a worker failed with RuntimeError: this layer has had enough" in said.error["message"]
    assert "model's own code" in said.error["remedy"]
    kept = checkpoint_files(home.store)
    assert any(FIRST_OF_MORTAL in name for name in kept)
    assert not any("shards/0002/checkpoints/0002/" in name for name in kept)
    plan_deaths(home, 0)
    notices: list[Notice] = []
    with cluster.connect(home.config, listener=notices.append) as federation:
        status = federation.train()
        assert status.serving == 3
        assert federation.verify([2]).holds
    assert (2, 1) not in learned(notices)
    assert learned(notices).count((2, 2)) == 1
    # A worker may die after it stored a checkpoint and before Ray delivered its name: that one is swept, not used.
    assert any(FIRST_OF_MORTAL in name for name in kept & checkpoint_files(home.store))


def test_a_worker_too_large_for_every_node(home: UserFolder) -> None:
    """Demands that no node can meet are refused at once: Ray would wait for ever."""
    home.specify(cluster__cpus_per_worker=1000)
    with cluster.connect(home.config) as federation, pytest.raises(Invalid, match="no node can hold a worker of 1000"):
        federation.train()
    said = home.refused("train")
    assert "cpus_per_worker" in said.error["remedy"]


class _Hog:
    """Takes processors and does nothing."""

    def ready(self) -> bool:
        return True


def _hog(cpus: float) -> Any:
    hog: Any = ray.remote(_Hog).options(num_cpus=cpus).remote()
    assert ray.get(hog.ready.remote())
    return hog


def test_waiting_for_workers_is_reported(home: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """If others hold all processors, a message says what the command waits for; the work begins when some are free.
    Where others hold the rest for good, those that are free do the work.
    """
    monkeypatch.setattr(pool, "PATIENCE_SECONDS", 0.2)
    home.specify(cluster__workers=2)
    rest = ray.cluster_resources()["CPU"] - 1
    hogs = [_hog(cpus) for cpus in (1, rest) if cpus]
    reported: list[str] = []

    def listen(notice: Notice) -> None:
        # Ray reports what waits for processors a little later: until then the message is that workers start.
        if isinstance(notice, Remark) and "waiting for workers: 0 CPUs are free" in notice.text:
            if not reported:
                ray.kill(hogs.pop(0))
            reported.append(notice.text)

    try:
        with cluster.connect(home.config, listener=listen) as federation:
            assert federation.train().serving == 3
    finally:
        for hog in hogs:
            ray.kill(hog)
    assert reported


def test_the_code_of_the_model_counts(home: UserFolder) -> None:
    """With other model code nothing trained before is used: predictions are refused, and training starts from zero.
    Every process that learns has a hash seed of its own kind, which the records of the rehearsals name.
    """
    net = home.folder / "net_of_a_user.py"
    code = (
        "import os, sys\nfrom torch import nn\n\ndef net(inputs, classes):\n"
        "    if 'pytest' not in sys.modules:  # this process predicts\n"
        "        assert os.environ['PYTHONHASHSEED'] in {'0', '20260'}\n"
        "        assert sys.flags.hash_randomization == (os.environ['PYTHONHASHSEED'] != '0')\n"
        "    return nn.Linear(inputs, classes)\n"
    )
    net.write_text(code, encoding="utf-8")
    home.specify(model__factory="net_of_a_user:net", model__arguments={}, cluster__workers=1)
    notices: list[Notice] = []
    with cluster.connect(home.config) as federation:
        first = federation.train()
    net.write_text(code.replace("classes)\n", "classes, bias=True)\n"), encoding="utf-8")
    said = home.json("evaluate", "train.parquet")
    assert said.code == 4
    assert "module net_of_a_user has changed" in said.error["message"]
    with cluster.connect(home.config, listener=notices.append) as federation:
        second = federation.train()
    assert learned(notices) == EVERYTHING
    assert _digests(first) == _digests(second)
    records = [json.loads(path.read_bytes()) for path in (home.store / "rehearsals").glob("*/*")]
    assert [record["workers_hash_seed"] for record in records] == ["0", "0"]


def test_the_demo(tmp_path: Path, home: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """``sisa demo`` holds what it tells, and a second one leaves the first as it is; then it is served, with tokens."""
    from cluster.serving import deployment
    from tests.doubles.user_folder import run

    served: list[FederationSpecification] = []

    def serve(specification: FederationSpecification) -> deployment.Serving:
        served.append(specification)
        return deployment.Serving(url=specification.serve.url, replicas=1, launched=True)

    monkeypatch.setattr(deployment, "serve_federation", serve)
    monkeypatch.setattr(pool, "worker_count", lambda *_: 1)  # each takes seconds to start
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine", encoding="utf-8")
    said = run("demo", "--folder", str(folder), "--serve", "--json")
    assert said.code == 0
    assert said.data["holds"] is True
    assert said.data["folder"] == str(tmp_path / "demo-2")
    assert said.data["erased_points"] >= 1
    assert said.data["accuracy_before"] > 0.85
    changed = {n for n, (a, b) in enumerate(zip(*_before_after(said.data), strict=True)) if a != b}
    assert changed == set(said.data["affected_shards"])
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    assert not said.err
    assert said.data["console"] == f"{served[0].serve.url}/console"
    known = TokenRegister(open_objects(served[0]), SystemClock()).records()
    found = {role: known_token(known, text) for role, text in said.data["tokens"].items()}
    assert {role: each and each.role for role, each in found.items()} == {
        role: role for role in ("officer", "audit", "predict")
    }


def _before_after(data: dict[str, Any]) -> tuple[list[str], list[str]]:
    assert data["digests_after"] == data["digests_without"]
    return data["digests_before"], data["digests_after"]
