"""Opens a store from its location as a person writes it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from storage.errors import Invalid
from storage.objects import ObjectStore, object_key
from storage.s3.names import bucket_and_prefix
from storage.stores.local import LocalStore
from storage.stores.memory import MemoryStore

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_KEY_ID = re.compile(r"(AKIA|ASIA)[A-Z0-9]{12,}")
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_FORMS = "Write a folder such as './federation', 'file:///absolute/folder' or 's3://bucket/prefix'."


PROFILE_RULE: Final = (
    "must be the name of a profile in the AWS credentials file, 1 to 64 letters, digits, '.', '_', '@', '+' or '-':"
    " keys themselves stay in that file"
)
"""The message about credentials that ``is_profile`` refuses. It does not quote them: they may be a key."""


def open_store(location: str, base: Path, endpoint: str | None = None, profile: str | None = None) -> ObjectStore:
    """Return the store at ``location``; a relative path starts at ``base``. Touches nothing yet.

    Accepted: a path, ``file://`` and an absolute path, ``memory:NAME``, ``s3://BUCKET/PREFIX``. ``endpoint`` is the
    address of an S3-compatible server, None: AWS. ``profile`` names credentials in the credentials file of the machine
    that uses the store, None: those that boto3 finds there.

    Raises ``Invalid`` for any other form, for a path that is not a folder, and for an endpoint or a profile with a
    store that is not on S3.
    """
    if profile is not None and not is_on_s3(location):
        raise Invalid(
            "a profile names credentials for an S3 server, and this store is not on one",
            "Leave 'credentials' out, or name the store 's3://bucket/prefix'.",
            store=location,
        )
    if endpoint is not None and not is_on_s3(location):
        raise Invalid(
            "an endpoint is the address of an S3 server, and this store is not on one",
            "Leave 'endpoint' out, or name the store 's3://bucket/prefix'.",
            store=location,
        )
    scheme = _SCHEME.match(location)
    if scheme is None:
        return _local(base / _at_home(location), location)
    match scheme.group().lower():
        case "memory:":
            return MemoryStore(object_key(location.partition(":")[2]))
        case "file:":
            return _local(_path_of_url(location), location)
        case "s3:":
            return _bucket(location, endpoint, profile)
        case _:
            raise Invalid("this kind of store is not known", _FORMS, store=location)


def place_name(store: ObjectStore) -> str:
    """Return a name for the place of ``store``: equal names mean the same place, but one place may have several names.

    The name of a folder consists of the machine's boot id, the device and the inode, so every path to it gives the
    same name. The name of a bucket consists of its server, as configured here, and the prefix.
    """
    inner = _innermost(store)
    if isinstance(inner, LocalStore):
        try:
            found = Path(inner.root).stat()
            return f"folder {_BOOT.read_text('ascii').strip()} {found.st_dev} {found.st_ino}"
        except OSError:
            return f"folder {inner.root} of process {os.getpid()}"  # without a folder no other process means the same
    if isinstance(inner, MemoryStore):
        return f"{inner.location} of process {os.getpid()}"
    return str(getattr(inner, "address", inner.location))


def inode_of(store: ObjectStore) -> int | None:
    """Return the inode of the store's folder, which stays the same when the folder is moved; None: not in a folder."""
    inner = _innermost(store)
    return Path(inner.root).stat().st_ino if isinstance(inner, LocalStore) else None


def is_on_s3(location: str) -> bool:
    """Return whether ``location`` names a bucket."""
    return location[:3].lower() == "s3:"


def is_profile(name: str) -> bool:
    """Return whether ``name`` may name a profile in an AWS credentials file, and is not itself the id of a key.

    >>> is_profile("north"), is_profile("AKIA" + "IOSFODNN7EXAMPLE"), is_profile("")
    (True, False, False)
    """
    return _PROFILE.fullmatch(name) is not None and not _KEY_ID.fullmatch(name)


def _innermost(store: Any) -> Any:
    """Return the store inside all stores that wrap it."""
    while hasattr(store, "inner"):
        store = store.inner
    return store


def _bucket(location: str, endpoint: str | None, profile: str | None) -> ObjectStore:
    from storage.s3.client import S3Store  # noqa: PLC0415  boto3 takes a third of a second, and most stores do without

    bucket, prefix = bucket_and_prefix(location)
    return S3Store(bucket, prefix, endpoint, profile=profile)


def _at_home(location: str) -> Path:
    try:
        return Path(location).expanduser()
    except RuntimeError as error:
        raise Invalid("the account after '~' has no home folder", _FORMS, store=location) from error


def _path_of_url(location: str) -> Path:
    parts = urlsplit(location)
    path = unquote(parts.path)
    if parts.netloc not in {"", "localhost"} or not path.startswith("/") or parts.query or parts.fragment:
        raise Invalid("a file URL has to name an absolute path on this machine", _FORMS, store=location)
    return Path(path)


def _local(path: Path, location: str) -> LocalStore:
    if not location.strip() or "\0" in str(path):
        raise Invalid("the store's location is empty or not a path", _FORMS, store=repr(location))
    root = Path(os.path.abspath(path))  # noqa: PTH100  a symbolic link in the path stays: its owner may move its target
    if (root.exists() or root.is_symlink()) and not root.is_dir():
        raise Invalid("the store's location is not a folder", _FORMS, store=location)
    return LocalStore(str(root))
