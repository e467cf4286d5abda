"""The local store: its folder, and faults of the file system."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from storage.errors import Invalid, ObjectExists, OutcomeUnknown, SisaError, StoreFull, Unavailable
from storage.objects import VersionTag, object_key
from storage.stores.local import LocalStore
from storage.stores.lock import held
from tests.doubles.stores.system_calls import struck
from tests.storage.stores.local_process import KEY, OLD, PAYLOAD, operate

OPERATIONS = ("put_if_absent", "put_if_match", "delete")


def fail_with(code: int) -> Callable[[str], None]:
    """A strike that is an error of the operating system."""

    def strike(_: str) -> None:
        raise OSError(code, os.strerror(code))

    return strike


def prepared(root: Path, operation: str) -> tuple[LocalStore, VersionTag]:
    """A store where the operation has something to do, and the tag of the old content."""
    store = LocalStore(str(root))
    tag = VersionTag("") if operation == "put_if_absent" else store.put_if_absent(KEY, OLD)
    return store, tag


def content(store: LocalStore) -> bytes | None:
    """The object's content, None when there is none."""
    found = [info.key for info in store.list("")]
    return store.get(KEY).payload if found == [KEY] else None


OLD_CONTENT = {"put_if_absent": None, "put_if_match": OLD, "delete": OLD}
NEW_CONTENT = {"put_if_absent": PAYLOAD, "put_if_match": PAYLOAD, "delete": None}


@pytest.mark.parametrize("root", ["relative/folder", "", "/a/../b", "/a/", "/a//b"])
def test_the_root_is_absolute(root: str) -> None:
    """A root that means another folder after a change of directory, or has two spellings, is refused."""
    with pytest.raises(Invalid, match="absolute, normalised path"):
        LocalStore(root)


def test_only_the_owner_can_look_in(tmp_path: Path) -> None:
    """Folders are made with mode 0700 and files with 0600, lock files included."""
    store, tag = prepared(tmp_path / "above" / "store", "put_if_match")
    store.put_if_match(KEY, PAYLOAD, tag)
    with store.exclusive("writer", holder="x"):
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "above").rglob("*")}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}


def test_looking_makes_nothing(tmp_path: Path) -> None:
    """Reading, listing and deleting in a folder that is not there do not make it."""
    store = LocalStore(str(tmp_path / "store"))
    assert content(store) is None
    store.delete(KEY)
    assert list(store.foreign()) == []
    assert not (tmp_path / "store").exists()


def test_objects_are_files_of_their_keys(tmp_path: Path) -> None:
    """An object is stored, byte for byte, in the file that its key names."""
    LocalStore(str(tmp_path)).put_if_absent(KEY, PAYLOAD)
    assert (tmp_path / KEY).read_bytes() == PAYLOAD
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "object"]


def test_foreign_names_are_reported_and_not_listed(tmp_path: Path) -> None:
    """What no writer of ours can have made is named by ``foreign`` and by nothing else."""
    store, tag = prepared(tmp_path, "put_if_match")
    store.put_if_match(KEY, PAYLOAD, tag)
    foreign = ["Upper", "folder/.DS_Store", "folder/two words", ".locks/stray", ".folder.tmp", ".hidden"]
    for name in foreign:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "Folder").mkdir()
    (tmp_path / "Folder" / "inner").write_bytes(b"x")
    (tmp_path / "folder" / "link").symlink_to(tmp_path)
    (tmp_path / ".a.0123456789abcdef.tmp").mkdir()
    assert sorted(store.foreign()) == sorted([*foreign, "Folder/", "folder/link", ".a.0123456789abcdef.tmp/"])
    assert [info.key for info in store.list("")] == [KEY]
    assert list(store.unfinished("")) == []


def test_unfinished_writes_are_found_by_prefix(tmp_path: Path) -> None:
    """A leftover is found under the prefix of the key it was written for, is not foreign, and can be removed."""
    store, _ = prepared(tmp_path, "delete")
    left = tmp_path / "folder" / ".object.0123456789abcdef.tmp"
    left.write_bytes(b"x")
    for prefix in ("", "folder", "folder/", "folder/ob", KEY):
        assert list(store.unfinished(prefix)) == ["folder/.object.0123456789abcdef.tmp"]
    for prefix in ("f/", "folder/x", f"{KEY}/", "object"):
        assert store.remove_unfinished(prefix) == 0
    assert list(store.foreign()) == []
    assert store.remove_unfinished("folder/ob") == 1
    assert not left.exists()
    assert content(store) == OLD


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_failing_system_call_is_reported_truly(tmp_path: Path, operation: str, code: int) -> None:
    """Whichever system call fails: an error that says so and nothing changed, or OutcomeUnknown, or success;
    never a torn object, and no leftover unless the removal of the temporary file is what failed.
    """
    for at in range(1, 100):
        store, tag = prepared(tmp_path / str(at), operation)
        error: SisaError | None = None
        with struck(at, fail_with(code)) as calls:
            try:
                operate(store, operation, tag)
            except SisaError as raised:
                error = raised
        if len(calls) < at:
            break
        changed = error is None or isinstance(error, OutcomeUnknown)
        assert content(store) == (NEW_CONTENT if changed else OLD_CONTENT)[operation], calls
        assert error is None or isinstance(error, (StoreFull, Unavailable, OutcomeUnknown))
        assert len(list(store.unfinished(""))) == (error is None and calls[at - 1] == "unlink")
        assert list(store.foreign()) == []
    assert at > 6


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("operation", ["put_if_absent", "put_if_match"])
def test_a_full_disk_publishes_nothing(tmp_path: Path, operation: str, call: str, code: int) -> None:
    """When there is no room, at the write or only at the sync, nothing is published and the text says what to do."""
    store, tag = prepared(tmp_path, operation)
    store.put_if_absent(object_key("folder/other"), b"x")  # the folder is settled: the first sync is the object's
    position = {"write": 2, "fsync": 3}[call]
    with (
        struck(position, fail_with(code)) as calls,
        pytest.raises(StoreFull, match=f"no room.*nothing was published.*cause={errno.errorcode[code]}.*Free space"),
    ):
        operate(store, operation, tag)
    assert calls[position - 1] == call
    store.delete(object_key("folder/other"))
    assert content(store) == OLD_CONTENT[operation]
    assert list(store.unfinished("")) == []


@pytest.mark.parametrize("operation", ["put_if_absent", "put_if_match"])
def test_a_failed_sync_of_the_folder_is_unknown(tmp_path: Path, operation: str) -> None:
    """After the name changed, a failing sync leaves the outcome unknown."""
    store, tag = prepared(tmp_path / "model", operation)
    with struck(-1, fail_with(errno.EIO)) as calls:
        operate(store, operation, tag)
    assert calls[-1] == "fsync"
    store, tag = prepared(tmp_path / "real", operation)
    with (
        struck(len(calls), fail_with(errno.EIO)),
        pytest.raises(OutcomeUnknown, match=r"could not be synced.*cause=EIO.*Check the disk, then repeat the command"),
    ):
        operate(store, operation, tag)
    assert content(store) == NEW_CONTENT[operation]


def test_a_failed_sync_of_a_removal_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removal whose sync fails is done once more in a way that a sync writes; where that fails it is unknown."""
    store, _ = prepared(tmp_path, "delete")
    with struck(-1, fail_with(errno.EIO)) as calls:
        store.delete(object_key("folder/other"))
    assert calls[-4:] == ["mkdir", "rmdir", "open", "fsync"]

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(
        OutcomeUnknown, match=r"could not be synced.*cause=EIO.*Check the disk, then repeat the command"
    ):
        store.delete(KEY)
    assert content(store) is None
    monkeypatch.undo()
    store.delete(KEY)
    assert content(store) is None


def test_a_removal_under_way_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is a folder for a moment, while its removal is made durable, can be put a moment later."""
    store, _ = prepared(tmp_path, "put_if_absent")
    store.put_if_absent(object_key("folder/other"), b"x")
    (tmp_path / KEY).mkdir()

    @contextmanager
    def held_after_the_removal(path: Path, patience_seconds: float = 0.0) -> Iterator[int]:
        with held(path, patience_seconds=patience_seconds) as descriptor:
            (tmp_path / KEY).rmdir()  # it is made and removed under this lock
            yield descriptor

    monkeypatch.setattr("storage.stores.local.held", held_after_the_removal)
    store.put_if_absent(KEY, PAYLOAD)
    assert store.get(KEY).payload == PAYLOAD


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_refused_access_is_unavailable(tmp_path: Path, code: int) -> None:
    """A folder that may not be written is named with what to change."""
    store, _ = prepared(tmp_path, "delete")
    with (
        struck(1, fail_with(code)),
        pytest.raises(Unavailable, match=f"refuses access.*cause={errno.errorcode[code]}.*read and write access"),
    ):
        store.put_if_absent(object_key("folder/other"), b"x")


def test_a_full_disk_does_not_withhold_the_right_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk is too full for the holder's name, the right is still given: erasing must stay possible."""
    store, _ = prepared(tmp_path, "delete")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "pwrite", full)
    with (
        store.exclusive("writer", holder="x"),
        pytest.raises(SisaError, match="it has not said who it is"),
        store.exclusive("writer", holder="y"),
    ):
        pass


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """A file in the place of the store's folder is bad input, not a failing disk."""
    (tmp_path / "store").write_bytes(b"x")
    store = LocalStore(str(tmp_path / "store"))
    with pytest.raises(Invalid, match="a file has the place of a folder"):
        store.put_if_absent(KEY, b"x")
    with pytest.raises(Invalid, match="a file has the place of a folder"), store.exclusive("writer", holder="x"):
        pass


def test_a_path_too_long_for_the_file_system_is_refused(tmp_path: Path) -> None:
    """A key whose path is over the file system's limit is bad input."""
    with pytest.raises(Invalid, match="name is too long"):
        LocalStore(str(tmp_path)).put_if_absent(object_key("/".join(["a" * 200] * 25)), b"x")


def test_a_removed_store_is_made_again(tmp_path: Path) -> None:
    """A folder that was removed and is written to again is made again, though this process had settled it."""
    store, _ = prepared(tmp_path / "store", "delete")
    (tmp_path / "store" / KEY).unlink()
    (tmp_path / "store" / "folder").rmdir()
    store.put_if_absent(KEY, PAYLOAD)
    assert content(store) == PAYLOAD


@pytest.mark.parametrize("left", [True, False])
def test_a_writer_whose_disk_is_taken_away_begins_no_empty_store(tmp_path: Path, *, left: bool) -> None:
    """The disk is unmounted; its mount point is ``left``, or is gone with the folder above it. The writer is refused,
    and goes on when the disk is back. A process without the right to write may begin a store there.
    """
    root, away = tmp_path / "disk" / "store", tmp_path / "away"
    store, other = LocalStore(str(root)), object_key("folder/other")
    with store.exclusive("writer", "a test"):
        tag = store.put_if_absent(KEY, PAYLOAD)
        root.rename(away)
        if left:
            root.mkdir()
        reported = "has the right to write: nothing was written .*Mount its disk again"
        with pytest.raises(Unavailable, match=reported):
            store.put_if_absent(other, b"")
        with pytest.raises(Unavailable, match=reported):
            store.put_if_match(KEY, b"", tag)
        assert [*root.rglob("*")] == []
        if left:
            root.rmdir()
        away.rename(root)
        store.put_if_absent(other, b"")
    root.rename(away)
    store.put_if_absent(KEY, PAYLOAD)
    assert content(store) == PAYLOAD


def test_the_key_of_a_leftover_can_be_written(tmp_path: Path) -> None:
    """A killed writer's leftover does not stand in the way of the next writer."""
    store = LocalStore(str(tmp_path))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / ".object.0123456789abcdef.tmp").write_bytes(PAYLOAD[:10])
    store.put_if_absent(KEY, PAYLOAD)
    with pytest.raises(ObjectExists, match="exists"):
        store.put_if_absent(KEY, OLD)
    assert len(list(store.unfinished("folder/"))) == 1


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a write leaves no leftover."""
    store, _ = prepared(tmp_path, "put_if_absent")

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    for at in range(1, 12):
        with struck(at, interrupt) as calls, suppress(KeyboardInterrupt):
            operate(store, "put_if_absent", VersionTag(""))
        if "unlink" not in calls[at - 1 : at]:
            assert list(store.unfinished("")) == [], calls
        store.remove_unfinished("")
        store.delete(KEY)
