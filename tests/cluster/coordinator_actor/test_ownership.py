"""A copy of a store names the original's coordinator, and never reaches it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from cluster.config.specification import read_specification
from cluster.coordinator_actor import actor, launch
from cluster.coordinator_actor.actor import RemoteWriter
from cluster.coordinator_actor.launch import find_coordinator, launch_coordinator, namespace_of, stop_coordinator
from cluster.coordinator_actor.ownership import Prover, Shown
from cluster.coordinator_actor.record import Launched, read_record, write_record
from cluster.release import OtherRelease
from cluster.writer.stores import open_objects
from storage.errors import Conflict, Unavailable
from storage.location import open_store, place_name
from storage.objects import ObjectStore, object_key
from storage.stores.local import LocalStore
from tests.doubles.stores.faulty_store import Fault, FaultyStore
from tests.doubles.user_folder import CommandResult, UserFolder, run

PID = 4_000_000
"""The id of no process: larger than any that Linux assigns."""


@dataclass(slots=True)
class Coordinator:
    """A coordinator at work, as its handle shows it; only what it was commanded is kept."""

    store: ObjectStore
    trouble: Exception | None = None
    commands: list[str] = field(default_factory=list)
    _prover: Prover = field(init=False)

    def __post_init__(self) -> None:
        self.work_on(self.store)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return SimpleNamespace(remote=lambda *_, **__: self.commands.append(name))

    @property
    def __ray_call__(self) -> Any:
        """Ask it which release it runs: that of the test."""
        return SimpleNamespace(remote=lambda *, fn: fn(self))

    @property
    def show(self) -> Any:
        """Ask it which store it writes."""
        return SimpleNamespace(remote=self._show)

    def work_on(self, store: ObjectStore) -> None:
        """Reach its store in another way."""
        self._prover = Prover(store)

    def _show(self, nonce: str) -> Shown:
        if self.trouble is not None:
            raise self.trouble
        return self._prover.show(nonce)


@pytest.fixture
def home(tmp_path: Path) -> UserFolder:
    """A folder with a specification, and a store that holds nothing but where the coordinator is."""
    folder = tmp_path / "original"
    folder.mkdir()
    made = UserFolder(folder).fill()
    write_record(made.objects, Launched(address="127.0.0.1:1", namespace="sisa-small", head=PID))
    return made


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The actors and heads that were ended. No Ray is needed, and none is left."""
    gone: list[object] = []
    monkeypatch.setattr(ray, "wait", lambda answers, **_: (answers, []))
    monkeypatch.setattr(ray, "kill", lambda handle, **_: gone.append(handle))
    monkeypatch.setattr(launch, "stop_head", lambda process, _: gone.append(process))
    monkeypatch.setattr(launch, "leave_ray", lambda: None)
    return gone


@pytest.fixture
def coordinator(home: UserFolder, ended: list[object], monkeypatch: pytest.MonkeyPatch) -> Coordinator:
    """The home's coordinator, which every process with its record reaches."""
    made = Coordinator(home.objects)
    monkeypatch.setattr(actor, "unwrapped", lambda answer, *_, **__: answer)
    monkeypatch.setattr(launch, "_handle", lambda _: made)
    made.show.remote("a nonce that was asked for before the copy was made")
    return made


def copied(home: UserFolder) -> UserFolder:
    """Return a copy of the whole folder."""
    return UserFolder(Path(shutil.copytree(home.folder, home.folder.parent / "copy")))


@pytest.mark.parametrize(
    "words",
    [
        ("stop",),
        ("launch",),
        ("train",),
        ("verify",),
        ("request", "hold", "er-1", "--reason", "a dispute"),
        ("request", "cancel", "er-1", "--reason", "a mistake"),
        ("serve", "--stop"),
        ("serve",),
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_no_command_in_a_copy_reaches_the_coordinator(
    home: UserFolder, coordinator: Coordinator, ended: list[object], words: tuple[str, ...]
) -> None:
    """It says whose coordinator that is and what to do; not a byte of the copy changes, and nothing is ended."""
    copy = copied(home)
    before = copy.raw()
    said = run(*words, "--config", str(copy.config), "--json")
    assert said.error["kind"] == "conflict"
    assert f"this store is a copy of {home.store}" in said.error["message"]
    assert "nothing was done" in said.error["message"]
    assert "sisa adopt" in said.error["remedy"]
    assert copy.raw() == before
    assert (coordinator.commands, ended) == ([], [])


def test_the_original_reaches_it_by_every_path(home: UserFolder, coordinator: Coordinator, ended: list[object]) -> None:
    """A link, and a folder that was moved with the coordinator's own view of it, are the same store."""
    (home.folder.parent / "linked").symlink_to(home.folder)
    linked = UserFolder(home.folder.parent / "linked")
    for each in (home, linked):
        assert isinstance(find_coordinator(each.objects, lambda _: None, print), RemoteWriter)
    home.folder.rename(home.folder.parent / "moved")
    home.folder.symlink_to(home.folder.parent / "moved")
    moved = UserFolder(home.folder.parent / "moved")
    assert stop_coordinator(moved.objects)
    assert (coordinator.commands, ended) == (["stop"], [coordinator, PID])
    assert read_record(moved.objects) is None


def adopted(home: UserFolder) -> CommandResult:
    """Run ``sisa adopt`` in the home."""
    return home.json("adopt", "--reason", "the original's disk is lost")


def test_an_adopted_copy_goes_on_by_itself(home: UserFolder, coordinator: Coordinator, ended: list[object]) -> None:
    """It no longer names the original's coordinator, records when and why, and leaves the original alone."""
    keys = [info.key for info in home.objects.list("") if info.key != "control/coordinator-proof"]
    copy, before = copied(home), {key: home.objects.get(key).payload for key in keys}
    said = adopted(copy)
    assert (said.code, said.data["reason"], said.data["original"]) == (0, "the original's disk is lost", "sisa-small")
    kept = json.loads(copy.raw()["control/adoptions"])["adoptions"]
    assert kept == [{name: said.data[name] for name in ("id", "at", "reason", "original")}]
    assert find_coordinator(copy.objects, lambda _: None, print) is None
    assert not stop_coordinator(copy.objects)
    assert copy.json("stop").data["stopped"] is False
    assert {key: home.objects.get(key).payload for key in before} == before
    assert (coordinator.commands, ended) == ([], [])


def test_a_copy_is_adopted_once(home: UserFolder, coordinator: Coordinator) -> None:
    """The second time there is nothing to adopt; a copy of the adopted one is adopted for itself."""
    copy = copied(home)
    assert adopted(copy).code == 0
    said = adopted(copy)
    assert (said.error["kind"], said.code) == ("conflict", 4)
    assert "nothing to adopt" in said.error["message"]
    write_record(copy.objects, Launched(address="127.0.0.1:1", namespace="sisa-copy", head=None))
    second = UserFolder(Path(shutil.copytree(copy.folder, copy.folder.parent / "second")))
    assert adopted(second).data["original"] == "sisa-copy"
    assert len(json.loads(second.raw()["control/adoptions"])["adoptions"]) == 2


@pytest.mark.parametrize("is_there", [True, False])
def test_the_original_is_not_adopted(
    home: UserFolder, coordinator: Coordinator, is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its coordinator is its own, at work or not; the remedy is to stop it."""
    if not is_there:
        monkeypatch.setattr(launch, "_handle", lambda _: None)
    said = adopted(home)
    assert "this store is not a copy" in said.error["message"]
    assert "sisa stop" in said.error["remedy"]
    assert read_record(home.objects) is not None


@pytest.mark.parametrize("reason", ["", " ", "two\nlines", "x" * 501])
def test_a_reason_that_cannot_be_kept(home: UserFolder, coordinator: Coordinator, reason: str) -> None:
    """Nothing is adopted without a reason on one line."""
    copy = copied(home)
    before = copy.raw()
    said = copy.json("adopt", "--reason", reason)
    assert (said.code, said.error["kind"]) == (2, "invalid")
    assert copy.raw() == before


def test_a_coordinator_that_cannot_write_is_reported_by_its_place(
    home: UserFolder, coordinator: Coordinator, ended: list[object]
) -> None:
    """With a full disk or expired credentials it can still be stopped from its own store, and from no copy."""
    copy, faulty = copied(home), FaultyStore(LocalStore(str(home.store)))
    faulty.plan(*(Fault(when="before", operation="put_if_match", nth=nth, error=Unavailable) for nth in range(1, 100)))
    coordinator.work_on(faulty)
    with pytest.raises(Conflict, match="is a copy of"):
        stop_coordinator(copy.objects)
    assert ended == []
    assert stop_coordinator(home.objects)
    assert ended == [coordinator, PID]


def test_one_that_does_not_answer_is_stopped_from_its_own_store_alone(
    home: UserFolder, coordinator: Coordinator, ended: list[object]
) -> None:
    """It may belong to another store, and be back in a moment."""
    copy = copied(home)
    coordinator.trouble = Unavailable("the coordinator does not answer", "launch it")
    with pytest.raises(Unavailable, match="does not answer"):
        stop_coordinator(copy.objects)
    assert ended == []
    assert stop_coordinator(home.objects)
    assert ended == [coordinator, PID]


def test_a_copy_ends_no_head_of_the_original(
    home: UserFolder, coordinator: Coordinator, ended: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the coordinator is gone and its Ray is not, only the original ends that."""
    copy = copied(home)
    monkeypatch.setattr(launch, "_handle", lambda _: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    stop_coordinator(copy.objects)
    assert ended == []
    stop_coordinator(home.objects)
    assert ended == [PID]


def test_a_coordinator_found_by_its_name_alone_is_asked_as_well(
    home: UserFolder, coordinator: Coordinator, ended: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two stores of one location, on two machines or two servers, share a namespace of one Ray."""
    copy = copied(home)
    copy.objects.delete(object_key("control/coordinator"))
    monkeypatch.setattr(launch, "_join", lambda _: None)
    monkeypatch.setattr(launch, "worker_count", lambda *_: 1)
    monkeypatch.setattr(launch, "_named", lambda _: coordinator)
    with pytest.raises(Conflict, match=f"is a copy of {home.store}"):
        launch_coordinator(read_specification(copy.config))
    assert (coordinator.commands, ended) == ([], [])


def test_an_older_coordinator_is_reported_by_its_namespace(
    home: UserFolder, coordinator: Coordinator, ended: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were launched before an upgrade of the command are not used, and end for their own store alone. They
    are asked by nothing that they do not know: that would end them.
    """
    namespace = namespace_of(read_specification(home.config), home.objects)
    write_record(home.objects, Launched(address="127.0.0.1:1", namespace=namespace, head=None))
    copy = copied(home)

    def fail(**_: object) -> None:
        raise OtherRelease("a node of the cluster runs another release")

    monkeypatch.setattr(Coordinator, "__ray_call__", SimpleNamespace(remote=fail))
    monkeypatch.setattr(Coordinator, "show", SimpleNamespace(remote=fail))
    with pytest.raises(Conflict, match="runs another release than this command .*coordinator=one before 0.2"):
        find_coordinator(home.objects, lambda _: None, print)
    with pytest.raises(Conflict, match=f"is a copy of that of the coordinator {namespace}"):
        stop_coordinator(copy.objects)
    assert (coordinator.commands, ended) == ([], [])
    assert stop_coordinator(home.objects)
    assert coordinator.commands == ["stop"]


@pytest.mark.parametrize(
    "change",
    [
        lambda home: home.specify(store="s3://bucket/other", endpoint="http://127.0.0.1:1"),
        lambda home: home.specify(store="s3://bucket/prefix", endpoint="http://127.0.0.1:2"),
        lambda home: home.specify(store="./copy"),
    ],
)
def test_places_of_different_stores(home: UserFolder, change: Callable[[UserFolder], Path]) -> None:
    """Another prefix, another server and another folder are other places; the same words name the same one."""
    home.specify(store="s3://bucket/prefix", endpoint="http://127.0.0.1:1")
    bucket = open_objects(read_specification(home.config))
    assert place_name(bucket) == place_name(open_objects(read_specification(home.config)))
    (home.folder / "copy").mkdir()
    assert place_name(open_objects(read_specification(change(home)))) != place_name(bucket)
    assert place_name(open_store("./copy", home.folder)) != place_name(home.objects)
