"""Copies of CSV files with a column of ids, for data whose data points have none.

An id is a digest of the data point's line, and so the same in every copy: erased data points stay out after the next
export, in any order of lines. Equal lines are counted.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final

from shards.data.cleaned import bytes_of_file, records
from shards.data.readers import ending_of
from shards.data.sources import DataFile, csv_form_of
from storage.errors import Conflict, Invalid

ID_COLUMN: Final = "point_id"
"""Name of the column that is added."""
_ID_DIGITS: Final = 20
"""Hexadecimal digits: two different lines of a thousand million have the same with a probability below 10**-6."""


def copy_with_ids(file: DataFile, target: Path, header: Sequence[str] = ()) -> int:
    """Write a copy of a CSV file with a first column ``point_id``; return the number of data points.

    ``header`` has the names of all columns of a file without a header line. All else is copied character by character.
    Raises ``Conflict`` when ``target`` exists, ``Invalid`` for another format, and for a header that does not fit.
    """
    if not (ending_of(file.name) or "").startswith(".csv"):
        raise Invalid("ids are added to CSV files only", "Add a column with a unique id to this one.", file=file.name)
    if ending_of(target.name) != ".csv":
        raise Invalid("the copy with ids is a CSV file", "Give it a name that ends in .csv.", file=target.name)
    if target.exists():
        raise Conflict(f"{target} exists already", "Name another file for the copy.")
    unfinished = target.with_name(f".{target.name}.partial")
    form = csv_form_of(file)
    try:
        with ExitStack() as open_files:
            source: Any = open_files.enter_context(bytes_of_file(file))
            if (ending_of(file.name) or "").endswith(".gz"):
                source = open_files.enter_context(gzip.GzipFile(fileobj=source))
            options: dict[str, Any] = {"encoding": form.encoding, "newline": ""}
            lines = open_files.enter_context(TextIOWrapper(source, **options))
            copy = open_files.enter_context(unfinished.open("w", **options))
            points = -1  # the header's line
            for line in _with_ids(records(lines, form.delimiter), form.delimiter, header, file.name):
                copy.write(line)
                points += 1
        unfinished.replace(target)
    except UnicodeDecodeError:
        raise Invalid(
            f"the file is not text in the encoding {form.encoding}", "Name its own with --encoding.", file=file.name
        ) from None
    finally:
        unfinished.unlink(missing_ok=True)
    return points


def _with_ids(lines: Iterable[str], delimiter: str, header: Sequence[str], file: str) -> Iterator[str]:
    seen = Counter[str]()
    names = list(header)
    for line in lines:
        text = line.rstrip("\r\n")
        if not text:
            continue  # readers skip empty lines
        end = line[len(text) :] or "\n"
        if not seen:
            seen[""] = 1
            text = text.removeprefix("\ufeff")
            cells = next(csv.reader([text], delimiter=delimiter))
            if names and len(names) != len(cells):
                raise Invalid(
                    f"--header has {len(names)} names, and the first line has {len(cells)} cells",
                    "Name each column once.",
                    file=file,
                )
            _refuse_names(names or cells, file, is_given=bool(names))
            yield (
                delimiter.join(
                    [ID_COLUMN, *(_quoted(name, delimiter) for name in names)] if names else [ID_COLUMN, text]
                )
                + end
            )
            if not names:
                continue
        # A letter first: digits alone, or around an e, would be a number.
        digest = "p" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_ID_DIGITS]
        seen[digest] += 1
        counted = f"{digest}-{seen[digest]}" if seen[digest] > 1 else digest
        yield f"{counted}{delimiter}{text}{end}"


def _refuse_names(names: Sequence[str], file: str, *, is_given: bool) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    remedy = "Name each column once." if is_given else "If the file has no header line, name its columns with --header."
    if twice:
        raise Invalid("two columns have the same name", remedy, file=file, column=twice[0])
    if ID_COLUMN in names:
        raise Invalid(f"the file has a column {ID_COLUMN} already", "Leave --add-ids out.", file=file)


def _quoted(name: str, delimiter: str) -> str:
    return f'"{name.replace(chr(34), chr(34) * 2)}"' if any(each in name for each in (delimiter, '"', "\n")) else name
