"""The engine ``replay``: repeats a recorded step. A trial on throw-away twins of the constituent decides on its use.

Learning rate, features, labels and randomness are inputs of a recorded step; the recording holds nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer

from shards.learners.torch.attributes import kept_in_attributes
from shards.learners.torch.checkpoint import digest_tensors, state_tensors
from shards.learners.torch.engines.flat import Flat
from shards.learners.torch.engines.program import Program
from shards.learners.torch.engines.recording import FEATURES, LABELS, Recording, Unrepeatable, inputs_of
from shards.learners.torch.engines.steps import take_step
from shards.learners.torch.seeding import generator_of, generator_state, global_state, seed_all
from shards.recipe.engines import AUTO, PAYS_FROM_STEPS, REPLAY
from storage.digests import Sha256, sha256
from storage.errors import Invalid, SisaError

_NAMED: Final = 3
"""Differences that an error names."""
_PAYS_FROM_STEPS: Final = PAYS_FROM_STEPS
_PAYS_UP_TO_ELEMENTS: Final = 2**22
"""``auto`` replays steps that compute up to this many numbers: in larger ones, the saving is negligible."""

_ALIGNED_BYTES: Final = 64
"""Where torch lets a new tensor begin."""


@dataclass(frozen=True, slots=True, eq=False)
class StepBatch:
    """What one step learns from."""

    features: torch.Tensor
    labels: torch.Tensor
    rate: float
    """Learning rate."""


class Trainee(Protocol):
    """A constituent that is being trained."""

    model: nn.Module
    optimizer: Optimizer


Twin = TypeVar("Twin", bound=Trainee)


class Replay:
    """Repeats a recorded step on one constituent, whose memory it rearranges until ``release``."""

    def __init__(self, recording: Recording, trainee: Trainee) -> None:
        """``trainee`` has taken a step. Raises ``Unrepeatable`` when the recording does not fit."""
        self._features, self._labels = (recording.inputs[name].clone() for name in (FEATURES, LABELS))
        self._flat = Flat(trainee.model, trainee.optimizer, list(recording.gradients))
        inputs = inputs_of(trainee.model, self._features, self._labels)
        self._program = Program(recording, inputs, self._flat.gradients)

    def select(self, features: torch.Tensor, labels: torch.Tensor, chosen: torch.Tensor) -> None:
        """Make these data points the next batch."""
        torch.index_select(features, 0, chosen, out=self._features)
        torch.index_select(labels, 0, chosen, out=self._labels)

    def fits(self, features: torch.Tensor) -> bool:
        """Return whether features of the recorded shape and type are in memory as the recorded ones were (E7).

        Those of an augmentation may be a view, such as a part of padded images, or be in another order.
        """
        return (
            type(features) is torch.Tensor
            and features.layout == torch.strided
            and features.stride() == self._features.stride()
            and features.data_ptr() % _ALIGNED_BYTES == 0
            and not features.requires_grad
        )

    def put(self, features: torch.Tensor, labels: torch.Tensor) -> None:
        """Make these features and labels the next batch."""
        self._features.copy_(features)
        self._labels.copy_(labels)

    def step(self, rate: float, generator: torch.Generator | None) -> torch.Tensor:
        """Take a step on the batch. Returns the loss, which the next step overwrites."""
        self._program.run(generator)
        self._flat.step(rate)
        return self._program.loss

    def eagerly(self, step: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return the loss of a step that is taken eagerly in between."""
        self._flat.give()
        loss = step()
        self._flat.take()
        return loss

    def release(self) -> None:
        """Give the constituent memory of its own again."""
        self._flat.release()


class StepEngine:
    """Carries out the steps of one slice: eagerly, or by replaying a recording after the first one."""

    def __init__(self, recording: Recording | None = None) -> None:
        self.replay: Replay | None = None
        self._recording = recording

    def start(self, trainee: Trainee) -> None:
        """Replay from now on, if there is a recording. ``trainee`` has just taken a step."""
        if self._recording is not None:
            self.replay = Replay(self._recording, trainee)
            self._recording = None

    def eagerly(self, step: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return the loss of a step that is taken eagerly."""
        return step() if self.replay is None else self.replay.eagerly(step)

    def release(self) -> None:
        """Give the constituent memory of its own again."""
        if self.replay is not None:
            self.replay.release()
            self.replay = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepTrial(Generic[Twin]):
    """The part of the learner that a trial needs."""

    twin: Callable[[], Twin]
    """Returns another constituent in the same state."""
    take: Callable[[Twin, StepBatch, torch.Generator | None], torch.Tensor]
    """Takes a step eagerly and returns the loss."""
    record: Callable[[Twin, StepBatch, torch.Generator | None], Recording]
    """Takes a step up to the optimizer's, and returns its recording."""
    full: Sequence[StepBatch]
    """Three or more batches of the size that is replayed."""
    odd: StepBatch | None
    """A batch of another size."""
    stream: int
    """Seed of all generators."""
    most_elements: int | None = None
    """Numbers that a step may compute; None: any number."""

    def recording(self) -> Recording:
        """Return the recording of a step, with which a twin has arrived at the bits of one that was trained eagerly.

        Raises ``Unrepeatable`` when there is no such recording.
        """
        outcomes, recording = [], None
        for is_replayed in (False, True):
            twin = self.twin()
            seed_all(self.stream)
            generator = generator_of(self.stream, self.full[0].features.device)
            if is_replayed:
                recording, losses = self._replayed(twin, generator)
            else:
                losses = [self.take(twin, batch, generator).clone() for batch in self._batches()]
            outcomes.append(_outcome(twin, losses, generator))
        assert recording is not None
        if names := [name for name, value in outcomes[0].items() if outcomes[1].get(name) != value]:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            raise Unrepeatable(f"repeated steps end in another {', '.join(names[:_NAMED])}{more}")
        return recording

    def _batches(self) -> list[StepBatch]:
        return [*self.full[:-1], *([] if self.odd is None else [self.odd]), self.full[-1]]

    def _replayed(self, twin: Twin, generator: torch.Generator) -> tuple[Recording, list[torch.Tensor]]:
        first, second, *more = self._batches()
        losses = [self.take(twin, first, generator)]
        recording = self.record(twin, second, generator)
        if self.most_elements is not None and recording.elements > self.most_elements:
            raise Unrepeatable("the step computes so much that replaying it would not pay")
        losses.append(recording.loss.detach())
        twin.optimizer.param_groups[0]["lr"] = second.rate
        take_step(twin.optimizer)
        replay = Replay(recording, twin)
        for batch in more:
            if batch is self.odd:
                losses.append(replay.eagerly(partial(self.take, twin, batch, generator)))
                continue
            replay.put(batch.features, batch.labels)
            losses.append(replay.step(batch.rate, generator).clone())
        replay.release()
        return recording, losses


def _outcome(twin: Trainee, losses: Sequence[torch.Tensor], generator: torch.Generator) -> dict[str, Sha256]:
    """Return digests of everything that a constituent is after its steps, and of the generators it has drawn from."""
    drawn = f"{global_state()} {generator_state(generator)}"
    kept = {name: each.digest for name, each in kept_in_attributes(twin.model).items() if each.kind != "derived"}
    tensors = {name: digest_tensors({"": each}) for name, each in state_tensors(twin.model, twin.optimizer).items()}
    return {
        **tensors,
        **{f"attribute {name}": value for name, value in kept.items()},
        "loss": digest_tensors({"": torch.stack([each.detach() for each in losses])}),
        "state of random generators": sha256(drawn.encode()),
    }


def is_of_torch(model: nn.Module) -> bool:
    """Return whether the model is made of torch's own modules alone, as they are."""
    return all(
        type(each).__module__.startswith("torch.nn.modules.") and "forward" not in vars(each) and not _hooks(each)
        for each in model.modules()
    )


def _hooks(module: nn.Module) -> list[object]:
    of_module = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    of_tensor = ("_backward_hooks", "_post_accumulate_grad_hooks")
    found = [vars(module)[name] for name in of_module]
    found += [getattr(each, name) for each in module.parameters(recurse=False) for name in of_tensor]
    return [each for each in found if each]


def wants_trial(engine: str, model: nn.Module, steps: int, *, is_torchs: bool) -> bool:
    """Return whether a trial is made for ``steps`` steps of one size.

    ``is_torchs``: the model is made of torch's modules alone, and the loss is not of the user's code.
    """
    if engine != AUTO:
        return engine == REPLAY and steps > 0
    learned = sum(each.numel() for each in model.parameters() if each.requires_grad)  # each step computes as many
    return steps >= _PAYS_FROM_STEPS and learned <= _PAYS_UP_TO_ELEMENTS and is_torchs


def recording_of(engine: str, trial: StepTrial[Twin]) -> Recording | None:
    """Return the recording of a trial; None if ``auto`` continues eagerly.

    Raises ``Invalid`` if the setting is ``replay`` and that would change the result.
    """
    try:
        return replace(trial, most_elements=_PAYS_UP_TO_ELEMENTS if engine == AUTO else None).recording()
    except SisaError:
        if engine != AUTO:
            raise
        return None
    except Unrepeatable as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001  the model is the user's code, and the text may quote data points
        reason = f"the trial failed with {type(error).__name__}"
    if engine == AUTO:  # if training fails eagerly too, it says why
        return None
    raise Invalid(
        f'[training] engine = "replay" would not give the result of training step by step: {reason}',
        'Set engine to "auto" or "eager", or leave it out: all of them train the same constituents.',
    )
