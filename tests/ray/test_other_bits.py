"""A machine set to compute other bits, which only the probe of arithmetic detects, with a local Ray per command.

What is computed as before is computed in this process.
"""

from __future__ import annotations

import json

import pytest
import torch

from tests.doubles.user_folder import UserFolder
from tests.ray.commands import command

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this build of torch has no MKL"),
]

OTHERWISE = {"MKL_CBWR": "COMPATIBLE"}


def test_an_erasure_that_would_compute_other_bits_is_refused(home_without_ray: UserFolder) -> None:
    """It waits, with a remedy; with the former bits it completes and is exact. Retraining gives all the other bits.

    Ray's workers inherit the environment of the command that starts it.
    """
    home = home_without_ray
    assert home.json("train").code == 0
    words = ("erase", "--subject", "secret-person-003", "--request-id", "e1", "--json")
    refused = command(*words, folder=home.folder, further=OTHERWISE)
    error = json.loads(refused.stdout)["error"]
    assert (refused.returncode, error["kind"]) == (4, "conflict")
    assert "the results of the same arithmetic (probe: " in error["message"]
    assert "such as MKL_CBWR and ONEDNN_MAX_CPU_ISA" in error["message"]
    assert "Go back to these conditions, or run 'sisa train'" in error["remedy"]
    (request,) = home.json("status").data["requests"]
    assert (request["state"], request["stage"]) == ("failed", "quarantined")

    assert home.json("train").code == 0
    (request,) = home.json("status").data["requests"]
    assert request["state"] == "complete"
    assert home.json("verify").data["exact"] is True

    anew = command("train", folder=home.folder, further=OTHERWISE)
    assert anew.returncode == 0
    assert (
        "all constituents are retrained because conditions differ: the results of the same arithmetic (probe: "
        in anew.stderr
    )
    assert command("verify", folder=home.folder, further=OTHERWISE).returncode == 0
    assert home.json("verify").code == 4
