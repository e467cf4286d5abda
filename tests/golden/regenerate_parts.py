"""Regenerates the golden slice files: ``python -m tests.golden.regenerate_parts``.

If the columns' values differ afterwards, a stored format has changed: give it a new name and keep reading the old one.
Other bytes may differ, because pyarrow writes its own version into the file and may compress differently in the next.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from shards.points import PointBlock
from shards.routing import NOBODY
from shards.slices.files import encode_part

FOLDER: Final = Path(__file__).parent / "parts"


def _digests(first: int, count: int) -> bytes:
    return bytes((first + 16 * number + byte) % 256 for number in range(count) for byte in range(16))


_CLASSES: Final = np.array([0, 2, 1], dtype=np.int32)
_NUMBERS: Final = np.array([[0.5, -1.25], [3.0, 0.0], [1e-3, 7.75]], dtype=np.float32)


def _block(
    further: bytes, dtype: str, labels: npt.NDArray[np.int32] | npt.NDArray[np.float32] = _CLASSES
) -> PointBlock:
    return PointBlock(
        points_N=np.frombuffer(_digests(0, 3), dtype="V16"),
        subjects_N=np.frombuffer(_digests(100, 3), dtype="V16"),
        labels_N=labels,
        features_NF=np.array([[0, 1], [127, 128], [254, 255]], dtype=dtype),
        further_NK=np.frombuffer(further, dtype="V16").reshape(3, -1) if further else np.empty((3, 0), dtype="V16"),
    )


BLOCKS: Final[dict[str, PointBlock]] = {
    "part-v1-uint8.parquet": _block(b"", "uint8"),
    "part-v1-float32.parquet": _block(b"", "float32"),
    "part-v2.parquet": _block(_digests(200, 2) + NOBODY + _digests(30, 1) + NOBODY * 2, "uint8"),
    "part-v3.parquet": _block(b"", "float32", _NUMBERS),
    "part-v4.parquet": _block(_digests(200, 2) + NOBODY + _digests(30, 1) + NOBODY * 2, "uint8", _NUMBERS),
}
"""Three data points each; in the second and fourth format with two further subjects, one, and nobody; in the third and
fourth with two numbers as labels."""


def regenerate() -> None:
    """Write every golden file."""
    FOLDER.mkdir(exist_ok=True)
    for name, block in BLOCKS.items():
        (FOLDER / name).write_bytes(encode_part(block))


if __name__ == "__main__":
    regenerate()
