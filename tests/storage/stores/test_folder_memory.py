"""What a process remembers of folders: a listing without reading them all again must show what one that reads shows."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.contents import Holdings
from storage.errors import Unavailable
from storage.objects import object_key
from storage.stores import folder_memory as module
from storage.stores.folder_memory import FolderMemory, folder_memory
from storage.stores.local import LocalStore

A, B, C = (object_key(f"shards/0001/slices/{name}/part.parquet") for name in "abc")
LATER = 2.0
"""Seconds after which a folder that was not changed is settled."""


class Moments:
    """A clock that a test moves, and how often each folder was read."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.read = Counter[str]()

    def __call__(self) -> float:
        """Return the seconds that have passed."""
        return self.now


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> Moments:
    """The clock of a memory, which counts the folders that are read."""
    found = Moments()
    read = module._entries

    def counted(name: str, path: str) -> object:
        found.read[name] += 1
        return read(name, path)

    monkeypatch.setattr(module, "_entries", counted)
    return found


def settled(store: LocalStore, moments: Moments) -> FolderMemory:
    """Return a memory of the store in which every folder is settled, on a file system that was seen to mark folders."""
    memory = FolderMemory(store.root, moments)
    memory.contents()
    store.put_if_absent(object_key("control/shown"), b"")
    _wait_for_a_tick(Path(store.root) / "control")
    memory.contents()
    for _ in range(2):
        moments.now += LATER
        memory.contents()
    moments.read.clear()
    return memory


def _wait_for_a_tick(folder: Path) -> None:
    """Change the folder until its mark moves: what is done from then on has another mark than what was before."""
    before = folder.stat().st_ctime_ns
    while folder.stat().st_ctime_ns == before:
        (folder / ".tick").touch()
        (folder / ".tick").unlink()


def read_whole(store: LocalStore) -> Holdings:
    """What reading every folder shows."""
    return FolderMemory(store.root).contents()


def test_folders_that_have_not_changed_are_not_read_again(tmp_path: Path, moments: Moments) -> None:
    """Among three settled folders, only the one with a new object is read."""
    store = LocalStore(str(tmp_path / "store"))
    for key in (A, B):
        store.put_if_absent(key, b"one")
    memory = settled(store, moments)
    assert memory.contents() == read_whole(store)
    moments.read.clear()
    store.put_if_absent(object_key("shards/0001/slices/b/more.parquet"), b"more")
    assert memory.contents() == Holdings(
        sizes={A: 3, B: 3, object_key("shards/0001/slices/b/more.parquet"): 4, object_key("control/shown"): 0},
        unfinished=(),
    )
    assert moments.read == {"shards/0001/slices/b": 1}


def _in_place(folder: Path, replacement: Callable[[Path], object]) -> None:
    folder.rename(folder.with_name("elsewhere"))
    replacement(folder)


def _removed(folder: Path) -> None:
    (folder / "part.parquet").unlink()
    folder.rmdir()


CHANGES: dict[str, Callable[[LocalStore, Path], object]] = {
    "an object": lambda store, _: store.put_if_absent(C, b"late"),
    "an object beside another": lambda store, _: store.put_if_absent(
        object_key("shards/0001/slices/a/late.parquet"), b"late"
    ),
    "a deletion": lambda store, _: store.delete(A),
    "a replacement": lambda store, _: store.put_if_match(A, b"longer", store.get(A).tag),
    "an unfinished file": lambda _, folder: (folder / f".part.parquet.{'0' * 16}.tmp").write_bytes(b"half"),
    "a link of another name": lambda _, folder: os.link(folder / "part.parquet", folder / "other"),
    "another folder in its place": lambda _, folder: _in_place(folder, Path.mkdir),
    "a folder that is gone": lambda _, folder: _removed(folder),
    "a symbolic link in its place": lambda _, folder: _in_place(folder, lambda path: path.symlink_to("elsewhere")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_of_names_is_seen(
    tmp_path: Path, moments: Moments, change: Callable[[LocalStore, Path], object]
) -> None:
    """By any process, even with the times of files and folders set back: nobody can set a ctime."""
    store = LocalStore(str(tmp_path / "store"))
    for key in (A, B):
        store.put_if_absent(key, b"one")
    folder = Path(store.root) / A.rpartition("/")[0]
    memory = settled(store, moments)
    was, above = folder.stat(), folder.parent.stat()
    change(store, folder)
    if folder.is_dir():
        os.utime(folder, ns=(was.st_atime_ns, was.st_mtime_ns))
    os.utime(folder.parent, ns=(above.st_atime_ns, above.st_mtime_ns))
    assert memory.contents() == read_whole(store)


def test_what_was_read_within_a_tick_of_a_change_is_read_again(
    tmp_path: Path, moments: Moments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another change within the same tick leaves the stamp as it is, so the first reading is not relied on."""
    store = LocalStore(str(tmp_path / "store"))
    store.put_if_absent(A, b"one")
    memory = settled(store, moments)
    ticks = {"shards/0001/slices/a": 7}
    true = module._stamp_of

    def ticking(path: str) -> tuple[int, ...]:
        name = path.removeprefix(f"{store.root}/")
        return (ticks[name],) if name in ticks else true(path)

    monkeypatch.setattr(module, "_stamp_of", ticking)
    memory.contents()  # reads the folder: its stamp is a new one
    late = object_key("shards/0001/slices/a/late.parquet")
    store.put_if_absent(late, b"late")  # within the same tick
    moments.now += 0.9
    assert late in memory.contents().sizes  # not settled yet
    moments.now += 0.2
    assert late in memory.contents().sizes
    moments.read.clear()
    memory.contents()
    assert not moments.read  # by now any change would show


@pytest.mark.parametrize("stamp", [(5_000_000_000,), (0,)])
def test_whole_seconds_are_not_relied_on(
    tmp_path: Path, moments: Moments, monkeypatch: pytest.MonkeyPatch, stamp: tuple[int, ...]
) -> None:
    """On a file system that marks folders with seconds, or not at all, every folder is read each time."""
    store = LocalStore(str(tmp_path / "store"))
    store.put_if_absent(A, b"one")
    memory = settled(store, moments)
    monkeypatch.setattr(module, "_stamp_of", lambda _: stamp)
    for number in range(5):
        moments.now += LATER
        late = object_key(f"shards/0001/slices/a/late-{number}.parquet")
        store.put_if_absent(late, b"late")
        assert late in memory.contents().sizes


def test_a_file_system_that_was_not_seen_to_mark_folders_is_read(
    tmp_path: Path, moments: Moments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is remembered until a folder with other names was seen to have another stamp."""
    store = LocalStore(str(tmp_path / "store"))
    store.put_if_absent(A, b"one")
    monkeypatch.setattr(module, "_stamp_of", lambda path: (len(path) + 7,))  # never changes
    memory = FolderMemory(store.root, moments)
    for number in range(5):
        moments.now += LATER
        late = object_key(f"shards/0001/slices/a/late-{number}.parquet")
        store.put_if_absent(late, b"late")
        assert late in memory.contents().sizes


@given(steps=st.lists(st.tuples(st.sampled_from("pdlw"), st.sampled_from("abc"), st.sampled_from("xyz")), max_size=20))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_history_is_listed_as_it_is(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, ...]]) -> None:
    """After puts, deletions, listings and time in any order, a memory shows what reading every folder shows."""
    store, moments = LocalStore(str(tmp_path_factory.mktemp("history") / "store")), Moments()
    memory = FolderMemory(store.root, moments)
    for step, folder, name in steps:
        key = object_key(f"shards/{folder}/{name}")
        match step:
            case "p" if key not in read_whole(store).sizes:
                store.put_if_absent(key, name.encode() * 2)
            case "d":
                store.delete(key)
            case "w":
                moments.now += LATER
            case _:
                assert memory.contents() == read_whole(store)
    assert memory.contents() == read_whole(store)


def test_a_part_of_a_store_is_listed_by_itself(tmp_path: Path, moments: Moments) -> None:
    """Only its folders are looked at; what is gone from elsewhere is missed by the next listing of everything."""
    store = LocalStore(str(tmp_path / "store"))
    other = object_key("keyrings/0001/ring")
    for key in (A, B, other):
        store.put_if_absent(key, b"one")
    memory = settled(store, moments)
    store.delete(A)
    store.delete(other)
    assert memory.contents("keyrings/") == Holdings(sizes={}, unfinished=())
    assert moments.read == {"keyrings/0001": 1}
    assert memory.contents("shards/0002/") == Holdings(sizes={}, unfinished=())
    assert memory.contents("shards/0001/slices/b/").sizes == {B: 3}
    assert memory.contents() == read_whole(store)


def test_a_process_remembers_a_few_stores(tmp_path: Path) -> None:
    """The stores that were listed last; a process that makes and deletes many must not grow with them."""
    first = folder_memory(str(tmp_path / "0"))
    assert folder_memory(str(tmp_path / "0")) is first
    for number in range(1, 9):
        folder_memory(str(tmp_path / str(number)))
    assert len(module._MEMORIES) == module._STORES
    assert folder_memory(str(tmp_path / "0")) is not first


def test_a_folder_that_may_not_be_read_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is the one of a listing: the objects in it are not taken for deleted ones."""
    store = LocalStore(str(tmp_path / "store"))
    store.put_if_absent(A, b"one")

    def refuse(path: str) -> tuple[int, ...]:
        raise PermissionError(13, "refused", path)

    monkeypatch.setattr(module, "_stamp_of", refuse)
    with pytest.raises(Unavailable, match="refuses access"):
        store.contents("")
