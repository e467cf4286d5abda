"""The probe: equal in processes that compute the same bits, different if a library computes differently."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

import torch

from shards.learners.registry import fix_numerics
from shards.learners.torch.checkpoint import digest_tensors
from shards.learners.torch.probe import ProbeNumbers, probe, results
from shards.learners.torch.seeding import set_numerics
from shards.specification import ModelSettings

_PROBE: Final = "set_numerics(1, 'cpu'); print(probe('cpu'))"
_IMPORTS: Final = (
    "import sys, torch; from shards.learners.torch.probe import probe;"
    " from shards.learners.torch.seeding import set_numerics"
)
_EARLIER_WORK: Final = (
    "import numpy; kept = [bytearray(7 * n) for n in range(400)];"
    " model = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.Flatten(), torch.nn.Linear(5408, 10));"
    " model(torch.randn(5, 1, 28, 28)).sum().backward(); del kept[::3]"
)
_IN_A_THREAD: Final = (
    "import threading; thread = threading.Thread(target=lambda: (set_numerics(1, 'cpu'), print(probe('cpu'))));"
    " thread.start(); thread.join()"
)


# Each process is forked once torch is imported, which takes longer than the probe, and before any library computes.
_FORKED: Final = """
import json, os
for program, environment in json.loads(sys.argv[1]):
    if os.fork() == 0:
        os.environ.update(environment)
        exec(program)
        sys.stdout.flush()
        os._exit(0)
    assert os.wait()[1] == 0
"""


def probes(started_with: Mapping[str, str], *ways: tuple[str, Mapping[str, str]]) -> list[str]:
    """Return the probes of processes, each with its program and environment variables that it sets before it computes.

    They do not inherit this process's environment variables that select instructions.
    """
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MKL_", "ONEDNN_", "DNNL_"))}
    return subprocess.run(
        [sys.executable, "-c", f"{_IMPORTS}\n{_FORKED}", json.dumps(ways)],
        env={**plain, **started_with},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()


def test_only_different_arithmetic_changes_the_probe() -> None:
    """Hash seed, earlier work, thread and the number of other threads do not change it; a library's choice does.

    ``MKL_CBWR`` changes products, ``ONEDNN_MAX_CPU_ISA`` convolutions; the rest of the profile is the same.
    """
    others: list[dict[str, str]] = []
    if torch.backends.mkl.is_available() and "AVX" in torch.backends.cpu.get_cpu_capability():
        others = [{"MKL_CBWR": "COMPATIBLE"}, {"ONEDNN_MAX_CPU_ISA": "SSE41"}]
    (same,) = probes({"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "2"}, (_IN_A_THREAD, {}))
    ways = [(f"{_EARLIER_WORK}; {_PROBE}", {}), *((_PROBE, each) for each in others)]
    one, *different = probes({"PYTHONHASHSEED": "1"}, *ways)
    assert one == same
    assert len(one) == 64
    assert len({one, *different}) == 1 + len(others)


def test_the_probe_repeats_itself() -> None:
    """Repeated in one process, the probe is the same; it is computed once per number of threads."""
    set_numerics(1, "cpu")
    found = results("cpu")
    assert digest_tensors(found) == digest_tensors(results("cpu")) == probe("cpu")
    assert all(bool(tensor.isfinite().all()) for tensor in found.values())
    try:
        set_numerics(2, "cpu")
        assert probe("cpu") == digest_tensors(results("cpu"))
    finally:
        set_numerics(1, "cpu")


def test_fused_kernels_are_probed_where_they_train() -> None:
    """The probe of other constituents stays what it was (E16)."""
    set_numerics(1, "cpu")
    plain, fused = results("cpu"), results("cpu", "fused")
    assert digest_tensors({name: fused[name] for name in plain}) == probe("cpu")
    assert {name.partition("/")[2] for name in fused.keys() - plain.keys()} == {
        f"{kind}/{number}" for kind in ("SGD", "Adam", "AdamW", "Adagrad") for number in range(3)
    }
    assert digest_tensors(fused) == probe("cpu", "fused") != probe("cpu")
    model = ModelSettings()
    assert fix_numerics(model, 1, "cpu", probed=True, kernels="fused").probe == probe("cpu", "fused")
    assert fix_numerics(model, 1, "cpu", probed=True).probe == probe("cpu")


def test_the_inputs_are_the_same_everywhere() -> None:
    """The inputs are exact on every machine, so that only the arithmetic on them can differ."""
    numbers = ProbeNumbers(torch.device("cpu"))
    inputs = {str(number): numbers(3, 1031) for number in range(4)}
    assert digest_tensors(inputs) == "7d3e88c20b4eaadc911b521b0120bf2beb03dcd7aa6688e356b3c8de6ba1cc1f"


def test_the_version_of_torch_in_a_profile_is_a_text() -> None:
    """Torch's own class parses both versions whenever two are compared: half of the time of many small slices."""
    assert type(set_numerics(1, "cpu").torch) is str
