"""A Ray session: no log, shared memory, spilled object or temporary file holds a value of a person, erased or not."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray

import cluster
from cluster.runtime import session
from storage.errors import SisaError
from tests.doubles.user_folder import UserFolder
from tests.multinode.patience import until
from tests.residue.markers import Markers, all_traces, draw_markers, files_under
from tests.residue.people import fill_with_remembering, let_talk
from tests.residue.ray_places import (
    core_limits,
    raylet,
    session_folder,
    shared_memory,
    temporary_files,
    temporary_names,
    worker_processes,
)

pytestmark = pytest.mark.ray

PLACES = ("session folder", "shared memory", "spill folder", "temporary files")


@dataclass(frozen=True, slots=True, kw_only=True)
class RayObservation:
    """An erasure on real workers whose model tells all it sees, and what lay where afterwards."""

    markers: Markers
    reported: str
    """The error of a model that raises with a person's features in its text, as the user reads it."""
    limits: list[list[str]]
    """The workers' limits for core dumps."""
    left: Mapping[str, Mapping[str, bytes]]
    """What is left after the erasure, by place."""
    planted: Mapping[str, Mapping[str, bytes]]
    """What is left, by place, after another program wrote a text there."""
    text: bytes
    """What was planted."""


def _looked_at(before: set[Path]) -> dict[str, dict[str, bytes]]:
    (spill,) = session._SPILL
    return {
        "session folder": files_under(session_folder()),
        "shared memory": shared_memory(),
        "spill folder": files_under(spill.path),
        "temporary files": temporary_files(before),
    }


def _speak(text: bytes) -> str:
    """Do in a worker what ours must not do; return the temporary file."""
    print(text.decode(), flush=True)  # noqa: T201
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(text)
    return file.name


@contextmanager
def _planted(text: bytes) -> Iterator[None]:
    (spill,) = session._SPILL
    spilled = spill.path / "object"
    spilled.write_bytes(text)
    task: Any = ray.remote(_speak)
    temporary = Path(ray.get(task.remote(text)))
    kept = ray.put(text * 20_000)
    try:
        yield
    finally:
        del kept
        spilled.unlink()
        temporary.unlink()


@pytest.fixture(scope="module")
def observation(joined_ray: None, tmp_path_factory: pytest.TempPathFactory) -> RayObservation:
    """The story, run once."""
    markers, before = draw_markers(), temporary_names()
    home = fill_with_remembering(UserFolder(tmp_path_factory.mktemp("talking")), markers, cluster__workers=1)
    with cluster.connect(home.config) as federation:
        let_talk(home, "raise")
        with pytest.raises(SisaError, match="a worker failed with ValueError") as reported:
            federation.train()
        let_talk(home, "speak")
        federation.train()
        assert federation.erase(subjects=[markers["subject"].value]).state == "complete"
        until(lambda: len(worker_processes()) == 1, "the worker that failed to end")
        limits = [core_limits(pid) for pid in worker_processes()]
        left = _looked_at(before)
    text = secrets.token_hex(16).encode()
    with _planted(text):
        # What a process prints reaches Ray's log a moment later.
        until(lambda: any(text in each for each in files_under(session_folder()).values()), "the text in Ray's log")
        planted = _looked_at(before)
    return RayObservation(
        markers=markers, reported=str(reported.value), limits=limits, left=left, planted=planted, text=text
    )


@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_left_in(observation: RayObservation, place: str) -> None:
    """None of the 24 values is there, though the model printed, logged, warned of and failed over what it saw; what
    somebody else leaves there is found.
    """
    assert any(observation.text in payload for payload in observation.planted[place].values())
    assert not any(observation.text in payload for payload in observation.left[place].values())
    assert all_traces(observation.markers, observation.left[place]) == {}


def test_an_exceptions_text_reaches_its_reader_alone(observation: RayObservation) -> None:
    """The text of a model's exception is shown to the user of the command, and stored nowhere."""
    assert observation.markers["raised"].value in observation.reported
    for place in PLACES:
        assert all_traces(observation.markers, observation.left[place], ("raised",)) == {}


def test_workers_leave_no_core_dump(observation: RayObservation) -> None:
    """Workers may write no core dump, and cannot allow it to themselves again; Ray's own processes could."""
    assert observation.limits == [["0", "0"]]
    assert core_limits(raylet())[1] != "0"
