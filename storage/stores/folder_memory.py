"""What a process remembers of a store's folders: one that has not changed since is not read again.

A store of a thousand shards has 40,000 folders, and most of the time of a listing is opening them. The file system says
when names in a folder last changed (POSIX: link, rename, unlink and mkdir mark ctime and mtime of the parent folder),
and no process can set the ctime. Each listing reads this *stamp* of every folder. It is relied on only where it
cannot hide a change:

* Two changes within one tick of the file system's clock have the same stamp. So remembered names are used only if the
  stamp was already seen ``_SETTLING_SECONDS`` before the folder was read: a later change has another stamp.
* A stamp of whole seconds may come from a file system whose clock ticks that slowly: such a folder is always read.
* A file system that marks no folders would hide everything. So nothing is relied on until this process has seen, in
  this store, that a folder with other names has another stamp.

Replacing a file's bytes in place changes no folder. Stores never do so; only the sizes could be those of before.
Source: the same race in git's index (Documentation/technical/racy-git).
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from storage.contents import Holdings
from storage.objects import ObjectKey, is_object_key
from storage.stores.durability import temporary_target
from storage.stores.file_errors import translated

_SETTLING_SECONDS: Final = 1.0
"""Measured by the monotonic clock; about a hundred ticks of a file-system clock that records fractions of seconds."""

_STORES: Final = 4
"""How many stores' folders a process remembers, the last ones: about 500 bytes for each object."""

_Stamp = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folder:
    """What a folder held when it was read."""

    stamp: _Stamp
    """Asked before the reading, so that a change meanwhile shows."""
    since: float
    """When this stamp was first seen."""
    is_settled: bool
    """Whether any change since the reading shows in the stamp."""
    sizes: Mapping[ObjectKey, int]
    unfinished: tuple[str, ...]
    folders: tuple[str, ...]
    """Names of the folders of objects in it, from the store's root on."""

    def has_names_of(self, other: _Folder) -> bool:
        """Return whether both held the same names."""
        return (self.sizes.keys(), self.unfinished, self.folders) == (
            other.sizes.keys(),
            other.unfinished,
            other.folders,
        )


@dataclass(slots=True)
class FolderMemory:
    """The folders of the store in ``root``, as this process last saw them. Any thread may use it."""

    root: str
    monotonic: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """Guards the fields below."""
    _known: dict[str, _Folder] = field(default_factory=dict)
    _sizes: dict[ObjectKey, int] = field(default_factory=dict)
    """Sizes of the objects in all known folders."""
    _marks_folders: bool = False
    """Whether a folder with other names was seen to have another stamp."""

    def contents(self, prefix: str = "") -> Holdings:
        """Return all objects and unfinished files under ``prefix``, in any order. Raises as ``LocalStore.list`` does.

        ``prefix`` is the empty one, or a folder of keys with its ``/``.
        """
        with self._lock:
            unfinished, seen, names = list[str](), dict[str, _Folder](), [prefix.removesuffix("/")]
            while names:
                name = names.pop()
                if (folder := self._folder(name)) is not None:
                    seen[name] = folder
                    unfinished += folder.unfinished
                    names += folder.folders
            if prefix:  # what is known of folders that are gone stays until all are listed
                sizes = {key: size for folder in seen.values() for key, size in folder.sizes.items()}
                return Holdings(sizes=sizes, unfinished=tuple(unfinished))
            for name in self._known.keys() - seen.keys():
                self._forget(self._known.pop(name))
            return Holdings(sizes=dict(self._sizes), unfinished=tuple(unfinished))

    def _folder(self, name: str) -> _Folder | None:
        """Return the folder, read again unless nothing in it can have changed; None if it is gone."""
        path, known = f"{self.root}/{name}" if name else self.root, self._known.get(name)
        try:
            stamp = _stamp_of(path)
            if known is not None and known.stamp == stamp and known.is_settled and self._marks_folders:
                return known
            found = self._read(name, path, stamp, known)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            with translated(name):
                raise
        if known is not None:
            self._forget(known)
        self._known[name] = found
        self._sizes.update(found.sizes)
        return found

    def _forget(self, folder: _Folder) -> None:
        for key in folder.sizes:
            del self._sizes[key]

    def _read(self, name: str, path: str, stamp: _Stamp, known: _Folder | None) -> _Folder:
        now = self.monotonic()  # before the reading
        since = known.since if known is not None and known.stamp == stamp else now
        sizes, unfinished, folders = _entries(name, path)
        found = _Folder(
            stamp=stamp,
            since=since,
            is_settled=now - since >= _SETTLING_SECONDS and not _is_coarse(stamp),
            sizes=sizes,
            unfinished=unfinished,
            folders=folders,
        )
        if known is not None and known.stamp != stamp and not known.has_names_of(found):
            self._marks_folders = True
        return found


_MEMORIES: dict[str, FolderMemory] = {}  # no lock: each step on it is atomic


def folder_memory(root: str) -> FolderMemory:
    """Return this process's memory of the store in ``root``."""
    memory = _MEMORIES.pop(root, None) or FolderMemory(root)
    _MEMORIES[root] = memory  # now the last one
    for other in list(_MEMORIES)[:-_STORES]:
        _MEMORIES.pop(other, None)
    return memory


def _stamp_of(path: str) -> _Stamp:
    found = os.stat(path)  # noqa: PTH116  40,000 times a listing
    return found.st_ctime_ns, found.st_mtime_ns, found.st_ino, found.st_dev, found.st_nlink, found.st_size


def _is_coarse(stamp: _Stamp) -> bool:
    return stamp[0] % 1_000_000_000 == 0


def _entries(name: str, path: str) -> tuple[dict[ObjectKey, int], tuple[str, ...], tuple[str, ...]]:
    """Return objects with their sizes, unfinished files and folders of objects; names from the store's root on."""
    start = f"{name}/" if name else ""
    sizes, unfinished, folders = dict[ObjectKey, int](), list[str](), list[str]()
    with os.scandir(path) as entries:
        for entry in entries:
            if is_object_key(entry.name):
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # deleted after its folder was read
                    continue
                if stat.S_ISREG(found.st_mode):
                    sizes[ObjectKey(start + entry.name)] = found.st_size
                elif stat.S_ISDIR(found.st_mode):
                    folders.append(start + entry.name)
            elif temporary_target(entry.name) is not None and entry.is_file(follow_symlinks=False):
                unfinished.append(start + entry.name)
    return sizes, tuple(sorted(unfinished)), tuple(sorted(folders))
