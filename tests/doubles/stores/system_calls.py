"""Counts calls to the file system and injects a fault, or the process's death, at a chosen one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

WATCHED = ("open", "write", "fsync", "link", "unlink", "rename", "mkdir", "rmdir")
"""Functions of ``os`` with which the local store makes changes."""


@contextmanager
def struck(at: int, strike: Callable[[str], None]) -> Iterator[list[str]]:
    """Call ``strike`` instead of watched call number ``at`` (from 1); yield the list of calls made so far.

    If that call is a ``write``, half of its bytes are written first, which is the worst case.
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
