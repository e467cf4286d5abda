"""Seeding and numerics: the one place that touches global random state and torch's switches."""

from __future__ import annotations

import os
import platform
import random
import sys
from typing import Final

import numpy as np
import torch

from shards.lineage import Device, NumericsProfile
from storage.errors import Invalid


def seed_all(number: int) -> None:
    """Seed every global generator a model may use: torch's (on processors and GPUs), numpy's and Python's."""
    # torch.manual_seed would also format the caller's stack, for each kind of device that this machine lacks.
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(number)
    np.random.seed(number % 2**32)
    random.seed(number)


def global_state() -> str:
    """Return the state of the generators on the CPU that ``seed_all`` seeds, as text."""
    own = (torch.default_generator, np.random.mtrand._rand)  # noqa: SLF001  NumPy's own
    return repr([*map(generator_state, own), random.getstate()])


def generator_of(number: int, device: torch.device) -> torch.Generator:
    """Return a generator of its own for the stream ``number``."""
    return torch.Generator(device).manual_seed(number)


def generator_state(value: object) -> str | None:
    """Return the state of a random generator as text; None for anything else."""
    if isinstance(value, torch.Generator):
        return str(value.get_state().tolist())
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return repr(value.get_state(legacy=False))
    if isinstance(value, random.Random):
        return repr(value.getstate())
    return None


_COMPILER: Final = "torch._inductor.config"


def set_numerics(threads: int, device: Device) -> NumericsProfile:
    """Fix this process's numerics for its lifetime and return the resulting profile (E7).

    ``threads`` is the number of intra-op threads. Call before the first CUDA operation of the process.
    """
    # cuBLAS is deterministic only with a fixed workspace, which it reads when its handle is created.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    if _COMPILER in sys.modules:
        torch.use_deterministic_algorithms(mode=True)
    else:
        # The same switch. The call above imports the compiler for it, two seconds of the processor; if a model's code
        # imports that later, it reads its own switch from the environment.
        os.environ["TORCHINDUCTOR_DETERMINISTIC"] = "1"
        torch.set_deterministic_debug_mode("error")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_default_dtype(torch.float32)
    return NumericsProfile(
        # A text: torch's own class parses both versions whenever two are compared, as caches of lineages often do.
        torch=str(torch.__version__),
        threads=threads,
        device=_device_class(device),
        dtype="float32",
        deterministic=True,
        packing="none",
    )


def check_numerics(profile: NumericsProfile, factory: str) -> None:
    """Raise ``Invalid`` when the user's code has changed what ``set_numerics`` set: the profile would be wrong."""
    present = (torch.get_num_threads(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled())
    if present != (profile.threads, torch.float32, True):
        threads, dtype, deterministic = present
        raise Invalid(
            f"[model] factory {factory!r}: its module changes torch's settings for the whole process: now {threads}"
            f" threads, {dtype}, {'' if deterministic else 'not '}deterministic",
            "Leave threads, default dtype and determinism alone; [cluster] threads_per_worker sets the threads.",
        )
    # On a CPU, neither setting has an effect.
    if profile.device.startswith("cuda") and (
        torch.backends.cudnn.benchmark or torch.is_deterministic_algorithms_warn_only_enabled()
    ):
        raise Invalid(
            f"[model] factory {factory!r}: its module allows nondeterministic algorithms on the GPU",
            "Leave out torch.backends.cudnn.benchmark and warn_only of torch.use_deterministic_algorithms.",
        )


def _device_class(device: Device) -> str:
    if device == "cuda":
        return f"cuda/{torch.cuda.get_device_name()}"
    return f"cpu/{platform.machine()}/{torch.backends.cpu.get_cpu_capability()}"
