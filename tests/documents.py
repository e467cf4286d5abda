"""The documents of the repository, for tests that read them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
DOCUMENTS: Final = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")])
"""All pages for people."""


def text_of(name: str) -> str:
    """Return the text of the document at this path."""
    return (ROOT / name).read_text(encoding="utf-8")
