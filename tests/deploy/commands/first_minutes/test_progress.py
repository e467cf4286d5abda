"""What ``sisa train`` shows while it trains."""

from __future__ import annotations

import re

from tests.doubles.user_folder import UserFolder


def test_each_slice_tells_its_loss_and_nothing_keeps_it(home: UserFolder) -> None:
    """Progress has the loss of every slice, which becomes less; no JSON and no object of the store has one."""
    said = home.run("train")
    losses = {
        (int(shard), int(slice_)): float(loss)
        for shard, slice_, loss in re.findall(r"shard (\d): slice (\d) of 2, loss (\d+\.\d{4})", said.err)
    }
    assert sorted(losses) == [(shard, slice_) for shard in range(3) for slice_ in (1, 2)]
    assert all(losses[shard, 2] < losses[shard, 1] for shard in range(3))
    assert not any("loss" in name for each in home.json("status").data["constituents"] for name in each)
    manifests = [home.objects.get(each.key).payload for each in home.objects.list("manifest/")]
    assert manifests
    assert not any(b"loss" in payload for payload in manifests)
