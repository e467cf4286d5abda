"""CSV files as text: from the bytes on a disk or in a bucket to the UTF-8 that pyarrow parses.

This module refuses files that pyarrow would misread: bytes that are not text, text in another encoding, another
delimiter, a quote that is never closed. pyarrow is given blocks of whole lines, for two reasons: when it divides a file
into blocks itself, it drops an LF at the start of a block after a CR, even within quotes; and it keeps reading a Python
file object in a thread of its own, which may crash the process at exit.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, islice
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from shards.csv_form import CsvForm
from storage.errors import Invalid

HEAD_BYTES: Final = 1 << 16
"""Bytes at the start of a file that are enough to recognise its form."""
BLOCK_BYTES = 1 << 20
"""Bytes that are parsed at a time, or one line if it is longer."""
MOST_LINE_BYTES: Final = 64 << 20

_DELIMITERS: Final = (",", ";", "\t", "|")
_UTF_8: Final = "utf-8"
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32", "utf-32-le"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32", "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16", "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16", "utf-16-be"),
    (codecs.BOM_UTF8, _UTF_8, "utf-8-sig"),
)
"""Byte order marks, and the encodings of a file that begins with one."""
_SAVE_AS_CSV: Final = "Save it as CSV: renaming a file does not change its content."
_UNPACK: Final = "Decompress it, or compress it with gzip as .csv.gz."
_NOT_TEXT: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), what, remedy)
    for pattern, what, remedy in (
        (rb"\x1f\x8b", "compressed with gzip", "Name it .csv.gz, or decompress it."),
        (rb"\x28\xb5\x2f\xfd", "compressed with zstd", _UNPACK),
        (rb"BZh[1-9]1AY&SY", "compressed with bzip2", _UNPACK),
        (rb"\xfd7zXZ\0", "compressed with xz", _UNPACK),
        (rb"\x04\x22\x4d\x18", "compressed with LZ4", _UNPACK),
        (rb"PK\x03\x04", "an Excel workbook (.xlsx) or another zip archive", _SAVE_AS_CSV),
        (rb"\xd0\xcf\x11\xe0", "an Excel workbook (.xls)", _SAVE_AS_CSV),
        (rb"PAR1\x15", "a Parquet file", "Name it .parquet."),
        (rb"ARROW1\0\0|\xff\xff\xff\xff..\0\0", "an Arrow file or stream", "Name it .arrow."),
        (rb"SQLite format 3\0", "an SQLite database", "Export the table as CSV."),
        (rb"%PDF-", "a PDF document", _SAVE_AS_CSV),
        (rb"\s*<(!doctype\s+html|html)\b", "a web page", "Download the data again: a page was saved instead."),
    )
)
"""First bytes of files that are not text, their kind, and the remedy."""
_EXCEL_LINE: Final = re.compile(r"\ufeff?sep=(.)\r?\n", re.IGNORECASE)
_SEEN_LINES: Final = 100
_COMMA_NUMBER: Final = re.compile(r"\s*[+-]?[0-9]+,[0-9]+([eE][+-]?[0-9]+)?\s*")
_GROUPED_NUMBER: Final = re.compile(r"\s*[+-]?[1-9][0-9]{0,2},[0-9]{3}\s*")
"""One thousand or more, if commas separate cells; otherwise it may also be a number with a fraction."""
_POINT_NUMBER: Final = re.compile(r"\s*[+-]?[0-9]+\.[0-9]+([eE][+-]?[0-9]+)?\s*")


class Bytes(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes | None:
        """Return up to ``size`` bytes; nothing at the end."""
        ...


def whole_lines(source: Bytes, form: CsvForm) -> Iterator[bytes]:
    """Yield a CSV file in UTF-8, in blocks of whole lines of about ``BLOCK_BYTES``; the last line may lack its end.

    Raises ``Invalid`` when the file is not text in the declared form, a line is too long, or a quote is never closed.
    """
    held, wanted = b"", BLOCK_BYTES
    for piece in _text(source, form):
        held += piece
        if len(held) < wanted:
            continue
        end = _end_of_lines(held, form.delimiter)
        if end:
            yield held[:end]
            held, wanted = held[end:], BLOCK_BYTES
        elif len(held) > MOST_LINE_BYTES:
            raise Invalid(f"a line is longer than {MOST_LINE_BYTES >> 20} MiB", "Close the quote that is open in it.")
        else:
            wanted = 2 * len(held)  # doubled, because each search starts again at the start of the line
    if len(_quotes(held, form.delimiter)) % 2:
        raise Invalid(
            "a quote is opened and never closed: the rest of the file would be one cell",
            "Close it or take it out. If the file was cut off, copy it again.",
        )
    if held:
        yield held


def _end_of_lines(block: bytes, delimiter: str) -> int:
    """Return the end of the last complete line in the block, which begins with a line; 0 when no line is complete."""
    quotes = _quotes(block, delimiter)
    for line_end in (b"\n", b"\r"):
        at = block.rfind(line_end, 0, len(block) - (line_end == b"\r"))  # an LF may follow a CR at the end of the block
        while at >= 0:
            before = int(np.searchsorted(quotes, at))
            if before % 2 == 0:
                return at + 1
            at = block.rfind(line_end, 0, int(quotes[before - 1]))
    return 0


def _quotes(block: bytes, delimiter: str) -> npt.NDArray[np.int64]:
    """Return the positions of opening and closing quotes, alternating; a quote within an unquoted cell is neither.

    pyarrow's parser and Python's use the same rule.
    """
    data = np.frombuffer(block, dtype=np.uint8)
    quotes: npt.NDArray[np.int64] = np.flatnonzero(data == ord('"'))
    opening = quotes[::2]
    before = data[opening[opening > 0] - 1]
    # A quote after a closing quote opens the cell again: together they stand for one quote in the cell.
    opens = np.zeros(256, dtype=np.bool_)
    opens[list(f'{delimiter}\r\n"'.encode())] = True
    if opens[before].all():
        return quotes
    cell = re.compile(rb'(?:(?<=[%b\r\n])|\A)"[^"]*+(?:""[^"]*+)*+("|\Z)' % re.escape(delimiter.encode()))
    found = ((each.start(), each.end() - 1) if each[1] else (each.start(),) for each in cell.finditer(block))
    return np.fromiter(chain.from_iterable(found), dtype=np.int64)


def _text(source: Bytes, form: CsvForm) -> Iterator[bytes]:
    """Yield the file in UTF-8; bytes declared to be UTF-8 are not checked, because pyarrow reports the invalid cell."""
    payload = source.read(BLOCK_BYTES) or b""
    _refuse_foreign(payload, form)
    decode = _decoder(form)
    first = decode(payload)
    _refuse_header(first[:HEAD_BYTES].decode(_UTF_8, "replace"), form)
    yield first
    while payload:
        payload = source.read(BLOCK_BYTES) or b""
        yield decode(payload)


def _decoder(form: CsvForm) -> Callable[[bytes], bytes]:
    """Return a function that converts a file to UTF-8, piece by piece; an empty piece is the last."""
    if codecs.lookup(form.encoding).name in {_UTF_8, "utf-8-sig"}:
        return lambda payload: payload
    decoder = codecs.getincrementaldecoder(form.encoding)()

    def decode(payload: bytes) -> bytes:
        try:
            text: str = decoder.decode(payload, final=not payload)
            return text.encode(_UTF_8)
        except UnicodeError:
            raise Invalid(
                f"the file is not text in the encoding {form.encoding}, which [data] encoding names",
                "Correct [data] encoding, or write the file again.",
            ) from None

    return decode


def seen_form(head: bytes, encoding: str | None = None) -> CsvForm:
    r"""Return the form that a CSV file seems to have, from its first ``HEAD_BYTES``; pass ``encoding`` if known.

    A guess for people to review: the delimiter with which all lines have the same number of cells, and as many as
    possible, and a decimal comma when some numbers have a comma and none has a point. If the delimiter is a comma,
    ``"1,234"`` counts as a whole number.

    >>> seen_form(b"id;x\n1;0,5\n2;1,5\n")
    CsvForm(delimiter=';', encoding='utf-8', decimal=',')
    """
    marked = next((name for mark, name, _ in _MARKS if head.startswith(mark)), _UTF_8)
    form = CsvForm(encoding=encoding or marked)
    text = head.decode(form.encoding, "replace").removeprefix("\ufeff")
    found = {each: _rows(text, each, whole=len(head) < HEAD_BYTES) for each in _DELIMITERS}
    delimiter = max(_DELIMITERS, key=lambda each: len(found[each][0]))
    cells = [cell for row in found[delimiter][1:] for cell in row]
    commas = [cell for cell in cells if _COMMA_NUMBER.fullmatch(cell)]
    if delimiter == ",":
        commas = [cell for cell in commas if not _GROUPED_NUMBER.fullmatch(cell)]
    points = any(map(_POINT_NUMBER.fullmatch, cells))
    return replace(form, delimiter=delimiter, decimal="," if commas and not points else ".")


def _rows(text: str, delimiter: str, *, whole: bool) -> list[list[str]]:
    """Return the first lines, divided into cells; ``[[]]`` unless all have the same number of cells, two or more."""
    try:
        rows = [row for row in islice(_reader(text, delimiter), _SEEN_LINES) if row]
    except csv.Error:
        return [[]]
    if not whole and len(rows) < _SEEN_LINES:
        rows = rows[:-1]  # the last line is incomplete
    widths = {len(row) for row in rows}
    return rows if len(widths) == 1 and widths != {1} else [[]]


def _reader(text: str, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)


def _refuse_foreign(head: bytes, form: CsvForm) -> None:
    """Raise ``Invalid`` when a file that begins like this is not text, or is in another encoding than declared."""
    for beginning, what, remedy in _NOT_TEXT:
        if beginning.match(head):
            raise Invalid(f"the file is not CSV text: it is {what}", remedy)
    declared = codecs.lookup(form.encoding).name
    marked = next((names for mark, *names in _MARKS if head.startswith(mark)), None)
    if marked is not None and declared not in marked:
        raise _other_encoding(f"the file begins with the byte order mark of {marked[0]}", marked[0], form)
    if marked is None and declared in {"utf-16", "utf-32"}:
        raise Invalid(
            f"the file has no byte order mark, and [data] encoding is {form.encoding}",
            f'Say which byte comes first: [data] encoding = "{declared}-le" or "{declared}-be".',
        )
    line = head.partition(b"\n")[0][:HEAD_BYTES]
    if declared == _UTF_8 and b"\0" in line:
        guess = "utf-16-be" if line.startswith(b"\0") else "utf-16-le"
        raise _other_encoding("the file is not UTF-8 text: its header has NUL bytes", guess, form)


def _other_encoding(fact: str, encoding: str, form: CsvForm) -> Invalid:
    return Invalid(
        f"{fact}, and [data] encoding is {form.encoding}", f'Set [data] encoding = "{encoding}", or save it as UTF-8.'
    )


def _refuse_header(head: str, form: CsvForm) -> None:
    """Raise ``Invalid`` when the header is a single name with the declared delimiter, but several with another.

    Also refuses a file that begins with the line ``sep=``, from which Excel takes the delimiter.
    """
    if match := _EXCEL_LINE.match(head):
        raise Invalid(
            "the file begins with a line for Excel (sep=), not with its header",
            f"Remove the first line, and set [data] delimiter = {json.dumps(match[1])}.",
        )
    best = max(_DELIMITERS, key=lambda each: _names(head, each))
    if _names(head, form.delimiter) == 1 and (names := _names(head, best)) > 1:
        raise Invalid(
            f"the header is a single name with the delimiter {json.dumps(form.delimiter)}, and {names} names with"
            f" {json.dumps(best)}",
            f"Set [data] delimiter = {json.dumps(best)}.",
        )


def _names(head: str, delimiter: str) -> int:
    try:
        return len(next(_reader(head.removeprefix("\ufeff"), delimiter), []))
    except csv.Error:
        return 0
