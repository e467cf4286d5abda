"""An append-only log on an object store: numbered entries under an RFC 9162 tree, and signed checkpoints.

    log/entries/<n>       entry n, created once: a record of its number and its leaf
    log/checkpoint/<s>    the signed checkpoint over the first s entries, created once, never replaced
    log/tiles/<n>         leaf hashes of entries 256 n to 256 n + 255, so that a start reads few objects
    log/packs/<n>         these entries themselves, once their owner is done with them (``packs``)

A writer reads all earlier entries before it creates one, and each number can be created only once. So there is one
order, no gap, and no leaf twice, through every race and crash. If a crash leaves an entry without a checkpoint, the
next checkpoint covers it.

A pack takes the place of its entries and of the checkpoints over fewer than its end, which are deleted once it is
durable. A writer that was paused during that could create a number again. So after creating entries, and before signing
anything, it looks for packs that it does not know, and starts again if it finds one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from storage.errors import Conflict, Corrupt, ObjectMissing
from storage.objects import ObjectKey, ObjectStore
from storage.registers.create_once import create_or_read
from storage.transparency import packs
from storage.transparency.checkpoint import LogCheckpoint, open_checkpoint, sign_checkpoint
from storage.transparency.keys import PublicKey, SigningKey
from storage.transparency.layout import (
    REMEDY,
    LogLayout,
    count_packs,
    entry_leaf,
    entry_to_bytes,
    is_discarded,
    read_entry,
    resumed,
    tile_bytes,
    tile_hashes,
)
from storage.transparency.merkle import MerkleTree, leaf_hash
from storage.transparency.packs import Pack, PackedEntry, pack_from_bytes, pack_to_bytes


class Overtaken(Conflict):
    """Another writer has packed entries of the log since it was read: repeat every look-up in it."""


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

    def append(self, leaves: Sequence[bytes], *, packed: int | None = None) -> tuple[int, ...]:
        """Return the indexes of ``leaves``, durable and under a checkpoint; a leaf that is in the log keeps its index.

        None of ``leaves`` may be in a pack: an owner that has looked for its leaves there passes the number of packs at
        that time.

        Raises:
            Overtaken: there are more packs by now.
            Corrupt: the log differs from its checkpoints, or holds an entry that is not ours.
            OutcomeUnknown: the outcome of a write is unknown; repeating does no harm.
        """
        try:
            self._catch_up()
            if packed not in {None, self._packed}:
                _refuse()
            if self._put_all(leaves):
                self.refuse_overtaken()
            self._sign()
            self._write_tiles()
        except BaseException:
            self._forget()  # this object's view of the log may be incomplete
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
        return None if number < 0 else read_entry(self._store, self._layout, number, self._packed)

    @property
    def packed(self) -> int:
        """The number of packs when the log was last read."""
        return self._packed

    def refuse_overtaken(self) -> None:
        """Raise ``Overtaken`` when there are more packs than that. The next call then reads the log again."""
        if self._is_overtaken():
            _refuse()

    @property
    def is_full(self) -> bool:
        """Whether a full and signed tile was not packed yet when the log was last read."""
        return (self._packed + 1) * packs.TILE_ENTRIES <= self._signed

    def unpacked(self) -> tuple[tuple[int, bytes], ...]:
        """Return number and leaf of each entry of the tile that is packed next; empty: it is not full, or not signed.

        Raises as ``append``.
        """
        try:
            self._catch_up()
        except BaseException:
            self._forget()
            raise
        if not self.is_full:
            return ()
        start = self._packed * packs.TILE_ENTRIES
        end = start + packs.TILE_ENTRIES
        return tuple((each, read_entry(self._store, self._layout, each, self._packed)) for each in range(start, end))

    def pack(self, entries: Sequence[PackedEntry]) -> int:
        """Put the tile that ``unpacked`` returned into a pack, durably, and return the pack's number.

        Call ``discard`` afterwards, which deletes what the pack replaces. If another writer was first, its pack is
        kept, with the data that it has put beside the leaves. Raises ``Corrupt`` when these are not the tile's entries,
        or that pack has others.
        """
        number = self._packed
        start, end = number * packs.TILE_ENTRIES, (number + 1) * packs.TILE_ENTRIES
        key = self._layout.pack(number)
        if [leaf_hash(each.leaf) for each in entries] != list(self._tree.leaf_hashes(start, end)):
            raise Corrupt("the log's entries are not those that its checkpoint has signed", REMEDY, pack=number)
        self._write_tiles()  # a crash may have prevented it, and a writer that starts from the pack does not look
        pack = Pack(number=number, subtrees=self._tree.subtrees(end), entries=tuple(entries))
        found = pack_from_bytes(create_or_read(self._store, key, pack_to_bytes(pack)), number, key)
        if found.subtrees != pack.subtrees or found.leaves != pack.leaves:
            raise Corrupt("a pack of the log holds something else than its entries", REMEDY, pack=number)
        self._forget()
        return number

    def discard(self, number: int, delete: Callable[[Sequence[ObjectKey]], object] | None = None) -> None:
        """Delete the objects that pack ``number`` replaces, its last entry last (see ``is_discarded``).

        The pack has to be durable. ``delete`` deletes objects in any order, perhaps several at once; None: one after
        another.
        """
        end = (number + 1) * packs.TILE_ENTRIES
        last = self._layout.entry(end - 1)
        (delete or self._store.delete_all)([key for key in self._replaced(end) if key != last])
        self._store.delete(last)

    def clear_up(self) -> None:
        """Delete entries and checkpoints that a writer has created after a pack had replaced them.

        If objects that the last pack replaces still exist, they stay: that pack may not be durable.
        """
        count = count_packs(self._store, self._layout)
        if count and not is_discarded(self._store, self._layout, count - 1):
            count -= 1
        if count:
            self._store.delete_all(self._replaced(count * packs.TILE_ENTRIES))

    def _replaced(self, end: int) -> list[ObjectKey]:
        """Return the entries before number ``end`` that are stored by themselves, and checkpoints over fewer."""
        entries, _ = self._layout.numbers(self._store, "entries")
        sizes, _ = self._layout.numbers(self._store, "checkpoint")
        return [
            *(self._layout.entry(number) for number in entries if number < end),
            *(self._layout.checkpoint(size) for size in sizes if size < end),
        ]

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
        self._packed = 0

    def _is_overtaken(self) -> bool:
        try:
            self._store.get(self._layout.pack(self._packed))
        except ObjectMissing:
            return False
        self._forget()
        return True

    def _catch_up(self) -> None:
        """Read the entries that other writers have appended; the first time, everything from the last pack on."""
        while True:
            try:
                self._take_new()
            except Corrupt:
                if not self._is_overtaken():  # the objects that were read may have been packed and deleted
                    raise
            else:
                if not self._is_overtaken():
                    return

    def _take_new(self) -> None:
        if not self._loaded:
            self._load_packs()
            self._load_tiles()
            sizes, _ = self._layout.numbers(self._store, "checkpoint")  # after the tiles: checkpoints cover all of them
            newest = max(sizes, default=0)
            self._take_entries(until=newest)
            self._check_newest(newest)
            self._loaded = True
        self._take_entries(until=None)

    def _load_packs(self) -> None:
        self._packed = count_packs(self._store, self._layout)
        self._tree = resumed(self._store, self._layout, self._packed)

    def _load_tiles(self) -> None:
        numbers, _ = self._layout.numbers(self._store, "tiles")
        for expected, number in enumerate(each for each in numbers if each >= self._packed):
            if number != self._packed + expected:
                raise Corrupt("a part of the log's hashes is missing", REMEDY, tile=self._packed + expected)
            for each in tile_hashes(self._store.get(self._layout.tile(number)).payload, number):
                self._add(each)
        self._tiles = self._tree.size // packs.TILE_ENTRIES

    def _take_entries(self, until: int | None) -> None:
        while until is None or self._tree.size < until:
            number = self._tree.size
            try:
                payload = self._read(number, covered=until is not None)
            except ObjectMissing:
                if until is None:
                    return
                raise Corrupt("an entry of the log is missing", REMEDY, entry=number, checkpoint=until) from None
            self._take(number, payload, covered=until is not None)

    def _read(self, number: int, *, covered: bool) -> bytes:
        """Return an entry; one that no checkpoint covers yet is made durable first."""
        read = self._store.get if covered else self._store.get_durable
        return read(self._layout.entry(number)).payload

    def _check_newest(self, size: int) -> None:
        if size < self._tree.size:
            raise Corrupt("the log's newest checkpoints are missing", REMEDY, newest=size, entries=self._tree.size)
        if size:
            # Made durable here, because no further checkpoint is signed if nothing is appended.
            self._accept_note(size, self._store.get_durable(self._layout.checkpoint(size)).payload)

    def _accept_note(self, size: int, payload: bytes) -> None:
        """Take the note as the newest checkpoint. Raises ``Corrupt`` when it does not match this log's entries."""
        note = payload.decode("utf-8", "replace")  # a valid note has no undecodable bytes that would be replaced
        opened = open_checkpoint(note, (*self._keys(), self._signer.public), self._layout.origin).checkpoint
        if (opened.size, opened.root) != (size, self._tree.root(size)):
            raise Corrupt("the log's entries are not those that its checkpoint has signed", REMEDY, checkpoint=size)
        self._signed, self._note = size, note

    def _put_all(self, leaves: Sequence[bytes]) -> bool:
        """Have entries for all leaves; return whether any is new."""
        before = self._tree.size
        for leaf in leaves:
            self._put(leaf)
        return self._tree.size > before

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
        while (self._tiles + 1) * packs.TILE_ENTRIES <= self._signed:
            payload = tile_bytes(self._tree, self._tiles)
            if create_or_read(self._store, self._layout.tile(self._tiles), payload) != payload:
                raise Corrupt("a part of the log's hashes is damaged", REMEDY, tile=self._tiles)
            self._tiles += 1


def _refuse() -> NoReturn:
    raise Overtaken("another writer has packed entries of the log meanwhile", "Run the command again.")
