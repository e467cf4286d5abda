"""The user's files: found, opened and streamed with bounded memory, for all places and formats.

Places: folders on this machine, buckets of an S3 server. Formats: Parquet, Arrow IPC (file and stream), CSV (also
gzipped). Errors name the file, never a value in it.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from glob import escape, glob
from pathlib import Path, PurePath

import pyarrow as pa

from shards.csv_form import USUAL_CSV, CsvForm
from shards.data.csv_text import seen_form
from shards.data.folders.delta import PartitionReader, delta_files, is_delta
from shards.data.folders.image_files import TREE_COLUMNS, image_tree, is_image
from shards.data.folders.saved_datasets import is_about_dataset, saved_dataset
from shards.data.folders.table_formats import refuse_tables_above
from shards.data.readers import ENDINGS, CsvReader, FileReader, TableReader, Wanted, ending_of, reader_of
from shards.data.remote_files import RemoteFile, find_remote
from shards.encoding import NO_ENCODING, Encoding
from storage.errors import Invalid
from storage.location import is_on_s3

_MOST_NAMES = 10
_TRAIN = "[data] train"
_REMEDY_FILE = "Write the file again, or leave it out of [data] train."


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """One file of a source, or a table in memory."""

    name: str
    """Path relative to the source's base, with ``/``, or the address; this is the name in error messages."""
    path: Path | None
    """None for a table in memory, and for a file in a bucket."""
    reader: FileReader
    remote: RemoteFile | None = None
    """The file, if it is in a bucket."""
    tree: Path | None = None
    """The folder, if the table in memory lists the images in it."""

    @property
    def folder(self) -> Path | None:
        """Where the images lie that it names; None for a table in memory, and for a file in a bucket."""
        return self.tree or (None if self.path is None else self.path.parent)

    def schema(self) -> pa.Schema:
        """Return names and types of all columns. Raises ``Invalid`` when the file cannot be read."""
        with naming_file(self.name):
            return self.reader.schema()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Consecutive data points of one file."""

    file: str
    first: int
    """Row number of the first one within the file, from 1."""
    columns: pa.RecordBatch
    folder: Path | None = None
    """The folder of the file; None for a table in memory, and for a file in a bucket."""
    is_tree: bool = False
    """Whether each data point is an image file in ``folder``."""

    def column(self, name: str) -> pa.Array:
        """Return a column of plain values, without dictionary or extension type."""
        return plain_array(self.columns.column(name))

    def place(self, position: int) -> tuple[str, int]:
        """Return the file and row of a data point, by its position in the batch."""
        if self.is_tree and TREE_COLUMNS[0] in self.columns.schema.names:
            return f"{self.file}/{self.column(TREE_COLUMNS[0])[position]}", 1
        return self.file, self.first + position


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file, all files of a folder, all files of a glob, or a table in memory."""

    location: str
    files: tuple[DataFile, ...]
    passed_over: tuple[str, ...] = ()
    """Files of the folder that are not read, although users might expect it: other formats, or hidden names."""
    version: int | None = None
    """The version of a Delta table that is read."""
    encoding: Encoding = NO_ENCODING
    """Says which columns hold images, and perhaps their paths: then the image files belong to the source, too."""

    @property
    def is_remote(self) -> bool:
        """Whether its files are in a bucket."""
        return any(file.remote is not None for file in self.files)

    def batches(self, wanted: Wanted, points: int) -> Iterator[Batch]:
        """Yield the wanted columns, file by file, at most ``points`` data points at a time.

        Raises ``Invalid`` naming the file when it is truncated, damaged, or has a line that cannot be parsed.
        """
        for file in self.files:
            first, is_tree = 1, file.tree is not None
            with naming_file(file.name):
                for columns in file.reader.batches(wanted, points):
                    yield Batch(file=file.name, first=first, columns=columns, folder=file.folder, is_tree=is_tree)
                    first += columns.num_rows


def open_source(
    location: str,
    base: Path,
    *,
    leave_out: Sequence[Path | str] = (),
    endpoint: str | None = None,
    profile: str | None = None,
    csv: CsvForm = USUAL_CSV,
    version: int | None = None,
) -> Source:
    """Return the source that ``location`` names: a file, a folder or a glob, relative to ``base``, or ``s3://…``.

    A folder stands for all files with known endings in it and its subfolders, sorted by name; for the dataset that
    ``datasets.Dataset.save_to_disk`` wrote to it; or, if there are only images in it, for these. Hidden files and files
    whose names start with ``_`` are skipped and listed in the source's ``passed_over``. Folders and globs also skip
    everything in the folders and at the addresses in ``leave_out``. ``endpoint`` is the address of a bucket's server;
    None: AWS, or what boto3's configuration says. ``profile`` names credentials in this machine's file; None: those
    that boto3 finds. ``csv`` is the form of CSV files. The folder of a Delta table stands for the files of its current
    version, or of ``version``.

    Raises:
        Invalid: nothing is found, an ending is unknown, ``location`` itself is in ``leave_out``, the bucket does not
            exist, the files belong to a table whose log says which of them are current, or a ``version`` is named and
            ``location`` is not a Delta table.
        Unavailable: the bucket's server does not answer, or denies access.
    """
    if version is not None and not is_delta(base / location):
        fact = "[data] version is that of a Delta table, and the data are not one on this machine"
        raise Invalid(fact, "Leave it out, or name the table's folder in [data] train.", data=location)
    if is_on_s3(location):
        addresses = tuple(place for place in leave_out if isinstance(place, str))
        return _remote_source(location, endpoint, profile, addresses, csv)
    if "://" in location:
        raise Invalid(
            f"{location.partition('://')[0]}:// is not supported for data",
            "Copy the files to a local folder or to s3://bucket/folder.",
        )
    folders = (place for place in leave_out if isinstance(place, Path))
    if is_delta(base / location):
        return _delta_source(location, base / location, version)
    return _local_source(location, base, folders, csv)


def table_source(table: pa.Table) -> Source:
    """Return a table in memory as a source."""
    return Source(location="table", files=(DataFile(name="table", path=None, reader=TableReader(table)),))


def seen_csv_form(source: Source, encoding: str | None = None) -> CsvForm:
    """Return the form that the source's first CSV file seems to have; pass ``encoding`` if it is known."""
    for file in source.files:
        if isinstance(file.reader, CsvReader):
            with naming_file(file.name):
                return seen_form(file.reader.head(), encoding)
    return USUAL_CSV


def in_csv_form(source: Source, form: CsvForm) -> Source:
    """Return the source with its CSV files read in this form."""
    files = (
        replace(file, reader=replace(file.reader, form=form)) if isinstance(file.reader, CsvReader) else file
        for file in source.files
    )
    return replace(source, files=tuple(files))


def csv_form_of(file: DataFile) -> CsvForm:
    """Return the form in which a CSV file is read; for other files the usual form."""
    return file.reader.form if isinstance(file.reader, CsvReader) else USUAL_CSV


def passed_over_text(source: Source) -> str:
    """Return a message about files that are passed over, or the version that is read; empty when there is neither."""
    names = source.passed_over
    if source.version is not None:
        return f"{source.location} is read as of its version {source.version}"
    if not names:
        return ""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return (
        f"not read in {source.location}: {', '.join(map(repr, names[:_MOST_NAMES]))}{more} (read are"
        f" {', '.join(ENDINGS)}, without names that begin with '.' or '_')"
    )


def glob_like(text: str) -> bool:
    """Return whether ``text`` contains a glob character."""
    return any(character in text for character in "*?[")


def plain_array(array: pa.Array) -> pa.Array:
    """Return the array's values without dictionary, extension type and string views."""
    if isinstance(array, pa.ExtensionArray):
        return plain_array(array.storage)
    if isinstance(array, pa.DictionaryArray):
        return plain_array(array.dictionary_decode())
    # Few functions of pyarrow can encode or compare string views.
    return array.cast(pa.string()) if pa.types.is_string_view(array.type) else array


def plain_type(data_type: pa.DataType) -> pa.DataType:
    """Return the type of ``plain_array``'s result for an array of this type."""
    if isinstance(data_type, pa.BaseExtensionType):
        return plain_type(data_type.storage_type)
    return data_type.value_type if pa.types.is_dictionary(data_type) else data_type


def is_text(data_type: pa.DataType) -> bool:
    """Return whether the type holds character strings."""
    types = pa.types
    return bool(types.is_string(data_type) or types.is_large_string(data_type) or types.is_string_view(data_type))


def is_list(data_type: pa.DataType) -> bool:
    """Return whether the type holds a list per data point."""
    types = pa.types
    return bool(types.is_fixed_size_list(data_type) or types.is_list(data_type) or types.is_large_list(data_type))


def _local_source(location: str, base: Path, leave_out: Iterator[Path], csv: CsvForm) -> Source:
    target, own = base / location, {way for folder in leave_out for way in _ways_to(folder)}
    others: list[str] = []
    if target.exists() and not own.isdisjoint(_above(target)):
        raise _own_files(location)
    if target.is_dir():
        below = sorted(path for path in target.rglob("*") if path.is_file() and own.isdisjoint(_above(path)))
        saved = saved_dataset(target)
        if saved is None:
            paths = [path for path in below if _is_data(path.relative_to(target))]
        else:
            paths = list(saved)
            below = [path for path in below if not is_about_dataset(path.name)]
        others = [path.relative_to(target).as_posix() for path in below if path not in set(paths)]
        if not paths and (listed := image_tree(target, below)) is not None:
            return _tree_source(location, target, listed)
        if not paths:
            raise _nothing("the folder holds no data file", location)
    elif target.is_file():
        paths = [target]
    else:
        # Path.glob refuses absolute patterns. The base is escaped, because it is a name, not a pattern.
        matches = map(Path, glob(str(Path(escape(str(base))) / location), recursive=True))  # noqa: PTH207
        paths = sorted(path for path in matches if path.is_file() and own.isdisjoint(_above(path)))
        if not paths:
            raise _nothing("no file matches" if glob_like(location) else "there is no such file or folder", location)
    refuse_tables_above(way for path in paths for way in _ways_to(path))
    files = tuple(_data_file(_name(path, base), path, path.stat().st_size, csv) for path in paths)
    return Source(location=location, files=files, passed_over=_worthnaming_file(others))


def _delta_source(location: str, folder: Path, version: int | None) -> Source:
    found, listed = delta_files(folder, version)
    files = []
    for each in listed:
        name = f"{location.rstrip('/')}@{found}/{each.name}"  # so the inventory says which version was read
        with naming_file(name):
            file = _data_file(name, each.path, each.path.stat().st_size, USUAL_CSV)
        files.append(replace(file, reader=PartitionReader(file.reader, each.values)) if each.values else file)
    if not files:
        raise _nothing("this version of the Delta table holds no rows", f"{location}@{found}")
    return Source(location=location, files=tuple(files), version=found)


def _tree_source(location: str, folder: Path, listed: pa.Table) -> Source:
    name = location.rstrip("/")
    return Source(location=location, files=(DataFile(name=name, path=None, reader=TableReader(listed), tree=folder),))


def _remote_source(
    location: str, endpoint: str | None, profile: str | None, leave_out: Sequence[str], csv: CsvForm
) -> Source:
    if _lies_in(location, leave_out):
        raise _own_files(location)
    found = find_remote(location, endpoint, _is_data, profile)
    if found is None:
        raise _nothing("there is no such file or folder", location)
    files = [file for file in found.files if not _lies_in(file.address, leave_out)]
    if not files:
        raise _nothing("no file matches" if glob_like(location) else "the folder holds no data file", location)
    base = location.rstrip("/")
    others = [name for name in found.others if not _lies_in(f"{base}/{name}", leave_out)]
    return Source(
        location=location,
        files=tuple(_data_file(file.address, file, file.file.payload_bytes, csv) for file in files),
        passed_over=_worthnaming_file(others),
    )


def _worthnaming_file(others: Iterable[str]) -> tuple[str, ...]:
    """Return the names that users might take for data, without files that systems and programs leave behind."""
    visible = (name for name in others if not is_image(name))  # tables name them
    return tuple(name for name in visible if ending_of(name) is not None or not _is_hidden(PurePath(name)))


def _is_data(path: PurePath) -> bool:
    return not _is_hidden(path) and ending_of(path.name) is not None


def _is_hidden(path: PurePath) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _ways_to(path: Path) -> frozenset[Path]:
    """Return the path as given and with symbolic links resolved, both absolute."""
    return frozenset({Path(os.path.abspath(path)), Path(os.path.realpath(path))})  # noqa: PTH100


def _above(path: Path) -> Iterator[Path]:
    """Yield the path and all folders above it, both as given and with symbolic links resolved."""
    return (folder for way in _ways_to(path) for folder in (way, *way.parents))


def _lies_in(address: str, places: Sequence[str]) -> bool:
    return any(f"{address.rstrip('/')}/".startswith(f"{place.rstrip('/')}/") for place in places)


def _name(path: Path, base: Path) -> str:
    return (path.relative_to(base) if path.is_relative_to(base) else path).as_posix()


def _data_file(name: str, file: Path | RemoteFile, payload_bytes: int, csv: CsvForm) -> DataFile:
    ending = ending_of(name)
    if ending is None:
        raise Invalid(
            "the file's ending is not a known format", f"Use one of the known formats: {', '.join(ENDINGS)}.", file=name
        )
    if not payload_bytes:
        raise Invalid("the file is empty (0 bytes)", _REMEDY_FILE, file=name)
    reader = reader_of(ending, file, csv)
    if isinstance(file, Path):
        return DataFile(name=name, path=file, reader=reader)
    return DataFile(name=name, path=None, reader=reader, remote=file)


@contextmanager
def named_by(setting: str) -> Iterator[None]:
    """Have remedies name ``setting`` in place of ``[data] train``; empty: the data are given to a command."""
    try:
        yield
    except Invalid as error:
        remedy = remedy_by(error.remedy, setting)
        if remedy == error.remedy:
            raise
        raise error.advising(remedy) from error.__cause__


def remedy_by(remedy: str, setting: str) -> str:
    """Return the remedy for data that ``setting`` names; see ``named_by``."""
    if setting:
        return remedy.replace(_TRAIN, setting)
    return remedy.replace(f"Set {_TRAIN} to", "Name").replace(f" of {_TRAIN}", "")


def _own_files(location: str) -> Invalid:
    return Invalid(f"a store's own files are not data: {location}", "Name data outside the store and its keys.")


def _nothing(fact: str, location: str) -> Invalid:
    return Invalid(f"{fact}: {location}", f"Set [data] train to a file, folder or glob of {', '.join(ENDINGS)}.")


@contextmanager
def naming_file(file: str) -> Iterator[None]:
    """Turn errors of reading into ``Invalid`` errors that name the file."""
    try:
        yield
    except Invalid as error:
        if "file" in error.context:
            raise
        raise Invalid(error.fact, error.remedy, file=file, **error.context) from None
    except OSError as error:
        # pyarrow raises OSError without errno for damaged bytes; the system raises it with errno.
        fact = f"the file cannot be read ({error.strerror})" if error.errno else "the file is damaged or cut off"
        raise Invalid(fact, _REMEDY_FILE, file=file) from error
    except (pa.ArrowException, EOFError, zlib.error) as error:
        raise Invalid("the file is damaged, cut off, or not what its ending says", _REMEDY_FILE, file=file) from error
