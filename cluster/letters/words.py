"""Dates, numbers and names of files, as a letter writes them. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_MONTHS: Final = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_LONGEST_NAME: Final = 80


def day_text(at: str) -> str:
    """Return the day of a recorded time, in UTC; the text itself if it is not a time.

    >>> day_text("2026-11-03T23:05:00.000+00:00")
    '3 November 2026'
    """
    moment = _parsed(at)
    return at if moment is None else f"{moment.day} {_MONTHS[moment.month - 1]} {moment.year}"


def moment_text(at: str) -> str:
    """Return a recorded time to the minute, in UTC; the text itself if it is not a time.

    >>> moment_text("2026-11-03T23:05:59.000+00:00")
    '3 November 2026, 23:05 UTC'
    """
    moment = _parsed(at)
    return at if moment is None else f"{day_text(at)}, {moment:%H:%M} UTC"


def with_noun(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun.

    >>> with_noun(1, "data point"), with_noun(1200, "data point"), with_noun(0, "copy", "copies")
    ('1 data point', '1,200 data points', 'no copies')
    """
    noun = one if number == 1 else many or f"{one}s"
    return f"{number:,} {noun}" if number else f"no {noun}"


def receipt_file_name(request_id: str, ending: str = "json", what: str = "receipt") -> str:
    """Return the name of a file about a request: characters that some file systems refuse become hyphens.

    >>> receipt_file_name("er/7 b"), receipt_file_name("er-7", "html", "letter")
    ('receipt-er-7-b.json', 'letter-er-7.html')
    """
    safe = re.sub(r"[^A-Za-z0-9._]+", "-", request_id)[:_LONGEST_NAME].strip("-.") or "request"
    return f"{what}-{safe}.{ending}"


def _parsed(at: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
