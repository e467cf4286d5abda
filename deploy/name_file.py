"""Reads a file of names, one per line, without holding it in memory; one bad line makes the whole file invalid."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

from storage.errors import Invalid

MOST_CHARACTERS: Final = 1000
"""The longest name; a longer line shows that this is not a file of names."""

_MOST_LINES_TOLD: Final = 10

# Control characters, and characters that some programs take for the end of a line, after which another name may follow.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

# The error handler ``surrogateescape`` turns bytes that are not UTF-8 into these; valid UTF-8 never decodes to them.
_FOREIGN: Final = re.compile("[\udc80-\udcff]")

_FAULTS: Final = {
    "nobody": ("a blank line", "blank lines"),
    "encoding": ("a line that is not UTF-8 text", "lines that are not UTF-8 text"),
    "length": (
        f"a line of more than {MOST_CHARACTERS:,} characters",
        f"lines of more than {MOST_CHARACTERS:,} characters",
    ),
    "control": ("a line with control characters", "lines with control characters"),
}


def names_in(file: Path) -> Iterator[str]:
    """Yield the names in the file, one per line. Bad lines are not yielded.

    Raises ``Invalid`` when the file cannot be read, and after the last line when any line was bad: so use the names
    only once all are read.
    """
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            yield from _good_lines(lines, file)
    except FileNotFoundError:
        raise Invalid("there is no such file of names", "Check the path after --file.", file=str(file)) from None
    except OSError as error:
        raise Invalid("the file of names cannot be read", "Name a readable text file.", file=str(file)) from error


def _good_lines(lines: TextIO, file: Path) -> Iterator[str]:
    bad: list[tuple[str, int]] = []
    number = faults = 0
    for number, line in enumerate(_lines(lines), start=1):
        if (fault := _fault(line)) is None:
            yield line
            continue
        faults += 1
        if len(bad) < _MOST_LINES_TOLD:
            bad.append((fault, number))
    if faults or not number:
        raise Invalid(
            f"the file of names has {_faults_text(bad, faults)}",
            "Write one name per line, as UTF-8 text. Nothing was erased.",
            file=str(file),
        )


def _lines(lines: TextIO) -> Iterator[str]:
    """Yield the lines without their ends; a line that is too long is cut just beyond the limit."""
    while line := lines.readline(MOST_CHARACTERS + 2):
        rest = line
        while len(rest) == MOST_CHARACTERS + 2 and not rest.endswith("\n"):
            rest = lines.readline(MOST_CHARACTERS + 2)
        yield line.removesuffix("\n")


def _fault(line: str) -> str | None:
    if len(line) > MOST_CHARACTERS:
        return "length"
    if _FOREIGN.search(line):
        return "encoding"
    if _CONTROL.search(line):
        return "control"
    return None if line.strip() else "nobody"


def _faults_text(bad: list[tuple[str, int]], faults: int) -> str:
    """Return which lines are bad: the numbers of the first ones, and how many there are."""
    if not bad:
        return "no names"
    parts = []
    for fault, (singular, plural) in _FAULTS.items():
        numbers = [str(number) for kind, number in bad if kind == fault]
        if numbers:
            parts.append(f"{plural if len(numbers) > 1 else singular}: {', '.join(numbers)}")
    listed = "; ".join(parts)
    return listed if faults == len(bad) else f"{faults:,} bad lines, of which these are the first {len(bad)}: {listed}"
