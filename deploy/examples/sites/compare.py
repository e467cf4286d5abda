"""The federation against each site alone and all data in one place, overall and per class.

python deploy/examples/sites/compare.py sisa-sites
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

import cluster
from cluster.config.sites import read_sites
from cluster.config.specification import read_specification
from cluster.results.federation import Evaluation
from cluster.sites.federation import connect_sites
from cluster.sites.simulation import simulated
from deploy.views.output import Outcome, run
from deploy.views.tables import table


def compare(folder: Path) -> dict[str, Evaluation]:
    """Train what is not trained yet, simulated on this machine; return each one's accuracy on the test data."""
    test = folder / "data" / "test.parquet"
    specification = simulated(read_sites(folder / "sisa.toml"))
    found: dict[str, Evaluation] = {}
    with connect_sites(specification) as federation:
        federation.train()
        found["federation"] = federation.evaluate(test).overall
    for site in specification.sites:
        with cluster.connect(site.specification) as alone:
            found[f"{site.name} alone"] = alone.evaluate(test)
    with cluster.connect(read_specification(folder / "pooled.toml")) as pooled:
        pooled.train()
        found["all in one place"] = pooled.evaluate(test)
    return found


def compared_text(found: Mapping[str, Evaluation]) -> str:
    """Return a table: a line for each of ``found``, a column for each class."""
    classes = [label for label, right in (next(iter(found.values())).per_class or {}).items() if right is not None]
    header = ("who answers", "overall", *classes)
    lines = [
        (name, f"{each.accuracy:.3f}", *(f"{(each.per_class or {})[label]:.2f}" for label in classes))
        for name, each in found.items()
    ]
    return table(header, lines)


def main(folder: Annotated[Path, typer.Argument(help="Where split.py wrote.")] = Path("sisa-sites")) -> None:
    """Train what is not trained yet, and print the table."""
    raise typer.Exit(run(lambda: Outcome(text=compared_text(compare(folder))), as_json=False))


if __name__ == "__main__":
    typer.run(main)
