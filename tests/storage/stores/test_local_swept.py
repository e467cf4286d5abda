"""A sweep removes temporary files of live writers, which it cannot distinguish from those of dead ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.errors import ObjectChanged, ObjectExists, Unavailable
from storage.objects import VersionTag
from storage.stores.local import LocalStore
from tests.storage.stores.local_process import KEY, OLD, PAYLOAD, operate

PUBLISH = {"put_if_absent": "link", "put_if_match": "rename"}
"""The system call with which each write becomes visible."""


def before(monkeypatch: pytest.MonkeyPatch, call: str, act: Callable[[int], None]) -> list[str]:
    """Call ``act`` with its call count before each such system call; return a list with an entry for each call."""
    original, made = getattr(os, call), list[str]()

    def replaced(*arguments: object, **options: object) -> object:
        made.append(call)
        act(len(made))
        return original(*arguments, **options)

    monkeypatch.setattr(os, call, replaced)
    return made


def prepared(root: Path, operation: str) -> tuple[LocalStore, VersionTag]:
    """A store where the operation has something to do, and the tag of the old content."""
    store = LocalStore(str(root))
    return store, VersionTag("") if operation == "put_if_absent" else store.put_if_absent(KEY, OLD)


@pytest.mark.parametrize("sweeps", [1, 5])
@pytest.mark.parametrize("operation", PUBLISH)
def test_a_write_outlives_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, sweeps: int) -> None:
    """A living writer whose temporary file is removed under it, once or at every pass, still writes."""
    store, tag = prepared(tmp_path, operation)

    def sweep(times: int) -> None:
        if times <= sweeps:
            assert store.remove_unfinished("") == 1

    with monkeypatch.context() as patch:
        made = before(patch, PUBLISH[operation], sweep)
        operate(store, operation, tag)
    assert len(made) == sweeps + 1
    assert store.get(KEY).payload == PAYLOAD
    assert list(store.unfinished("")) == []


@pytest.mark.parametrize("operation", PUBLISH)
def test_the_condition_is_that_of_the_last_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """While a swept write starts over, another writer may win; nothing is overwritten."""
    store, tag = prepared(tmp_path, operation)

    def overtake(times: int) -> None:
        if times == 1:
            store.remove_unfinished("")
            (tmp_path / KEY).parent.mkdir(exist_ok=True)
            (tmp_path / KEY).write_bytes(b"quicker")

    with monkeypatch.context() as patch:
        before(patch, PUBLISH[operation], overtake)
        with pytest.raises((ObjectExists, ObjectChanged), match="exists|changed"):
            operate(store, operation, tag)
    assert store.get(KEY).payload == b"quicker"
    assert list(store.unfinished("")) == []


@pytest.mark.parametrize("operation", PUBLISH)
def test_sweeps_without_end_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str) -> None:
    """If something removes every temporary file, the write ends with an error and has changed nothing."""
    store, tag = prepared(tmp_path, operation)

    def sweep(_: int) -> None:
        assert store.remove_unfinished("") == 1

    with monkeypatch.context() as patch:
        before(patch, PUBLISH[operation], sweep)
        with pytest.raises(Unavailable, match="nothing was published.*cause=ENOENT"):
            operate(store, operation, tag)
    assert [info.key for info in store.list("")] == ([] if operation == "put_if_absent" else [KEY])
    assert list(store.unfinished("")) == []
