"""The specification's file, before it is read: its absence is reported without loading a parser."""

from __future__ import annotations

from pathlib import Path

from storage.errors import Invalid


def no_specification(path: Path) -> Invalid:
    """Return the error for a specification that is not there."""
    remedy = "Run 'sisa init DATA' to write one, or name another with --config."
    return Invalid(f"there is no specification {path.name}", remedy, file=str(path))


def require(path: Path) -> None:
    """Raise ``Invalid`` when there is no file at ``path``."""
    if not path.exists():
        raise no_specification(path)
