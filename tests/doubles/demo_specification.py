"""The text of a specification for the demo's data, as files of the demo's writers have them: for benchmarks."""

from __future__ import annotations


def demo_specification(
    *,
    scale: float,
    epochs: int,
    shards: int,
    slices: int,
    hidden: str = "128",
    batch_size: int = 16,
    name: str = "bench",
    store: str = "./federation",
    further: str = "",
) -> str:
    """Return the text: a network with these ``hidden`` layers; ``further`` tables follow."""
    return f"""
name = "{name}"
store = "{store}"
[data]
train = "data/train.parquet"
id = "id"
subject = "user_id"
label = "label"
features = ["x*"]
classes = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
scale = {scale}
[model]
factory = "shards.models:mlp"
arguments = {{ hidden = [{hidden}] }}
[training]
epochs = {epochs}
batch_size = {batch_size}
learning_rate = 0.05
seed = 7
[partition]
shards = {shards}
slices = {slices}
{further}"""
