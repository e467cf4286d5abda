"""A machine set to compute other bits, which only the probe of arithmetic detects, with a local Ray of its own.

What is computed as before is computed in this process.
"""

from __future__ import annotations

import pytest
import torch

from tests.doubles.user_folder import UserFolder
from tests.ray.several_commands import several_commands

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this build of torch has no MKL"),
]

OTHERWISE = {"MKL_CBWR": "COMPATIBLE"}


def test_an_erasure_that_would_compute_other_bits_is_refused(home_without_ray: UserFolder) -> None:
    """It waits, with a remedy; with the former bits it completes and is exact. Retraining gives all the other bits.

    Ray's workers inherit the environment of the process that starts it.
    """
    home = home_without_ray
    assert home.json("train").code == 0
    with several_commands(home.folder, OTHERWISE, one_ray=True) as there:
        refused = there.run("erase", "--subject", "secret-person-003", "--request-id", "e1", "--json")
        assert (refused.code, refused.error["kind"]) == (4, "conflict")
        assert "the results of the same arithmetic (probe: " in refused.error["message"]
        assert "such as MKL_CBWR and ONEDNN_MAX_CPU_ISA" in refused.error["message"]
        assert "Go back to these conditions, or run 'sisa train'" in refused.error["remedy"]
        (request,) = home.json("status").data["requests"]
        assert (request["state"], request["stage"]) == ("failed", "quarantined")

        assert home.json("train").code == 0
        (request,) = home.json("status").data["requests"]
        assert request["state"] == "complete"
        assert home.json("verify").data["exact"] is True

        anew = there.run("train")
        assert anew.code == 0
        assert (
            "all constituents are retrained because conditions differ: the results of the same arithmetic (probe: "
            in anew.err
        )
        assert there.run("verify", "--shard", "0").code == 0
    assert home.json("verify").code == 4
