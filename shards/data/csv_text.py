"""CSV files as text: from the bytes on a disk or in a bucket to the UTF-8 that pyarrow parses.

Refused here is what pyarrow would read as something else: bytes that are no text, text in another encoding, another
delimiter, a quote that is never closed. pyarrow parses whole lines, block by block: of a file that it cuts into blocks
by itself it drops an LF that begins a block behind a CR, in quotes, too; and of a file of Python's it goes on reading
in a thread of its own, which may bring the process down at its end.
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

from shards.specification import CsvForm
from storage.errors import Invalid

HEAD_BYTES: Final = 1 << 16
"""So much of a file is enough to see what form it has."""
BLOCK_BYTES = 1 << 20
"""So much is parsed at a time, or a line if it is longer."""
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
_SAVE_AS_CSV: Final = "Save it as CSV: another name does not change what is in a file."
_UNPACK: Final = "Decompress it, or compress it with gzip as .csv.gz."
_NO_TEXT: Final = tuple(
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
        (rb"\s*<(!doctype\s+html|html)\b", "a web page", "Download the data again: a page came in their place."),
    )
)
"""How files begin that are no text, what they are, and what to do."""
_EXCEL_LINE: Final = re.compile(r"\ufeff?sep=(.)\r?\n", re.IGNORECASE)
_SEEN_LINES: Final = 100
_COMMA_NUMBER: Final = re.compile(r"\s*[+-]?[0-9]+,[0-9]+([eE][+-]?[0-9]+)?\s*")
_GROUPED_NUMBER: Final = re.compile(r"\s*[+-]?[1-9][0-9]{0,2},[0-9]{3}\s*")
"""One thousand or more, where a comma stands between cells; where none does, a fraction as well."""
_POINT_NUMBER: Final = re.compile(r"\s*[+-]?[0-9]+\.[0-9]+([eE][+-]?[0-9]+)?\s*")


class Bytes(Protocol):
    """A file's bytes, one after another."""

    def read(self, size: int, /) -> bytes | None:
        """Return up to ``size`` bytes; none at the end."""
        ...


def whole_lines(source: Bytes, form: CsvForm) -> Iterator[bytes]:
    """Yield a CSV file in UTF-8, in blocks of whole lines of about ``BLOCK_BYTES``; the last line may have no end.

    Raises ``Invalid`` when the file is no text in the declared form, a line never ends, or the file ends within quotes.
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
            wanted = 2 * len(held)  # each search begins where the line begins
    if len(_quotes(held, form.delimiter)) % 2:
        raise Invalid(
            "a quote is opened and never closed: the rest of the file would be one cell",
            "Close it or take it out; if the file was cut off, copy it again.",
        )
    if held:
        yield held


def _end_of_lines(block: bytes, delimiter: str) -> int:
    """Return where the last line ends that ends in the block, 0 if none does; the block begins with a line."""
    quotes = _quotes(block, delimiter)
    for line_end in (b"\n", b"\r"):
        at = block.rfind(line_end, 0, len(block) - (line_end == b"\r"))  # an LF may follow a CR that stands last
        while at >= 0:
            before = int(np.searchsorted(quotes, at))
            if before % 2 == 0:
                return at + 1
            at = block.rfind(line_end, 0, int(quotes[before - 1]))
    return 0


def _quotes(block: bytes, delimiter: str) -> npt.NDArray[np.int64]:
    """Return the places of the quotes that open and close cells, in turns; a quote within an unquoted cell is neither.

    So pyarrow's parser takes them, and Python's.
    """
    data = np.frombuffer(block, dtype=np.uint8)
    quotes: npt.NDArray[np.int64] = np.flatnonzero(data == ord('"'))
    opening = quotes[::2]
    before = data[opening[opening > 0] - 1]
    # A quote behind a closing one opens again: together they stand for one quote in the cell.
    opens = np.zeros(256, dtype=np.bool_)
    opens[list(f'{delimiter}\r\n"'.encode())] = True
    if opens[before].all():
        return quotes
    cell = re.compile(rb'(?:(?<=[%b\r\n])|\A)"[^"]*+(?:""[^"]*+)*+("|\Z)' % re.escape(delimiter.encode()))
    found = ((each.start(), each.end() - 1) if each[1] else (each.start(),) for each in cell.finditer(block))
    return np.fromiter(chain.from_iterable(found), dtype=np.int64)


def _text(source: Bytes, form: CsvForm) -> Iterator[bytes]:
    """Yield the file in UTF-8; bytes that are declared so as they are, for pyarrow says which cell is not."""
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
    """Return what turns one piece of a file after another into UTF-8; an empty one is the last."""
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
    r"""Return the form that a CSV file seems to have, from its first ``HEAD_BYTES``; ``encoding`` where it is known.

    A guess for a person to read: the delimiter that gives all lines the same number of cells, the most of them, and a
    decimal comma where numbers have one and none has a point. Between commas ``"1,234"`` is taken for a whole number.

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
    """Return the first lines in cells; only an empty one unless all have as many as the header, two or more."""
    try:
        rows = [row for row in islice(_reader(text, delimiter), _SEEN_LINES) if row]
    except csv.Error:
        return [[]]
    if not whole and len(rows) < _SEEN_LINES:
        rows = rows[:-1]  # the last line goes on
    widths = {len(row) for row in rows}
    return rows if len(widths) == 1 and widths != {1} else [[]]


def _reader(text: str, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)


def _refuse_foreign(head: bytes, form: CsvForm) -> None:
    """Raise ``Invalid`` when a file that begins so is no text, or text in another encoding than the declared one."""
    for beginning, what, remedy in _NO_TEXT:
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
    """Raise ``Invalid`` when the header is one name under the declared delimiter, and several under another one.

    So it is, too, when there is another line before it: that by which Excel knows the delimiter.
    """
    if told := _EXCEL_LINE.match(head):
        raise Invalid(
            "the file does not begin with its header but with a line for Excel, sep=",
            f"Take the first line out, and set [data] delimiter = {json.dumps(told[1])}.",
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
