"""Removes a command's arguments from the process's command line before anything else starts.

The arguments may name a person. Every user of the machine can read a command line, and Ray stores the command line of
each process that joins it, perhaps on a disk, where no erasure reaches. So the command executes itself again in the
same process, and passes its arguments in an anonymous file in memory.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Final

_NAME: Final = "sisa-words"
_MARK: Final = "@memory:"


def own_words() -> list[str]:
    """Return this process's arguments, and leave at most the first, the command's name, in its command line.

    May execute the program again, which loses the state of the process so far: call this before anything is opened or
    started.
    """
    words = sys.argv[1:]
    if handed := _handed(words):
        return handed
    if len(words) > 1 and sys.executable and sys.orig_argv[-len(words) :] == words:
        _start_again(words)
    return words


def _handed(words: list[str]) -> list[str] | None:
    """Return the arguments that the first execution left in memory, if the last argument names their file."""
    descriptor = words[-1].removeprefix(_MARK) if words and words[-1].startswith(_MARK) else ""
    if not descriptor.isdecimal() or not _is_ours(descriptor):
        return None
    with open(int(descriptor), encoding="ascii") as file:  # noqa: PTH123  a descriptor has no path
        file.seek(0)
        found: list[str] = json.load(file)
    return found


def _is_ours(descriptor: str) -> bool:
    """Return whether ``_start_again`` made this descriptor's file: a person's name might look like the mark."""
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink()).startswith(f"/memfd:{_NAME}")
    except OSError:
        return False


def _start_again(words: list[str]) -> None:
    """Execute this program again, in this process, with the arguments in memory."""
    while (null := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(null, True)
    os.close(null)
    descriptor = os.memfd_create(_NAME, 0)  # 0: it stays open
    os.write(descriptor, json.dumps(words).encode("ascii"))
    shown = words[:1] if words[0].isalpha() else []
    before = sys.orig_argv[1 : -len(words)]
    os.execv(sys.executable, [sys.executable, *before, *shown, f"{_MARK}{descriptor}"])  # noqa: S606  no shell is meant
