"""Fashion-MNIST as the SISA authors train it: the ensemble is as accurate, and a person is erased from one shard.

A soak trains for as long as they do. Otherwise it is a quarter of that, and the ensemble is a little less accurate.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import cluster
from coordinator.ports import Notice
from deploy.demo_data import write_fashion_mnist
from shards.learners.trainer import SliceLearned
from tests.volume import SISA_VOLUME

FILES = Path("/usr/share/datasets/fashion-mnist")
PERSON = "person-0017"

EPOCHS, LEAST_ACCURACY = (20, 0.86) if SISA_VOLUME == "all" else (3, 0.79)

SPECIFICATION = f"""
name  = "fashion"
store = "./federation"

[data]
train    = "data/train.parquet"
id       = "id"
subject  = "user_id"
label    = "label"
features = ["x*"]
classes  = {[str(label) for label in range(10)]}
scale    = 255.0

[model]
factory   = "shards.models:mlp"
arguments = {{ hidden = [128] }}

[training]
epochs        = {EPOCHS}
batch_size    = 16
optimizer     = "sgd"
learning_rate = 0.05
seed          = 7

[partition]
shards = 5
slices = 5
key    = "{bytes(range(16)).hex()}"
"""

pytestmark = [
    pytest.mark.fashion,
    pytest.mark.ray,
    pytest.mark.volume,
    pytest.mark.skipif(not FILES.is_dir(), reason=f"{FILES} is not there: apt install dataset-fashion-mnist"),
]


def test_accuracy_and_erasure(tmp_path: Path, joined_ray: None, record_property: Callable[[str, object], None]) -> None:
    """MLP 784-128-10, batch 16, SGD 0.05, S = R = 5: after 20 epochs at least 0.86 on the test pictures, after 5 at
    least 0.82; erasing one person retrains one shard from one slice, leaves the others' bytes, and is proved.
    """
    write_fashion_mnist(tmp_path / "data", FILES)
    config = tmp_path / "sisa.toml"
    config.write_text(SPECIFICATION, encoding="utf-8")
    notices: list[Notice] = []
    with cluster.launch(config, listener=notices.append) as federation:
        before = federation.train()
        evaluation = federation.evaluate(tmp_path / "data/test.parquet")
        record_property("accuracy", evaluation.accuracy)
        assert evaluation.points == 10_000
        assert evaluation.accuracy >= LEAST_ACCURACY
        (planned,) = federation.price(subjects=[PERSON]).shards
        notices.clear()
        request = federation.erase(subjects=[PERSON])
        assert (request.state, request.points, request.shards) == ("complete", 8, (planned.shard,))
        learned = [(each.shard, each.slice) for each in notices if isinstance(each, SliceLearned)]
        assert learned == [(planned.shard, slice_) for slice_ in range(planned.from_slice, 6)]
        after = federation.status()
        for old, new in zip(before.constituents, after.constituents, strict=True):
            assert (old.digest != new.digest) == (new.shard == planned.shard)
        assert federation.evaluate(tmp_path / "data/test.parquet").accuracy >= LEAST_ACCURACY
        verification = federation.verify([planned.shard])
        assert verification.holds
        assert [proof.shard for proof in verification.shards] == [planned.shard]
