"""24 values of one person that occur nowhere else, and a search for them in every form in which they may be stored.

Each run draws new values, so that what another run has left on the machine is not mistaken for this run's.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tests.doubles.user_folder import FEATURES

SCALE: Final = 255.0
"""What features are divided by before a model sees them."""

_HALVINGS: Final = 40
"""How often a trace in an optimizer may have been halved by its momentum."""

IN_SOURCE: Final = (
    "id",
    "subject",
    "label",
    "note",
    "memo",
    "number",
    "fraction",
    "moment",
    "picture",
    "tag",
    "address",
    "features",
    "measurements",
    "customer",
)
"""What the person's data points hold, in the columns of these names."""

IN_MODEL: Final = ("buffer", "parameter", "optimizer")
"""What a model keeps of them in its checkpoints."""

IN_WORDS: Final = ("printed", "complained", "warned", "logged", "raised")
"""What a model says of them: to stdout, to stderr, as a warning, to a log, in an exception."""

IN_REQUEST: Final = ("request",)
"""What a file of names to erase holds."""

IN_NAMES: Final = ("key name",)
"""What an object is called."""

EVERYWHERE: Final = (*IN_SOURCE, *IN_MODEL, *IN_WORDS, *IN_REQUEST, *IN_NAMES)

STORED: Final = ("features", "measurements", *IN_MODEL)
"""What the store has to hold of the person before the erasure: data points and models, encrypted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """One value, and every form of bytes in which it may lie somewhere."""

    value: Any
    forms: tuple[bytes, ...]


Markers = Mapping[str, Marker]


def draw_markers() -> dict[str, Marker]:
    """Return the 24 markers by name."""
    features = secrets.token_hex(FEATURES // 2).encode()
    seen = np.frombuffer(features, dtype=np.uint8).astype(np.float32) / np.float32(SCALE)
    plain = {name: _text(f"{name}-{secrets.token_hex(8)}") for name in (*IN_SOURCE, *IN_REQUEST, *IN_NAMES)}
    words = {name: _text(f"{name} {features.decode()}") for name in IN_WORDS}
    return {
        **plain,
        **words,
        "number": _whole(secrets.randbits(62) | 1 << 61),
        "customer": _whole(secrets.randbits(62) | 1 << 61),
        "fraction": _fraction(1 + secrets.randbits(52) / 2**52),
        "moment": _moment(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=secrets.randbits(50))),
        "picture": marker_of_bytes(secrets.token_bytes(16)),
        "features": marker_of_bytes(features, *_numbers(np.frombuffer(features, dtype=np.uint8))),
        "measurements": _measurements(),
        "buffer": Marker(value=seen, forms=_numbers(seen)),
        "parameter": Marker(value=seen * np.float32(3), forms=_numbers(seen * np.float32(3))),
        "optimizer": Marker(
            value=seen * np.float32(5),
            forms=tuple((seen * np.float32(5 / 2**times)).tobytes() for times in range(_HALVINGS)),
        ),
    }


def _text(value: str) -> Marker:
    plain = value.encode()
    return Marker(value=value, forms=(plain, value.encode("utf-16-le"), plain.hex().encode(), *_in_base64(plain)))


def marker_of_bytes(value: bytes, *others: bytes) -> Marker:
    """Return the marker that these bytes are, in hexadecimal and base64 as well, and in the ``others``."""
    return Marker(value=value, forms=(value, value.hex().encode(), *_in_base64(value), *others))


def _whole(value: int) -> Marker:
    little = value.to_bytes(8, "little")
    return Marker(value=value, forms=(little, little[::-1], str(value).encode()))


def _fraction(value: float) -> Marker:
    little = np.float64(value).tobytes()
    return Marker(value=value, forms=(little, little[::-1], repr(value).encode()))


def _moment(value: datetime) -> Marker:
    forms = tuple(
        round(value.timestamp() * 1_000_000 * scale).to_bytes(8, "little") for scale in (1, 1000)
    )  # in the two units that Parquet and Arrow use
    return Marker(value=value, forms=(*forms, value.isoformat().encode()))


def _measurements() -> Marker:
    value = np.frombuffer(secrets.token_bytes(FEATURES), dtype=np.uint8).astype(np.float32) / np.float32(7)
    return Marker(value=value, forms=_numbers(value))


def _numbers(values: npt.NDArray[Any]) -> tuple[bytes, ...]:
    return tuple(values.astype(kind).tobytes() for kind in ("<f4", "<f8", ">f4", ">f8"))


def _in_base64(value: bytes) -> tuple[bytes, ...]:
    """Return what is always in the base64 text of ``value``, at each of the three places it may start."""
    texts = []
    for start in range(3):
        text = base64.b64encode(b"\0" * start + value)
        texts.append(text[4 if start else 0 : len(text) // 4 * 4 - 4])
    return tuple(texts)


def traces(marker: Marker, payloads: Mapping[str, bytes]) -> list[str]:
    """Return the names under which any form of the marker lies, in the payload or in the name itself."""
    return [name for name, payload in payloads.items() if _holds(marker, payload) or _holds(marker, name.encode())]


def _holds(marker: Marker, payload: bytes) -> bool:
    return any(form in payload for form in marker.forms)


def all_traces(markers: Markers, payloads: Mapping[str, bytes], names: Iterable[str] = EVERYWHERE) -> dict[str, Any]:
    """Return where each of the markers called ``names`` is found, those found nowhere left out."""
    found = {name: traces(markers[name], payloads) for name in names}
    return {name: places for name, places in found.items() if places}


def files_under(*folders: Path) -> dict[str, bytes]:
    """Return every file under the folders, by its path, except those that are removed meanwhile."""
    found: dict[str, bytes] = {}
    # Unlike Path.rglob, os.walk passes over folders that are removed meanwhile.
    walked = (walk for folder in folders for walk in os.walk(folder))
    for path in (Path(folder) / name for folder, _, names in walked for name in names):
        try:
            if path.is_file() and not path.is_symlink():
                found[str(path)] = path.read_bytes()
        except FileNotFoundError:
            continue
    return found


def laid_open(payload: bytes) -> bytes:
    """Return a payload and, where it is a Parquet file, all buffers of its columns behind it, decompressed."""
    if not payload.startswith(b"PAR1"):
        return payload
    table = pq.read_table(pa.BufferReader(payload))
    chunks = (chunk for column in table.columns for chunk in column.chunks)
    return b"".join([payload, *(bytes(buffer) for chunk in chunks for buffer in _buffers(chunk))])


def _buffers(array: pa.Array) -> list[pa.Buffer]:
    own = [buffer for buffer in array.buffers() if buffer is not None]
    return own + (_buffers(array.dictionary) if isinstance(array, pa.DictionaryArray) else [])
