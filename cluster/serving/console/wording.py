"""How the console shows moments, numbers and sizes."""

from __future__ import annotations

from datetime import UTC, datetime

_STEP = 1024


def moment(text: str) -> str:
    """Return a recorded moment (ISO 8601) for people: '30 November 2026, 09:05 UTC'; empty for an empty text."""
    if not text:
        return ""
    at = datetime.fromisoformat(text).astimezone(UTC)
    return f"{at.day} {at:%B %Y, %H:%M} UTC"


def day(text: str) -> str:
    """Return the day of a recorded moment: '30 November 2026'."""
    return moment(text).partition(",")[0]


def number(value: float) -> str:
    """Return a number with separators: '12,345'; fractions with at most three digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}".rstrip("0").rstrip(".")


def plural(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun: '1 data point', '3 data points'."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def sized(size_bytes: float) -> str:
    """Return a size: '512 bytes', '3.4 MiB'."""
    if size_bytes < _STEP:
        return plural(int(size_bytes), "byte")
    for unit in ("KiB", "MiB", "GiB"):
        size_bytes /= _STEP
        if size_bytes < _STEP:
            return f"{size_bytes:.1f} {unit}"
    return f"{size_bytes / _STEP:.1f} TiB"


def share(part: float) -> str:
    """Return a share of one as a percentage: '97.5 %'."""
    return f"{part * 100:.1f} %"
