"""A simulated disk that loses everything that was not synced, to test what is durable.

Files and names are in a real folder, which plays the page cache. The double also tracks what a power cut would leave:
the content of each file as of its last sync, and the names in each folder as of that folder's last sync. A failed sync
drops the data it should have written, and a later sync does not restore it: the kernel has marked the pages clean
(fsyncgate).
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storage.stores import durability

CHANGES = ("open", "write", "fsync", "link", "unlink", "rename", "mkdir", "rmdir")
"""The calls that change the disk.

All except ``rmdir`` can fail: if a folder was created, its name not synced, and the folder could not be removed either,
the disk accepts no changes until it is mounted again, which loses everything that was not synced.
"""


@dataclass(slots=True, eq=False)
class _File:
    durable: bytes = b""
    is_dirty: bool = False


@dataclass(slots=True, eq=False)
class _Folder:
    durable: dict[str, _Node] = field(default_factory=dict)
    live: dict[str, _Node] = field(default_factory=dict)
    pending: dict[str, _Node | None] = field(default_factory=dict)
    """Names changed since the last sync; None for removed ones."""

    def change(self, name: str, node: _Node | None) -> None:
        self.pending[name] = node
        self.live.pop(name, None)
        if node is not None:
            self.live[name] = node

    def sync(self) -> None:
        for name, node in self.pending.items():
            self.durable.pop(name, None)
            if node is not None:
                self.durable[name] = node
        self.pending.clear()


_Node = _File | _Folder


@dataclass(frozen=True, slots=True)
class KeptDisk:
    """What a disk was at some moment, so that tests which begin alike prepare it once."""

    files: dict[Path, tuple[int, bytes | None]]
    """Mode and content by name; folders, which come before what is in them, have no content."""
    tree: _Folder


Fault = Callable[[int, str, str], OSError | None]
"""Called with a call's number, name and path; returns the error to raise, if any."""


@dataclass(slots=True)
class ForgetfulDisk:
    """The disk under the folder ``root``. Its content at the start is durable."""

    root: Path
    fault: Fault = lambda _number, _call, _path: None
    calls: list[tuple[str, str]] = field(default_factory=list)
    """The calls since the last restart, each with its path."""
    _tree: _Folder = field(default_factory=_Folder)
    _opened: dict[int, tuple[_Node, str]] = field(default_factory=dict)
    _real: dict[str, Callable[..., Any]] = field(default_factory=dict)

    @contextmanager
    def mounted(self) -> Iterator[ForgetfulDisk]:
        """Intercept this process's calls within the block."""
        self._tree = _taken(self.root)
        self._real = {name: getattr(os, name) for name in CHANGES}
        self._put_in({name: getattr(self, f"_{name}") for name in CHANGES})
        try:
            yield self
        finally:
            self._put_in(self._real)

    def restart(self, fault: Fault = lambda _number, _call, _path: None) -> None:
        """Simulate a new process with these faults; the page cache is kept."""
        durability._SETTLED.clear()
        self.calls.clear()
        self.fault = fault

    def power_cut(self, keeping: Callable[[str], bool] = lambda _: False) -> None:
        """Lose everything that was not synced, except the names in folders that ``keeping`` accepts; then restart."""
        for path, folder in _folders(self._tree, ""):
            if keeping(path):
                folder.sync()
        with self._unwatched():
            shutil.rmtree(self.root)
            _restore(self._tree, self.root)
            self._tree = _taken(self.root)
        self.restart()

    def left(self, folder: Path) -> Path:
        """Write to ``folder``, outside the disk, what a power cut would leave now, and return it. Nothing is lost.

        Other threads may use the disk meanwhile, so its calls stay intercepted: a file that was created unobserved
        could not be renamed later.
        """
        assert not folder.is_relative_to(self.root)
        _restore(self._tree, folder)
        return folder

    def clear(self) -> None:
        """Empty the disk."""
        with self._unwatched():
            shutil.rmtree(self.root)
            self.root.mkdir()
        self._tree = _Folder()

    def keep(self) -> KeptDisk:
        """Return the disk as it is, what is synced and what is not."""
        files = {
            path.relative_to(self.root): (path.stat().st_mode, None if path.is_dir() else path.read_bytes())
            for path in sorted(self.root.rglob("*"))
        }
        return KeptDisk(files, copy.deepcopy(self._tree))

    def bring_back(self, kept: KeptDisk) -> None:
        """Make the disk what it was when it was kept."""
        self.clear()
        with self._unwatched():
            for name, (mode, content) in kept.files.items():
                path = self.root / name
                if content is None:
                    path.mkdir()
                else:
                    path.write_bytes(content)
                path.chmod(mode)
        self._tree = copy.deepcopy(kept.tree)

    def unsynced(self) -> list[str]:
        """Return the folders with name changes that a power cut would undo."""
        return [path for path, folder in _folders(self._tree, "") if folder.pending]

    # ------------------------------------------------------------------------------------------------- the calls

    @contextmanager
    def _unwatched(self) -> Iterator[None]:
        self._put_in(self._real)
        try:
            yield
        finally:
            self._put_in({name: getattr(self, f"_{name}") for name in CHANGES})

    @staticmethod
    def _put_in(calls: dict[str, Callable[..., Any]]) -> None:
        for name, call in calls.items():
            setattr(os, name, call)

    def _place(self, path: Any) -> tuple[_Folder, str, str] | None:
        """Return folder, name and whole path of ``path`` on the disk; None when it is not on it.

        It compares text, not paths: there are thousands of calls.
        """
        full, root = os.path.join(os.getcwd(), os.fspath(path)), f"{self.root}/"  # noqa: PTH109, PTH118
        if not full.startswith(root) or full == root:
            return None
        *above, name = full.removeprefix(root).split("/")
        folder: _Node | None = self._tree
        for part in above:
            folder = folder.live.get(part) if isinstance(folder, _Folder) else None
        return (folder, name, "/".join((*above, name))) if isinstance(folder, _Folder) else None

    def _note(self, call: str, path: str) -> None:
        self.calls.append((call, path))
        if (error := self.fault(len(self.calls), call, path)) is not None:
            raise error

    def _open(self, path: Any, flags: int, *more: Any, **named: Any) -> int:
        place = self._place(path)
        if place is None and Path(os.fspath(path)).absolute() != self.root:
            descriptor: int = self._real["open"](path, flags, *more, **named)
            self._opened.pop(descriptor, None)
            return descriptor
        self._note("open", place[2] if place else "")
        descriptor = self._real["open"](path, flags, *more, **named)
        if place is None:
            self._opened[descriptor] = (self._tree, "")
            return descriptor
        folder, name, whole = place
        if name not in folder.live:
            folder.change(name, _File())
        self._opened[descriptor] = (folder.live[name], whole)
        return descriptor

    def _write(self, descriptor: int, payload: Any) -> int:
        node, path = self._opened.get(descriptor, (None, ""))
        if isinstance(node, _File):
            node.is_dirty = True
            try:
                self._note("write", path)
            except OSError:
                self._real["write"](descriptor, bytes(payload)[: len(payload) // 2])  # the worst case: half of it
                raise
        written: int = self._real["write"](descriptor, payload)
        return written

    def _fsync(self, descriptor: int) -> None:
        node, path = self._opened.get(descriptor, (None, ""))
        if node is None:
            self._real["fsync"](descriptor)
            return
        try:
            self._note("fsync", path)
        except OSError:
            if isinstance(node, _Folder):
                node.pending.clear()
            else:
                node.is_dirty = False
            raise
        if isinstance(node, _Folder):
            node.sync()
        elif node.is_dirty:
            node.durable = (self.root / path).read_bytes()
            node.is_dirty = False

    def _link(self, source: Any, target: Any) -> None:
        old, new = self._place(source), self._place(target)
        if new is not None:
            self._note("link", new[2])
        self._real["link"](source, target)
        if old is not None and new is not None:
            new[0].change(new[1], old[0].live[old[1]])

    def _rename(self, source: Any, target: Any) -> None:
        old, new = self._place(source), self._place(target)
        if new is not None:
            self._note("rename", new[2])
        self._real["rename"](source, target)
        if old is not None and new is not None:
            node = old[0].live[old[1]]
            old[0].change(old[1], None)
            new[0].change(new[1], node)

    def _unlink(self, path: Any) -> None:
        self._removed("unlink", path)

    def _rmdir(self, path: Any) -> None:
        self._removed("rmdir", path)

    def _removed(self, call: str, path: Any) -> None:
        place = self._place(path)
        if place is not None and call != "rmdir":
            self._note(call, place[2])
        self._real[call](path)
        if place is not None:
            place[0].change(place[1], None)

    def _mkdir(self, path: Any, *more: Any) -> None:
        place = self._place(path)
        if place is not None:
            self._note("mkdir", place[2])
        self._real["mkdir"](path, *more)
        if place is not None:
            place[0].change(place[1], _Folder())


def _taken(root: Path) -> _Folder:
    """Return the tree under ``root``, as durable content."""
    tree = _Folder()
    for path in sorted(root.iterdir()):
        tree.durable[path.name] = _taken(path) if path.is_dir() else _File(durable=path.read_bytes())
    tree.live = dict(tree.durable)
    return tree


def _restore(folder: _Folder, path: Path) -> None:
    path.mkdir(0o700)
    for name, node in list(folder.durable.items()):  # another thread may sync the folder meanwhile
        if isinstance(node, _Folder):
            _restore(node, path / name)
        else:
            (path / name).write_bytes(node.durable)


def _folders(folder: _Folder, path: str) -> Iterator[tuple[str, _Folder]]:
    yield path, folder
    for name, node in folder.live.items():
        if isinstance(node, _Folder):
            yield from _folders(node, f"{path}/{name}".lstrip("/"))
