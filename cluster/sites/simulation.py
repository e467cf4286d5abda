"""The same federation on one machine, with a folder for each site, to try it before anything is deployed."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from cluster.config.sites import ListedSite, SitesSpecification
from cluster.config.specification import ClusterSettings
from storage.location import is_on_s3

FOLDER: Final = "simulated"
"""Folder next to the specification with the federation's own store and one for each site."""


def simulated(specification: SitesSpecification) -> SitesSpecification:
    """Return the federation with stores in folders of ``simulated/``, on a Ray of this machine.

    Data are read where the specification says, so that each site's data, or substitutes, have to be there. Given the
    same data and partition keys, the sites themselves would train the same constituents, because no setting that
    decides their bytes is changed. A key that is not in the specification is drawn for each store.
    """
    return replace(
        specification,
        store=f"./{FOLDER}/federation",
        endpoint=None,
        credentials=None,
        sites=tuple(_simulated(site) for site in specification.sites),
    )


def _simulated(site: ListedSite) -> ListedSite:
    store = f"./{FOLDER}/{site.name}"
    settings = replace(
        site.settings, store=store, url=None, token_file=None, endpoint=None, keys=None, credentials=None
    )
    own = site.specification
    data = own.data
    # Which keeps the data's own server and credentials, which are left out below.
    if is_on_s3(data.train) or is_on_s3(data.held_out_source or ""):
        data = replace(data, endpoint=own.data_endpoint, credentials=own.data_credentials)
    threads = own.cluster.threads_per_worker  # part of the numerics profile (E7)
    return ListedSite(
        settings=settings,
        specification=replace(
            own,
            store=store,
            data=data,
            endpoint=None,
            credentials=None,
            keys=None,
            cluster=ClusterSettings(address="local", threads_per_worker=threads),
            receipts=replace(own.receipts, witness=None, endpoint=None),
        ),
    )
