"""Keeps the recording of a trial for the slices, and for the constituents, that the same process trains after it.

Nothing in it may depend on what it was made from. It is kept for models of torch's own modules with a loss of this
system alone: their step depends on what their modules are set to, and on the inputs of the recording. It is used where
the modules are set to the same, and holds no number of a data point (E12).
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from shards.learners.torch.attributes import kept_in_attributes
from shards.learners.torch.checkpoint import model_tensors
from shards.learners.torch.engines.recording import Recording


class KeptRecording:
    """The last recording kept, if there is one."""

    def __init__(self) -> None:
        self._form: tuple[object, ...] = ()
        self._recording: Recording | None = None

    def keep(self, model: nn.Module, recording: Recording) -> None:
        """Keep ``recording``, made of a constituent built like ``model``, and erase the numbers in it."""
        recording.erase_numbers()
        self._form, self._recording = _form(model), recording

    def fitting(self, model: nn.Module) -> Recording | None:
        """Return the recording, if it was made for models like this one."""
        return self._recording if self._recording is not None and self._form == _form(model) else None


def _form(model: nn.Module) -> tuple[object, ...]:
    """Return all that a step of torch's modules depends on, but the contents of parameters and buffers."""
    tensors = [
        (name, each.shape, each.stride(), each.dtype, each.requires_grad) for name, each in model_tensors(model).items()
    ]
    numbers = {name: each.digest for name, each in kept_in_attributes(model).items() if each.kind != "derived"}
    return (str(model), tensors, numbers, *(_set_to(name, module) for name, module in model.named_modules()))


def _set_to(name: str, module: nn.Module) -> tuple[object, ...]:
    """Return the module's further settings, texts and functions, which its own text does not always show."""
    return name, type(module), module.training, *_texts(module)


def _texts(module: nn.Module) -> Iterator[tuple[str, object]]:
    for name, value in vars(module).items():
        if value is None or isinstance(value, str) or callable(value):
            yield name, value
