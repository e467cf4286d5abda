"""Sites: what they are worth where data differ, and what they cost an answer: ``python -m tests.bench.sites``."""

from __future__ import annotations

import io
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from threading import Event
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

import cluster
from cluster.config.sites import ListedSite, SiteSettings, SitesSpecification, read_sites
from cluster.config.specification import read_specification
from cluster.coordinator_actor.log_lines import LogLines
from cluster.runtime.system import SystemClock
from cluster.serving.app import build_app
from cluster.serving.erasures import Accepting
from cluster.serving.service import open_service
from cluster.sites.federation import SiteFederation
from cluster.sites.link import NearSite
from cluster.sites.simulation import simulated
from cluster.sites.site_server import Desk
from cluster.tokens import TokenRegister
from cluster.writer.stores import open_objects
from coordinator.ports import Clock, Listener
from coordinator.sites import SiteAnswer, SiteStanding
from deploy.demo_data import write_digits
from deploy.examples.sites.compare import compare, compared_text
from deploy.examples.sites.split import OWN_SHARE, Example, write_example
from deploy.views.tables import table
from storage.errors import Unavailable
from tests.sites.near.served import listening

SITES: Final = 20
SERVED: Final = 5
ASKS: Final = 60
WARM_UP: Final = 3
AWAY_SECONDS: Final = 0.05
"""Extra time that every answer of a distant site takes."""

COMMON: Final = """
name = "bench"
store = "./{store}"
[data]
{train}
id = "id"
subject = "user_id"
label = "label"
features = ["x*"]
classes = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
scale = 16.0
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
"""

Features = npt.NDArray[np.float32]


class FarSite(NearSite):
    """A site that answers every call after a delay, as over a network."""

    def standing(self, requests: int = 0) -> SiteStanding:
        """See ``SiteLink.standing``."""
        _travel()
        return super().standing(requests)

    def answer(self, features_NF: Features, names: tuple[str, ...]) -> SiteAnswer:
        """See ``SiteLink.answer``."""
        _travel()
        return super().answer(features_NF, names)

    def checkpoint(self, shard: int, sha256: str) -> bytes:
        """See ``SiteLink.checkpoint``."""
        _travel()
        return super().checkpoint(shard, sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class TwentySites:
    """The same data points at twenty sites of one constituent, and in one federation of twenty constituents."""

    sites: SitesSpecification
    whole: ListedSite
    asked_NF: Features
    trained_seconds: float


def main() -> None:
    """Measure, and print tables."""
    report_sites()


def report_sites() -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory() as folder:
        _report_unlike(Path(folder) / "unlike")
        made = _trained(Path(folder) / "overhead")
        _report_overhead(made)
        _report_http(made)


def _report_unlike(folder: Path) -> None:
    """Five sites, each with most of its data from two classes."""
    made = _written(folder)
    print(
        f"\n{made.data.name}: {len(made.sites)} sites of 2 constituents, {OWN_SHARE:.0%} of each class's data points at"
        f" one site; accuracy on {made.data.test_points:,} others, overall and per class"
    )
    print(compared_text(compare(folder)), flush=True)


def _report_overhead(made: TwentySites) -> None:
    """Print what an answer of twenty sites takes against one of one federation, and against each site by itself."""
    far = {site.name: FarSite(site, _unheard) for site in made.sites.sites}
    desk = Desk(made.whole)
    with (
        SiteFederation(made.sites) as near,
        SiteFederation(made.sites, link_to=_far) as away,
        SiteFederation(_giving_weights(made.sites), link_to=_far) as giving,
    ):
        names = near.layout().features
        times = _side_by_side(
            {
                f"one federation of {SITES} constituents, its desk": lambda: desk.answer(made.asked_NF, names),
                f"{SITES} sites at once, in this process": lambda: near.answer(made.asked_NF, names),
                f"{SITES} sites one after the other": lambda: _in_turn(near, made.asked_NF, names),
                "one site, 50 ms away": lambda: far[made.sites.sites[0].name].answer(made.asked_NF, names),
                f"{SITES} sites at once, each 50 ms away": lambda: away.answer(made.asked_NF, names),
                "the same, where weights leave the sites": lambda: giving.answer(made.asked_NF, names),
            }
        )
    print(f"\n{SITES} sites trained on this machine in {made.trained_seconds:.0f} s")
    _print(made, times)


def _report_http(made: TwentySites) -> None:
    """Print what an answer over HTTP takes: of one site, and of several at once; all servers are in this process."""
    with _served(made.sites) as served, SiteFederation(served) as federation:
        names = federation.layout().features
        links = [federation.link(site.name) for site in served.sites]
        acts: dict[str, Callable[[], object]] = {
            "one site over HTTP": lambda: links[0].answer(made.asked_NF, names),
            f"{SERVED} sites at once over HTTP": lambda: federation.answer(made.asked_NF, names),
            f"{SERVED} sites over HTTP, one after the other": lambda: _in_turn(federation, made.asked_NF, names),
        }
        _print(made, _side_by_side(acts))


def _print(made: TwentySites, times: Mapping[str, list[float]]) -> None:
    print(f"\n{len(made.asked_NF)} data points, asked {ASKS} times, interleaved")
    lines = [(name, *_spread(each)) for name, each in times.items()]
    print(table(("asked", "median ms", "10 %", "90 %"), lines), flush=True)


@contextmanager
def _served(specification: SitesSpecification) -> Iterator[SitesSpecification]:
    """Serve some of the sites; give the federation of these, reached by their addresses."""
    sites = []
    with ExitStack() as stack:
        for site in specification.sites[:SERVED]:
            service = open_service(site.specification, _nobody, site=site.settings)
            stack.callback(service.close)
            app = build_app(service, LogLines(site.specification.name, service.clock, io.StringIO()))
            url = f"http://127.0.0.1:{stack.enter_context(listening(app))}"
            token = TokenRegister(open_objects(site.specification), SystemClock()).create("federate", days=1)
            file = specification.folder / f"{site.name}.token"
            file.write_text(token.text, encoding="ascii")
            file.chmod(0o600)
            sites.append(replace(site, settings=replace(site.settings, url=url, token_file=file.name)))
        yield replace(specification, sites=tuple(sites))


def _nobody() -> Accepting:
    """No erasure is accepted here."""
    raise Unavailable("this server only answers", "erase at the site")


def _trained(folder: Path) -> TwentySites:
    """Write and train both federations."""
    data = write_digits(folder / "data")
    points = pq.read_table(data.train)
    names = [f"site-{number:02d}" for number in range(SITES)]
    owners = np.array([zlib.crc32(str(user).encode()) % SITES for user in points.column("user_id").to_pylist()])
    for number, name in enumerate(names):
        pq.write_table(points.filter(pa.array(owners == number)), folder / f"{name}.parquet")
    tables = (f'[[site]]\nname = "{name}"\nstore = "./{name}"\ndata.train = "{name}.parquet"\n' for name in names)
    config, whole = folder / "sisa.toml", folder / "whole.toml"
    config.write_text(COMMON.format(store="office", train="", shards=1) + "".join(tables), encoding="utf-8")
    train = f'train = "{data.train}"'
    whole.write_text(COMMON.format(store="whole", train=train, shards=SITES), encoding="utf-8")
    specification = simulated(read_sites(config))
    began = time.perf_counter()
    with SiteFederation(specification) as federation:
        federation.train()
    seconds = time.perf_counter() - began
    with cluster.connect(read_specification(whole)) as one:
        one.train()
    return TwentySites(
        sites=specification,
        whole=ListedSite(settings=SiteSettings(name="whole", store="./whole"), specification=read_specification(whole)),
        asked_NF=_features(pq.read_table(data.test).slice(0, 16)),
        trained_seconds=seconds,
    )


def _side_by_side(acts: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Return the times of each act in milliseconds; disturbances of this machine affect all acts alike."""
    times: dict[str, list[float]] = {name: [] for name in acts}
    for number in range(ASKS + WARM_UP):
        for name, act in acts.items():
            began = time.perf_counter()
            act()
            if number >= WARM_UP:
                times[name].append((time.perf_counter() - began) * 1000)
    return times


def _in_turn(federation: SiteFederation, asked_NF: Features, names: tuple[str, ...]) -> None:
    for site in federation.specification.sites:
        federation.link(site.name).answer(asked_NF, names)


def _spread(times: list[float]) -> tuple[str, str, str]:
    tenths = quantiles(times, n=10)
    return f"{median(times):.1f}", f"{tenths[0]:.1f}", f"{tenths[-1]:.1f}"


def _features(points: pa.Table) -> Features:
    columns = [points.column(name) for name in points.column_names if name.startswith("x")]
    return np.ascontiguousarray(np.stack(columns, axis=1), dtype=np.float32)


def _giving_weights(specification: SitesSpecification) -> SitesSpecification:
    sites = (replace(site, settings=replace(site.settings, leaves="weights")) for site in specification.sites)
    return replace(specification, sites=tuple(sites))


def _far(site: ListedSite, listener: Listener, clock: Clock) -> FarSite:
    return FarSite(site, listener, clock)


def _travel() -> None:
    Event().wait(AWAY_SECONDS)


def _unheard(_: object) -> None:
    """Ignore the notice."""


def _written(folder: Path) -> Example:
    """Write Fashion-MNIST; the digits stand in where it cannot be had, and it is said."""
    try:
        return write_example(folder, "fashion-mnist", served=False)
    except Unavailable:
        return write_example(folder, "digits", served=False)


if __name__ == "__main__":
    main()
