"""The form of CSV files: delimiter, encoding, decimal mark."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Final

_NO_DELIMITERS = frozenset('"\r\n\0')
_NO_TEXT_FILES = frozenset({"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvForm:
    """The form of CSV files."""

    delimiter: str = ","
    encoding: str = "utf-8"
    decimal: str = "."

    def problems(self) -> list[str]:
        """Return what is wrong with it."""
        problems = []
        if len(self.delimiter) != 1 or not self.delimiter.isascii() or self.delimiter in _NO_DELIMITERS:
            problems.append(f'delimiter must be one ASCII character, such as ";" or "\\t", got {self.delimiter!r}')
        if not _is_text_encoding(self.encoding):
            problems.append(
                f'encoding must be one that Python knows, such as "cp1252" or "utf-16", got {self.encoding!r}'
            )
        if self.decimal not in {".", ","}:
            problems.append(f'decimal must be "." or ",", got {self.decimal!r}')
        return problems


USUAL_CSV: Final = CsvForm()
"""The form that is assumed when [data] does not say otherwise."""


def _is_text_encoding(name: str) -> bool:
    try:
        "".encode(name)  # Python also finds codecs that are not text encodings, and refuses to encode with them
        return codecs.lookup(name).name not in _NO_TEXT_FILES
    except (LookupError, UnicodeError, ValueError):
        return False
