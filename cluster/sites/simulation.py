"""The same federation on one machine: every site a folder, to be tried before anything is deployed."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from cluster.config.sites import ListedSite, SitesSpecification
from cluster.config.specification import ClusterSettings
from storage.location import is_on_s3

FOLDER: Final = "simulated"
"""Beside the specification: the federation's own store, and one for each site."""


def simulated(specification: SitesSpecification) -> SitesSpecification:
    """Return the federation with stores in folders of ``simulated/``, on a Ray of this machine, nothing elsewhere.

    Data are read where the specification says, so that each site's have to be there, or others in their place. The
    constituents are those that the sites themselves would train, given the same data and partition keys: nothing that
    decides their bytes is changed, but a key that is not in the specification is drawn anew for each store.
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
    if is_on_s3(data.train):  # where they are is said by what is left out below
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
