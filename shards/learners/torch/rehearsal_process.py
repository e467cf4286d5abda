"""One of the two processes of a rehearsal: trains briefly on made-up data and reports digests of the results.

``shards.learners.torch.rehearsal`` starts two such processes and compares what they report.
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

from shards.encoding import InputShape
from shards.learners.torch.attributes import AttributeValue, changed_tensors, kept_in_attributes
from shards.learners.torch.checkpoint import decode_checkpoint, digest_tensors
from shards.learners.torch.confinement import ConfinedLearner, Confinement
from shards.learners.torch.learner import TorchLearner, TorchState
from shards.learners.torch.model_code import import_callable, import_factory
from shards.learners.torch.seeding import check_numerics, seed_all, set_numerics
from shards.learners.torch.staging import StagedFolder
from shards.learners.torch.user_modules import UserModules
from shards.lineage import Configuration, Device, Lineage, NumericsProfile
from shards.points import ShardPoints
from shards.specification import ModelSettings, ShardId, SliceIndex, TrainingSettings
from shards.targets import Class, outputs_of
from storage.digests import Sha256, sha256
from storage.errors import SisaError

SLICES: Final = 2
_EPOCHS: Final = 3
"""Epochs of the whole rehearsal; each slice trains for two (SISA section IV)."""
_MOST_IN_A_BATCH: Final = 64
_ATTEMPTS: Final = ((1.0, 1.0), (1e-3, 1.0), (1e-3, 0.0))
"""Factor for the learning rate, and the largest feature, tried in turn until the model does not fail: training may
diverge on made-up data, and a model may accept only the zeros that it was built with."""

_IMPORTED_EARLIER: Final = ("decimal", "uuid", "statistics", "numpy.random", "torch.nn.utils.parametrizations")

_OUTPUT: Final = "its output"

_SHARD: Final = ShardId(0)
_OTHER_SHARD: Final = ShardId(1)

SliceDigests = dict[str, Sha256]
"""Digests of parameters, buffers, optimizer state, attributes and outputs after one slice, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsalRequest:
    """What to rehearse, and how the process starts."""

    model: ModelSettings
    training: TrainingSettings
    inputs: int
    classes: int
    device: Device
    threads: int
    target: str = Class.kind
    folder: str = ""
    """The specification's folder."""
    staged: str = ""
    """The folder with the declared files."""
    files: tuple[str, ...] = ()
    """Names of the declared files."""
    shape: InputShape | None = None
    """The form in which the model receives features; None: as a row of numbers."""
    start: int = 0
    """Seed of the random generators while the model's module is imported."""
    is_second: bool = False
    """Whether to train another constituent first, and to import some modules earlier."""

    def to_json(self) -> str:
        """Return the request as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the request that ``to_json`` wrote."""
        fields: dict[str, Any] = json.loads(text)
        training = fields.pop("training")
        training["betas"] = tuple(training["betas"])
        training["class_weights"] = training["class_weights"] and tuple(training["class_weights"])
        model, files = fields.pop("model"), tuple(fields.pop("files"))
        model["files"] = tuple(model["files"])
        shape = fields.pop("shape")
        fields["shape"] = None if shape is None else InputShape(tuple(shape[0]), shape[1])
        return cls(model=ModelSettings(**model), training=TrainingSettings(**training), files=files, **fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsalResult:
    """The results of one process."""

    straight: list[SliceDigests] = field(default_factory=list)
    """After each slice, of an uninterrupted run."""
    again: list[SliceDigests] = field(default_factory=list)
    """The same in the same process, after importing the user's modules again."""
    resumed: list[SliceDigests] = field(default_factory=list)
    """The same, resumed from the first checkpoint after importing the user's modules again."""
    modules: dict[str, Sha256] = field(default_factory=dict)
    """Digests of the sources of the user's modules that were loaded, by name."""
    packages: list[str] = field(default_factory=list)
    """Top-level installed packages that these modules were the first to import."""
    changed: list[str] = field(default_factory=list)
    """Tensors in plain attributes that changed while the model learned."""
    failure: list[str] = field(default_factory=list)
    """Kind of error, fact and remedy; empty on success."""

    def to_json(self) -> str:
        """Return the result as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the result that ``to_json`` wrote."""
        return cls(**json.loads(text))


def rehearse_here(request: RehearsalRequest, modules: UserModules) -> RehearsalResult:
    """Return the results of training the model here, on made-up data with the real width and number of classes.

    Features are between 0 and 1. A model that fails is tried with smaller steps, and then with zeros as features.
    """
    if request.is_second:
        for name in _IMPORTED_EARLIER:
            importlib.import_module(name)
    profile = set_numerics(request.threads, request.device)
    modules.forget_loaded()
    result = _attempt(request, profile, modules, *_ATTEMPTS[0])
    for rate, largest in _ATTEMPTS[1:]:
        if result.failure:
            result = _attempt(request, profile, modules, rate, largest)
    return replace(result, modules=dict(modules.loaded), packages=sorted(modules.packages))


def _attempt(
    request: RehearsalRequest, profile: NumericsProfile, modules: UserModules, rate: float, largest: float
) -> RehearsalResult:
    try:
        rehearsal = _Rehearsal(request, profile, modules, rate, largest)
        if request.is_second:
            rehearsal.train_another()
        straight, payloads = rehearsal.straight()
        modules.forget(request.model.factory)
        again, _ = rehearsal.straight()
        modules.forget(request.model.factory)
        resumed = rehearsal.resumed(straight[0], payloads[0])
    except SisaError as error:
        # The data are made up, so that the text of an error in the user's loss, augmentation or step may be shown.
        text = f": {error.__cause__}" if error.__cause__ and error.fact.startswith("[training]") else ""
        return RehearsalResult(failure=[error.kind, error.fact + text, error.remedy])
    except Exception as error:  # noqa: BLE001  the model is the user's code
        return RehearsalResult(failure=["", f"{type(error).__name__}: {error}", ""])
    return RehearsalResult(straight=straight, again=again, resumed=resumed, changed=sorted(rehearsal.changed))


class _Rehearsal:
    """The learner and the made-up data of a rehearsal."""

    def __init__(
        self, request: RehearsalRequest, profile: NumericsProfile, modules: UserModules, rate: float, largest: float
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
            shape=request.shape,
            target=request.target,
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
        """Train another constituent for one slice, as a worker may have done earlier."""
        for _ in self._learner.learn(
            self._learner.initial(_OTHER_SHARD), self._made_up(_OTHER_SHARD), _OTHER_SHARD, SliceIndex(1)
        ):
            pass

    def straight(self) -> tuple[list[SliceDigests], list[bytes]]:
        """Return the digests after each slice of an uninterrupted run, and the checkpoints."""
        self._import()
        state = self._learner.initial(_SHARD)
        check_numerics(self._profile, self._request.model.factory)
        digests, payloads = [], []
        for slice_ in range(1, SLICES + 1):
            after, payload = self._learn(state, SliceIndex(slice_))
            digests.append(after)
            payloads.append(payload)
            state = self._learner.from_bytes(payload, _SHARD)
        return digests, payloads

    def resumed(self, first: SliceDigests, payload: bytes) -> list[SliceDigests]:
        """Return the digests after each slice of a run that is resumed from the checkpoint after the first slice."""
        self._import()
        predicted = first | {_OUTPUT: self._outputs(self._learner.from_bytes(payload, _SHARD))}
        return [predicted, self._learn(self._learner.from_bytes(payload, _SHARD), SliceIndex(SLICES))[0]]

    def _import(self) -> None:
        seed_all(self._request.start)
        with self._confinement.active():
            import_factory(self._request.model.factory)
            for setting, path in self._request.training.code.items():
                import_callable(path, f"[training] {setting}")

    def _learn(self, state: TorchState, slice_: SliceIndex) -> tuple[SliceDigests, bytes]:
        before = kept_in_attributes(state.model)
        derived: set[str] = set()
        for epoch in self._learner.learn(state, self._points, _SHARD, slice_):
            after = kept_in_attributes(state.model)
            for name, kind in changed_tensors(before, after, is_first=epoch == 1).items():
                (self.changed if kind == "tensor" else derived).add(name)
            before = after
        payload = self._learner.to_bytes(state, self._lineage(slice_))
        # Computed before predicting, which may change counters in attributes.
        found = _digests(payload, kept_in_attributes(state.model))
        seen = self._outputs(self._learner.from_bytes(payload, _SHARD))
        if derived and seen != self._outputs(state):
            self.changed |= derived  # not a function of the parameters alone, so that a checkpoint does not restore it
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
        # One and a half batches in each slice, so that an epoch ends with a batch of another size.
        ends = (self._batch + (self._batch + 1) // 2 + 1, 2 * self._batch + self._batch // 2 + 2)
        index_N = np.arange(1, ends[-1] + 1, dtype=np.uint64) + np.uint64(shard * 1_000_003)
        mixed_N = (index_N * np.uint64(0x9E3779B97F4A7C15)) ^ (index_N << np.uint64(29))
        places_F = np.arange(1, self._request.inputs + 1, dtype=np.uint64) * np.uint64(0xD1342543DE82EF95)
        features_NF = (((mixed_N[:, None] + places_F) >> np.uint64(40)) / 2.0**24).astype(np.float32) * self._largest
        if self._request.shape is not None and self._request.shape.ids:
            features_NF = np.floor(features_NF * np.float32(self._request.shape.ids))
        labels_N = outputs_of(self._request.target, self._request.classes).made_up(index_N)
        return ShardPoints(features_NF=features_NF, labels_N=labels_N, keys_N=mixed_N, subjects_N=mixed_N, ends=ends)


def _digests(payload: bytes, kept: Mapping[str, AttributeValue]) -> SliceDigests:
    tensors = {name: digest_tensors({"": tensor}) for name, tensor in decode_checkpoint(payload).items()}
    # A derived tensor is recomputed from the parameters whenever it is used.
    return tensors | {f"attribute/{name}": value.digest for name, value in kept.items() if value.kind != "derived"}


def main() -> None:
    """Read requests from standard input, one per line, perform them, and write each result to standard output."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  open as long as the process lives
    os.dup2(nowhere.fileno(), 1)
    sys.stdout = sys.stderr = nowhere  # the model's output is discarded
    requests = [RehearsalRequest.from_json(line) for line in sys.stdin]
    one = requests[0]  # all requests have the same folder
    contents = {name: (Path(one.staged) / name).read_bytes() for name in one.files}
    stage = StagedFolder(Path(one.folder), contents)
    stage.enter()
    modules = UserModules(stage)
    for request in requests:
        answers.write(rehearse_here(request, modules).to_json() + "\n")
        answers.flush()
    stage.remove()
    os._exit(0)  # the model's threads might never end
