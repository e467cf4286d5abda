"""The tables of docs/serving.md and docs/sites.md that say which role may use which route of the API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from tests.documents import text_of
from tests.serving.world import ROLES

NO_TOKEN: Final = "no token"  # noqa: S105  a heading
UNKNOWN_TOKEN: Final = "unknown token"  # noqa: S105  the same
UNKNOWN: Final = {"Authorization": f"Bearer sisa_{'0' * 12}_{'0' * 64}"}
CALLERS: Final = (NO_TOKEN, UNKNOWN_TOKEN, *ROLES)

Route = tuple[str, str]
"""Method and path."""

_PAGES: Final = ("docs/serving.md", "docs/sites.md")
_WORDS: Final = {"yes", "own", "–"}
"""``own``: only requests that the token itself has submitted."""


def table(title: str) -> Mapping[Route, Mapping[str, str]]:
    """Return what the table of routes whose first column has this title says of each caller."""
    lines = [line for page in _PAGES for line in text_of(page).splitlines()]
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {title} |"))
    header, _, *rows = (_cells(line) for line in _block(lines[start:]))
    assert header[1:] == [NO_TOKEN, *ROLES]
    found = dict[Route, Mapping[str, str]]()
    for first, *cells in rows:
        method, path = re.fullmatch(r"`(GET|POST) (/\S*)`", first).groups()  # type: ignore[union-attr]
        assert set(cells) <= _WORDS
        found[method, path] = dict(zip(header[1:], cells, strict=True)) | {UNKNOWN_TOKEN: cells[0]}
    assert len(found) == len(rows)
    return found


def routes_of(app: Any) -> set[Route]:
    """Return all routes of an app's API; a HEAD asks what a GET asks. The console's pages have a table of their own."""
    api = [route for route in app.routes if not route.path.startswith("/console")]
    return {(method, route.path) for route in api for method in route.methods - {"HEAD"}}


def _block(lines: list[str]) -> list[str]:
    return lines[: next((number for number, line in enumerate(lines) if not line.startswith("|")), len(lines))]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]
