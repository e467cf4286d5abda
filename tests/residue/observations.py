"""A federation of marked people before and after the erasure, with every byte that there was to be seen."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

import cluster.training.workers
from shards.learners.trainer import TrainingEvent, TrainTask
from storage.errors import Corrupt
from storage.objects import ObjectStore
from tests.doubles.user_folder import UserFolder
from tests.doubles.workers.local_workers import LocalWorkers
from tests.residue.markers import Markers, files_under, laid_open


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreContents:
    """A store at one moment."""

    raw: Mapping[str, bytes]
    """Its files, byte for byte."""
    opened: Mapping[str, bytes]
    """Its objects, decrypted and decompressed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What there was to be seen."""

    markers: Markers
    user: Mapping[str, bytes]
    """The user's own files: where the markers come from."""
    before: StoreContents
    after: StoreContents
    crossed: Mapping[str, bytes]
    """What went to workers and came back, as Ray would carry it."""


@dataclass(slots=True)
class RecordedWorkers(LocalWorkers):
    """Workers in this process; all that would cross to other processes is taken down."""

    taken_down: dict[str, bytes] = field(default_factory=dict)

    def train(self, tasks: Sequence[TrainTask]) -> Iterator[TrainingEvent]:
        """Do the tasks one after another."""
        self._take_down(self.setup, *tasks)
        for event in LocalWorkers.train(self, tasks):
            self._take_down(event)
            yield event

    def _take_down(self, *messages: object) -> None:
        for message in messages:
            self.taken_down[f"{len(self.taken_down)} {type(message).__name__}"] = pickle.dumps(message)


def tell(home: UserFolder, markers: Markers, *, subject: str) -> Observation:
    """Train, erase by a file of names, and return all that was seen; ``subject`` names the person's marker."""
    crossed: dict[str, bytes] = {}
    names = name_file(home, markers, subject=subject)
    user = {path: payload for path, payload in files_under(home.folder).items() if not path.endswith(".py")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.training.workers, "RayPool", partial(RecordedWorkers, taken_down=crossed))
        said = home.json("train")
        assert said.code == 0, said.out
        before = seen_in(home)
        said = home.json("erase", "--file", str(names))
        assert (said.code, said.data["state"]) == (0, "complete"), said.out
    return Observation(markers=markers, user=user, before=before, after=seen_in(home), crossed=crossed)


def name_file(home: UserFolder, markers: Markers, *, subject: str) -> Path:
    """Write the file of names for an erasure: the person, and someone whom nobody knows."""
    path = home.folder / "names.txt"
    path.write_text(f"{markers[subject].value}\n{markers['request'].value}\n", encoding="utf-8")
    return path


def seen_in(home: UserFolder) -> StoreContents:
    """Return what the store shows to those who hold its keys, and to those who hold the disk."""
    return StoreContents(raw=files_under(home.store), opened=opened(home.objects))


def opened(store: ObjectStore) -> dict[str, bytes]:
    """Return every object that opens, decrypted and decompressed."""
    found = {}
    for info in store.list(""):
        try:
            found[str(info.key)] = laid_open(store.get(info.key).payload)
        except Corrupt:  # what does not open tells nothing
            continue
    return found
