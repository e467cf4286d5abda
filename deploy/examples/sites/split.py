"""Split real data among sites that differ, and write the specification of their federation.

python deploy/examples/sites/split.py
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from deploy.demo_data import DemoData, write_digits, write_fashion_mnist
from deploy.views.output import Outcome, run

SITES: Final = ("north", "south", "east", "west", "centre")
OWN_SHARE: Final = 0.8
"""Share of a class's data points that are at the class's own site; the others are at any site."""

_FIRST_PORT: Final = 8001

_COMMON: Final = """\
# Written by deploy/examples/sites/split.py. What is above the sites is common to all of them.
name  = "{name}"
store = "./{store}"           # who takes part, and the federation's own receipts: no data point, no weight

[data]{train}
id       = "id"
subject  = "user_id"             # looked for at the site that is named, and nowhere else
label    = "label"
features = ["x*"]
classes  = [{classes}]
scale    = {scale}

[model]
factory   = "shards.models:mlp"
arguments = {{ hidden = [{hidden}] }}

[training]
epochs        = {epochs}
batch_size    = 16
optimizer     = "sgd"
learning_rate = {learning_rate}
seed          = 7

[partition]
shards = {shards}
slices = 3
"""
_SITE: Final = """
[[site]]
name       = "{name}"
store      = "./sites/{name}"
leaves     = "predictions"       # or "weights"
data.train = "data/{name}.parquet"
"""
_OWN_CLUSTER: Final = """
[cluster]
address = "127.0.0.1:6379"       # of the federation's own server: 'ray start --head'

[serve]
port = 8000
"""
_SERVED: Final = """\
url        = "http://127.0.0.1:{port}"
token_file = "{name}.token"
serve.port = {port}
cluster.address = "local"        # at each site a Ray of its own
"""

_TRAINING: Final = {
    "digits": {"hidden": 64, "epochs": 40, "learning_rate": 0.1},
    "fashion-mnist": {"hidden": 128, "epochs": 10, "learning_rate": 0.05},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What was written."""

    config: Path
    """The federation of sites."""
    pooled: Path
    """One federation of a single constituent on all data, to compare with: nobody has these data in one place."""
    data: DemoData
    sites: tuple[str, ...]


def write_example(folder: Path, dataset: str = "digits", sites: Sequence[str] = SITES, *, served: bool) -> Example:
    """Write data of every site, ``sisa.toml`` and ``pooled.toml`` below ``folder``.

    ``served``: each site has an API of its own, at ports of this machine from 8001 on. Raises as ``write_digits`` and
    ``write_fashion_mnist`` do.
    """
    write = write_fashion_mnist if dataset == "fashion-mnist" else write_digits
    data = write(folder / "data")
    for name, points in zip(sites, unlike(pq.read_table(data.train), len(sites)), strict=True):
        pq.write_table(points, folder / "data" / f"{name}.parquet", compression="zstd")
    tables = [
        _SITE.format(name=name) + (_SERVED.format(name=name, port=_FIRST_PORT + number) if served else "")
        for number, name in enumerate(sites)
    ]
    config, pooled = folder / "sisa.toml", folder / "pooled.toml"
    common = _common(data, "regions", "federation", shards=2) + (_OWN_CLUSTER if served else "")
    config.write_text(common + "".join(tables), encoding="utf-8")
    train = '\ntrain    = "data/train.parquet"'
    pooled.write_text(_common(data, "pooled", "pooled", shards=1, train=train), encoding="utf-8")
    return Example(config=config, pooled=pooled, data=data, sites=tuple(sites))


def unlike(points: pa.Table, sites: int) -> list[pa.Table]:
    """Return the data points of each site: most of a class are at one site, the rest anywhere. Always the same."""
    labels = np.array([int(label) for label in points.column("label").to_pylist()])
    drawn_N2 = np.array([_drawn(id_) for id_ in points.column("id").to_pylist()], dtype=np.uint64)
    stays_N = drawn_N2[:, 0] < OWN_SHARE * 2**32
    chosen = np.where(stays_N, labels // 2 % sites, drawn_N2[:, 1] % sites)
    return [points.filter(pa.array(chosen == number)) for number in range(sites)]


def _drawn(id_: str) -> tuple[int, int]:
    """Return two pseudo-random numbers below 2**32 that depend only on the data point's id, not on its row."""
    digest = hashlib.blake2b(id_.encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:], "big")


def _common(data: DemoData, name: str, store: str, *, shards: int, train: str = "") -> str:
    return _COMMON.format(
        name=name,
        store=store,
        train=train,
        classes=", ".join(f'"{label}"' for label in data.classes),
        scale=data.scale,
        shards=shards,
        **_TRAINING[data.name],
    )


def main(
    folder: Annotated[Path, typer.Argument(help="Where to write.")] = Path("sisa-sites"),
    dataset: Annotated[str, typer.Option(help="digits or fashion-mnist.")] = "digits",
    sites: Annotated[int, typer.Option(min=2, max=len(SITES), help="How many sites.")] = len(SITES),
    served: Annotated[bool, typer.Option("--served", help="Give every site an API of its own.")] = False,
) -> None:
    """Write the data of some sites and the specification of their federation."""
    if dataset not in _TRAINING:
        raise typer.BadParameter(f"the data set is one of {', '.join(_TRAINING)}")

    def action() -> Outcome:
        made = write_example(folder, dataset, SITES[:sites], served=served)
        wrote = f"wrote {made.data.train_points:,} data points of {len(made.sites)} sites: {', '.join(made.sites)}"
        then = f"go on in {folder}" if served else f"continue with: cd {folder} && sisa --simulate train"
        return Outcome(text=f"{wrote}\n{then}")

    raise typer.Exit(run(action, as_json=False))


if __name__ == "__main__":
    typer.run(main)
