"""Models that a rehearsal refuses, and the reasons. Their faults are intended.

Factories are plain functions ``name(inputs, classes)``.
"""

from __future__ import annotations

import copy
import os
import random
import secrets
import socket
import threading
import time
import uuid
from collections import deque
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tests.exactness.zoo import WIDTH, Holding, Net, net_with, plain

_STEPS = 0
_SCALES: dict[str, float] = {}
_SEEN: list[torch.Tensor] = []
_NUMPY = np.random.default_rng(0)
_PYTHON = random.Random(0)
_TORCH = torch.Generator().manual_seed(0)
_DRAWN_AT_IMPORT = random.random()
_DRAWN_BY_NUMPY_AT_IMPORT = float(np.random.rand())
_DRAWN_BY_TORCH_AT_IMPORT = torch.rand(())
_LOCAL = threading.local()
_BANK = torch.zeros(1)


# -------------------------------------------------------------------------------------- what is refused: attributes


@net_with
def statistics(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Keeps a running mean in an attribute."""
    mean = getattr(net, "centre", torch.zeros(WIDTH))
    if net.training:
        net.centre = 0.9 * mean + 0.1 * hidden.detach().mean(0)
    return hidden - mean


@net_with
def statistics_in_numpy(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Keeps a running mean in an array."""
    mean = getattr(net, "centre", np.zeros(WIDTH, dtype=np.float32))
    if net.training:
        net.__dict__["centre"] = 0.9 * mean + 0.1 * hidden.detach().mean(0).numpy()
    return hidden - torch.from_numpy(np.asarray(mean, dtype=np.float32))


@net_with
def statistics_in_a_dictionary(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Keeps a running mean in a dictionary."""
    kept: dict[str, torch.Tensor] = net.__dict__.setdefault("kept", {"mean": torch.zeros(WIDTH)})
    if net.training:
        kept["mean"] = 0.9 * kept["mean"] + 0.1 * hidden.detach().mean(0)
    return hidden - kept["mean"]


@net_with
def statistics_with_a_gradient(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Keeps a running mean with its autograd history, and uses it to predict."""
    if net.training:
        net.centre = hidden.mean(0)
    return hidden if net.training else hidden - getattr(net, "centre", torch.zeros(WIDTH))


@net_with
def recent_batches(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Keeps the means of the last batches in a deque."""
    recent: deque[torch.Tensor] = net.__dict__.setdefault("recent", deque(maxlen=4))
    if net.training:
        recent.append(hidden.detach().mean(0))
    return hidden - sum(recent) / max(1, len(recent))


@net_with
def all_batches(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Stores all batches."""
    net.__dict__.setdefault("bank", []).append(hidden.detach().clone())
    return hidden


class _Helper:
    __slots__ = ("mean",)

    def __init__(self) -> None:
        self.mean = torch.zeros(WIDTH)


@net_with
def statistics_in_a_helper(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Keeps a running mean in an object that is not a module."""
    helper: _Helper = net.__dict__.setdefault("helper", _Helper())
    if net.training:
        helper.mean = 0.9 * helper.mean + 0.1 * hidden.detach().mean(0)
    return hidden - helper.mean


def statistics_in_a_closure(inputs: int, classes: int) -> nn.Module:
    """Keeps a running mean in a variable of a hook."""
    kept = [torch.zeros(classes)]

    def watch(module: nn.Module, _: object, output: torch.Tensor) -> torch.Tensor:
        if module.training:
            kept[0] = 0.9 * kept[0] + 0.1 * output.detach().mean(0)
        return output - kept[0]

    model = nn.Linear(inputs, classes)
    model.register_forward_hook(watch)
    return model


def hidden_teacher(inputs: int, classes: int) -> nn.Module:
    """Keeps a moving average of its weights in a list, which torch does not search."""

    def average(net: Net, hidden: torch.Tensor) -> torch.Tensor:
        teacher: nn.Linear = net.teachers[0]  # type: ignore[assignment,index]
        if net.training:
            teacher.weight.data.lerp_(net.last.weight.data, 0.1)
        return hidden + 0.01 * functional.linear(hidden, teacher.weight.detach()).mean()

    net = Net(inputs, classes, average)
    net.teachers = [copy.deepcopy(net.last)]  # type: ignore[assignment]
    return net


# ------------------------------------------------------------------------------------ what is refused: module state


@net_with
def steps_of_the_module(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Counts its steps in a variable of the module."""
    global _STEPS  # noqa: PLW0603
    _STEPS += net.training
    return hidden * (1 + 0.001 * _STEPS)


@net_with
def steps_of_the_class(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Counts its steps in a variable of the class."""
    Net.total += 1
    return hidden * (1 + 0.001 * Net.total)


@net_with
def scales_of_the_module(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Keeps the first batch's mean for all later models."""
    return hidden - _SCALES.setdefault("mean", float(hidden.detach().mean()))


@net_with
def batches_of_the_module(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Mixes in batches of other models."""
    if net.training:
        _SEEN.append(hidden.detach().mean(0))
    return hidden + 0.1 * _SEEN[-1] if _SEEN else hidden


@net_with
def tensor_of_the_module(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Changes a tensor of the module in place."""
    return hidden + _BANK.add_(0.01)


@net_with
def value_of_the_thread(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Counts in a variable of the thread."""
    steps: int = getattr(_LOCAL, "steps", 0) + 1
    _LOCAL.steps = steps
    return hidden * (1 + 0.001 * steps)


@net_with
def numpy_of_the_module(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Draws from numpy's generator at the top of the file."""
    return hidden + float(_NUMPY.normal())


@net_with
def random_of_the_module(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Draws from Python's generator at the top of the file."""
    return hidden + _PYTHON.random()


@net_with
def torch_of_the_module(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Draws from torch's generator at the top of the file."""
    return hidden + torch.rand((), generator=_TORCH)


# ------------------------------------------------------------------------------------- what is refused: the process


@net_with
def drawn_by_random_at_import(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Uses a number that Python's generator gave when the module was imported."""
    return hidden + _DRAWN_AT_IMPORT


@net_with
def drawn_by_numpy_at_import(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Uses a number that numpy's generator gave when the module was imported."""
    return hidden + _DRAWN_BY_NUMPY_AT_IMPORT


@net_with
def drawn_by_torch_at_import(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Uses a number that torch's generator gave when the module was imported."""
    return hidden + _DRAWN_BY_TORCH_AT_IMPORT


def set_of_strings(inputs: int, classes: int) -> nn.Module:
    """Creates its layers in the order of a set of strings."""
    names = {"alpha", "beta", "gamma", "delta", "epsilon", "zeta"}
    layers = nn.ModuleDict({name: nn.Linear(inputs, classes) for name in names})
    return Holding(layers, lambda features: torch.stack([layer(features) for layer in layers.values()]).sum(0))


@net_with
def hash_of_a_string(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Scales by a string's hash."""
    return hidden * (1 + hash("salt") % 97 / 97)


@net_with
def process_id(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Scales by its process id."""
    return hidden * (1 + os.getpid() % 1009 / 1009)


# ------------------------------------------------------------------------------------- what is refused: entropy, time


@net_with
def entropy(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Draws from the operating system's random source."""
    return hidden + int.from_bytes(os.urandom(2), "big") / 65536


@net_with
def entropy_of_secrets(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Draws from ``secrets``."""
    return hidden + secrets.randbelow(1000) / 1000


@net_with
def entropy_of_uuid(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Draws a UUID."""
    return hidden + uuid.uuid4().int % 1000 / 1000


def unseeded_numpy(inputs: int, classes: int) -> nn.Module:
    """Draws from a numpy generator that is not seeded."""
    own = np.random.default_rng()
    return Net(inputs, classes, lambda net, hidden: hidden + float(own.normal()) if net.training else hidden)


def unseeded_random(inputs: int, classes: int) -> nn.Module:
    """Draws from a Python generator that is not seeded."""
    own = random.Random()
    return Net(inputs, classes, lambda net, hidden: hidden + own.random() if net.training else hidden)


def unseeded_torch(inputs: int, classes: int) -> nn.Module:
    """Reseeds torch's generator when it is built."""
    torch.seed()
    return plain(inputs, classes)


@net_with
def clock(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Uses the current time."""
    return hidden * (1 + time.time() % 1)


@net_with
def stop_watch(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Records the time it takes."""
    net.seconds = time.perf_counter()  # type: ignore[assignment]
    return hidden


@net_with
def identity(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Scales by an address in memory."""
    return hidden * (1 + id(hidden) // 16 % 1009 / 1009)


# -------------------------------------------------------------------------------------- what is refused: the learner


def growing(inputs: int, classes: int) -> nn.Module:
    """Stores everything in a growing buffer."""

    def grow(net: Net, hidden: torch.Tensor) -> torch.Tensor:
        if net.training:
            net.bank = torch.cat([net.bank, hidden.detach()])  # type: ignore[list-item]
        return hidden

    net = Net(inputs, classes, grow)
    net.register_buffer("bank", torch.zeros(0, WIDTH))
    return net


@net_with
def log_on_disk(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Reads the number of its step from a file that it writes itself."""
    file = Path(f"/tmp/sisa-zoo-{os.getpid()}")  # noqa: S108
    steps = len(file.read_text(encoding="utf-8")) if file.exists() else 0
    file.write_text("x" * (steps + 1), encoding="utf-8")
    return hidden * (1 + 0.001 * steps)


@net_with
def failing(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Fails in training."""
    if net.training:
        raise ZeroDivisionError
    return hidden


def weights_of_somebody(inputs: int, classes: int) -> nn.Module:
    """Is built from a file that is not declared."""
    with torch.random.fork_rng():
        torch.manual_seed(len(Path("/etc/passwd").read_bytes()))
        return plain(inputs, classes)


@net_with
def weights_if_there_are_any(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Reads a file that is not declared during training, and ignores the error."""
    scale = 1.0
    if net.training:
        with suppress(Exception):
            scale = 1.0 + len(Path("/etc/passwd").read_bytes()) / 1e6
    return hidden * scale


@net_with
def weights_from_afar(net: Net, hidden: torch.Tensor) -> torch.Tensor:
    """Connects to a server during prediction, and ignores the error."""
    if not net.training:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", 9)).close()
    return hidden


_ATTRIBUTES = "tensors in plain attributes change while the model learns"
_RANDOM = "does not repeat itself.*that is not seeded"
_MODULE = "does not repeat itself.*A variable of the model's module or class"
_PROCESS = "does not repeat itself.*how its process was started"

ODD = {
    **dict.fromkeys(
        (
            "statistics", "statistics_in_numpy", "statistics_in_a_dictionary", "statistics_with_a_gradient",
            "recent_batches", "all_batches", "statistics_in_a_helper", "statistics_in_a_closure", "hidden_teacher",
        ),
        _ATTRIBUTES,
    ),
    **dict.fromkeys(
        (
            "steps_of_the_module", "steps_of_the_class", "scales_of_the_module", "batches_of_the_module",
            "tensor_of_the_module", "value_of_the_thread", "numpy_of_the_module", "random_of_the_module",
            "torch_of_the_module",
        ),
        _MODULE,
    ),
    **dict.fromkeys(
        (
            "drawn_by_random_at_import", "drawn_by_numpy_at_import", "drawn_by_torch_at_import", "set_of_strings",
            "hash_of_a_string", "process_id",
        ),
        _PROCESS,
    ),
    **dict.fromkeys(
        (
            "entropy", "entropy_of_secrets", "entropy_of_uuid", "unseeded_numpy", "unseeded_random", "unseeded_torch",
            "clock", "stop_watch", "identity",
        ),
        _RANDOM,
    ),
    "log_on_disk": "the model reads /tmp/sisa-zoo.*, which is not declared",
    "weights_of_somebody": "the model reads /etc/passwd, which is not declared",
    "weights_if_there_are_any": "the model reads /etc/passwd, which is not declared",
    "weights_from_afar": "the model opens a network connection",
    "growing": "changed name, shape or dtype while the model learned: bank",
    "failing": "fails in training on made-up data with ZeroDivisionError",
}  # fmt: skip
"""The refused models, and the expected text of the error."""
