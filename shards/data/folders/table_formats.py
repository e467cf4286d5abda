"""Folders that belong to a table format, in which only the table's log says which files are current.

Delta, Iceberg and Hudi delete rows by writing new files and a log; old files, with the deleted rows, stay for weeks.
Only the root of a Delta table on this machine is read, as its log says (``shards.data.folders.delta``).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final

from storage.errors import Invalid

LOG_FOLDERS: Final = {"_delta_log": "a Delta", "metadata": "an Iceberg", ".hoodie": "a Hudi"}
"""The log's folder in a table's root, and the name of the format."""

_ICEBERG_LOG: Final = ".metadata.json"


def logged_roots(names: Iterable[str]) -> dict[PurePosixPath, str]:
    """Return the root and format of each table whose log is among the files with these names.

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
    """Raise ``Invalid`` when any of these files is in a table, at any depth."""
    for folder in sorted({folder for path in paths for folder in path.parents}):
        for log in LOG_FOLDERS:
            try:
                names = [f"{log}/{each.name}" for each in (folder / log).iterdir()]
            except OSError:  # it does not exist, or may not be listed
                continue
            for format_name in logged_roots(names).values():
                raise table_refused(format_name, str(folder))


def table_refused(format_name: str, root: str) -> Invalid:
    """Return the error for data files that are in a table."""
    return Invalid(
        f"the data belong to {format_name} table, whose files may hold rows that were deleted from it",
        "Export the table's current rows to Parquet with a reader of that format, and name the exported files.",
        table=root,
    )
