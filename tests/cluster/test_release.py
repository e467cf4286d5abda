"""Messages between processes of different releases are not read, and the error names both releases."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

import cluster.training.actor
from cluster.coordinator_actor import launch
from cluster.coordinator_actor.actor import CoordinatorShell, unwrapped
from cluster.coordinator_actor.launch import stop_coordinator
from cluster.coordinator_actor.ownership import Prover
from cluster.coordinator_actor.record import Launched, read_record, write_record
from cluster.release import EARLIER, OtherRelease, Sent, own_release, received, refusal_in, speaks
from cluster.runtime.task_pool import cause_of, perform
from cluster.serving import deployment
from cluster.serving.deployment import ReplicaShell
from cluster.serving.http_errors import problem_of
from cluster.serving.sites_deployment import SitesShell
from cluster.sites import pinned
from cluster.sites.pinned import PinnedSite, SiteShell
from cluster.training.actor import WorkerShell
from storage.errors import NewerFormat, Unavailable
from storage.release import RELEASE
from tests.doubles.user_folder import UserFolder
from tests.sites.near.site_folders import SiteFolders

OTHER = "9.9.9+api1.sites1.state9.training1"

NOT_THERE = """\
The actor died because of an error raised in its creation task, ray::WorkerShell.__init__() (pid=1, ip=10.0.0.2)
ModuleNotFoundError: No module named 'cluster.release'"""
"""What Ray says where a release from before these comparisons was sent something."""


def from_another(release: str = OTHER) -> Sent[Any]:
    """Return what a process of another release has sent; read, it would be an error."""
    return received(release, b"this is no pickle")


def _coordinator() -> Any:
    """Return a coordinator that another release started; untyped, for checkers take its methods for remote ones."""
    return CoordinatorShell(from_another())


def test_what_is_sent_arrives(tmp_path: Path) -> None:
    """Between processes of one release a value arrives as it was, also when it is passed on unread."""
    value = {"folder": tmp_path, "names": ("a", "b")}
    sent = Sent(value)
    assert sent.opened("worker") is value
    there: Sent[Any] = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(sent))))
    assert there.opened("worker") == value
    assert there.opened("worker") is there.opened("worker")


def test_what_another_release_sent_is_not_read() -> None:
    """Neither its fields nor its classes are looked at; both sides and the machine are named, with the remedy."""
    sides = rf"\[site_process={RELEASE} started_by=9\.9\.9 machine=.+\]"
    reported = rf"the site process runs another release .*{sides}\. Install"
    with pytest.raises(OtherRelease, match=reported):
        from_another().opened("site process")


def test_releases_of_one_name_differ_by_their_formats() -> None:
    """Two builds between two releases are called alike: then their formats are named."""
    with pytest.raises(OtherRelease, match=re.escape(f"worker={own_release()} started_by={RELEASE}+api1.state9 ")):
        from_another(f"{RELEASE}+api1.state9").opened("worker")


def test_the_release_is_that_of_the_code_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is replaced under a process does not change what that process says of itself."""
    before, folder = own_release(), tmp_path / "sisa_ray-9.9.9.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: sisa-ray\nVersion: 9.9.9\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert version("sisa-ray") == "9.9.9"
    assert own_release() == before
    assert before.startswith(f"{RELEASE}+api")


def test_versions_are_read_from_the_text() -> None:
    """The text may have parts that this release does not know."""
    assert speaks("1.0.0rc1+sites12.api3.more4", "api") == 3
    assert speaks("1.0.0rc1+sites12.api3.more4", "sites") == 12
    assert speaks("one before 0.2", "api") is None


@pytest.mark.parametrize(
    ("made", "what"),
    [
        (lambda: _coordinator().ready(), "coordinator"),
        (lambda: _coordinator().accept(None, None), "coordinator"),
        (lambda: _coordinator().show("nonce"), "coordinator"),
        (lambda: WorkerShell(from_another())._worker, "worker"),
        (lambda: SiteShell(from_another())._near, "site_process"),
        (lambda: ReplicaShell(from_another()), "replica"),
        (lambda: SitesShell(from_another()), "replica"),
        (lambda: perform(from_another()), "task"),
    ],
)
def test_everything_that_ray_starts_compares(
    made: Callable[[], object], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coordinator, worker, site, replicas, tasks: each refuses before it touches anything."""
    for module in (cluster.training.actor, pinned):
        monkeypatch.setattr(module, "keep_silent", lambda: None)
    monkeypatch.setattr("cluster.runtime.task_pool.resource.setrlimit", lambda *_: None)
    monkeypatch.setattr("cluster.coordinator_actor.actor.leave_no_core", lambda: None)
    with pytest.raises(OtherRelease, match=rf"\[{what}={RELEASE} started_by=9\.9\.9 "):
        made()


def test_a_coordinator_that_was_started_by_another_release_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray starts it again from a package that was replaced: it works for nobody, says why, and 'sisa stop' ends it."""
    monkeypatch.setattr("cluster.coordinator_actor.actor.leave_no_core", lambda: None)
    home = UserFolder(tmp_path).fill()
    ended: list[str] = []
    shell = _coordinator()
    handle = SimpleNamespace(
        __ray_call__=SimpleNamespace(remote=lambda *, fn: fn(shell)),
        show=SimpleNamespace(remote=shell.show),
        stop=SimpleNamespace(remote=lambda: ended.append("asked")),
    )
    monkeypatch.setattr(launch, "_handle", lambda _: handle)
    monkeypatch.setattr(launch, "patiently", lambda call: call())
    monkeypatch.setattr(launch, "leave_ray", lambda: None)
    world = SimpleNamespace(
        wait=lambda *_, **__: None, kill=lambda *_, **__: ended.append("killed"), is_initialized=lambda: True
    )
    monkeypatch.setattr(launch, "ray", world)
    write_record(home.objects, Launched(address="there", namespace="sisa", head=None))
    Prover(home.objects).show("an earlier one")  # while it was at work
    assert stop_coordinator(home.objects)
    assert ended == ["asked", "killed"]
    assert read_record(home.objects) is None


def test_a_release_from_before_is_recognised() -> None:
    """It has no module to read with what it is sent; Ray says so in a text, wherever it comes from."""
    reported = rf"a node of the cluster runs another release \[there={EARLIER} here={RELEASE}\]\. Install the newer one"
    with pytest.raises(OtherRelease, match=reported):
        raise refusal_in(NOT_THERE, "a node of the cluster") or AssertionError
    assert isinstance(cause_of(RayTaskError("perform", NOT_THERE, ModuleNotFoundError())), OtherRelease)
    raised = f"Error:\nTraceback (most recent call last):\ncluster.release.OtherRelease: a b [c={RELEASE}] d\n at 1"
    assert str(refusal_in(raised, "a replica")) == f"a b [c={RELEASE}] d"


@pytest.mark.parametrize("text", ["", "the cell 'OtherRelease: x'", "No module named 'cluster.released'"])
def test_other_errors_are_no_releases(text: str) -> None:
    """What merely has the words in it, such as a cell of somebody's data, is not passed on."""
    assert refusal_in(text, "a node") is None


@pytest.mark.parametrize("error", [OtherRelease("the site process runs another one", here="1", there="2"), "died"])
def test_a_site_of_another_release_is_away(
    error: OtherRelease | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To those who ask its federation it is a site that is away, with the reason; the next call starts it again."""
    killed: list[object] = []

    def answered(_: object) -> None:
        raise error if isinstance(error, OtherRelease) else ActorDiedError(RayTaskError("", NOT_THERE, None))

    world = SimpleNamespace(wait=lambda answers, **_: (answers, []), kill=killed.append)
    monkeypatch.setattr(pinned, "ray", world)
    monkeypatch.setattr(pinned, "unwrapped", answered)
    link = PinnedSite(SiteFolders(tmp_path).fill().site("north"), lambda _: None)
    actor = SimpleNamespace(status=SimpleNamespace(remote=lambda: "answer"))
    link._actor = actor
    monkeypatch.setattr(link, "_started", lambda: actor)
    with pytest.raises(Unavailable, match="the site is away: .* runs another .*Install|the site is away: .*here=1"):
        link.status()
    assert killed == [actor]
    assert link._actor is None


def test_a_replica_of_another_release_than_the_coordinator_sends_clients_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client has done nothing wrong, and nothing conflicts with what it sent: it may come back."""
    handle = SimpleNamespace(__ray_call__=SimpleNamespace(remote=lambda **_: OTHER))
    home = UserFolder(tmp_path).fill()
    write_record(home.objects, Launched(address="there", namespace="sisa", head=None))
    monkeypatch.setattr(launch, "_handle", lambda _: handle)
    monkeypatch.setattr(launch, "patiently", lambda call: call())
    with pytest.raises(
        Unavailable, match=rf"than this replica \[coordinator=9\.9\.9 replica={RELEASE}\]\. .*'sisa serve'"
    ):
        deployment._coordinator(home.objects)


def test_a_replica_that_cannot_read_a_newer_store_sends_clients_away() -> None:
    """The clients are not to blame, and may come back: a replica of the newer release takes its place."""
    problem = problem_of(NewerFormat("the federation was written in format 9", "Upgrade sisa-ray here"))
    assert (problem.status, problem.headers["Retry-After"]) == (503, "1")
    assert problem.message == "the federation was written in format 9"


def test_replicas_that_do_not_start_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve keeps the text of an error that a replica raised while it started."""
    reported = "failed to start. Error:\ncluster.release.OtherRelease: the replica runs another release [replica=9] x"
    kept = SimpleNamespace(deployments={"replica": SimpleNamespace(message=reported)})
    monkeypatch.setattr(deployment, "_start", lambda _: None)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Deploying application sisa failed")

    status = SimpleNamespace(applications={"sisa": kept})
    monkeypatch.setattr(deployment, "serve", SimpleNamespace(status=lambda: status, run=fail))
    settings: Any = SimpleNamespace(prefix="/")
    with pytest.raises(OtherRelease, match=r"the replica runs another release \[replica=9\] x"):
        deployment.run_application(SimpleNamespace(), "sisa", settings)  # type: ignore[arg-type]


def test_what_an_actor_of_another_release_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call to an actor of a release from before comes back as a sentence."""
    error = RayTaskError("status", NOT_THERE, ModuleNotFoundError())

    def get(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("cluster.coordinator_actor.actor.ray", SimpleNamespace(get=get))
    with pytest.raises(OtherRelease, match=EARLIER):
        unwrapped("answer")
