"""Sites: what they cost an answer, and what they are worth where data differ: ``python -m tests.bench.sites``."""

from __future__ import annotations

import tempfile
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import cluster
from cluster.outcome import Evaluation
from cluster.sites.federation import SiteFederation, connect_sites
from cluster.sites.simulation import simulated
from cluster.sites.specification import read_sites
from cluster.specification import read_specification
from deploy.demo_data import DemoData, write_digits, write_fashion_mnist
from deploy.text import table
from storage.errors import Unavailable

SITES = 20
ASKS = 60
COMMON = """
name = "bench"
store = "./office"
[data]
{train}
id = "id"
subject = "user_id"
label = "label"
features = ["x*"]
classes = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
scale = {scale}
[model]
arguments = {{ hidden = [32] }}
[training]
epochs = 10
batch_size = 16
learning_rate = 0.05
seed = 7
[partition]
shards = {shards}
slices = 2
key = "000102030405060708090a0b0c0d0e0f"
"""


def main() -> None:
    """Measure, and print tables."""
    with tempfile.TemporaryDirectory() as folder:
        _report_unlike(Path(folder) / "unlike")
        _report_overhead(Path(folder) / "overhead")


def _report_unlike(folder: Path) -> None:
    """Five sites, each with most of its data from two classes: the federation, each site alone, and all data pooled."""
    data = _write_data(folder / "data")
    pieces = _unlike(pq.read_table(data.train), sites=5)
    names = [f"site-{number}" for number in range(len(pieces))]
    for name, piece in zip(names, pieces, strict=True):
        pq.write_table(piece, folder / f"{name}.parquet")
    config = folder / "sisa.toml"
    config.write_text(
        COMMON.format(train="", scale=data.scale, shards=1) + "".join(_site(name) for name in names), encoding="utf-8"
    )
    found: dict[str, Evaluation] = {}
    with connect_sites(simulated(read_sites(config))) as federation:
        federation.train()
        found["federation"] = federation.evaluate(data.test).overall
    for name in names:
        with cluster.connect(simulated(read_sites(config)).site(name).specification) as alone:
            found[f"{name} alone"] = alone.evaluate(data.test)
    pooled = folder / "pooled.toml"
    pooled.write_text(COMMON.format(train=f'train = "{data.train}"', scale=data.scale, shards=1), encoding="utf-8")
    with cluster.connect(read_specification(pooled)) as federation:
        federation.train()
        found["pooled"] = federation.evaluate(data.test)
    classes = list(found["pooled"].per_class)
    lines = [
        (name, f"{each.accuracy:.4f}", *(f"{each.per_class[label]:.2f}" for label in classes))
        for name, each in found.items()
    ]
    print(f"\n{data.name}: 5 sites, 80 % of each one's data points from two classes of its own; one constituent a site")
    print(table(("model", "accuracy", *(f"class {label}" for label in classes)), lines))


def _report_overhead(folder: Path) -> None:
    """Twenty sites of one constituent each against one federation of twenty constituents, the same data points."""
    data = write_digits(folder / "data")
    table_ = pq.read_table(data.train)
    names = [f"site-{number:02d}" for number in range(SITES)]
    owners = np.array([zlib.crc32(str(user).encode()) % SITES for user in table_.column("user_id").to_pylist()])
    for number, name in enumerate(names):
        pq.write_table(table_.filter(pa.array(owners == number)), folder / f"{name}.parquet")
    config = folder / "sisa.toml"
    config.write_text(
        COMMON.format(train="", scale=data.scale, shards=1) + "".join(_site(name) for name in names), encoding="utf-8"
    )
    whole = folder / "whole.toml"
    whole.write_text(
        COMMON.format(train=f'train = "{data.train}"', scale=data.scale, shards=SITES).replace("./office", "./whole"),
        encoding="utf-8",
    )
    asked = pq.read_table(data.test).slice(0, 16)
    began = time.perf_counter()
    with connect_sites(simulated(read_sites(config))) as federation:
        federation.train()
        trained = time.perf_counter() - began
        with cluster.connect(read_specification(whole)) as one:
            one.train()
            times = _side_by_side(
                {
                    "20 sites": lambda: federation.predict(asked).table(),
                    "each site in turn": lambda: _in_turn(federation, asked),
                    "one federation of 20": lambda: one.predict(asked).table(),
                }
            )
    print(f"\n{SITES} sites trained on this machine in {trained:.0f} s; 16 data points asked {ASKS} times, in turn")
    lines = [(name, f"{median(each):.1f}", f"{min(each):.1f}", f"{max(each):.1f}") for name, each in times.items()]
    print(table(("asked", "median ms", "least", "most"), lines))


def _in_turn(federation: SiteFederation, asked: pa.Table) -> None:
    """Ask one site after another: none of them has to wait for another one's processor."""
    features = np.stack([asked.column(name) for name in asked.column_names if name.startswith("x")], axis=1)
    for site in federation.specification.sites:
        federation.link(site.name).answer(np.ascontiguousarray(features, dtype=np.float32))


def _side_by_side(acts: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in acts}
    for number in range(ASKS + 3):
        for name, act in acts.items():
            began = time.perf_counter()
            act()
            if number >= 3:
                times[name].append((time.perf_counter() - began) * 1000)
    return times


def _unlike(points: pa.Table, sites: int) -> list[pa.Table]:
    """Return the data points of each site: 80 % of a class go to the site that it belongs to, the rest to anybody."""
    generator = np.random.default_rng(7)
    labels = np.array([int(label) for label in points.column("label").to_pylist()])
    own = labels // 2 % sites
    chosen = np.where(generator.random(len(labels)) < 0.8, own, generator.integers(0, sites, len(labels)))
    return [points.filter(pa.array(chosen == number)) for number in range(sites)]


def _site(name: str) -> str:
    return f'[[site]]\nname = "{name}"\nstore = "./sites/{name}"\ndata.train = "{name}.parquet"\n'


def _write_data(folder: Path) -> DemoData:
    try:
        return write_fashion_mnist(folder)
    except Unavailable:
        return write_digits(folder)


if __name__ == "__main__":
    main()
