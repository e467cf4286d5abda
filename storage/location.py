"""From a location as a person writes it to the store that is there."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from storage.errors import Invalid
from storage.local import LocalStore
from storage.memory import MemoryStore
from storage.objects import ObjectStore, object_key

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_FORMS = "write a folder such as './federation', or 'file:///absolute/folder'"


def open_store(location: str, base: Path) -> ObjectStore:
    """Return the store at ``location``; a relative path starts at ``base``. Touches nothing yet.

    Accepted: a path, ``file://`` and an absolute path, ``memory:NAME``.

    Raises ``Invalid`` for any other form and for a path that is no folder.
    """
    scheme = _SCHEME.match(location)
    if scheme is None:
        return _local(base / _at_home(location), location)
    match scheme.group().lower():
        case "memory:":
            return MemoryStore(object_key(location.partition(":")[2]))
        case "file:":
            return _local(_path_of_url(location), location)
        case "s3:":
            raise Invalid(
                "this version keeps federations in a local folder; it does not reach S3 yet", _FORMS, store=location
            )
        case _:
            raise Invalid("this kind of store is not known", _FORMS, store=location)


def _at_home(location: str) -> Path:
    try:
        return Path(location).expanduser()
    except RuntimeError as error:
        raise Invalid("the account after '~' has no home folder", _FORMS, store=location) from error


def _path_of_url(location: str) -> Path:
    parts = urlsplit(location)
    path = unquote(parts.path)
    if parts.netloc not in {"", "localhost"} or not path.startswith("/") or parts.query or parts.fragment:
        raise Invalid("a file URL names an absolute path on this machine", _FORMS, store=location)
    return Path(path)


def _local(path: Path, location: str) -> LocalStore:
    if not location.strip() or "\0" in str(path):
        raise Invalid("the store's location is empty or no path", _FORMS, store=repr(location))
    root = Path(os.path.abspath(path))  # noqa: PTH100  a symbolic link in the path stays: its owner may move its target
    if (root.exists() or root.is_symlink()) and not root.is_dir():
        raise Invalid("the store's location is not a folder", _FORMS, store=location)
    return LocalStore(str(root))
