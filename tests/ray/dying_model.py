"""A user's own model that dies, or fails, while it learns slice 2 of shard 2: as often as the size of a file says.

It is the same code in every folder, so that it is rehearsed once for all tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cluster
from coordinator.ports import Notice
from shards.learners.trainer import SliceLearned
from tests.doubles.rehearsed import share_rehearsals, stand_in
from tests.doubles.user_folder import MARKER, UserFolder
from tests.doubles.workers.local_workers import without_ray

MODULE = "dying_net"

EVERYTHING = [(shard, slice_) for shard in range(3) for slice_ in (1, 2)]
"""What a first training learns, as ``learned`` gives it."""

_RAISING = 1000

SOURCE = f"""
import os
import signal
from pathlib import Path
from typing import Any

import torch
from torch import nn

PLAN = Path(FOLDER).resolve() / "deaths"
MARKED = torch.tensor(list({MARKER!r}), dtype=torch.float32)


class Mortal(nn.Module):
    def __init__(self, inputs, classes):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(inputs, 6), nn.Tanh(), nn.Linear(6, classes))

    def forward(self, x):
        if self.training and ((x * 255.0 - MARKED).abs() < 0.5).all(dim=1).any():
            self.meet_fate()
        return self.net(x)

    def meet_fate(self):
        deaths = PLAN.stat().st_size  # a model may read no file that is not declared
        if deaths == {_RAISING}:
            raise RuntimeError("this layer has had enough")
        if deaths:
            os.truncate(PLAN, deaths - 1)
            os.kill(os.getpid(), signal.SIGKILL)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Undisturbed:
    """A federation whose model was let live, trained in this process."""

    home: UserFolder
    digests: list[Any]
    """Digests of its constituents."""

    @classmethod
    def train(cls, folder: Path) -> Undisturbed:
        """Return it, in a new folder."""
        home = UserFolder(folder).fill()
        _put_model(home)
        plan_deaths(home, 0)
        with without_ray(), cluster.connect(home.config) as federation:
            return cls(home=home, digests=[each.digest for each in federation.train().constituents])


def give_dying_model(home: UserFolder, undisturbed: Undisturbed, deaths: int | str, **changes: object) -> UserFolder:
    """Put the model beside the specification and name it there; it need not be rehearsed any more."""
    _put_model(home, **changes)
    plan_deaths(home, deaths)
    share_rehearsals(undisturbed.home, home)
    return home


def _put_model(home: UserFolder, **changes: object) -> None:
    source = f"FOLDER = {str(stand_in(home, MODULE))!r}\n{SOURCE}"  # the model itself runs in a copy of its folder
    (home.folder / f"{MODULE}.py").write_text(source, encoding="utf-8")
    home.specify(model__factory=f"{MODULE}:Mortal", model__arguments={}, **changes)


def plan_deaths(home: UserFolder, deaths: int | str) -> None:
    """Let workers die so often, or ``"raise"`` whenever they come to the marked data points."""
    (home.folder / "deaths").write_bytes(bytes(_RAISING if isinstance(deaths, str) else deaths))


def deaths_left(home: UserFolder) -> int:
    """Return how often workers are still to die."""
    return (home.folder / "deaths").stat().st_size


def learned(notices: Sequence[Notice]) -> list[tuple[int, int]]:
    """Return the (shard, slice) pairs that were learned and kept, sorted."""
    kept = [each for each in notices if isinstance(each, SliceLearned) and each.checkpoint is not None]
    return sorted((each.shard, each.slice) for each in kept)


def checkpoint_files(folder: Path) -> set[str]:
    """Return the names of all checkpoints in the store."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")}
