"""Which changes of a specification need another coordinator."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from cluster.config.specification import ClusterSettings, FederationSpecification, read_specification
from cluster.coordinator_actor import launch
from cluster.coordinator_actor.launch import differing_parts, refuse_other_release
from cluster.release import OtherRelease, own_release, said_by
from cluster.runtime.head import Head
from storage.errors import Conflict, Unavailable
from tests.doubles.user_folder import UserFolder


def specified(folder: Path, **changes: object) -> FederationSpecification:
    """Return the specification in a folder, changed."""
    folder.mkdir(exist_ok=True)
    return read_specification(UserFolder(folder).specify(**changes))


@pytest.mark.parametrize(
    "change", [{"serve__port": 9001}, {"serve__host": "::1", "serve__replicas": 3}, {"serve__max_points": 7}]
)
def test_serving_is_nothing_to_a_coordinator(tmp_path: Path, change: dict[str, object]) -> None:
    """The coordinator keeps running when the API's port or limits change, and when they are changed back."""
    before, after = specified(tmp_path), specified(tmp_path, **change)
    assert before != after
    assert differing_parts(before, after) == differing_parts(after, before) == ()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"name": "other"}, "name"),
        ({"training__epochs": 5}, "training"),
        ({"erasure__deadline_days": 3}, "erasure"),
        ({"aggregation__rule": "majority_vote"}, "aggregation"),
        ({"cluster__workers": 1}, "cluster"),
        ({"partition__key": None}, "partition"),
        ({"receipts__witness": "./elsewhere"}, "receipts"),
        ({"data__train": "other.parquet"}, "data"),
        ({"model__arguments": {"hidden": [7]}}, "model"),
        ({"keys": "./keys"}, "keys"),
        ({"store": "./another"}, "store"),
        ({"store": "s3://bucket/prefix", "endpoint": "http://127.0.0.1:1"}, "store,endpoint"),
    ],
)
def test_all_else_is(tmp_path: Path, change: dict[str, object], part: str) -> None:
    """What a coordinator trains, keeps or waits by is its business, and is named by its table, without a value."""
    differing = differing_parts(specified(tmp_path), specified(tmp_path, **change, serve__port=9001))
    assert sorted(differing) == sorted(part.split(","))


def test_a_copy_of_the_file_elsewhere(tmp_path: Path) -> None:
    """A copy in another folder that names the same places is the same; one whose paths lead elsewhere is not."""
    here, there = tmp_path / "here", tmp_path / "there"
    places: dict[str, object] = {
        "store": str(here / "federation"),
        "data__train": str(here / "train.parquet"),
        "receipts__witness": "s3://bucket/witness",
    }
    assert differing_parts(specified(here, **places), specified(there, **places)) == ()
    relative = {**places, "store": "./federation", "data__train": "../here/train.parquet"}
    assert differing_parts(specified(here, **places), specified(here, **relative)) == ()
    assert differing_parts(specified(here, **places), specified(there, **relative)) == ("store",)
    on_s3: dict[str, object] = {"store": "s3://bucket/prefix", "data__train": "s3://bucket/train.parquet"}
    assert differing_parts(specified(here, **on_s3), specified(there, **on_s3)) == ()


def test_code_of_ones_own_belongs_to_its_folder(tmp_path: Path) -> None:
    """A model next to the specification is found from its folder: a copy elsewhere may hold other code."""
    own: dict[str, object] = {"store": str(tmp_path / "store"), "data__train": str(tmp_path / "train.parquet")}
    own["model__factory"] = "my_model:build"
    one = specified(tmp_path / "here", **own)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert differing_parts(one, read_specification(tmp_path / "there" / "sisa.toml")) == ("folder",)


class Handle:
    """Handle of a coordinator that answers what is given about itself; any other call would end its process."""

    def __init__(self, answer: str | OtherRelease) -> None:
        self._answer = answer
        self.asked = 0

    @property
    def __ray_call__(self) -> Any:
        """Ask it."""
        return SimpleNamespace(remote=self._answered)

    def _answered(self, *, fn: object) -> str:
        assert fn is said_by
        self.asked += 1
        if isinstance(self._answer, OtherRelease):
            raise self._answer
        return self._answer


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "patiently", lambda call: call())


@pytest.mark.usefixtures("_at_once")
def test_a_coordinator_of_this_release_is_used() -> None:
    """Command and coordinator of one release work together, once it was asked."""
    handle = Handle(own_release())
    refuse_other_release(handle)
    assert handle.asked == 1


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize(
    ("handle", "named"),
    [
        (Handle("0.1.9"), "coordinator=0.1.9"),
        (Handle("99.0.0"), "coordinator=99.0.0"),
        (Handle(OtherRelease("a node of the cluster runs another release")), "coordinator=one before 0.2"),
    ],
)
def test_a_coordinator_of_another_release_is_refused(handle: Handle, named: str) -> None:
    """An older or a newer coordinator, even one that does not know the question, is refused with its release and a
    remedy, before it is sent anything that it might not understand.
    """
    with pytest.raises(Conflict, match=rf"runs another release.*{named} command=.*'sisa stop' and 'sisa launch'"):
        refuse_other_release(handle)


def test_a_head_that_starts_too_slowly_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's head ends itself when its processes take longer than 30 seconds: another one may be in time."""
    heads = iter([Head(address="127.0.0.1:6380", process=1), Head(address="127.0.0.1:6381", process=2)])
    stopped: list[int] = []

    def join(settings: ClusterSettings) -> None:
        if settings.address.endswith("6380"):
            raise Unavailable("the Ray cluster does not answer", "Try again.")

    monkeypatch.setattr(launch, "make_token", lambda: None)
    monkeypatch.setattr(launch, "start_head", lambda _: next(heads))
    monkeypatch.setattr(launch, "stop_head", lambda process, _: stopped.append(process))
    monkeypatch.setattr(launch, "join_ray", join)
    monkeypatch.setattr(launch, "is_reachable", lambda _: False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    found = launch._join(specified(tmp_path))
    assert found is not None
    assert (found.process, stopped) == (2, [1])
