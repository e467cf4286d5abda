"""A federation of sites on one cluster, each with data and store in its own bucket; and the same in folders."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cluster.results.sites import SitesStatus
from cluster.sites.federation import SiteFederation, connect_sites
from cluster.sites.simulation import simulated
from tests.doubles.stores.s3_servers import plain_client
from tests.doubles.user_folder import ids_of, small_points
from tests.doubles.workers.local_workers import without_ray
from tests.sites.near.site_folders import COMMON, SiteFolders, people_of
from tests.sites.one_cluster.buckets import DRIVER
from tests.sites.one_cluster.nodes import SITES

PERSON: Final = "north-secret-person-003"
POINT: Final = ids_of(people_of("north", 0), "north-marked-person")[0]
"""A data point of a person at north who keeps other data points."""

_COMMON: Final = COMMON.replace("[6]", "[1500]")
"""Constituents that take more than one message."""

Digests = dict[str, list[Any]]
Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationResult:
    """What a federation has come to."""

    digests: Digests
    answers: Rows

    @classmethod
    def by(cls, federation: SiteFederation, asked: Path) -> FederationResult:
        """Return what it has come to now."""
        return cls(digests=digests_of(federation.status()), answers=federation.predict(asked).table().to_pylist())


@dataclass(frozen=True, slots=True, kw_only=True)
class InFolders:
    """The same federation as folders of one machine."""

    site_folders: SiteFolders
    trained: FederationResult
    erased: FederationResult
    """The result of training without ``PERSON``."""
    erased_also: FederationResult
    """The result of training without ``POINT`` either."""

    @property
    def asked(self) -> Path:
        """Data points to ask about."""
        return self.site_folders.folder / "asked.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnCluster:
    """The federation on the cluster."""

    folder: Path
    endpoint: str
    address: str
    """Address of the cluster."""
    prefix: str = field(default_factory=lambda: secrets.token_hex(8))
    """In every bucket."""

    @property
    def config(self) -> Path:
        """The specification."""
        return self.folder / "sisa.toml"

    def fill(self, upstream: str) -> OnCluster:
        """Put every site's data in its bucket; ``upstream`` lets everybody do so."""
        client = plain_client(upstream)
        site_folders = SiteFolders(self.folder, SITES)
        for number, site in enumerate(SITES):
            path = site_folders.write(site, people_of(site, number))
            client.put_object(Bucket=site, Key=f"{self.prefix}/data/train.parquet", Body=path.read_bytes())
            path.unlink()
        client.close()
        return self

    def specify(self, *, leaves: Mapping[str, str], factory: str = "shards.models:mlp") -> OnCluster:
        """Write the specification."""
        own = f'store = "{self.place(DRIVER, "federation")}"\nendpoint = "{self.endpoint}"\ncredentials = "{DRIVER}"'
        text = _COMMON.replace('store = "./office"', own).replace("[model]", f'[model]\nfactory = "{factory}"')
        settings = "[sites]\nquorum = 1\ntimeout_seconds = 120.0\ngrace_seconds = 120.0"
        tables = (
            f'[[site]]\nname = "{site}"\nstore = "{self.place(site, "store")}"\nendpoint = "{self.endpoint}"\n'
            f'credentials = "{site}"\nleaves = "{leaves[site]}"\ndata.train = "{self.place(site, "data")}"\n'
            f'partition.key = "{site.encode().hex().ljust(32, "0")[:32]}"\nerasure.batch_window_seconds = 0.0\n'
            f'cluster.labels = {{ site = "{site}" }}\n'
            for site in SITES
        )
        cluster_ = f'[cluster]\naddress = "{self.address}"'
        self.config.write_text("\n".join([text, cluster_, settings, *tables]), encoding="utf-8")
        return self

    def share_rehearsals(self, upstream: str) -> None:
        """Copy the records of the model's rehearsal from the first site's store to the second's."""
        first, second = SITES
        client = plain_client(upstream)
        found = client.list_objects_v2(Bucket=first, Prefix=f"{self.prefix}/store/rehearsals/")["Contents"]
        for key in (each["Key"] for each in found):
            client.copy_object(Bucket=second, Key=key, CopySource={"Bucket": first, "Key": key})
        client.close()

    def place(self, bucket: str, name: str) -> str:
        """Return an address in a bucket."""
        return f"s3://{bucket}/{self.prefix}/{name}"


def digests_of(status: SitesStatus) -> Digests:
    """Return the digests of all constituents, by site; of those sites that can be reached."""
    return {
        each.site: [constituent.digest for constituent in each.status.constituents]
        for each in status.sites
        if each.status is not None
    }


def near_sites(folder: Path) -> InFolders:
    """Let the same federation train and erase, with sites as folders and without Ray."""
    site_folders = SiteFolders(folder, SITES).fill()
    site_folders.config.write_text(site_folders.config.read_text("utf-8").replace(COMMON, _COMMON), encoding="utf-8")
    asked = site_folders.write("asked", small_points(people=5))
    with without_ray(), connect_sites(simulated(site_folders.specification)) as federation:
        federation.train()
        trained = FederationResult.by(federation, asked)
        federation.erase("north", subjects=[PERSON])
        erased = FederationResult.by(federation, asked)
        federation.erase("north", ids=[POINT])
        return InFolders(
            site_folders=site_folders,
            trained=trained,
            erased=erased,
            erased_also=FederationResult.by(federation, asked),
        )
