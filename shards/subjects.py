"""Names of people: which spellings are one person (E15), and which only look alike.

A *form* is what a federation declares of its subjects' names: names of equal form are one subject. A *skeleton* is
coarser: names with the same skeleton share a slice, so that an erased subject can be compared with all similarly spelt
ones. Names of equal form have equal skeletons, because the skeleton is computed from the form.

Source: Unicode Standard Annex 15 (NFC, NFKC); Unicode Standard, section 3.13 (case folding), section 5.21 (characters
that are invisible by default).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final, Literal

from storage.errors import Invalid

SubjectForm = Literal["exact", "trimmed", "casefold", "email", "phone", "integer"]

FORMS: Final[tuple[SubjectForm, ...]] = ("exact", "trimmed", "casefold", "email", "phone", "integer")

LEAST_DOUBTFUL: Final = 2**53
"""From this number on, a whole number that was stored as a float may have been rounded: 2**53 + 1 becomes 2**53."""

_MOST_DIGITS: Final = 400
"""Of a number's value or exponent; anything longer is treated as text."""

_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
"""Characters that are drawn as nothing although their Unicode category does not say so."""

_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_NUMBER: Final = re.compile(r"([+-]?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]{1,6}))?")
_BEGIN_TEXT: Final = frozenset("+-0123456789")
_BEGIN_NUMBERS: Final = frozenset([b"", b"+", *(b"%d" % digit for digit in range(10))])
_DROPPED: Final = b"!\"#%&'()*,-./:;?@[\\]_{}"
"""The punctuation (category P) of ASCII; its symbols, such as ``+``, distinguish names and are kept."""
_LOWER: Final = bytes(range(256)).lower()


class _Punctuation(dict[int, int | None]):
    """For ``str.translate``: removes punctuation and keeps the rest; looks each character up once."""

    def __missing__(self, code: int) -> int | None:
        self[code] = kept = None if unicodedata.category(chr(code))[0] == "P" else code
        return kept


_PUNCTUATION: Final = _Punctuation()


def in_form(text: str, form: SubjectForm) -> str:
    r"""Return the name in ``form``; applying it to the result again changes nothing.

    ``exact``: as it is. ``trimmed``: NFC, without outer white space and invisible characters. ``casefold``, ``email``:
    trimmed, and case folded. ``phone``: its digits, without a leading ``+`` or ``00``. ``integer``: in decimal.
    Raises ``Invalid`` for a name that has no such form; the message does not quote the name.

    >>> [in_form("\u00a0Mia@Example.com\u200b ", form) for form in ("trimmed", "email")]
    ['Mia@Example.com', 'mia@example.com']
    >>> [in_form(text, "phone") for text in ("+49 (30) 123-45", "0049 30 12345", "030 12345")]
    ['493012345', '493012345', '03012345']
    >>> [in_form(text, "integer") for text in ("17", " 017", "17.0", "1.7e1")]
    ['17', '17', '17', '17']
    """
    match form:
        case "exact":
            formed = text
        case "trimmed":
            formed = _trimmed(text)
        case "casefold" | "email":
            formed = _folded(_trimmed(text))
        case "phone":
            formed = _phone(text)
        case _:
            formed = _integer(_trimmed(text))
    if not formed:
        raise Invalid("a name has nothing but white space and invisible characters", "Leave it out.")
    return formed


def forms_and_skeletons(names: Sequence[str], form: SubjectForm) -> tuple[list[bytes], list[bytes]]:
    """Return ``in_form`` and ``skeleton`` of many names, in UTF-8.

    Fast when all names are plain ASCII without spaces, as most are. Raises ``Invalid`` as ``in_form`` does.
    """
    if form in {"exact", "trimmed"} and _are_plain(names):
        joined = "\n".join(names).encode("ascii")
        formed, bare = joined.split(b"\n"), joined.translate(_LOWER, _DROPPED).split(b"\n")
        for position, found in enumerate(bare):
            # Text that begins like a number may be a number, and a name of nothing but punctuation keeps it.
            if found[:1] in _BEGIN_NUMBERS or formed[position][:1] == b"-":
                bare[position] = _utf8(skeleton(names[position]))
        return formed, bare
    if form in {"exact", "trimmed"} and len(plain := [name for name in names if _is_plain(name)]) > 1:
        quick = dict(zip(plain, zip(*forms_and_skeletons(plain, form), strict=True), strict=True))
        pairs = [quick[name] if name in quick else _form_and_skeleton(name, form) for name in names]
    else:
        pairs = [_form_and_skeleton(name, form) for name in names]
    return [formed for formed, _ in pairs], [bare for _, bare in pairs]


def _form_and_skeleton(name: str, form: SubjectForm) -> tuple[bytes, bytes]:
    formed = in_form(name, form)
    return _utf8(formed), _utf8(skeleton(formed))


def skeleton(name: str) -> str:
    """Return what remains of a name, given in its form, when differences of spelling are ignored.

    NFKC, case folded, without white space, invisible characters and punctuation; a whole number in plain decimal.

    >>> [skeleton(name) for name in ("Mia@Example.com", "mia@example.com", "mia example-com", "MIA@EXAMPLE.COM")]
    ['miaexamplecom', 'miaexamplecom', 'miaexamplecom', 'miaexamplecom']
    >>> [skeleton(name) for name in ("17", "017", "17.0", "1.7e1", "1,7", "1.75")]
    ['17', '17', '17', '17', '17', '1.75']
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    spaced = _visible(folded).split()
    folded = spaced[0] if len(spaced) == 1 else "".join(spaced)
    if folded[:1] in _BEGIN_TEXT and (number := _plain_number(folded)) is not None:
        return number
    letters = folded.translate(_PUNCTUATION)
    if letters.isascii() and letters.isdigit():
        return letters.lstrip("0") or "0"
    return letters or folded or name


def through_floats(text: str) -> bool:
    """Return whether the text is a whole number written as a float, and too large for a float to hold exactly.

    >>> [through_floats(text) for text in ("9007199254740993.0", "9.007199254740993e15", "9007199254740993", "17.0")]
    [True, True, False, False]
    """
    match = _NUMBER.fullmatch(text.strip())
    if match is None or (match[3] is None and match[4] is None):
        return False
    number = _plain_number(text.strip())
    return number is not None and _INTEGER.fullmatch(number) is not None and abs(int(number)) >= LEAST_DOUBTFUL


def _are_plain(names: Sequence[str]) -> bool:
    """Return whether all names are visible ASCII without spaces, and not empty."""
    joined = "".join(names)
    return bool(names) and joined.isascii() and joined.isprintable() and " " not in joined and all(names)


def _is_plain(name: str) -> bool:
    return name.isascii() and name.isprintable() and " " not in name and bool(name)


def _trimmed(text: str) -> str:
    return unicodedata.normalize("NFC", _visible(unicodedata.normalize("NFC", text)).strip())


def _folded(text: str) -> str:
    """Return the text case folded, as in canonical caseless matching (Unicode, definition D145)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def _visible(text: str) -> str:
    """Return the text without format and control characters, except for white space."""
    if text.isprintable():
        return text if text.isascii() else _INVISIBLE.sub("", text)
    kept = (c for c in text if unicodedata.category(c) not in {"Cf", "Cc"} or c.isspace())
    return _INVISIBLE.sub("", "".join(kept))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _phone(text: str) -> str:
    digits = "".join(str(unicodedata.digit(c)) for c in unicodedata.normalize("NFKC", text) if c.isdecimal())
    if not digits:
        raise Invalid(
            "a name has no digit, but subjects are declared to be phone numbers", 'Set [data] subject_form = "trimmed".'
        )
    while digits.startswith("00") and len(digits) > 2:
        digits = digits[2:]
    return digits


def _integer(text: str) -> str:
    number = _plain_number(text)
    if number is None or not _INTEGER.fullmatch(number):
        raise Invalid(
            "a name is not a whole number, but subjects are declared to be whole numbers",
            'Set [data] subject_form = "trimmed".',
        )
    return number


def _plain_number(text: str) -> str | None:
    """Return a number in plain decimal, without needless zeros; None when the text is not a number, or too long."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    sign, whole, fraction, exponent = match[1], match[2], match[3] or "", int(match[4] or 0)
    if len(whole) + len(fraction) + abs(exponent) > _MOST_DIGITS:
        return None
    digits, point = whole + fraction, len(whole) + exponent
    digits = "0" * max(-point, 0) + digits if point < 0 else digits.ljust(point, "0")
    point = max(point, 0)
    head, tail = digits[:point].lstrip("0") or "0", digits[point:].rstrip("0")
    plain = f"{head}.{tail}" if tail else head
    return f"-{plain}" if sign == "-" and plain != "0" else plain
