"""Where a federation's data come from: the source that it trains on, and the data to predict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from cluster.config.specification import FederationSpecification
from cluster.writer.stores import own_places
from coordinator.sites import SiteStanding
from coordinator.state import FederationState
from shards.data.frames import table_of
from shards.data.inventory import inventory
from shards.data.prediction_files import FeatureBatch, feature_batches
from shards.data.sources import Source, named_by, open_source, passed_over_text, table_source
from shards.slices.ingest import taken_from
from shards.specification import DataSettings
from storage.errors import Invalid

IN_MEMORY: Final = "memory:"
"""``[data] train`` of a federation whose data points are given to ``Federation.train`` as a table."""


def open_train(specification: FederationSpecification) -> Source:
    """Return the source that ``[data] train`` names.

    Raises as ``open_source`` does; ``Invalid`` also where that is ``memory:``.
    """
    if specification.data.train == IN_MEMORY:
        raise Invalid(
            "the federation was trained on data in memory, which are not kept",
            "Pass them again: Federation.train(table), or fit(X, y) of an estimator.",
        )
    return _opened(specification, specification.data.train, specification.folder, specification.data.version)


def open_holdout(specification: FederationSpecification) -> Source | None:
    """Return the source of hold-out points that ``[data] holdout`` names; None: it names no files.

    Raises as ``open_source`` does.
    """
    location = specification.data.held_out_source
    if location is None:
        return None
    with named_by("[data] holdout"):
        return _opened(specification, location, specification.folder)


def open_sources(specification: FederationSpecification) -> tuple[Source, ...]:
    """Return the source to train on and, if it is another one, that of hold-out points. Raises as both do."""
    holdout = open_holdout(specification)
    return (open_train(specification), *((holdout,) if holdout else ()))


def is_news(
    specification: FederationSpecification, state: FederationState, source: Source, holdout: Source | None
) -> bool:
    """Return whether the sources, or the settings by which they are read, differ from what was ingested."""
    if state.data is None or state.data.taken != taken_from(specification.data):
        return True
    return state.data.inventory != (*inventory(source), *(inventory(holdout) if holdout else ()))


def asked_about(
    specification: FederationSpecification,
    state: FederationState,
    data: object,
    *,
    labelled: bool,
    remark: Callable[[str], None],
) -> Iterator[FeatureBatch]:
    """Return the features of a file, folder, glob, or a table or frame in memory, batch by batch.

    Places are relative to the current folder, or in a bucket; files of the federation's own store are left out.
    ``remark`` is called with the files of a folder that are passed over.
    """
    assert state.data is not None
    # By the names found at ingest, because a pattern could match this file's columns in another order.
    settings: DataSettings = replace(specification.data, features=state.data.layout.features)
    source = source_of(specification, data, remark)
    return feature_batches(source, settings, state.data.layout.width, labelled=labelled)


def asked_of_sites(
    specification: FederationSpecification,
    standing: SiteStanding,
    data: object,
    *,
    labelled: bool,
    remark: Callable[[str], None],
) -> Iterator[FeatureBatch]:
    """Return features for several sites, not scaled, because each site scales them itself; see ``asked_about``."""
    settings: DataSettings = replace(specification.data, features=standing.features, scale=1.0)
    source = source_of(specification, data, remark)
    return feature_batches(source, settings, standing.width, labelled=labelled)


def source_of(specification: FederationSpecification, data: object, remark: Callable[[str], None]) -> Source:
    """Return what a caller in Python gives as data: see ``asked_about``."""
    if not isinstance(data, str | Path):
        return table_source(table_of(data))
    with named_by(""):
        source = _opened(specification, str(data), Path.cwd())
    if passed_over := passed_over_text(source):
        remark(passed_over)
    return source


def _opened(specification: FederationSpecification, location: str, base: Path, version: int | None = None) -> Source:
    own = own_places(specification)
    source = open_source(
        location,
        base,
        leave_out=own,
        endpoint=specification.data_endpoint,
        profile=specification.data_credentials,
        csv=specification.data.csv,
        version=version,
    )
    return replace(source, encoding=specification.data.encoders)
