"""Opens the stores that a specification names: of the encrypted objects, of their keys, and of the witness."""

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
"""Name of the folder on every node where Ray puts the working_dir of jobs."""


def open_objects(specification: FederationSpecification) -> SealedStore:
    """Return the federation's store, in which all data points and models are encrypted. Touches nothing.

    Raises ``Invalid`` when ``store`` or ``keys`` cannot hold a store, or one contains the other.
    """
    inner = _open(specification, specification.store, specification.endpoint)
    if specification.keys is None:
        return SealedStore(inner)
    keys = _open(specification, specification.keys, specification.endpoint)
    _refuse_nested(inner, keys)
    return SealedStore(inner, keys)


def open_witness(specification: FederationSpecification) -> Witness | None:
    """Return the witness of the receipts' log; None if the specification does not name one. Touches nothing.

    Raises ``Invalid`` when its place cannot hold a store, or is inside the federation's own store.
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
            "the witness is in the federation's own store: anybody who can rewrite the log can rewrite both",
            "Name another place for [receipts] witness, to which others write.",
            witness=store.location,
        )
    return Witness(store)


def local_folders(specification: FederationSpecification) -> tuple[Path, ...]:
    """Return the folders on this machine that hold the federation's objects and keys, and so no data files."""
    named = [specification.store] if specification.keys is None else [specification.store, specification.keys]
    opened = [_open(specification, location, specification.endpoint) for location in named if not is_on_s3(location)]
    return tuple(Path(store.root) for store in opened if isinstance(store, LocalStore))


def own_places(specification: FederationSpecification) -> tuple[Path | str, ...]:
    """Return the places that hold the federation's objects and keys, to be skipped when looking for data."""
    named = [specification.store] if specification.keys is None else [specification.store, specification.keys]
    one_server = specification.data_endpoint == specification.endpoint
    buckets = (
        _open(specification, location, specification.endpoint).location
        for location in named
        if one_server and is_on_s3(location)
    )
    return (*local_folders(specification), *buckets)


def _open(specification: FederationSpecification, location: str, endpoint: str | None) -> ObjectStore:
    """Return the store at ``location``; server and credentials concern only buckets."""
    if not is_on_s3(location):
        store = open_store(location, specification.folder)
        _refuse_copy(store)
        return store
    return open_store(location, specification.folder, endpoint, specification.credentials)


def _refuse_copy(store: ObjectStore) -> None:
    """Refuse a store in Ray's copy of a job's working_dir: an erasure there would not reach the original."""
    if _UPLOADED in Path(store.location).parts:
        raise Invalid(
            "the store is in Ray's copy of a job's working_dir: the federation itself is elsewhere",
            "Name it by an absolute path or an address in the specification, and leave it out of working_dir.",
            store=store.location,
        )


def _refuse_nested(inner: ObjectStore, keys: ObjectStore) -> None:
    here, there = f"{inner.location.rstrip('/')}/", f"{keys.location.rstrip('/')}/"
    if here.startswith(there) or there.startswith(here):
        raise Invalid(
            "'keys' and 'store' are one place, or one contains the other: a copy of the one would hold the other",
            "Name another place for 'keys', such as a folder on another disk, or leave 'keys' out.",
            store=inner.location,
            keys=keys.location,
        )
