"""The store of a federation's objects: where its specification says, encrypted, with the keys where that says."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cluster.config.specification import FederationSpecification
from storage.encryption.store import SealedStore
from storage.errors import Invalid
from storage.location import is_on_s3, open_store
from storage.objects import ObjectStore
from storage.stores.local import LocalStore
from storage.transparency.witness import Witness

_UPLOADED: Final = "working_dir_files"
"""The folder of every node where Ray puts the working_dir of jobs."""


def open_objects(specification: FederationSpecification) -> SealedStore:
    """Return the federation's store; everything that holds data points or models is encrypted in it. Touches nothing.

    Raises ``Invalid`` when ``store`` or ``keys`` is no place for a store, or one lies in the other.
    """
    inner = _open(specification, specification.store, specification.endpoint)
    if specification.keys is None:
        return SealedStore(inner)
    keys = _open(specification, specification.keys, specification.endpoint)
    _refuse_nested(inner, keys)
    return SealedStore(inner, keys)


def open_witness(specification: FederationSpecification) -> Witness | None:
    """Return the witness of the receipts' log; None: none is named. Touches nothing.

    Raises ``Invalid`` when it is no place for a store, or lies in the federation's own.
    """
    if specification.receipts.witness is None:
        return None
    place = specification.receipts.witness
    endpoint = specification.receipts.endpoint or specification.endpoint
    store = _open(specification, place, endpoint)
    own = _open(specification, specification.store, specification.endpoint).location
    here, there = f"{own.rstrip('/')}/", f"{store.location.rstrip('/')}/"
    if there.startswith(here):
        raise Invalid(
            "the witness is the federation's own store, or lies in it: who rewrites the log rewrites both",
            "Name another place for [receipts] witness, which others write.",
            witness=store.location,
        )
    return Witness(store)


def local_folders(specification: FederationSpecification) -> tuple[Path, ...]:
    """Return the folders on this machine that hold the federation's objects and keys: none of their files is data."""
    named = [specification.store] if specification.keys is None else [specification.store, specification.keys]
    opened = [_open(specification, location, specification.endpoint) for location in named if not is_on_s3(location)]
    return tuple(Path(store.root) for store in opened if isinstance(store, LocalStore))


def own_places(specification: FederationSpecification) -> tuple[Path | str, ...]:
    """Return the folders and addresses that hold the federation's objects and keys, as data may be looked for there."""
    named = [specification.store] if specification.keys is None else [specification.store, specification.keys]
    one_server = specification.data_endpoint == specification.endpoint
    buckets = (
        _open(specification, location, specification.endpoint).location
        for location in named
        if one_server and is_on_s3(location)
    )
    return (*local_folders(specification), *buckets)


def _open(specification: FederationSpecification, location: str, endpoint: str | None) -> ObjectStore:
    """Return the store at ``location``; server and credentials concern only what is in a bucket."""
    if not is_on_s3(location):
        store = open_store(location, specification.folder)
        _refuse_copy(store)
        return store
    return open_store(location, specification.folder, endpoint, specification.credentials)


def _refuse_copy(store: ObjectStore) -> None:
    """Refuse a store in what Ray has copied of a job's working_dir: what is erased there stays where it came from."""
    if _UPLOADED in Path(store.location).parts:
        raise Invalid(
            "the store lies in the copy that Ray has made of a job's working_dir: the federation itself is elsewhere",
            "Name it by an absolute path or an address in the specification, and leave it out of working_dir.",
            store=store.location,
        )


def _refuse_nested(inner: ObjectStore, keys: ObjectStore) -> None:
    here, there = f"{inner.location.rstrip('/')}/", f"{keys.location.rstrip('/')}/"
    if here.startswith(there) or there.startswith(here):
        raise Invalid(
            "'keys' and 'store' are one place, or one lies in the other: a copy of the one would hold the other",
            "Name another place for 'keys', such as a folder on another disk, or leave 'keys' out.",
            store=inner.location,
            keys=keys.location,
        )
