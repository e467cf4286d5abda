"""An append-only log on an object store: numbered entries under an RFC 9162 tree, and signed checkpoints.

    log/entries/<n>       entry n, created once: a record of its number and its leaf
    log/checkpoint/<s>    the signed checkpoint over the first s entries, created once, never replaced
    log/tiles/<n>         leaf hashes of entries 256 n to 256 n + 255, so that a start reads few objects

A writer reads all earlier entries before it creates one, and each number can be created only once. So there is one
order, no gap, and no leaf twice, through every race and crash. If a crash leaves an entry without a checkpoint, the
next checkpoint covers it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from storage.encodings import from_base64, to_base64
from storage.errors import Corrupt, ObjectMissing
from storage.objects import ObjectKey, ObjectStore
from storage.records import decode_record, encode_record
from storage.registers.create_once import create_or_read
from storage.registers.numbered import number_of, numbered_key
from storage.transparency.checkpoint import LogCheckpoint, open_checkpoint, sign_checkpoint
from storage.transparency.keys import PublicKey, SigningKey
from storage.transparency.merkle import HASH_BYTES, MerkleTree, leaf_hash

TILE_ENTRIES = 256

_NAMES = frozenset({"index", "leaf"})
_REMEDY = "Stop, keep the store as it is, and compare the log with a copy."


_LOG = "log"
ENTRIES = f"{_LOG}/entries/"
"""Where the entries of a store's log are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLayout:
    """The keys of the log's objects, and the log's name."""

    origin: str
    """First line of its checkpoints."""
    prefix: str = _LOG

    def entry(self, number: int) -> ObjectKey:
        """Return the key of entry ``number``, 0 for the first."""
        return self._numbered("entries", number)

    def checkpoint(self, size: int) -> ObjectKey:
        """Return the key of the checkpoint over the first ``size`` entries."""
        return self._numbered("checkpoint", size)

    def tile(self, number: int) -> ObjectKey:
        """Return the key of tile ``number``."""
        return self._numbered("tiles", number)

    def numbers(self, store: ObjectStore, folder: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Return the numbers in a folder, rising, and the keys there that are not a number."""
        found, foreign = [], []
        for info in store.list(f"{self.prefix}/{folder}/"):
            number = number_of(info.key.removeprefix(f"{self.prefix}/{folder}/"))
            foreign.append(info.key) if number is None else found.append(number)
        return tuple(sorted(found)), tuple(sorted(foreign))

    def _numbered(self, folder: str, number: int) -> ObjectKey:
        return numbered_key(f"{self.prefix}/{folder}", number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inclusion:
    """The proof that a leaf is in the log; checking it needs only the checkpoint's key."""

    index: int
    proof: tuple[bytes, ...]
    checkpoint: str
    """The signed note."""


class TransparencyLog:
    """A writer of the log. Any number of writers may work at once, but each object of this class is for one thread."""

    def __init__(
        self,
        store: ObjectStore,
        layout: LogLayout,
        *,
        signer: SigningKey,
        keys: Callable[[], Sequence[PublicKey]],
        admits: Callable[[bytes], bool],
    ) -> None:
        """Prepare to write; nothing is read yet.

        ``keys`` returns the keys whose checkpoints are valid now. ``admits`` decides whether a leaf that no checkpoint
        covers yet may be covered: without it, anybody with write access to the store could have any leaf signed by
        leaving it there.
        """
        self._store = store
        self._layout = layout
        self._signer = signer
        self._keys = keys
        self._admits = admits
        self._forget()

    def append(self, leaves: Sequence[bytes]) -> tuple[int, ...]:
        """Return the indexes of ``leaves``, durable and under a checkpoint; a leaf that is in the log keeps its index.

        Raises:
            Corrupt: the log differs from its checkpoints, or holds an entry that is not ours.
            OutcomeUnknown: the outcome of a write is unknown; repeating does no harm.
        """
        try:
            self._catch_up()
            for leaf in leaves:
                self._put(leaf)
            self._sign()
            self._write_tiles()
        except BaseException:
            self._forget()  # what this object knows of the log may be incomplete
            raise
        return tuple(self._indexes[leaf_hash(leaf)] for leaf in leaves)

    def last(self) -> bytes | None:
        """Return the last entry's leaf, even if no checkpoint covers it yet; None: no entries. Raises as ``append``."""
        try:
            self._catch_up()
        except BaseException:
            self._forget()
            raise
        number = self._tree.size - 1
        key = self._layout.entry(number) if number >= 0 else None
        return None if key is None else entry_leaf(self._store.get(key).payload, number, key)

    @property
    def size(self) -> int:
        """How many entries this object knows."""
        return self._tree.size

    @property
    def newest(self) -> tuple[str, int, str]:
        """The log's name, the size of the newest known checkpoint, and that signed checkpoint."""
        return self._layout.origin, self._signed, self._note

    def sign_with(self, signer: SigningKey) -> None:
        """Sign future checkpoints with this key."""
        self._signer = signer

    def prove(self, index: int) -> Inclusion:
        """Return the proof that entry ``index``, which this object knows, is under the newest checkpoint."""
        proof = self._tree.inclusion_proof(index, self._signed)
        return Inclusion(index=index, proof=proof, checkpoint=self._note)

    def _forget(self) -> None:
        self._loaded = False
        self._tree = MerkleTree()
        self._indexes: dict[bytes, int] = {}
        self._signed = 0
        self._note = ""
        self._tiles = 0

    def _catch_up(self) -> None:
        """Read what other writers have appended; the first time, everything."""
        if not self._loaded:
            self._load_tiles()
            sizes, _ = self._layout.numbers(self._store, "checkpoint")  # after the tiles: checkpoints cover all of them
            newest = max(sizes, default=0)
            self._take_entries(until=newest)
            self._check_newest(newest)
            self._loaded = True
        self._take_entries(until=None)

    def _load_tiles(self) -> None:
        numbers, _ = self._layout.numbers(self._store, "tiles")
        for expected, number in enumerate(numbers):
            if number != expected:
                raise Corrupt("a part of the log's hashes is missing", _REMEDY, tile=expected)
            for each in tile_hashes(self._store.get(self._layout.tile(number)).payload, number):
                self._add(each)
        self._tiles = len(numbers)

    def _take_entries(self, until: int | None) -> None:
        while until is None or self._tree.size < until:
            number = self._tree.size
            try:
                payload = self._read(number, covered=until is not None)
            except ObjectMissing:
                if until is None:
                    return
                raise Corrupt("an entry of the log is missing", _REMEDY, entry=number, checkpoint=until) from None
            self._take(number, payload, covered=until is not None)

    def _read(self, number: int, *, covered: bool) -> bytes:
        """Return an entry; one that no checkpoint covers yet is made durable first."""
        read = self._store.get if covered else self._store.get_durable
        return read(self._layout.entry(number)).payload

    def _check_newest(self, size: int) -> None:
        if size < self._tree.size:
            raise Corrupt("the log's newest checkpoints are missing", _REMEDY, newest=size, entries=self._tree.size)
        if size:
            # Made durable here, because no further checkpoint is signed if nothing is appended.
            self._accept_note(size, self._store.get_durable(self._layout.checkpoint(size)).payload)

    def _accept_note(self, size: int, payload: bytes) -> None:
        """Take the note as the newest checkpoint. Raises ``Corrupt`` when it does not match this log's entries."""
        note = payload.decode("utf-8", "replace")  # a valid note holds nothing that is replaced
        opened = open_checkpoint(note, (*self._keys(), self._signer.public), self._layout.origin).checkpoint
        if (opened.size, opened.root) != (size, self._tree.root(size)):
            raise Corrupt("the log's entries are not those that its checkpoint has signed", _REMEDY, checkpoint=size)
        self._signed, self._note = size, note

    def _put(self, leaf: bytes) -> None:
        while leaf_hash(leaf) not in self._indexes:
            number = self._tree.size
            payload = create_or_read(self._store, self._layout.entry(number), entry_to_bytes(number, leaf))
            self._take(number, payload, covered=False)

    def _take(self, number: int, payload: bytes, *, covered: bool) -> None:
        leaf = entry_leaf(payload, number, self._layout.entry(number))
        if not covered and not self._admits(leaf):
            raise Corrupt(
                "the log holds an entry that no checkpoint covers and that is not ours: nothing was signed",
                "Find out who can write to the store, remove that entry, and run the command again.",
                entry=number,
            )
        self._add(leaf_hash(leaf))

    def _add(self, leaf: bytes) -> None:
        self._indexes.setdefault(leaf, self._tree.size)
        self._tree.append(leaf)

    def _sign(self) -> None:
        size = self._tree.size
        if size == self._signed:
            return
        checkpoint = LogCheckpoint(origin=self._layout.origin, size=size, root=self._tree.root(size))
        note = sign_checkpoint(checkpoint, self._signer).encode("utf-8")
        self._accept_note(size, create_or_read(self._store, self._layout.checkpoint(size), note))

    def _write_tiles(self) -> None:
        while (self._tiles + 1) * TILE_ENTRIES <= self._signed:
            payload = tile_bytes(self._tree.leaf_hashes, self._tiles)
            if create_or_read(self._store, self._layout.tile(self._tiles), payload) != payload:
                raise Corrupt("a part of the log's hashes is damaged", _REMEDY, tile=self._tiles)
            self._tiles += 1


def entry_to_bytes(number: int, leaf: bytes) -> bytes:
    """Return the stored form of entry ``number``."""
    return encode_record({"index": number, "leaf": to_base64(leaf)})


def entry_leaf(payload: bytes, number: int, key: ObjectKey) -> bytes:
    """Return the leaf of entry ``number``. Raises ``Corrupt`` when it is damaged or another entry."""
    fields = decode_record(payload, key, _NAMES)
    index, leaf = fields["index"], fields["leaf"]
    if isinstance(index, bool) or index != number or not isinstance(leaf, str):
        raise Corrupt("an entry of the log is stored under another entry's number", _REMEDY, key=key)
    return from_base64(leaf)


def tile_bytes(leaf_hashes: Sequence[bytes], number: int) -> bytes:
    """Return the stored form of tile ``number``: its leaf hashes, joined."""
    return b"".join(leaf_hashes[number * TILE_ENTRIES : (number + 1) * TILE_ENTRIES])


def tile_hashes(payload: bytes, number: int) -> Iterator[bytes]:
    """Yield the leaf hashes of a stored tile. Raises ``Corrupt`` for a wrong length; the root proves the content."""
    if len(payload) != TILE_ENTRIES * HASH_BYTES:
        raise Corrupt("a part of the log's hashes is damaged", _REMEDY, tile=number)
    return (payload[start : start + HASH_BYTES] for start in range(0, len(payload), HASH_BYTES))
