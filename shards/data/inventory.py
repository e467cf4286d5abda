"""Inventory: which files a source has, by digests, so that a change of any of them is seen without reading rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain

import pyarrow as pa

from shards.csv_form import USUAL_CSV
from shards.data.folders.image_files import digest_images, named_images
from shards.data.readers import TableReader, Wanted
from shards.data.sources import DataFile, Source, csv_form_of, naming_file
from shards.encoders import ImageEncoder
from storage.digests import Sha256, digest_of, sha256

_DIGESTED_POINTS = 1 << 16
"""How many data points of a table in memory are serialised at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file in a source's inventory."""

    name: str
    payload_bytes: int
    sha256: Sha256
    """Digest of the content. For a file in a bucket, whose content is not read for this: digest of the server's tag.
    For a CSV file that is not in the usual form, the digest also covers the form, which changes its data points."""


def inventory(source: Source) -> tuple[SourceFile, ...]:
    """Return name, size and digest of each file, equal as long as no file changes.

    Image files that a table names count with it.
    """
    return tuple(_with_images(entry, file, source) for entry, file in zip(_entries(source), source.files, strict=True))


def _with_images(entry: SourceFile, file: DataFile, source: Source) -> SourceFile:
    """Return the entry of a file and of the images that it names."""
    if file.folder is None or not source.encoding:
        return entry
    columns = [name for name in file.schema().names if isinstance(source.encoding.of(name), ImageEncoder)]
    parts, payload_bytes = [], 0
    for column in columns:
        batches = Source(location=file.name, files=(file,)).batches(
            Wanted(texts=(column,), numbers=()), _DIGESTED_POINTS
        )
        named = (name for batch in batches for name in named_images(batch.column(column)))
        digest, size = digest_images(file.folder, named)
        payload_bytes += size
        parts.append(digest.hex())
    if not payload_bytes:
        return entry
    together = digest_of({"content": entry.sha256, "images": parts})
    return replace(entry, payload_bytes=entry.payload_bytes + payload_bytes, sha256=together)


def _entries(source: Source) -> Iterator[SourceFile]:
    for file in source.files:
        if file.remote is not None:
            held = file.remote.file
            digest = sha256(b"sisa/entity-tag/" + held.tag.encode())
            yield SourceFile(name=file.name, payload_bytes=held.payload_bytes, sha256=_read_as(file, digest))
        elif file.path is not None:
            with naming_file(file.name), file.path.open("rb") as stream:
                digest = Sha256(hashlib.file_digest(stream, "sha256").hexdigest())
                yield SourceFile(name=file.name, payload_bytes=stream.tell(), sha256=_read_as(file, digest))
        elif isinstance(file.reader, TableReader):
            yield _table_entry(file.name, file.reader.table)


def _table_entry(name: str, table: pa.Table) -> SourceFile:
    """Return the entry of a table in memory; its digest depends on names, types and values."""
    whole = table.replace_schema_metadata(None).combine_chunks()
    digest, payload_bytes = hashlib.sha256(), 0
    batches = (each.serialize() for each in whole.to_batches(_DIGESTED_POINTS))
    for message in chain([whole.schema.serialize()], batches):
        digest.update(message)
        payload_bytes += message.size
    return SourceFile(name=name, payload_bytes=payload_bytes, sha256=Sha256(digest.hexdigest()))


def _read_as(file: DataFile, digest: Sha256) -> Sha256:
    form = csv_form_of(file)
    return digest if form == USUAL_CSV else digest_of({"content": digest, "form": asdict(form)})
