"""A letter as HTML: one file that loads nothing, runs nothing, and prints on paper."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from cluster.letters.letter import Letter

_HERE: Final = Path(__file__).parent


def letter_page(letter: Letter) -> str:
    """Return the letter as a page. Its own policy lets nothing run or load, wherever it is opened."""
    return _template().render(letter=letter, style=_style(), policy=letter_policy())


def letter_policy() -> str:
    """Return the content-security policy of a letter: its own style, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


@cache
def _style() -> str:
    return (_HERE / "letter.css").read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("letter.html.jinja")
