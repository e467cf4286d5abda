"""Categories, hashes, words and tokens.

Hashes are public and have no key: BLAKE2b of a text's UTF-8 bytes. A word is a run of letters and digits, in lower case
and in Unicode's form NFKC. Shape legend: N points, F features, W words of all points together.
"""

from __future__ import annotations

from functools import partial
from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shards.data.encoding.cells import (
    BadCell,
    EncodedRows,
    Surroundings,
    first,
    mask_of,
    names_of,
    numbers_of,
    plain_label,
    refuse_missing,
    texts_of,
    without_null_texts,
)
from shards.encoders import CategoryEncoder, HashEncoder, TokensEncoder, WordsEncoder

_NONE, _UNKNOWN = -1, -2
_BETWEEN_WORDS: Final = r"[^\pL\pM\pN]+"
_UNDECLARED: Final = "Add it to categories in [data.encode], set other = true there, or correct the data."
_MOST_COUNTED: Final = 255


def public_hash(text: str, use: bytes = b"sisa/text/1") -> int:
    """Return a number of 64 bits for a text: the same everywhere and at all times.

    >>> public_hash("Lyon") % 64
    19
    """
    return int.from_bytes(blake2b(text.encode("utf-8"), digest_size=8, person=use).digest(), "little")


def encode_categories(encoder: CategoryEncoder, array: pa.Array, around: Surroundings, out_FN: EncodedRows) -> None:
    """Write which category each cell names."""
    names = names_of(array)
    known = {text: place for place, text in enumerate(encoder.categories)}
    other = len(known) if encoder.other else _UNKNOWN
    missing = len(known) + encoder.other if encoder.missing else len(known) if encoder.other else _NONE

    def place(text: str) -> int:
        found = known.get(text, known.get(plain_label(text, around.decimal)))
        return found if found is not None else missing if text in encoder.null else other

    places_N = names.mapped([place(text) for text in names.texts], missing)
    refuse_missing(places_N == _NONE)
    if (places_N == _UNKNOWN).any():
        raise BadCell("has a value that is not a declared category", first(places_N == _UNKNOWN), _UNDECLARED)
    _write_places(encoder.as_, places_N, out_FN)


def encode_hashes(encoder: HashEncoder, array: pa.Array, around: Surroundings, out_FN: EncodedRows) -> None:
    """Write into which bucket each cell falls."""
    names = names_of(array)
    missing = encoder.hash if encoder.missing else _NONE
    places = [
        missing if text in encoder.null else public_hash(plain_label(text, around.decimal)) % encoder.hash
        for text in names.texts
    ]
    places_N = names.mapped(places, missing)
    refuse_missing(places_N == _NONE)
    _write_places(encoder.as_, places_N, out_FN)


def encode_words(encoder: WordsEncoder, array: pa.Array, around: Surroundings, out_FN: EncodedRows) -> None:
    """Write how often words, and words in a row, fall into each bucket."""
    del around
    hashes_W, points_W = _words(array, encoder.null, may_miss=encoder.missing)
    counts_FN = np.zeros(out_FN.shape, dtype=np.int64)
    grams_W = hashes_W
    for length in range(1, encoder.ngrams + 1):
        if length > 1:
            # A run of words that begins here: the run of the one that is shorter by one, and the word after it.
            grams_W = _mixed(grams_W[:-1], hashes_W[length - 1 :])
        inside_W = points_W[: len(grams_W)] == points_W[length - 1 :]
        buckets_W = (grams_W % np.uint64(encoder.words)).astype(np.int64)
        np.add.at(counts_FN, (buckets_W[inside_W], points_W[: len(grams_W)][inside_W]), 1)
        if len(grams_W) < 2:
            break
    np.minimum(counts_FN, _MOST_COUNTED, out=counts_FN)
    out_FN[:] = counts_FN


def encode_tokens(encoder: TokensEncoder, array: pa.Array, around: Surroundings, out_FN: EncodedRows) -> None:
    """Write the numbers of the first words of each text, in their order."""
    del around
    hashes_W, points_W = _words(array, encoder.null, may_miss=encoder.missing)
    starts_N = np.searchsorted(points_W, np.arange(out_FN.shape[1]))
    places_W = np.arange(len(points_W)) - starts_N[points_W]
    kept_W = places_W < encoder.tokens
    numbers_W = 1 + (hashes_W % np.uint64(encoder.vocabulary)).astype(np.int64)
    out_FN[places_W[kept_W], points_W[kept_W]] = numbers_W[kept_W]


def _write_places(as_: str, places_N: npt.NDArray[np.int64], out_FN: EncodedRows) -> None:
    if as_ == "index":
        out_FN[0] = places_N
    else:
        out_FN[places_N, np.arange(len(places_N))] = 1


def _words(
    array: pa.Array, null: tuple[str, ...], *, may_miss: bool
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Return the hash of every word, in order, and the data point that it belongs to."""
    array = without_null_texts(texts_of(array), null)
    if not may_miss:
        refuse_missing(mask_of(array))
    lower = pc.utf8_lower(pc.utf8_normalize(array.fill_null(""), form="NFKC"))
    lists = pc.split_pattern_regex(lower, pattern=_BETWEEN_WORDS)
    points_W = numbers_of(pc.list_parent_indices(lists)).astype(np.int64)
    encoded = lists.flatten().dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    hashes = np.array(list(map(partial(public_hash, use=b"sisa/word/1"), texts)), dtype=np.uint64)
    codes_W = numbers_of(encoded.indices).astype(np.int64)
    is_word_W = np.array([bool(text) for text in texts], dtype=np.bool_)[codes_W]
    return hashes[codes_W][is_word_W], points_W[is_word_W]


def _mixed(one_W: npt.NDArray[np.uint64], next_W: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return a hash of two hashes in order; the finalizer is that of SplitMix64."""
    mixed_W = one_W * np.uint64(0x9E3779B97F4A7C15) + next_W
    mixed_W = (mixed_W ^ (mixed_W >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed_W = (mixed_W ^ (mixed_W >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed_W ^ (mixed_W >> np.uint64(31))
