"""The whole command is killed at chosen moments: the next one finishes its work, with the same bytes and no more work
than was left; meanwhile no prediction uses a constituent that has seen an erased point.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import ray

import cluster
from coordinator.ports import Notice
from tests.doubles.user_folder import MARKED, UserFolder, small_points, without
from tests.ray.commands import command, halted, killed
from tests.ray.dying_model import EVERYTHING, MODULE, Undisturbed, checkpoint_files, give_dying_model, learned
from tests.residue.ray_places import core_limits

pytestmark = pytest.mark.ray

EARLY = "secret-person-018"
"""Whose data points are in a first slice."""


def _finish(home: UserFolder) -> list[tuple[int, int]]:
    """Let the next command do what is left; return the slices that it learned."""
    notices: list[Notice] = []
    with cluster.connect(home.config, listener=notices.append) as federation:
        assert federation.train().serving == 3
        assert federation.verify().holds
    return learned(notices)


def _fresh(home: UserFolder, subjects: list[str]) -> list[str]:
    """Return the digests of a federation that never saw these subjects."""
    folder = home.folder / "fresh"
    folder.mkdir()
    said = UserFolder(folder).fill(without(small_points(), subjects=subjects)).json("train")
    assert said.code == 0
    return said.digests


def _on_the_tests_ray() -> dict[str, object]:
    """Return the settings by which a command has its worker on the tests' Ray, and starts none itself."""
    return {"cluster__address": ray.get_runtime_context().gcs_address, "cluster__workers": 1}


def test_a_killed_training_goes_on(home_without_ray: UserFolder) -> None:
    """``sisa train`` killed after some slices: nothing is served yet; the next one learns the other slices alone."""
    home = home_without_ray
    home.specify(cluster__workers=2)
    err = killed("slice 2 of 2", "train", folder=home.folder)
    reported = sorted((int(line[6]), int(line[15])) for line in err.splitlines() if line.startswith("shard "))
    assert 2 <= len(reported) < 6
    before = checkpoint_files(home.store)
    status = home.json("status").data
    assert (status["generation"], status["serving"]) == (0, 0)
    refused = home.json("evaluate", "train.parquet")  # a worker of the killed command may still write meanwhile
    assert (refused.code, refused.error["kind"]) == (2, "invalid")
    rest = _finish(home)
    assert sorted(reported + rest) == EVERYTHING
    assert len(before & checkpoint_files(home.store)) == len(reported)
    assert home.json("status").digests == _fresh(home, [])


@pytest.mark.parametrize("word", ["accepted", "quarantined", "shard 1: slice 1", "published"])
def test_a_killed_erasure_is_carried_out(word: str, home_without_ray: UserFolder, joined_ray: None) -> None:
    """``sisa erase`` killed after acceptance, after quarantine, in the middle of retraining, before the purge: what is
    tainted is never served once it is planned, and the next command ends in the bytes of who never saw them.

    The command joins a Ray that does not end with it.
    """
    home = home_without_ray
    home.specify(**_on_the_tests_ray())
    assert home.json("train").code == 0
    place = home.json("erase", "--subject", EARLY, "--dry-run").data["plan"]["shards"]
    assert [(each["shard"], each["from_slice"]) for each in place] == [(1, 1)]
    words = ("erase", "--subject", EARLY, "--request-id", "er-1")
    killed(word, *words, folder=home.folder)
    status = home.json("status").data
    evaluated = home.json("evaluate", "train.parquet").data
    assert evaluated["generation"] == status["generation"] >= status["floor"]
    assert evaluated["constituents"] == status["serving"]
    (request,) = status["requests"]
    if word == "accepted":
        assert (request["state"], status["floor"], status["serving"]) == ("accepted", 0, 3)
        learned_then = [(1, 1), (1, 2)]
    elif word == "published":
        assert (request["state"], status["floor"], status["generation"], status["serving"]) == ("published", 2, 3, 3)
        learned_then = []
    else:
        assert (status["floor"], status["generation"], status["serving"]) == (2, 2, 2)
        assert status["constituents"][1]["serving_slice"] == 0
        learned_then = [(1, 1), (1, 2)] if word == "quarantined" else [(1, 2)]
    assert _finish(home) == learned_then
    again = home.json(*words)
    assert (again.code, again.data["state"], again.data["points"]) == (0, "complete", 4)
    assert home.json("status").digests == _fresh(home, [EARLY])


def test_sigterm_with_ray_up_leaves_no_core(home_without_ray: UserFolder) -> None:
    """After SIGTERM (docker stop, Kubernetes) ``sisa train`` ends like an interrupted one, with exit code 143; it may
    not write a core dump, and cannot lift that limit again.
    """
    home = home_without_ray
    with halted("training 3 shards", "train", "--json", folder=home.folder) as process:
        limits = core_limits(process.pid)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    assert (process.returncode, limits) == (143, ["0", "0"]), err
    assert json.loads(out)["error"]["kind"] == "interrupted"
    assert _finish(home) == EVERYTHING


def test_two_trainings_at_once(
    home_without_ray: UserFolder,
    joined_ray: None,
    undisturbed: Undisturbed,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second gets an error with the holder of the store, exit code 4; the first ends as if it were alone. Although
    one of its workers dies, its stdout is one JSON object. A command finds a model next to the specification from any
    folder.
    """
    home = give_dying_model(home_without_ray, undisturbed, deaths=1, **_on_the_tests_ray())
    with halted("training 3 shards", "train", "--json", folder=home.folder) as first:
        for words in (("train",), ("erase", "--subject", MARKED)):
            second = home.json(*words)
            assert second.code == 4
            assert f"'sisa train' (process {first.pid}" in second.error["message"]
            assert "Wait until it ends" in second.error["remedy"]
        out, err = first.communicate("\n")
    assert first.returncode == 0, err
    assert json.loads(out)["data"]["serving"] == 3
    # How the worker ended, and whether its last slice counts, depends on which news of it came first.
    assert "another one continues with shard 2 after slice" in err
    elsewhere: Path = tmp_path_factory.mktemp("elsewhere")
    data = str(home.folder / "train.parquet")
    monkeypatch.chdir(elsewhere)
    assert home.json("evaluate", data).data["points"] == 120
    code = home.folder / f"{MODULE}.py"
    code.write_text(code.read_text(encoding="utf-8").replace("nn.Tanh", "nn.ReLU"), encoding="utf-8")
    refused = command("evaluate", data, "--config", str(home.config), "--json", folder=elsewhere)
    assert refused.returncode == 4
    assert f"module {MODULE} has changed" in json.loads(refused.stdout)["error"]["message"]
