"""Keys in the store: the design notes' table names them all, and each is made in one module."""

from __future__ import annotations

import ast
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.architecture.syntax import walk

ROOT: Final = Path(__file__).parents[2]
ROOMS: Final = ("storage", "shards", "coordinator", "cluster")
STORES: Final = sorted((ROOT / "tests/golden/stores").iterdir())


class Row(NamedTuple):
    """A line of the table."""

    key: str
    """The key, with ``<>`` in place of variable parts."""
    module: str


def _rows() -> list[Row]:
    text = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    table = text.partition("| key | made in | holds |\n")[2].partition("\n\n")[0]
    cells = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", table, re.MULTILINE)
    return [Row(re.sub(r"<[^>]*>", "<>", key), module) for key, module in cells]


ROWS: Final = _rows()
_FOLDERS: Final = {row.key.partition("/")[0] for row in ROWS}


def _texts(tree: ast.Module) -> Iterator[str]:
    """Yield the texts in a module but its docstrings, with ``<>`` for what an f-string fills in."""
    passed_over = {id(node.value) for node in walk(tree) if isinstance(node, ast.Expr)}
    for node in walk(tree):
        if isinstance(node, ast.JoinedStr):
            passed_over |= {id(part) for part in node.values}
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "<>" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in passed_over:
            yield node.value


def _made() -> set[Row]:
    """Return the beginnings of keys that are written out in the code, each with its module."""
    begins = re.compile(rf"(?:{'|'.join(sorted(_FOLDERS))})/[a-z0-9<>./-]+")
    return {
        Row(text, str(file.relative_to(ROOT)))
        for room in ROOMS
        for file in (ROOT / room).rglob("*.py")
        for text in _texts(ast.parse(file.read_text(encoding="utf-8")))
        if begins.fullmatch(text)
    }


def test_the_table_is_whole() -> None:
    """The table has a line for every folder of a store, and no line twice."""
    assert len(ROWS) == len({row.key for row in ROWS}) > 30
    assert all((ROOT / row.module).is_file() for row in ROWS)


def test_a_key_is_made_where_the_table_says() -> None:
    """Every beginning of a key in the code is that of a line of the table, and stands in the line's module alone."""
    strange = [
        made for made in _made() if not any(row.key.startswith(made.key) and row.module == made.module for row in ROWS)
    ]
    assert strange == []


@pytest.mark.parametrize("archive", STORES, ids=lambda path: path.name)
def test_every_object_of_a_store_has_a_line(archive: Path) -> None:
    """The objects in the stores that releases have left are of keys in the table."""
    with tarfile.open(archive) as store:
        files = [
            each.name.removeprefix("federation/") for each in store if each.isfile() and "federation/" in each.name
        ]
    keys = [name for name in files if not name.startswith(".")]
    patterns = [re.compile(re.escape(row.key).replace("<>", "[a-z0-9._-]+")) for row in ROWS]
    assert keys
    assert [key for key in keys if not any(pattern.fullmatch(key) for pattern in patterns)] == []
