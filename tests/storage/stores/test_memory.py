"""The memory store."""

from __future__ import annotations

import os
import pickle
from unittest.mock import patch

import pytest

from storage.errors import Invalid, ObjectMissing
from storage.objects import object_key
from storage.stores.memory import MemoryStore

KEY = object_key("folder/object")


def test_stores_of_one_name_are_one_store() -> None:
    """The name is the whole identity; another name is another store."""
    MemoryStore("memory-one").put_if_absent(KEY, b"x")
    assert MemoryStore("memory-one").get(KEY).payload == b"x"
    with pytest.raises(ObjectMissing, match="no such object"):
        MemoryStore("memory-two").get(KEY)
    MemoryStore("memory-one").forget()
    assert list(MemoryStore("memory-one").list("")) == []


def test_another_process_is_refused() -> None:
    """Unpickled in another process it would be an empty store; that is refused with what to do."""
    pickled = pickle.dumps(MemoryStore("memory-sent"))
    with (
        patch.object(os, "getpid", return_value=-1),
        pytest.raises(Invalid, match=r"sent to another process.*memory:memory-sent.*Use a folder"),
    ):
        pickle.loads(pickled)


def test_the_payload_is_the_stores_own() -> None:
    """Changing the buffer after the put does not change the object."""
    store = MemoryStore("memory-buffer")
    buffer = bytearray(b"before")
    tag = store.put_if_absent(KEY, bytes(buffer))
    buffer[:] = b"after!"
    assert store.get(KEY).payload == b"before"
    assert store.get(KEY).tag == tag
    store.forget()
