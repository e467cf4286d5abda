"""A user's model, rehearsed or trained once, in several folders that have the same code and settings."""

from __future__ import annotations

import shutil
from pathlib import Path

from cluster.writer.place import read_identity, take_place
from storage.stores.local import LocalStore
from tests.doubles.user_folder import UserFolder

_RECORDS = "rehearsals"


def share_rehearsals(first: UserFolder, home: UserFolder) -> None:
    """Copy the records of rehearsals from the store of one folder to that of another, which may be empty."""
    shutil.copytree(first.store / _RECORDS, home.store / _RECORDS, dirs_exist_ok=True)


def copy_store(first: UserFolder, home: UserFolder) -> None:
    """Copy the store of one folder to another, where it is that of a federation of its own."""
    shutil.copytree(first.store, home.store, dirs_exist_ok=True)
    store = LocalStore(str(home.store))
    identity = read_identity(store)
    assert identity
    take_place(store, identity.id)


def stand_in(home: UserFolder, name: str) -> Path:
    """Return a path that leads to this folder until it is asked for with another one, and is the same for all.

    A model's code that names it is the same in all folders beside each other. Processes that outlive a test must
    resolve it once.
    """
    link = home.folder.parent / f"at-work-{name}"
    aside = link.with_name(f"next-{name}")
    aside.symlink_to(home.folder)
    aside.replace(link)
    return link
