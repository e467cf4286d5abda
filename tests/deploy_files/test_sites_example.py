"""The example of several sites: what it writes is a federation, of data that differ and are nowhere twice."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from cluster.config.sites import read_sites
from cluster.config.specification import read_specification
from cluster.results.federation import Evaluation
from cluster.sites.simulation import simulated
from deploy.examples.sites import compare, split
from deploy.examples.sites.split import OWN_SHARE, SITES, Example, write_example
from tests.deploy_files.manifests import ROOT
from tests.documents import text_of


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """The digits at five sites, each behind a server of its own."""
    return write_example(tmp_path_factory.mktemp("example"), served=True)


def _column(path: Path, name: str) -> list[Any]:
    values: list[Any] = pq.read_table(path, columns=[name]).column(name).to_pylist()
    return values


def _at(made: Example, site: str, name: str) -> list[Any]:
    return _column(made.data.train.with_name(f"{site}.parquet"), name)


def test_every_data_point_is_at_one_site(made: Example) -> None:
    """Nothing is lost, and nothing is at two sites."""
    ids = [id_ for site in made.sites for id_ in _at(made, site, "id")]
    assert sorted(ids) == sorted(_column(made.data.train, "id"))
    assert len(set(ids)) == len(ids) == made.data.train_points


def test_sites_differ(made: Example) -> None:
    """Most data points of a site are of two classes, each site has others, and some of every class."""
    for number, site in enumerate(made.sites):
        counts = Counter(int(label) for label in _at(made, site, "label"))
        assert {label for label, _ in counts.most_common(2)} == {2 * number, 2 * number + 1}
        assert set(counts) == set(range(10))
        own = counts[2 * number] + counts[2 * number + 1]
        assert OWN_SHARE - 0.1 < own / counts.total() < OWN_SHARE + 0.1


def test_the_split_is_always_the_same(made: Example, tmp_path: Path) -> None:
    """What is at a site does not hang on chance."""
    again = write_example(tmp_path, served=False)
    for site in SITES:
        assert _at(again, site, "id") == _at(made, site, "id")


def test_the_specification_is_one(made: Example) -> None:
    """Sites have stores, ports and tokens of their own, the same model, and simulated nothing but folders."""
    sites = read_sites(made.config).sites
    assert [site.name for site in sites] == list(SITES)
    assert len({site.settings.url for site in sites}) == len({site.settings.token_file for site in sites}) == len(SITES)
    assert [site.settings.url for site in sites] == [site.specification.serve.url for site in sites]
    assert all(site.settings.url is None for site in simulated(read_sites(made.config)).sites)
    pooled = read_specification(made.pooled)
    assert {site.specification.training for site in sites} == {pooled.training}
    assert all(site.specification.model == pooled.model for site in sites)


def test_the_page_specifies_sites(made: Example, tmp_path: Path) -> None:
    """What docs/sites.md shows of a specification is one, with the common tables and more sites added to it."""
    shown = re.search(r"^```toml\n(.*?)^```$", text_of("docs/sites.md"), re.MULTILINE | re.DOTALL)
    assert shown
    written = made.config.read_text(encoding="utf-8")
    common = written[written.index("[data]") : written.index("[[site]]")]
    more = written[written.index("[[site]]", written.index('"./sites/north"')) :]
    config = tmp_path / "sisa.toml"
    config.write_text(f"{shown[1]}\n{common}\n{more}", encoding="utf-8")
    north = read_sites(config).site("north").specification
    assert (north.partition.shards, north.erasure.deadline_days) == (3, 14)
    assert read_sites(config).settings.quorum == 3


def test_the_program_says_how_to_go_on(tmp_path: Path) -> None:
    """It takes a folder and how many sites, and refuses a data set that it does not know."""
    app = typer.Typer()
    app.command()(split.main)
    done = CliRunner().invoke(app, [str(tmp_path / "two"), "--sites", "2"])
    assert done.exit_code == 0
    assert "1,438 data points of 2 sites: north, south" in done.output
    assert f"cd {tmp_path / 'two'} && sisa --simulate train" in done.output
    assert len(read_sites(tmp_path / "two" / "sisa.toml").sites) == 2
    assert CliRunner().invoke(app, [str(tmp_path / "no"), "--dataset", "iris"]).exit_code == 2


def test_the_comparison_is_a_table() -> None:
    """A line for each of those who answer, a column for each class that was asked for."""

    def right(share: float) -> Evaluation:
        return Evaluation(
            target="class",
            metrics={"accuracy": share},
            per_class={"a": 1.0, "b": share, "c": None},
            points=4,
            points_per_class={"a": 2, "b": 2, "c": 0},
            generation=1,
            constituents=1,
            shards=1,
        )

    lines = compare.compared_text({"federation": right(0.75), "north alone": right(0.5)}).splitlines()
    assert [line.split() for line in lines] == [
        ["who", "answers", "overall", "a", "b"],
        ["federation", "0.750", "1.00", "0.75"],
        ["north", "alone", "0.500", "1.00", "0.50"],
    ]


@pytest.mark.parametrize(
    ("script", "words", "text"),
    [
        ("split.py", ("--dataset", "flowers"), "the data set is one of"),
        ("compare.py", (), "there is no specification sisa.toml"),
    ],
)
def test_an_example_that_cannot_run_says_why(tmp_path: Path, script: str, words: tuple[str, ...], text: str) -> None:
    """With a wrong word, or before the first step, an example ends in a sentence, never in a traceback."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "deploy" / "examples" / "sites" / script), *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr
