"""One style for errors (STYLE section 6): a fact is a fragment, a remedy is sentences, and both read as one text."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from storage.errors import SisaError
from tests.architecture.syntax import walk
from tests.architecture.test_errors import ERRORS, ROOMS
from tests.architecture.test_plain_words import KEEPS_ITS_WORDS

ROOT: Final = Path(__file__).parents[2]
FILES: Final = [file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py")) if file not in KEEPS_ITS_WORDS]
KINDS: Final = {kind.__name__ for kind in ERRORS} | {SisaError.__name__}


def _text(node: ast.expr) -> str | None:
    """Return a literal's text, with … for each value in it; None when the node is not a literal text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return None


def _named(tree: ast.AST) -> dict[str, list[ast.expr]]:
    """Return what each name in a file stands for: the values assigned to it, or what the function returns."""
    found: dict[str, list[ast.expr]] = defaultdict(list)
    for node in walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    found[target.id].append(node.value)
        elif isinstance(node, ast.FunctionDef):
            returned = [each.value for each in walk(node) if isinstance(each, ast.Return) and each.value]
            found[node.name] += returned
    return found


@dataclass(frozen=True, slots=True)
class Sources:
    """All files, parsed."""

    trees: Mapping[Path, ast.AST]
    named: Mapping[Path, Mapping[str, list[ast.expr]]]
    constants: Mapping[str, list[ast.expr]]
    """The constants of all files, because a file may import those of another."""
    take_a_remedy: Mapping[str, int]
    """The functions that pass a remedy on, and the position of that argument."""


@pytest.fixture(scope="module")
def sources() -> Sources:
    """Returns all files, parsed for these tests alone: a process that collects them for others needs none of it."""
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}
    named = {file: _named(tree) for file, tree in trees.items()}
    return Sources(
        trees=trees,
        named=named,
        constants={
            name: values for each in named.values() for name, values in each.items() if name.isupper() and len(name) > 1
        },
        take_a_remedy={
            node.name: [each.arg for each in node.args.args if each.arg not in {"self", "cls"}].index("remedy")
            for tree in trees.values()
            for node in walk(tree)
            if isinstance(node, ast.FunctionDef) and any(each.arg == "remedy" for each in node.args.args)
        },
    )


def _spelt_out(
    node: ast.expr, named: Mapping[str, list[ast.expr]], constants: Mapping[str, list[ast.expr]], depth: int = 3
) -> Iterator[tuple[int, str]]:
    """Yield the texts that the expression may stand for, through names, conditions, dictionaries and functions."""
    if text := _text(node):
        yield node.lineno, text
        return
    parts: list[ast.expr] = []
    if isinstance(node, ast.IfExp):
        parts = [node.body, node.orelse]
    elif isinstance(node, ast.BoolOp | ast.Dict):
        parts = node.values
    elif isinstance(node, ast.Subscript):
        parts = [node.value]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
        parts = [node.func.value, *node.args[1:]]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and depth:
        parts, depth = named.get(node.func.id, []), depth - 1
    elif isinstance(node, ast.Name) and depth:
        parts, depth = named.get(node.id) or constants.get(node.id, []), depth - 1
    for part in parts:
        yield from _spelt_out(part, named, constants, depth)


def _remedies(sources: Sources, file: Path) -> Iterator[tuple[int, str]]:
    """Yield each remedy that the file spells out, with its line; twice if it is used twice."""
    for node in walk(sources.trees[file]):
        found: list[ast.expr] = []
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            place = 1 if name in KINDS else sources.take_a_remedy.get(name)
            found += [] if place is None else node.args[place : place + 1]
            found += [keyword.value for keyword in node.keywords if keyword.arg == "remedy"]
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(each, ast.Name) and re.search("remed(y|ies)", each.id.lower()) for each in targets):
                found.append(node.value)
        for each in found:
            yield from _spelt_out(each, sources.named[file], sources.constants)


@pytest.mark.parametrize("room", ROOMS)
def test_remedies_are_sentences(room: str, sources: Sources) -> None:
    """A remedy begins with a capital, a quotation or a value, and ends as sentences do."""
    wrong = [
        f"{file.relative_to(ROOT)}:{line}: {text}"
        for file in FILES
        if file.is_relative_to(ROOT / room) and file not in KEEPS_ITS_WORDS
        for line, text in _remedies(sources, file)
        if text[0].islower() or text[-1] not in ".?!…"
    ]
    assert not wrong, "\n".join(wrong)


def test_remedies_are_found(sources: Sources) -> None:
    """The test above sees literals, f-strings, conditions, constants, tables, keywords and what functions return."""
    texts = {text for file in FILES for _, text in _remedies(sources, file)}
    assert len(texts) > 450
    assert "Choose another key." in texts
    assert any("…" in text for text in texts)
    assert "Let it continue ('kill -CONT …'), or end it ('kill -9 …')." in texts, "what a function returns"
    assert (
        "Put the data that it fetches into a file next to sisa.toml, and name that file in [model] files." in texts
    ), "passed on"
    assert "Restore the store from a copy." in texts, "a constant of another name"
