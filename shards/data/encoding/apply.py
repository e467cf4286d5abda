"""One column, by the kind of its encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa

from shards.data.encoding.cells import EncodedRows, Surroundings
from shards.data.encoding.images import encode_images
from shards.data.encoding.numbers import encode_dates, encode_numbers, encode_truths
from shards.data.encoding.texts import encode_categories, encode_hashes, encode_tokens, encode_words
from shards.encoders import (
    CategoryEncoder,
    DateEncoder,
    Encoder,
    HashEncoder,
    ImageEncoder,
    NumberEncoder,
    TokensEncoder,
    TruthEncoder,
    WordsEncoder,
)

_ENCODE: Final[dict[type[Encoder], Callable[[Any, pa.Array, Surroundings, EncodedRows], None]]] = {
    NumberEncoder: encode_numbers,
    CategoryEncoder: encode_categories,
    HashEncoder: encode_hashes,
    DateEncoder: encode_dates,
    TruthEncoder: encode_truths,
    WordsEncoder: encode_words,
    TokensEncoder: encode_tokens,
    ImageEncoder: encode_images,
}


def encode_into(out_FN: EncodedRows, encoder: Encoder, array: pa.Array, around: Surroundings) -> None:
    """Write the features of a column into ``out_FN``, which is filled with zeros: a row per feature.

    ``array`` holds plain values, without dictionary or extension type. Raises ``BadCell`` for the first cell that does
    not fit, ``BadColumn`` for a column of another type.
    """
    if len(array):
        _ENCODE[type(encoder)](encoder, array, around, out_FN)
