"""The README's table, from the dated pages of benchmarks: ``python -m tests.deploy_files.figures.headlines``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
PAGES: Final = ROOT / "docs" / "benchmarks"
README: Final = ROOT / "README.md"

_HEAD: Final = "| what | measured | aim |\n| --- | --- | --- |\n"
_DATED: Final = re.compile(r"(?P<topic>[a-z]+)-(?P<month>\d{4}-\d{2})\.md")
_IN_SHORT: Final = re.compile(rf"## In short\n\n{re.escape(_HEAD)}(?P<row>\|.*)\n")
_TABLE: Final = re.compile(rf"{re.escape(_HEAD)}(?:\|.*\n)+")


def headlines(folder: Path) -> str:
    """Return the first figure of each topic, from its latest page; the first cells link to it."""
    latest: dict[str, Path] = {}
    for page in sorted(folder.iterdir()):
        if named := _DATED.fullmatch(page.name):
            latest[named["topic"]] = page
    return _HEAD + "".join(_linked(_first_row(page), page) for page in latest.values())


def with_table(readme: str, table: str) -> str:
    """Return the README with this table in the place of the one it has. Raises ``ValueError`` when it has not one."""
    changed, count = _TABLE.subn(lambda _: table, readme)
    if count != 1:
        raise ValueError(f"the README has {count} tables of figures")
    return changed


def _first_row(page: Path) -> str:
    found = _IN_SHORT.search(page.read_text(encoding="utf-8"))
    if found is None:
        raise ValueError(f'{page.name} has no table under "In short"')
    return found["row"]


def _linked(row: str, page: Path) -> str:
    what, rest = row.removeprefix("| ").split(" | ", 1)
    return f"| [{what}](docs/benchmarks/{page.name}) | {rest}\n"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8"), headlines(PAGES)), encoding="utf-8")
