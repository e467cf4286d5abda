"""The form of a column's first images, for ``init``: their sizes and whether they are grey. No pixel is decoded."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from shards.data.encoding.cells import BadCell
from shards.data.encoding.images import pillow_image, read_image
from shards.data.folders.image_files import image_cells, is_image
from storage.errors import Invalid

_MOST_IMAGES: Final = 64
_GREY: Final = frozenset({"1", "L", "LA", "I", "I;16", "F"})


@dataclass(slots=True)
class ImageForms:
    """The first images of a column."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """How many images have each height and width."""
    are_grey: bool = True
    unreadable: int = 0
    problem: str = ""
    """Why no image could be looked at."""
    are_names: bool = True
    """Whether all texts are names of image files; True for other columns."""

    def add(self, array: pa.Array, folder: Path | None) -> None:
        """Look at the images of a batch, until enough are seen."""
        if not self.are_names or self.problem or self.seen >= _MOST_IMAGES:
            return
        cells, paths = image_cells(array) or ([], [])
        self.are_names = all(path is None or is_image(path) for path in paths)
        if not self.are_names:
            return
        try:
            pillow = pillow_image()
        except Invalid as error:
            self.problem = error.message
            return
        for cell, path in zip(cells, paths, strict=True):
            if self.seen >= _MOST_IMAGES:
                return
            if cell is not None or path is not None:
                self._add(pillow, cell, path, folder)

    @property
    def seen(self) -> int:
        """How many images were looked at."""
        return sum(self.sizes.values()) + self.unreadable

    def _add(self, pillow: Any, cell: bytes | None, path: str | None, folder: Path | None) -> None:
        try:
            payload = cell if cell is not None else read_image(path, folder, 0)
            with pillow.open(io.BytesIO(payload)) as image:
                self.sizes[image.height, image.width] += 1
                self.are_grey = self.are_grey and image.mode in _GREY
        except (BadCell, OSError, ValueError, SyntaxError):
            self.unreadable += 1


def may_be_images(array_type: pa.DataType) -> bool:
    """Return whether a column of this type, which is not text, may hold images."""
    return image_cells(pa.array([], array_type)) is not None and not pa.types.is_null(array_type)
