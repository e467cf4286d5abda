"""One half of a rehearsal, in a process of its own: train a little on made-up data and say what came of it.

``shards.learners.torch.rehearsal`` starts two of these and compares them.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from shards.learners.torch.attributes import Kept, changed_tensors, kept_in_attributes
from shards.learners.torch.checkpoint import decode_checkpoint, digest_tensors
from shards.learners.torch.confinement import ConfinedLearner, Confinement
from shards.learners.torch.factory import import_factory
from shards.learners.torch.learner import TorchLearner, TorchState
from shards.learners.torch.seeding import Device, check_numerics, seed_all, set_numerics
from shards.learners.torch.staging import StagedFolder
from shards.learners.torch.user_modules import UserModules
from shards.lineage import Configuration, Lineage, NumericsProfile
from shards.points import ShardPoints
from shards.specification import ModelSettings, ShardId, SliceIndex, TrainingSettings
from storage.digests import Sha256, sha256
from storage.errors import SisaError

SLICES: Final = 2
_EPOCHS: Final = 3
"""In all; two in each slice (SISA section IV)."""
_MOST_IN_A_BATCH: Final = 64
_ATTEMPTS: Final = ((1.0, 1.0), (1e-3, 1.0), (1e-3, 0.0))
"""Share of the learning rate, and the largest feature, until the model does not fail: made-up data may make training
diverge, and a model may take no other features than zeros, which it was built with."""

_IMPORTED_EARLIER: Final = ("decimal", "uuid", "statistics", "numpy.random", "torch.nn.utils.parametrizations")

_OUTPUT: Final = "its output"

_SHARD: Final = ShardId(0)
_OTHER_SHARD: Final = ShardId(1)

Stage = dict[str, Sha256]
"""What there is after one slice: digests of parameters, buffers, optimizer state, attributes and outputs, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to rehearse, and from which start."""

    model: ModelSettings
    training: TrainingSettings
    inputs: int
    classes: int
    device: Device
    threads: int
    folder: str = ""
    """The specification's folder."""
    staged: str = ""
    """Folder that holds the declared files."""
    files: tuple[str, ...] = ()
    """Their names."""
    start: int = 0
    """State of the random generators when the model's module is imported."""
    is_second: bool = False
    """Whether another constituent is trained before, and other modules are imported earlier."""

    def to_json(self) -> str:
        """Return the request as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the request that ``to_json`` wrote."""
        fields: dict[str, Any] = json.loads(text)
        training = fields.pop("training")
        training["betas"] = tuple(training["betas"])
        model, files = fields.pop("model"), tuple(fields.pop("files"))
        model["files"] = tuple(model["files"])
        return cls(model=ModelSettings(**model), training=TrainingSettings(**training), files=files, **fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """What came of it."""

    straight: list[Stage] = field(default_factory=list)
    """After each slice, one after the other."""
    again: list[Stage] = field(default_factory=list)
    """The same in the same process, with the user's modules imported afresh."""
    resumed: list[Stage] = field(default_factory=list)
    """The same, predicted and gone on with from the first checkpoint, with the user's modules imported afresh."""
    modules: dict[str, Sha256] = field(default_factory=dict)
    """Digests of the sources of the user's modules that were loaded, by name."""
    packages: list[str] = field(default_factory=list)
    """Top-level installed packages that these imported, besides those that others had imported before."""
    changed: list[str] = field(default_factory=list)
    """Tensors in plain attributes that changed while the model learned."""
    failure: list[str] = field(default_factory=list)
    """Kind of error, what happened, what to do; empty when all went well."""

    def to_json(self) -> str:
        """Return the performance as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the performance that ``to_json`` wrote."""
        return cls(**json.loads(text))


def perform(request: Request, modules: UserModules) -> Performance:
    """Return what comes of training the model here, on made-up data of the width and classes of the real ones.

    Features lie between 0 and 1. A model that fails on them takes smaller steps, and if it fails again, gets zeros.
    """
    if request.is_second:
        for name in _IMPORTED_EARLIER:
            importlib.import_module(name)
    profile = set_numerics(request.threads, request.device)
    modules.forget_loaded()
    performance = _attempt(request, profile, modules, *_ATTEMPTS[0])
    for rate, largest in _ATTEMPTS[1:]:
        if performance.failure:
            performance = _attempt(request, profile, modules, rate, largest)
    return replace(performance, modules=dict(modules.loaded), packages=sorted(modules.packages))


def _attempt(
    request: Request, profile: NumericsProfile, modules: UserModules, rate: float, largest: float
) -> Performance:
    try:
        stage = _Stage(request, profile, modules, rate, largest)
        if request.is_second:
            stage.train_another()
        straight, payloads = stage.straight()
        modules.forget(request.model.factory)
        again, _ = stage.straight()
        modules.forget(request.model.factory)
        resumed = stage.resumed(straight[0], payloads[0])
    except SisaError as error:
        return Performance(failure=[error.kind, error.fact, error.remedy])
    except Exception as error:  # noqa: BLE001  the model is the user's code
        return Performance(failure=["", f"{type(error).__name__}: {error}", ""])
    return Performance(straight=straight, again=again, resumed=resumed, changed=sorted(stage.changed))


class _Stage:
    """Where a model is rehearsed: the learner, and the made-up data."""

    def __init__(
        self, request: Request, profile: NumericsProfile, modules: UserModules, rate: float, largest: float
    ) -> None:
        self._request = request
        batch = min(request.training.batch_size, _MOST_IN_A_BATCH)
        learner = TorchLearner(
            model=request.model,
            training=replace(
                request.training,
                epochs=_EPOCHS,
                batch_size=batch,
                learning_rate=request.training.learning_rate * rate,
            ),
            inputs=request.inputs,
            classes=request.classes,
            slices=SLICES,
            device=request.device,
        )
        self._confinement = Confinement(
            request.model.factory,
            Path(request.folder),
            modules.stage.path if modules.stage is not None else Path(request.folder),
            modules.may_read,
        )
        self._learner = ConfinedLearner(learner, self._confinement)
        self._profile = profile
        self._batch = batch
        self._largest = np.float32(largest)
        modules.forget(request.model.factory)
        self._import()
        self._points = self._made_up(_SHARD)
        self.changed: set[str] = set()

    def train_another(self) -> None:
        """Train another constituent for one slice, as a worker may have done before."""
        for _ in self._learner.learn(
            self._learner.initial(_OTHER_SHARD), self._made_up(_OTHER_SHARD), _OTHER_SHARD, SliceIndex(1)
        ):
            pass

    def straight(self) -> tuple[list[Stage], list[bytes]]:
        """Return what there is after each slice, and the checkpoints."""
        self._import()
        state = self._learner.initial(_SHARD)
        check_numerics(self._profile, self._request.model.factory)
        stages, payloads = [], []
        for slice_ in range(1, SLICES + 1):
            stage, payload = self._learn(state, SliceIndex(slice_))
            stages.append(stage)
            payloads.append(payload)
            state = self._learner.from_bytes(payload, _SHARD)
        return stages, payloads

    def resumed(self, first: Stage, payload: bytes) -> list[Stage]:
        """Return what there is after each slice where the checkpoint after the first one is all that is left of it."""
        self._import()
        predicted = first | {_OUTPUT: self._outputs(self._learner.from_bytes(payload, _SHARD))}
        return [predicted, self._learn(self._learner.from_bytes(payload, _SHARD), SliceIndex(SLICES))[0]]

    def _import(self) -> None:
        seed_all(self._request.start)
        with self._confinement.active():
            import_factory(self._request.model.factory)

    def _learn(self, state: TorchState, slice_: SliceIndex) -> tuple[Stage, bytes]:
        before = kept_in_attributes(state.model)
        derived: set[str] = set()
        for epoch in self._learner.learn(state, self._points, _SHARD, slice_):
            after = kept_in_attributes(state.model)
            for name, kind in changed_tensors(before, after, is_first=epoch == 1).items():
                (self.changed if kind == "tensor" else derived).add(name)
            before = after
        payload = self._learner.to_bytes(state, self._lineage(slice_))
        # Counted before anything is predicted, which may count as well.
        found = _digests(payload, kept_in_attributes(state.model))
        seen = self._outputs(self._learner.from_bytes(payload, _SHARD))
        if derived and seen != self._outputs(state):
            self.changed |= derived  # not made of the parameters alone: a checkpoint does not bring it back
        return {**found, _OUTPUT: seen}, payload

    def _outputs(self, state: TorchState) -> Sha256:
        seed_all(0)
        return sha256(self._learner.probabilities(state, self._points.features_NF).tobytes())

    def _lineage(self, slice_: SliceIndex) -> Lineage:
        nothing = sha256(b"")
        return Lineage(
            shard=_SHARD,
            slice=slice_,
            points=self._points.ends[slice_ - 1],
            points_digest=nothing,
            content_digest=nothing,
            configuration=Configuration(settings=nothing, model_code=nothing, seed=0, profile=self._profile),
            parent=None,
        )

    def _made_up(self, shard: ShardId) -> ShardPoints:
        # One batch and a half in each slice: an epoch ends with a batch of another size.
        ends = (self._batch + (self._batch + 1) // 2 + 1, 2 * self._batch + self._batch // 2 + 2)
        index_N = np.arange(1, ends[-1] + 1, dtype=np.uint64) + np.uint64(shard * 1_000_003)
        mixed_N = (index_N * np.uint64(0x9E3779B97F4A7C15)) ^ (index_N << np.uint64(29))
        places_F = np.arange(1, self._request.inputs + 1, dtype=np.uint64) * np.uint64(0xD1342543DE82EF95)
        features_NF = (((mixed_N[:, None] + places_F) >> np.uint64(40)) / 2.0**24).astype(np.float32) * self._largest
        labels_N = (index_N % np.uint64(self._request.classes)).astype(np.int64)
        return ShardPoints(features_NF=features_NF, labels_N=labels_N, keys_N=mixed_N, ends=ends)


def _digests(payload: bytes, kept: Mapping[str, Kept]) -> Stage:
    tensors = {name: digest_tensors({"": tensor}) for name, tensor in decode_checkpoint(payload).items()}
    # A derived tensor is made again from the parameters, whenever it is asked for.
    return tensors | {f"attribute/{name}": value.digest for name, value in kept.items() if value.kind != "derived"}


def main() -> None:
    """Read requests from standard input, one a line, perform them, and write to standard output what came of each."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  open as long as the process lives
    os.dup2(nowhere.fileno(), 1)
    sys.stdout = sys.stderr = nowhere  # what a model prints is nobody's
    requests = [Request.from_json(line) for line in sys.stdin]
    one = requests[0]  # all of them are of one folder
    contents = {name: (Path(one.staged) / name).read_bytes() for name in one.files}
    stage = StagedFolder(Path(one.folder), contents)
    stage.enter()
    modules = UserModules(stage)
    for request in requests:
        answers.write(perform(request, modules).to_json() + "\n")
        answers.flush()
    stage.remove()
    os._exit(0)  # threads of the model may never end
