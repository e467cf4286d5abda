"""A folder with a federation of several sites, each with its own people, and the specification."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from cluster.config.sites import ListedSite, SitesSpecification, read_sites
from storage.encryption.store import SealedStore
from storage.stores.local import LocalStore
from tests.doubles.user_folder import Columns, CommandResult, as_table, run, small_points

COMMON = """
name = "hospitals"
store = "./office"
[data]
id = "id"
subject = "user_id"
label = "label"
features = ["x*"]
classes = ["a", "b", "c"]
scale = 255.0
[model]
arguments = { hidden = [6] }
[training]
epochs = 4
batch_size = 8
learning_rate = 0.1
seed = 7
[partition]
shards = 2
slices = 2
"""
SITES = ("north", "south", "west")


def people_of(site: str, number: int) -> Columns:
    """Return the data points of a site, whose people differ from the other sites' in names and features."""
    columns = small_points(people=12)
    columns["id"] = [f"{site}-{id_}" for id_ in columns["id"]]
    columns["user_id"] = [f"{site}-{name}" for name in columns["user_id"]]
    columns["x00"] = [(value + 40 * number) % 251 for value in columns["x00"]]
    return columns


@dataclass(frozen=True, slots=True)
class SiteFolders:
    """The folder."""

    folder: Path
    names: tuple[str, ...] = SITES
    common: str = COMMON
    """What the specification says of all sites."""

    @property
    def config(self) -> Path:
        """The specification."""
        return self.folder / "sisa.toml"

    def fill(self, *, settings: str = "", each: str = "") -> SiteFolders:
        """Write every site's data, and the specification: ``settings`` of all, ``each`` in the table of each site."""
        for number, name in enumerate(self.names):
            self.write(name, people_of(name, number))
        self.specify(settings=settings, each=each)
        return self

    def write(self, site: str, columns: Columns) -> Path:
        """Write a site's data."""
        path = self.folder / f"{site}.parquet"
        pq.write_table(as_table(columns), path)
        return path

    def specify(self, *, settings: str = "", each: str = "", names: Iterable[str] | None = None) -> Path:
        """Write the specification."""
        tables = (
            f'[[site]]\nname = "{name}"\nstore = "./sites/{name}"\ndata.train = "{name}.parquet"\n'
            f'partition.key = "{name.encode().hex().ljust(32, "0")[:32]}"\nerasure.batch_window_seconds = 0.0\n{each}\n'
            for name in names or self.names
        )
        self.config.write_text(f"{self.common}\n{settings}\n" + "\n".join(tables), encoding="utf-8")
        return self.config

    @property
    def specification(self) -> SitesSpecification:
        """What the file says."""
        return read_sites(self.config)

    def site(self, name: str) -> ListedSite:
        """Return one site."""
        return self.specification.site(name)

    def objects(self, name: str) -> SealedStore:
        """Return a site's store as those see it who hold its keys."""
        return SealedStore(LocalStore(str(self.folder / "sites" / name)))

    def raw(self, name: str) -> dict[str, bytes]:
        """Return the bytes of every file in a site's store, without locks."""
        store = self.folder / "sites" / name
        paths = (path for path in store.rglob("*") if path.is_file() and ".locks" not in path.parts)
        return {path.relative_to(store).as_posix(): path.read_bytes() for path in paths}

    def json(self, command: str, *words: str) -> CommandResult:
        """Run the command with this folder's specification and ``--json``."""
        return run(command, "--config", str(self.config), *words, "--json")
