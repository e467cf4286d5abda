"""Objects in a local folder: link-or-fail creates, locked compare-and-swap, every step synced.

Needs a POSIX file system with hard links and ``flock``, which ``storage.stores.probe`` checks. Files that are not
objects have names outside the grammar of keys: temporary files (``.<segment>.<random>.tmp``) beside their targets, lock
files under ``.locks/``.
Source: ALICE (Pillai et al., OSDI 2014) for the order of steps.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from storage.contents import Holdings
from storage.digests import sha256
from storage.errors import (
    Invalid,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    SisaError,
    Unavailable,
    WriterBusy,
)
from storage.objects import ObjectInfo, ObjectKey, StoredObject, VersionTag, is_object_key, key_segment, object_key
from storage.stores.durability import (
    ensure_folder,
    remove_quietly,
    sync_folder,
    temporary_target,
    write_temporary,
)
from storage.stores.file_errors import FULL, translated, unsettled
from storage.stores.folder_memory import folder_memory
from storage.stores.lock import held, holder_of, is_stopped

_LOCKS = ".locks"
_LOCK_FILE = re.compile(r"(\.swap|[a-z0-9_-][a-z0-9._-]*)\.lock")
_HOLDER_BYTES = 400

SWAP_PATIENCE_SECONDS: Final = 10.0
"""How long to wait for the lock that processes hold while they compare and rename; its holder may be stopped."""

_SWEPT_ATTEMPTS: Final = 16
"""How often a write starts again after a sweep removed its temporary file; a sweep makes a few passes."""

_CHANGED_ATTEMPTS: Final = 64
"""How often an object is read again while other writers replace it; each time one of them makes progress."""


_RIGHTS: dict[str, tuple[os.stat_result, ...]] = {}
"""For each root, the folder that was there when this process became the writer; see ``_refuse_without_disk``."""


@dataclass(frozen=True, slots=True)
class LocalStore:
    """An ``ObjectStore`` in the folder ``root``; safe under several processes of one machine.

    Folders are made on the first put and stay when they become empty, so a folder of keys never becomes a key. A
    crashed writer leaves at most a temporary file, which may be a second name of an object: so an erasure is complete
    only after ``remove_unfinished``. That also removes the files of live writers: their put then starts again, as if it
    had been called a moment later.
    """

    root: str
    """Absolute path of the folder, which need not exist yet."""

    def __post_init__(self) -> None:
        if not Path(self.root).is_absolute() or os.path.normpath(self.root) != self.root:
            raise Invalid("a local store needs an absolute, normalised path", "Use storage.location.open_store.")

    @property
    def location(self) -> str:
        """The folder's path."""
        return self.root

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Create the object: write and sync a temporary file, then link it under the key's name, which must be free."""
        path = self._path(key)
        self._refuse_without_disk()
        with translated(key):
            ensure_folder(path.parent, self._folder)
            _although_swept(lambda: self._create(key, path, payload))
        _settle(key, path.parent)
        return _tag(payload)

    def put_if_match(self, key: ObjectKey, payload: bytes, expected: VersionTag) -> VersionTag:
        """Replace the object: under the store's swap lock, compare and then rename a synced temporary file over it."""
        path = self._path(key)
        self._refuse_without_disk()
        with translated(key):
            _refuse_missing(key, path)  # before the temporary file, whose folder may not exist either
            _although_swept(lambda: self._replace(key, payload, expected))
        _settle(key, path.parent)
        return _tag(payload)

    def get(self, key: ObjectKey) -> StoredObject:
        """Read the object; a replacement in progress is seen entirely or not at all."""
        path = f"{self.root}/{object_key(key)}"
        with translated(key):
            try:
                payload = read_whole(path)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise _missing(key) from None
        return StoredObject(payload=payload)

    def get_durable(self, key: ObjectKey) -> StoredObject:
        """Read the object and put the same content again: a new file, synced, renamed over it, the folder synced.

        After a failed sync nothing less is enough: a read returns the page cache, and a second sync may succeed without
        writing the pages that the first one dropped.
        """
        for _ in range(_CHANGED_ATTEMPTS):
            found = self.get(key)
            try:
                self.put_if_match(key, found.payload, found.tag)
            except ObjectChanged:
                continue
            except Unavailable as error:
                raise _not_durable(error, key) from error
            return found
        raise Unavailable("other writers keep replacing the object", "Stop them, or try again.", key=key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Walk the folders that can hold such keys; names outside the grammar are skipped."""
        for name, entry in self._walk(prefix):
            if name.startswith(prefix) and (found := _object_at(name, entry)) is not None:
                yield found

    def delete(self, key: ObjectKey) -> None:
        """Remove the object's name, under the swap lock: otherwise a compare-and-swap could bring the object back."""
        path = self._path(key)
        with translated(key):
            if not stat.S_ISDIR(_mode(path.parent) or 0):
                return
            with self._swapping():
                is_removed = _unlinked(path)
        if is_removed:
            with suppress(OSError):
                sync_folder(path.parent)
                return
        self._remove_name(key, path)

    def _remove_name(self, key: ObjectKey, path: Path) -> None:
        """Make the absence of the name durable: create a folder of that name, which is not an object, and remove it.

        For a name that was removed before, perhaps by a process that died or whose sync failed: a second sync alone may
        succeed without writing what the first one dropped.
        """
        try:
            with self._swapping(), suppress(FileExistsError):  # an object with this name is a new one
                path.mkdir(0o700)
                path.rmdir()
            sync_folder(path.parent)
        except (OSError, Unavailable) as error:
            raise unsettled(key, error) from error

    def delete_all(self, keys: Iterable[ObjectKey]) -> None:
        """Remove the objects one after another."""
        for key in keys:
            self.delete(key)

    def unfinished(self, prefix: str) -> Iterator[str]:
        """Yield paths, relative to the root, of temporary files written for keys under ``prefix``."""
        for name, entry in self._walk(prefix):
            folder, _, file = name.rpartition("/")
            segment = temporary_target(file)
            if segment is None or not entry.is_file(follow_symlinks=False):
                continue
            if _join(folder, segment).startswith(prefix):
                yield name

    def contents(self, prefix: str) -> Holdings:
        """Look at all folders once; those that have not changed are not read again. Implements ``ContentsLister``."""
        return folder_memory(self.root).contents(prefix)

    def remove_unfinished(self, prefix: str) -> int:
        """Remove the temporary files and sync their folders."""
        paths = tuple(self._folder / name for name in self.unfinished(prefix))
        for path in paths:
            with translated(path.name):
                path.unlink(missing_ok=True)
        for folder in {path.parent for path in paths}:
            _settle(folder.name, folder)
        return len(paths)

    def foreign(self) -> Iterator[str]:
        """Yield paths, relative to the root, that are not objects, folders of objects, temporary files or lock files.

        A foreign folder is named with a ``/`` at its end, without its contents. A symbolic link is foreign, because it
        would lead out of the store.
        """
        for name, entry in self._walk(""):
            if name == _LOCKS:
                yield from self._foreign_locks()
            elif entry.is_dir(follow_symlinks=False):
                yield f"{name}/"
            elif not entry.is_file(follow_symlinks=False) or not _is_ours(name):
                yield name

    @contextmanager
    def exclusive(self, name: str, holder: str) -> Iterator[None]:
        """Hold an operating system's lock on ``.locks/<name>.lock``; the holder's text is in that file."""
        path = self._lock_file(key_segment(name))
        with ExitStack() as stack:
            with translated(name):
                try:
                    descriptor = stack.enter_context(held(path))
                except BlockingIOError:
                    raise self._busy(name, path) from None
                # The holder's text is optional: a full disk must not prevent the lock, and with it every erasure.
                _note(descriptor, holder)
            stack.enter_context(_noted(self.root))
            yield

    def _refuse_without_disk(self) -> None:
        """Raise ``Unavailable`` when this process has the right to write, but the root has become another folder.

        Then the disk was unmounted, and a write would begin an empty store at the mount point. Whether another process
        has taken over the right does not matter here: fencing tokens handle that.
        """
        if all(_is_at(folder, self.root) for folder in _RIGHTS.get(self.root, ())):
            return
        raise Unavailable(
            "the store's folder is no longer the one in which this process has the right to write: nothing was written",
            "Mount its disk again at this place, then repeat the command. If another store was put there on purpose,"
            " restart this process.",
            store=self.root,
        )

    @property
    def _folder(self) -> Path:
        return Path(self.root)

    def _path(self, key: ObjectKey) -> Path:
        return Path(f"{self.root}/{object_key(key)}")

    def _create(self, key: ObjectKey, path: Path, payload: bytes) -> None:
        temporary = write_temporary(path, payload)
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise self._taken(key, path) from None
        finally:
            remove_quietly(temporary)

    def _taken(self, key: ObjectKey, path: Path) -> SisaError | FileNotFoundError:
        """Return the error for a taken name; ``FileNotFoundError`` (put again) if ``_remove_name`` had taken it."""
        if not path.is_dir():
            return ObjectExists("an object with this key exists", "Read it, then decide.", key=key)
        with self._swapping():
            if not path.is_dir():
                return FileNotFoundError(str(path))
        return Invalid("the key is a folder of other objects' keys", "Choose another key.", key=key)

    def _replace(self, key: ObjectKey, payload: bytes, expected: VersionTag) -> None:
        path = self._path(key)
        temporary = write_temporary(path, payload)
        try:
            with self._swapping():
                _refuse_changed(self.get(key), key, expected)
                temporary.rename(path)
        except BaseException:
            remove_quietly(temporary)
            raise

    @contextmanager
    def _swapping(self) -> Iterator[None]:
        path = self._lock_file(".swap")
        with ExitStack() as stack:
            try:
                stack.enter_context(held(path, SWAP_PATIENCE_SECONDS))
            except BlockingIOError:
                raise self._stuck(path) from None
            yield

    def _lock_file(self, name: str) -> Path:
        """Return the lock file's path, in a folder that exists; keys never start with a dot, unlike its name."""
        folder = self._folder / _LOCKS
        with translated(_LOCKS):
            ensure_folder(folder, self._folder)
        return folder / f"{name}.lock"

    def _busy(self, name: str, path: Path) -> WriterBusy:
        text = path.read_bytes()[:_HOLDER_BYTES].decode("utf-8", "replace")
        process = holder_of(path)
        is_idle = process is not None and is_stopped(process)
        stopped = "; it is stopped (SIGSTOP)" if is_idle else ""
        remedy = _let_go_on(process) if is_idle else "Wait until it ends, or stop it."
        return WriterBusy(
            f"another command holds the right to write: {text or 'it has not said who it is'}{stopped}",
            f"{remedy} The right is then free at once.",
            right=name,
            store=self.location,
        )

    def _stuck(self, path: Path) -> Unavailable:
        process = holder_of(path)
        return Unavailable(
            f"{_in_words(process)} has held the store's lock for {SWAP_PATIENCE_SECONDS:g} seconds, which normally"
            " takes a moment; nothing was changed",
            f"{_let_go_on(process)} Then try again. If it was only slow, check the disk.",
            lock=str(path),
        )

    def _walk(self, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Yield name and entry of everything in folders of keys under ``prefix``, except those folders themselves.

        Names outside ``prefix`` may be among them.
        """
        start = prefix.rpartition("/")[0]
        folders = [start] if not start or is_object_key(start) else []
        while folders:
            folder = folders.pop()
            with translated(folder):
                entries = _entries(_join(self.root, folder) if folder else self.root)
            for entry in entries:
                name = _join(folder, entry.name)
                if entry.is_dir(follow_symlinks=False) and is_object_key(entry.name):
                    if f"{name}/".startswith(prefix) or prefix.startswith(f"{name}/"):
                        folders.append(name)
                else:
                    yield name, entry

    def _foreign_locks(self) -> Iterator[str]:
        for entry in _entries(_join(self.root, _LOCKS)):
            if not _LOCK_FILE.fullmatch(entry.name):
                yield f"{_LOCKS}/{entry.name}"


@contextmanager
def _noted(root: str) -> Iterator[None]:
    """Record, within the block, the folder in which this process holds the right to write."""
    folder = Path(root).stat()
    _RIGHTS[root] = (*_RIGHTS.get(root, ()), folder)
    try:
        yield
    finally:
        _RIGHTS[root] = tuple(each for each in _RIGHTS[root] if each is not folder)


def _is_at(folder: os.stat_result, root: str) -> bool:
    try:
        return os.path.samestat(folder, Path(root).stat())
    except OSError:
        return False


def _in_words(process: int | None) -> str:
    if process is None:
        return "another process"
    return f"process {process}, which is stopped (SIGSTOP)," if is_stopped(process) else f"process {process}"


def _let_go_on(process: int | None) -> str:
    if process is None:
        return "Let the process that holds the lock continue ('fuser' names it), or end it."
    return f"Let it continue ('kill -CONT {process}'), or end it ('kill -9 {process}')."


def _although_swept(write: Callable[[], None]) -> None:
    """Call ``write``, which publishes everything at its end; call it again if it raises ``FileNotFoundError``.

    That happens when its temporary file was removed meanwhile, or its name was taken for a moment.
    """
    for _ in range(_SWEPT_ATTEMPTS - 1):
        with suppress(FileNotFoundError):
            return write()
    return write()


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """Return the entries of ``folder``, sorted, so that walks of equal stores are equal; empty if it is gone."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _object_at(name: str, entry: os.DirEntry[str]) -> ObjectInfo | None:
    """Return the object that a walk has found; None for anything else.

    The names of its folders are within the grammar of keys, or they would not have been walked.
    """
    if not is_object_key(entry.name):
        return None
    try:
        found = entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # deleted after its folder was read
        return None
    except OSError:
        with translated(name):
            raise
    return ObjectInfo(key=ObjectKey(name), payload_bytes=found.st_size) if stat.S_ISREG(found.st_mode) else None


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _is_ours(name: str) -> bool:
    return is_object_key(name) or temporary_target(name.rpartition("/")[2]) is not None


def _note(descriptor: int, holder: str) -> None:
    text = " ".join(holder.split()).encode()[:_HOLDER_BYTES]
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text, 0)
    except OSError as error:
        if error.errno not in FULL:
            raise


def read_whole(path: str) -> bytes:
    """Return a file's bytes. A replica reads two for each answer: ``Path.read_bytes`` would take twice as long."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return file.readall()


def _tag(payload: bytes) -> VersionTag:
    return VersionTag(sha256(payload))


def _settle(key: str, folder: Path) -> None:
    """Sync ``folder`` after a name in it changed; if this fails, it is unknown whether the change is durable."""
    try:
        sync_folder(folder)
    except OSError as error:
        raise unsettled(key, error) from error


def _not_durable(error: Unavailable, key: ObjectKey) -> Unavailable:
    return type(error)(
        "the object is there, but it could not be written again to be sure that it survives a power cut",
        error.remedy,
        key=key,
        cause=error.context.get("cause", type(error).__name__),
    )


def _mode(path: Path) -> int | None:
    """Return type and permissions; None: nothing is there. ``Path.is_dir`` is also False when access is refused."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _unlinked(path: Path) -> bool:
    """Remove the file; return whether there was one."""
    try:
        path.unlink()
    except (FileNotFoundError, IsADirectoryError):
        return False
    return True


def _refuse_missing(key: ObjectKey, path: Path) -> None:
    if not stat.S_ISREG(_mode(path) or 0):
        raise _missing(key)


def _refuse_changed(found: StoredObject, key: ObjectKey, expected: VersionTag) -> None:
    if found.tag != expected:
        raise ObjectChanged("the object changed since it was read", "Read it again.", key=key)


def _missing(key: ObjectKey) -> ObjectMissing:
    return ObjectMissing("the store has no such object", key=key)
