"""Plain English (STYLE section 6): phrases that a reader stumbles over stay out of code, help and documents.

The test reads docstrings, comments, string literals (so help and error messages as well) and the Markdown documents. It
skips code between backquotes, because names are not prose.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Final

import pytest

from tests.architecture.syntax import comments, walk

ROOT = Path(__file__).parents[2]

BANNED: Final = {
    r"\btold\b": "say who reports, passes or returns what",
    r"\btells? (?:of|no|apart|what|which|how|whether|the)\b": "'reports', 'says', 'distinguishes'",
    r"\b(?:anew|afresh)\b": "'again', 'from the start', or a verb with re-",
    r"\bwho(?:m)?ever\b": "name the actor: the caller, the operator, another writer",
    r"\bwhatever\b": "'any', or 'regardless of'",
    r"(?<!\bthere )\b(?:is|are|was|were|be) (?-i:none)\b": "say what is wrong: 'is not a …', 'is invalid'",
    r"(?<!\bthere )\b(?:is|are|was|were) no (?!longer\b|more\b|less\b|later\b|matter\b)\w": "'is not a …'",
    r"\blook(?:s|ed|ing)? whether\b": "'checks whether'",
    r"\b(?:has|have|had) not (?:the|a|an)\b": "'does not have'",
    r"\b(?-i:So) (?:many|much|long|deep|large|far)\b(?! as\b)": "'at most this many …', 'the first N …'",
    r"\b(?-i:So) (?:it is|is|are|does|do)\b": "no inversion: 'The same holds for …'",
    r"(?:^|[.;:] )(?-i:[A-Z])\w*ed(?: here)? (?:is|are)\b": "no inversion: say who does what",
    r"\bc(?:o|a)mes? of\b": "'results from', 'the result'",
    r"(?:^|[.;:] )(?-i:Who) (?!\w[^.]*\?)": "name the actor: 'A reader that …', 'An account that …'",
    r"\bnobody's\b": "say what becomes of it: 'is discarded', 'is an orphan'",
    r"\b(?:hears?|heard)\b": "'is called with', 'receives'",
    r"\bby chance\b": "'at random'",
    r"\bin the clear\b": "'unencrypted'",
    r"\bgets? over\b": "'recovers from'",
    r"\bat hand\b": "'available'",
    r"\b(?:another|other) one's\b": "name it: another point's, another worker's",
    r"\b(?:not|no \w+) \w+ any more\b": "'no longer'",
    r"\b(?:lies?|lay) (?:in|at|on|under|beside|below|behind|outside|there|here)\b": "'is in', 'is stored under'",
    r"\bas (?:the )?\w+ ha(?:s|ve) (?:it|them)\b": "'in the form of records', 'in JSON'",
    r"\bhow (?:it|(?:a|an|the|its|all)(?: \w+){1,5}) (?:then )?stands?\b(?! for)": "'the status of', 'its state'",
    r"\b(?:goes|go|went|going) on with\b": "'continues with'",
    r"\b(?:the|its) present (?!tense\b|and\b|or\b|in\b)\w": "'the current'",
    r"\b(?:names?|subjects?|one) a line\b": "'one per line'",
    r"\bby rights?\b": "say what may still be there, and why",
    r"\ball the same\b(?! \w)": "'nevertheless', 'still'",
    r"\bput whole\b": "'replaced as a whole'",
    r"\bthe last first\b": "'newest first'",
    r"\bnobody but\b": "'only'",
    r"\bmend(?:s|ed|ing)?\b": "'repair', 'correct', 'fix'",
    r"\bhas got\b": "'has', 'has reached'",
}
"""Regular expressions for what is not said, and what to say in its place."""

KEEPS_ITS_WORDS: Final = {ROOT / "shards/models.py"}
"""Its bytes are part of every constituent's lineage: another word there would retrain all models."""

SIGNED: Final = (
    "who stands behind the request's digest can be told only with the federation's partition key",
    "lies in the store, unused",
)
"""Sentences of signed receipts (what they do not prove): a stored format, which changes only with its version. Tests
that read a receipt quote them."""


_CODE: Final = re.compile(r"``.*?``|`.*?`", re.DOTALL)
_ROOMS: Final = ("storage", "shards", "coordinator", "cluster", "deploy")


def _room(file: Path) -> str:
    """Return the room that answers for the file: a package, a folder of tests, or the documents."""
    first, *rest = file.relative_to(ROOT).parts
    if file.suffix == ".md":
        return "documents"
    return f"tests/{rest[0]}" if first == "tests" and len(rest) > 1 else first


def _python() -> Iterator[Path]:
    yield ROOT / "sisa.py"
    for folder in (*_ROOMS, "tests"):
        yield from sorted((ROOT / folder).rglob("*.py"))


FILES: Final = [
    file
    for file in (*_python(), *sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))
    if file not in KEEPS_ITS_WORDS | {Path(__file__)}
]


def prose(file: Path) -> Iterator[tuple[int, str]]:
    """Yield each piece of prose in the file with its first line: a docstring, literal, comment, or paragraph."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        number = 1
        for paragraph in text.split("\n\n"):
            yield number, paragraph
            number += paragraph.count("\n") + 2
        return
    nodes = list(walk(ast.parse(text)))
    inside = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            parts = (str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value
    for _, block in groupby(enumerate(comments(text)), key=lambda each: each[1][0] - each[0]):
        lines = [line for _, line in block]
        yield lines[0][0], " ".join(comment.lstrip("#") for _, comment in lines)


def _plain(file: Path) -> Iterator[tuple[int, str]]:
    """Yield each piece of prose on one line, without code between backquotes."""
    for number, piece in prose(file):
        plain = " ".join(_CODE.sub("``", piece).split())
        for sentence in SIGNED:
            plain = plain.replace(sentence, "``")
        yield number, plain


def hits(file: Path) -> list[str]:
    """Return a line for every banned phrase in the file: where, what, and what to say in its place."""
    return [f"{file.relative_to(ROOT)}:{number}: {hit}" for number, plain in _plain(file) for hit in _hits_in(plain)]


_PATTERNS: Final = [(re.compile(pattern, re.IGNORECASE), instead) for pattern, instead in BANNED.items()]


@cache
def _hits_in(plain: str) -> list[str]:
    """Return the banned phrases in a piece of prose; many a piece is in several files."""
    return [
        f"{match[0]!r} in {plain[max(0, match.start() - 30) : match.end() + 30]!r}: {instead}"
        for pattern, instead in _PATTERNS
        for match in pattern.finditer(plain)
    ]


@pytest.mark.parametrize("room", sorted({_room(file) for file in FILES}))
def test_no_banned_phrases(room: str) -> None:
    """No file has a phrase that needs reading twice."""
    found = [line for file in FILES if _room(file) == room for line in hits(file)]
    assert not found, "\n".join(found)


def test_prose_is_found_wherever_it_is(tmp_path: Path) -> None:
    """Phrases are found across lines, in docstrings, literals, f-strings and comments, and in no code or name."""
    file = tmp_path / "odd.py"
    file.write_text(
        '"""The answer is\nnone, and ``told`` is a name."""\n\n'
        'told = f"the {1} is told"\n'
        "x = (\n    'begins '\n    'anew'\n)  # it is looked\n# whether it is\n",
        encoding="utf-8",
    )
    found = [
        match for piece in _plain(file) for pattern in BANNED for match in re.findall(pattern, piece[1], re.IGNORECASE)
    ]
    assert sorted(found) == ["anew", "is none", "looked whether", "told"]
