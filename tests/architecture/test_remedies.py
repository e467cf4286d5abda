"""One style for errors (STYLE section 6): a fact is a fragment, a remedy is sentences, and both read as one text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from storage.errors import SisaError
from tests.architecture.test_errors import ERRORS, ROOMS
from tests.architecture.test_plain_words import KEEPS_ITS_WORDS

ROOT: Final = Path(__file__).parents[2]
FILES: Final = [file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py")) if file not in KEEPS_ITS_WORDS]
KINDS: Final = {kind.__name__ for kind in ERRORS} | {SisaError.__name__}


def _text(node: ast.expr) -> str | None:
    """Return a literal's text, with … for what is filled in; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return None


def _remedies(file: Path) -> Iterator[tuple[int, str]]:
    """Yield each remedy that the file spells out, with its line."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        found: list[ast.expr] = []
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            found += node.args[1:2] if name in KINDS else []
            found += [keyword.value for keyword in node.keywords if keyword.arg == "remedy"]
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(each, ast.Name) and each.id.lower().strip("_") == "remedy" for each in targets):
                found.append(node.value)
        for each in found:
            for branch in [each.body, each.orelse] if isinstance(each, ast.IfExp) else [each]:
                if text := _text(branch):
                    yield branch.lineno, text


@pytest.mark.parametrize("room", ROOMS)
def test_remedies_are_sentences(room: str) -> None:
    """A remedy begins with a capital, a quotation or a value, and ends as sentences do."""
    wrong = [
        f"{file.relative_to(ROOT)}:{line}: {text}"
        for file in FILES
        if file.is_relative_to(ROOT / room)
        for line, text in _remedies(file)
        if text[0].islower() or text[-1] not in ".?!…"
    ]
    assert not wrong, "\n".join(wrong)


def test_remedies_are_found() -> None:
    """The test above sees literals, f-strings, both branches of a condition, constants and keywords."""
    texts = {text for file in FILES for _, text in _remedies(file)}
    assert len(texts) > 300
    assert "Choose another key." in texts
    assert any("…" in text for text in texts)
