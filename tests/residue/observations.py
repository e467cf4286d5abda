"""Every byte that could be observed of a federation of marked people, before and after an erasure."""

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
    """Everything that could be observed."""

    markers: Markers
    user: Mapping[str, bytes]
    """The user's own files, which contain the markers."""
    before: StoreContents
    after: StoreContents
    crossed: Mapping[str, bytes]
    """Messages to workers and back, pickled as Ray would send them."""


@dataclass(slots=True)
class RecordedWorkers(LocalWorkers):
    """Workers in this process that record all messages that would cross to other processes."""

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
    """Train, erase by a file of names, and return all that was observed; ``subject`` names the person's marker."""
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
    """Write the file of names for an erasure: the person, and someone who is not in the federation."""
    path = home.folder / "names.txt"
    path.write_text(f"{markers[subject].value}\n{markers['request'].value}\n", encoding="utf-8")
    return path


def seen_in(home: UserFolder) -> StoreContents:
    """Return the store's contents as seen with only the disk, and as seen with the keys too."""
    return StoreContents(raw=files_under(home.store), opened=opened(home.objects))


def opened(store: ObjectStore) -> dict[str, bytes]:
    """Return every object that can be decrypted, decrypted and decompressed."""
    found = {}
    for info in store.list(""):
        try:
            found[str(info.key)] = laid_open(store.get(info.key).payload)
        except Corrupt:  # what cannot be decrypted reveals nothing
            continue
    return found
