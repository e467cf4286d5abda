"""Folders that belong to a table format: its log says which files are current, and the files alone do not.

Delta, Iceberg and Hudi delete rows by writing new files and a log; the old files, and the rows in them, stay for weeks.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final

from storage.errors import Invalid

LOG_FOLDERS: Final = {"_delta_log": "a Delta", "metadata": "an Iceberg", ".hoodie": "a Hudi"}
"""The folder in a table's root where its log lies, and the format."""

_ICEBERG_LOG: Final = ".metadata.json"


def logged_roots(names: Iterable[str]) -> dict[PurePosixPath, str]:
    """Return the roots of the tables whose logs are among files of these names, and their formats.

    >>> logged_roots(["a/_delta_log/0.json", "b/metadata/v1.metadata.json", "c/metadata/notes.json"])
    {PurePosixPath('a'): 'a Delta', PurePosixPath('b'): 'an Iceberg'}
    """
    found = dict[PurePosixPath, str]()
    for name in map(PurePosixPath, names):
        for folder in name.parents:
            if folder.name in LOG_FOLDERS and (folder.name != "metadata" or name.name.endswith(_ICEBERG_LOG)):
                found[folder.parent] = LOG_FOLDERS[folder.name]
    return found


def refuse_tables_above(paths: Iterable[Path]) -> None:
    """Raise ``Invalid`` when any of these files lies in a table, however deep."""
    for folder in sorted({folder for path in paths for folder in path.parents}):
        for log in LOG_FOLDERS:
            try:
                names = [f"{log}/{each.name}" for each in (folder / log).iterdir()]
            except OSError:  # there is none, or it may not be listed
                continue
            for format_name in logged_roots(names).values():
                raise table_refused(format_name, str(folder))


def table_refused(format_name: str, root: str) -> Invalid:
    """Return the error for data files that lie in a table."""
    return Invalid(
        f"the data belong to {format_name} table, whose files may hold rows that were deleted from it",
        "Export the table's present rows to Parquet with a reader of that format, and name the exported files.",
        table=root,
    )
