"""The command's words, taken out of the command line before anything else starts.

A command line is no place for a person's name: every user of the machine can read it, and Ray keeps that of each
process that joins it with its metadata, on a disk maybe, where no erasure reaches. So a command hands its words to
itself through a file in memory, as a new program in the same process.
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
    """Return the words of this process's command; more than one do not stay in its command line.

    Of them the first alone stays, which says what runs. What is written about the process before is lost: call this
    before anything is opened or started.
    """
    words = sys.argv[1:]
    if handed := _handed(words):
        return handed
    if len(words) > 1 and sys.executable and sys.orig_argv[-len(words) :] == words:
        _start_again(words)
    return words


def _handed(words: list[str]) -> list[str] | None:
    """Return the words that the program before has left for this one, if the last word names them."""
    descriptor = words[-1].removeprefix(_MARK) if words and words[-1].startswith(_MARK) else ""
    if not descriptor.isdecimal() or not _is_ours(descriptor):
        return None
    with open(int(descriptor), encoding="ascii") as file:  # noqa: PTH123  a descriptor has no path
        file.seek(0)
        found: list[str] = json.load(file)
    return found


def _is_ours(descriptor: str) -> bool:
    """Whether the file open under this number is one of ``_start_again``: somebody may be called as the mark is."""
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink()).startswith(f"/memfd:{_NAME}")
    except OSError:
        return False


def _start_again(words: list[str]) -> None:
    """Start this program again, in this process, with the words in memory."""
    while (null := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(null, True)
    os.close(null)
    descriptor = os.memfd_create(_NAME, 0)  # 0: it stays open
    os.write(descriptor, json.dumps(words).encode("ascii"))
    shown = words[:1] if words[0].isalpha() else []
    before = sys.orig_argv[1 : -len(words)]
    os.execv(sys.executable, [sys.executable, *before, *shown, f"{_MARK}{descriptor}"])  # noqa: S606  no shell is meant
