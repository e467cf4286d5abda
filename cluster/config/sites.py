"""The specification of a federation of several sites: ``[[site]]`` tables over common ones.

    [[site]]
    name = "north"
    store = "./sites/north"
    leaves = "predictions"
    data.train = "data/north.parquet"
    partition.shards = 3
    cluster.labels = { site = "north" }
    erasure.deadline_days = 14

Each site has the common tables, overridden by its own settings. So the same file means the same federation on every
machine, and a site's constituents have the same bytes however the site is reached.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

from cluster.config.serve import ServeSettings
from cluster.config.specification import SITES, TABLES, ClusterSettings, FederationSpecification, specification_of
from cluster.config.toml import TOP, Problems, parse_file, read_table
from coordinator.settings import AggregationSettings
from coordinator.sites import Leaves
from shards.learner_kinds.kinds import LEARNERS, TORCH
from shards.targets import Cluster, Recommend, Target
from storage.errors import Invalid
from storage.location import is_on_s3, open_store
from storage.objects import ObjectStore

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")

OWN: Final[Mapping[str, frozenset[str] | None]] = {
    "data": frozenset({"train", "version", "holdout", "subject_form", "endpoint", "credentials", "ingest_memory_mb"}),
    "partition": frozenset({"shards", "key"}),
    "erasure": None,
    "receipts": None,
    "cluster": None,
    "serve": None,
}
"""The settings of the common tables that a site may override; None: all. The others make it one federation."""

_ALONE: Final[Mapping[str, str]] = {
    Cluster.kind: "target cluster is not available to federations of several sites: their clusters can only be put"
    " together from centroids and sizes, which are sums of data points and would have to leave the sites",
    Recommend.kind: "target recommend is not available to federations of several sites: what goes with what can only be"
    " put together from counts of pairs of items, which are sums of data points and would have to leave the sites",
}
"""Why sites do not answer these targets together."""
_TOP_OWN: Final = frozenset({"store", "endpoint", "keys", "credentials"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSettings:
    """One table ``[[site]]``, without the settings that override common tables."""

    name: str
    """1 to 31 lower-case letters, digits and ``-``; everybody who gets an answer sees it."""
    store: str
    """Folder or address of the site's own store, as the site itself reaches it."""
    leaves: Leaves = "predictions"
    """What may leave the site: aggregated ``predictions`` only, or ``weights``, its constituents, as well."""
    lookup: bool = False
    """Whether the federation may ask the site whether somebody is there. Behind ``url`` the site's own copy decides."""
    measures: bool = False
    """Whether the federation may ask how well the site's own constituents do on its hold-out points. Behind ``url`` the
    site's own copy decides."""
    url: str | None = None
    """Where the site's own API is ('sisa serve --site NAME' there); default: it is reached through the cluster."""
    token_file: str | None = None
    """File with a token of the role ``federate`` for ``url``, relative to the specification's folder.

    Only its owner may read it."""
    ca_file: str | None = None
    """File with the certificates, PEM, of the authorities that vouch for ``url``, relative to the specification's
    folder; default: those that this machine trusts."""
    insecure: bool = False
    """Whether ``url`` may be plain HTTP to another machine, because a VPN or a mesh encrypts the connection. Without
    one, anybody on the network can read the token and the questions."""
    endpoint: str | None = None
    """As above all tables, for this site."""
    keys: str | None = None
    """As above all tables, for this site."""
    credentials: str | None = None
    """As above all tables, for this site."""

    def __post_init__(self) -> None:
        problems = []
        if not _NAME.fullmatch(self.name):
            problems.append(f"name must be 1 to 31 lower-case letters, digits or '-', got {self.name!r}")
        if not self.store:
            problems.append("store is empty: name a folder")
        if self.leaves not in get_args(Leaves):
            problems.append(f"leaves must be one of {', '.join(get_args(Leaves))}, got {self.leaves!r}")
        if (self.url is None) != (self.token_file is None):
            problems.append("url and token_file go together: the site's API answers nobody without a token")
        if self.url is None and (self.ca_file is not None or self.insecure):
            problems.append("ca_file and insecure are about url: name it, or leave them out")
        if problems:
            raise Invalid("; ".join(f"[site] {problem}" for problem in problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class SitesSettings:
    """The table ``[sites]``: how many sites an answer needs, and how long to wait for them."""

    quorum: int | None = None
    """Sites that have to answer; default: all members."""
    timeout_seconds: float = 5.0
    """How long the quorum is waited for; 0.1 .. 600."""
    grace_seconds: float = 1.0
    """How long to wait for the other sites once the quorum has answered; 0 .. 600. With 0, which sites take part is
    random."""
    refresh_seconds: float = 1.0
    """How old the known standing of a site may be; its answers also carry one. Above 0, at most 60."""

    def __post_init__(self) -> None:
        problems = []
        if self.quorum is not None and self.quorum < 1:
            problems.append(f"quorum must be at least 1, got {self.quorum}")
        if not 0.1 <= self.timeout_seconds <= 600:
            problems.append(f"timeout_seconds must be 0.1 .. 600, got {self.timeout_seconds}")
        if not 0 <= self.grace_seconds <= 600:
            problems.append(f"grace_seconds must be 0 .. 600, got {self.grace_seconds}")
        if not 0 < self.refresh_seconds <= 60:
            problems.append(f"refresh_seconds must be above 0 and at most 60, got {self.refresh_seconds}")
        if problems:
            raise Invalid("; ".join(f"[sites] {problem}" for problem in problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedSite:
    """One site: what the federation says about it, and its specification as a federation of its own."""

    settings: SiteSettings
    specification: FederationSpecification

    @property
    def name(self) -> str:
        """Its name within the federation."""
        return self.settings.name


@dataclass(frozen=True, slots=True, kw_only=True)
class SitesSpecification:
    """One ``sisa.toml`` with ``[[site]]`` tables, checked."""

    name: str
    store: str
    """Of the federation itself: its roster and its own receipts; no data point, no weight."""
    folder: Path
    sites: tuple[ListedSite, ...]
    """In the order of the file."""
    aggregation: AggregationSettings
    target: Target
    id_column: str
    settings: SitesSettings = field(default_factory=SitesSettings)
    endpoint: str | None = None
    credentials: str | None = None
    serve: ServeSettings = field(default_factory=ServeSettings)
    """Where the federation's own API listens; sites have theirs."""
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    """The Ray cluster of the federation's own server."""

    def site(self, name: str) -> ListedSite:
        """Return the site of this name. Raises ``Invalid`` when the file has none."""
        for site in self.sites:
            if site.name == name:
                return site
        known = ", ".join(site.name for site in self.sites)
        raise Invalid(f"the specification has no site {name!r}", f"Its sites are {known}.")


def open_own_store(specification: SitesSpecification) -> ObjectStore:
    """Return the federation's own store, which no site needs to reach. Touches nothing."""
    return open_store(specification.store, specification.folder, specification.endpoint, specification.credentials)


def has_sites(path: Path) -> bool:
    """Return whether the specification at ``path`` is one of several sites. Raises as ``read_sites`` does."""
    return bool(SITES.intersection(parse_file(path)[1]))


def read_sites(path: Path) -> SitesSpecification:
    """Return what the file at ``path`` specifies.

    Raises ``Invalid`` when there is no such file, it is not UTF-8 or not TOML, names no site, two sites have one name
    or one store, or anything in it is unknown, missing, of the wrong type or out of range.
    """
    text, document = parse_file(path)
    tables = _site_tables(path, document)
    own = [_own(path, text, table) for table in tables]
    sites = tuple(
        ListedSite(settings=settings, specification=_specification(path, text, document, table, settings))
        for table, settings in zip(tables, own, strict=True)
    )
    _refuse_shared(path, sites)
    problems = Problems(path, text)
    if not sites[0].specification.data.predicted.has_labels:
        problems.add(
            "data",
            "target",
            _ALONE[sites[0].specification.data.target],
        )
    else:
        _refuse_weights(path, sites)
    settings: SitesSettings = read_table(
        {**TABLES, "sites": SitesSettings}, "sites", document.get("sites", {}), problems
    )
    serve: ServeSettings = read_table(TABLES, "serve", document.get("serve", {}), problems)
    cluster: ClusterSettings = read_table(TABLES, "cluster", document.get("cluster", {}), problems)
    problems.raise_if_any()
    if settings.quorum is not None and settings.quorum > len(sites):
        raise Invalid(f"[sites] quorum is {settings.quorum}, and there are {len(sites)} sites", "Lower it.")
    common = sites[0].specification
    _check_own_store(path, document, sites)
    return SitesSpecification(
        name=document["name"],
        store=document["store"],
        endpoint=document.get("endpoint"),
        credentials=document.get("credentials"),
        folder=common.folder,
        sites=sites,
        aggregation=common.aggregation,
        target=common.predicted,
        id_column=common.data.id,
        settings=settings,
        serve=serve,
        cluster=cluster,
    )


def read_site(path: Path, name: str) -> FederationSpecification:
    """Return the specification of one site, as a federation of its own. Raises as ``read_sites`` does."""
    return read_sites(path).site(name).specification


def _site_tables(path: Path, document: Mapping[str, Any]) -> list[dict[str, Any]]:
    tables = document.get("site", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables) or not tables:
        raise Invalid(f"{path.name} names no site", "Write each as a table [[site]] with name and store.")
    for name in ("name", "store"):
        if not isinstance(document.get(name), str) or not document[name]:
            raise Invalid(
                f"{path.name} has no {name} of the federation itself", f'Write {name} = "…" above all tables.'
            )
    return tables


def _own(path: Path, text: str, table: Mapping[str, Any]) -> SiteSettings:
    """Return a site's own settings. Raises ``Invalid`` for settings that no site may override."""
    name = table.get("name")
    who = f"site {name!r}" if isinstance(name, str) else "a site without a name"
    for common, values in table.items():
        if common not in TABLES or common == TOP:
            continue
        allowed = OWN.get(common, frozenset())
        if not isinstance(values, dict):
            raise Invalid(f"{who}: {common} must be a table", f"Write {common}.setting = value.")
        if foreign := sorted(values.keys() - allowed) if allowed is not None else []:
            raise Invalid(
                f"{who}: [{common}] {foreign[0]} is the federation's, the same at all sites",
                f"Write it in [{common}] above the sites.",
            )
    problems = Problems(path, text)
    plain = {setting: value for setting, value in table.items() if setting not in TABLES}
    settings: SiteSettings = read_table({"site": SiteSettings, **TABLES}, "site", plain, problems)
    problems.raise_if_any()
    return settings


def _specification(
    path: Path, text: str, document: Mapping[str, Any], table: Mapping[str, Any], settings: SiteSettings
) -> FederationSpecification:
    common = {name: value for name, value in document.items() if name not in SITES | _TOP_OWN}
    own = {name: table[name] for name in _TOP_OWN if name in table}
    merged: dict[str, Any] = {**common, **own, "name": f"{document['name']}.{settings.name}"}
    for name in OWN:
        if name in table:
            merged[name] = {**_table(merged.get(name, {})), **table[name]}
    try:
        return specification_of(path, text, merged)
    except Invalid as error:
        raise Invalid(f"site {settings.name!r}: {error.fact}", error.remedy, file=str(path)) from error


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _refuse_shared(path: Path, sites: tuple[ListedSite, ...]) -> None:
    """Refuse two sites with one name or one store: their data would not be apart."""
    for what, values in (
        ("name", [site.name for site in sites]),
        ("store", [_place(site.settings) for site in sites]),
    ):
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise Invalid(f"two sites have the {what} {twice[0]}", f"Give each its own {what}.", file=str(path))


def _refuse_weights(path: Path, sites: tuple[ListedSite, ...]) -> None:
    """Refuse that constituents leave a site whose part that serves shows its people."""
    model = sites[0].specification.model
    withheld = None if model.learner == TORCH else LEARNERS[model.learner].withheld(model.learner_arguments)
    for site in sites:
        if site.settings.leaves == "weights" and withheld is not None:
            raise Invalid(
                f"site {site.name!r}: leaves = 'weights', and constituents of the learner {model.learner} hold"
                f" {withheld}",
                "Set leaves = 'predictions', which is the default.",
                file=str(path),
            )


def _check_own_store(path: Path, document: Mapping[str, Any], sites: tuple[ListedSite, ...]) -> None:
    own = document["store"].rstrip("/")
    for site in sites:
        if site.settings.store.rstrip("/") == own:
            raise Invalid(
                f"site {site.name!r} has the federation's own store",
                "Give the federation, or the site, another one: the federation's holds no data.",
                file=str(path),
            )


def _place(settings: SiteSettings) -> str:
    endpoint = settings.endpoint if is_on_s3(settings.store) else None
    return f"{settings.store.rstrip('/')}" + (f" at {endpoint}" if endpoint else "")
