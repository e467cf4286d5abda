"""Tables of text."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """Return aligned columns; numbers to the right."""
    cells = [[str(cell) for cell in line] for line in lines]
    widths = [max(len(line[column]) for line in [list(header), *cells]) for column in range(len(header))]
    right = [
        all(isinstance(line[column], int | float) for line in lines) and bool(lines) for column in range(len(header))
    ]

    def laid(line: Sequence[str]) -> str:
        parts = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True))
        return "  ".join(parts).rstrip()

    return "\n".join([laid(list(header)), *(laid(line) for line in cells)])
