"""A machine set to compute other bits, which only the probe of arithmetic detects, with a local Ray per command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.doubles.user_folder import UserFolder
from tests.ray.commands import command

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(900),  # seven commands, each of which starts Ray
    pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this build of torch has no MKL"),
]

OTHERWISE = {"MKL_CBWR": "COMPATIBLE"}


def test_an_erasure_that_would_compute_other_bits_is_refused(tmp_path: Path) -> None:
    """It waits, with a remedy; with the former bits it completes and is exact. Retraining gives all the other bits.

    Ray's workers inherit the environment of the command that starts it.
    """
    home = UserFolder(tmp_path).fill()
    assert command("train", folder=tmp_path).returncode == 0
    refused = command(
        "erase", "--subject", "secret-person-003", "--request-id", "e1", "--json", folder=tmp_path, further=OTHERWISE
    )
    error = json.loads(refused.stdout)["error"]
    assert (refused.returncode, error["kind"]) == (4, "conflict")
    assert "the results of the same arithmetic (probe: " in error["message"]
    assert "such as MKL_CBWR and ONEDNN_MAX_CPU_ISA" in error["message"]
    assert "Go back to these conditions, or run 'sisa train'" in error["remedy"]
    (request,) = home.json("status").data["requests"]
    assert (request["state"], request["stage"]) == ("failed", "quarantined")

    assert command("train", folder=tmp_path).returncode == 0
    (request,) = home.json("status").data["requests"]
    assert request["state"] == "complete"
    proof = command("verify", "--json", folder=tmp_path)
    assert (proof.returncode, json.loads(proof.stdout)["data"]["exact"]) == (0, True)

    anew = command("train", folder=tmp_path, further=OTHERWISE)
    assert anew.returncode == 0
    assert (
        "all constituents are retrained because conditions differ: the results of the same arithmetic (probe: "
        in anew.stderr
    )
    assert command("verify", folder=tmp_path, further=OTHERWISE).returncode == 0
    assert command("verify", folder=tmp_path).returncode == 4
