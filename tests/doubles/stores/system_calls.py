"""The file system's calls, counted, with a strike at a chosen one: a fault, or the process's death."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

WATCHED = ("open", "write", "fsync", "link", "unlink", "rename", "mkdir", "rmdir")
"""Functions of ``os`` through which the local store changes anything."""


@contextmanager
def struck(at: int, strike: Callable[[str], None]) -> Iterator[list[str]]:
    """Call ``strike`` in place of watched call number ``at`` (from 1); give the list of calls made so far.

    A ``write`` that is struck has written half of its bytes: the worst moment.
    """
    calls: list[str] = []
    originals: dict[str, Callable[..., object]] = {name: getattr(os, name) for name in WATCHED}

    def call(name: str, *args: object, **options: object) -> object:
        calls.append(name)
        if len(calls) != at:
            return originals[name](*args, **options)
        if name == "write":
            descriptor, payload = args
            assert isinstance(payload, memoryview)
            originals[name](descriptor, payload[: len(payload) // 2])
        strike(name)
        raise AssertionError("a strike does not return")

    for name in WATCHED:
        setattr(os, name, partial(call, name))
    try:
        yield calls
    finally:
        for name, original in originals.items():
            setattr(os, name, original)
