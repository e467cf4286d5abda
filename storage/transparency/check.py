"""A check of the whole log: reads every entry, recomputes every root, verifies every signature.

Problems are returned by name, never raised. A log that was cut back to an earlier state together with its checkpoints
looks sound: only a checkpoint kept elsewhere shows the loss, which is why ``check_log`` takes one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from storage.errors import Corrupt, Invalid, ObjectMissing
from storage.objects import ObjectStore
from storage.transparency.checkpoint import LogCheckpoint, open_checkpoint
from storage.transparency.keys import PublicKey
from storage.transparency.log import TILE_ENTRIES, LogLayout, entry_leaf, tile_bytes, tile_hashes
from storage.transparency.merkle import MerkleTree, leaf_hash

_REMEDY = "Keep the store as it is, and compare the log with a copy."
_FOLDERS = ("entries", "checkpoint", "tiles")


_ANY_LOG = LogLayout(origin="")
"""The keys of entries, which do not depend on the log's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogCheck:
    """What a check found."""

    entries: int
    """Entries that are sound and without a gap, from the first on."""
    root: str
    """Over these entries, hexadecimal."""
    checkpoint: str | None = None
    """The newest signed checkpoint that is valid: keep it elsewhere. None: there is no valid one."""
    uncovered: int = 0
    """Sound entries after that checkpoint; a crash may leave some, and the next append covers them."""
    problems: tuple[str, ...] = ()
    """Everything that is wrong, by name."""
    earlier: int | None = None
    """Size of the earlier checkpoint that this log provably continues; None: none was given, or it does not."""
    consistency: tuple[str, ...] = ()
    """The proof that ``checkpoint`` continues the earlier one, hexadecimal (RFC 9162 section 2.1.4)."""

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


@dataclass(frozen=True, slots=True, kw_only=True)
class LogGrowth:
    """The newest checkpoint, and the proof that its log continues an earlier one."""

    checkpoint: str
    """The signed note."""
    size: int
    consistency: tuple[str, ...]
    """Hexadecimal (RFC 9162 section 2.1.4); empty where none is needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """What the store holds of the entries."""

    tree: MerkleTree
    """Over the sound entries before the first that is not."""
    end: int
    """One more than the highest number found."""
    problems: tuple[str, ...]


def check_log(store: ObjectStore, layout: LogLayout, keys: Sequence[PublicKey], old: str | None = None) -> LogCheck:
    """Return what is wrong with the log, and whether it continues the log of the checkpoint ``old``."""
    # In this order, because others may be writing: a tile follows its checkpoint, a checkpoint its entries.
    tiles, sizes = (layout.numbers(store, folder)[0] for folder in ("tiles", "checkpoint"))
    reading = _read_entries(store, layout)
    newest, problems = _check_checkpoints(store, layout, keys, reading, sizes)
    problems = [*_foreign(store, layout), *reading.problems, *problems, *_check_tiles(store, layout, reading, tiles)]
    covered = newest[0] if newest else 0
    earlier = None if old is None else _compare(old, layout, keys, reading)
    if isinstance(earlier, str):
        problems.append(earlier)
    continued = earlier if isinstance(earlier, LogCheckpoint) else None
    proof = reading.tree.consistency_proof(continued.size, max(covered, continued.size)) if continued else ()
    return LogCheck(
        entries=reading.tree.size,
        root=reading.tree.root(reading.tree.size).hex(),
        checkpoint=newest[1] if newest else None,
        uncovered=reading.tree.size - covered,
        problems=tuple(problems),
        earlier=continued.size if continued else None,
        consistency=tuple(each.hex() for each in proof),
    )


def log_growth(store: ObjectStore, layout: LogLayout, keys: Sequence[PublicKey], earlier: int = 0) -> LogGrowth | None:
    """Return the newest checkpoint, and the proof that it continues the first ``earlier`` entries; None: none yet.

    Reads the stored hashes, and only the entries after them. Raises ``Invalid`` when the log has fewer
    entries, ``Corrupt`` when it is not what its newest checkpoint has signed.
    """
    tiles, sizes = (layout.numbers(store, folder)[0] for folder in ("tiles", "checkpoint"))
    if not sizes:
        return None
    found = _checkpoint(store, layout, keys, sizes[-1])
    if isinstance(found, str):
        raise Corrupt(f"the log's newest checkpoint does not hold: {found}", _REMEDY)
    checkpoint, note = found
    if earlier > checkpoint.size:
        raise Invalid(
            "the log has fewer entries than that", "Give the size of a checkpoint of this log.", entries=checkpoint.size
        )
    if earlier in {0, checkpoint.size}:
        return LogGrowth(checkpoint=note, size=checkpoint.size, consistency=())
    tree = _hashed(store, layout, tiles, checkpoint.size)
    if tree.root(checkpoint.size) != checkpoint.root:
        raise Corrupt("the log's entries are not what its newest checkpoint has signed", _REMEDY)
    proof = tree.consistency_proof(earlier, checkpoint.size)
    return LogGrowth(checkpoint=note, size=checkpoint.size, consistency=tuple(each.hex() for each in proof))


def _hashed(store: ObjectStore, layout: LogLayout, tiles: Sequence[int], size: int) -> MerkleTree:
    """Return the tree over the first ``size`` entries, from tiles as far as they exist."""
    tree = MerkleTree()
    for number in tiles:
        if number * TILE_ENTRIES == tree.size and tree.size + TILE_ENTRIES <= size:
            for each in tile_hashes(store.get(layout.tile(number)).payload, number):
                tree.append(each)
    for number in range(tree.size, size):
        leaf = _leaf(store, layout, number)
        if isinstance(leaf, str):
            raise Corrupt(f"the log is damaged: {leaf}", _REMEDY)
        tree.append(leaf_hash(leaf))
    return tree


def read_leaves(store: ObjectStore, layout: LogLayout) -> Iterator[tuple[int, bytes]]:
    """Yield number and leaf of every sound entry, in rising order; other entries are skipped."""
    numbers, _ = layout.numbers(store, "entries")
    for number in numbers:
        found = _leaf(store, layout, number)
        if isinstance(found, bytes):
            yield number, found


def has_entry(store: ObjectStore, number: int) -> bool:
    """Return whether the log has an entry of this number, sound or not."""
    try:
        store.get(_ANY_LOG.entry(number))
    except ObjectMissing:
        return False
    return True


def read_leaf(store: ObjectStore, number: int) -> bytes | None:
    """Return the leaf of an entry; None when the entry is missing or damaged."""
    found = _leaf(store, _ANY_LOG, number)
    return found if isinstance(found, bytes) else None


def _read_entries(store: ObjectStore, layout: LogLayout) -> _Reading:
    numbers, _ = layout.numbers(store, "entries")
    end = numbers[-1] + 1 if numbers else 0
    tree, problems = MerkleTree(), []
    for number in range(end):
        found = _leaf(store, layout, number)
        if isinstance(found, str):
            problems.append(found)
        elif not problems:
            tree.append(leaf_hash(found))
    return _Reading(tree=tree, end=end, problems=tuple(problems))


def _leaf(store: ObjectStore, layout: LogLayout, number: int) -> bytes | str:
    """Return the leaf, or what is wrong with the entry."""
    key = layout.entry(number)
    try:
        return entry_leaf(store.get(key).payload, number, key)
    except ObjectMissing:
        return f"entry {number} is missing"
    except (Corrupt, Invalid) as error:
        return f"entry {number}: {error.fact}"


def _check_checkpoints(
    store: ObjectStore, layout: LogLayout, keys: Sequence[PublicKey], reading: _Reading, sizes: Sequence[int]
) -> tuple[tuple[int, str] | None, list[str]]:
    """Return size and text of the newest checkpoint that holds, and what is wrong with the others."""
    newest: tuple[int, str] | None = None
    problems: list[str] = []
    differing = 0
    for size in sizes:
        found = _checkpoint(store, layout, keys, size)
        if isinstance(found, str):
            problems.append(found)
        elif size > reading.end:
            problems.append(f"{_entries(reading.end, size)} missing: checkpoint {size} covers them")
        elif size > reading.tree.size:
            continue  # an entry before it is damaged, and named
        elif found[0].root == reading.tree.root(size):
            newest = size, found[1]
        elif differing:
            differing += 1
        else:
            differing = 1
            start = newest[0] if newest else 0
            problems.append(f"{_entries(start, size)} not what checkpoint {size} has signed")
    if differing > 1:
        problems.append(f"{differing - 1} later checkpoints differ from the entries, too")
    return newest, problems


def _checkpoint(
    store: ObjectStore, layout: LogLayout, keys: Sequence[PublicKey], size: int
) -> tuple[LogCheckpoint, str] | str:
    """Return the checkpoint and its text, or what is wrong with it."""
    try:
        note = store.get(layout.checkpoint(size)).payload.decode("utf-8")
        opened = open_checkpoint(note, keys, layout.origin).checkpoint
    except ObjectMissing:
        return f"checkpoint {size} vanished while it was read"
    except Corrupt as error:
        return f"checkpoint {size}: {error.fact}"
    except UnicodeDecodeError:
        return f"checkpoint {size}: this is not a signed checkpoint"
    if opened.size != size:
        return f"checkpoint {size}: it is the one of size {opened.size}"
    return opened, note


def _check_tiles(store: ObjectStore, layout: LogLayout, reading: _Reading, numbers: Sequence[int]) -> Iterator[str]:
    for expected, number in enumerate(numbers):
        if number != expected:
            yield f"tile {expected} is missing"
            return
    for number in numbers:
        if reading.problems and reading.tree.size < (number + 1) * TILE_ENTRIES:
            continue  # an entry of it is damaged, and named
        if store.get(layout.tile(number)).payload != tile_bytes(reading.tree.leaf_hashes, number):
            yield f"tile {number}: it does not hold the hashes of its entries"


def _foreign(store: ObjectStore, layout: LogLayout) -> Iterator[str]:
    for folder in _FOLDERS:
        for key in layout.numbers(store, folder)[1]:
            yield f"{key}: no part of a log of ours"


def _compare(old: str, layout: LogLayout, keys: Sequence[PublicKey], reading: _Reading) -> LogCheckpoint | str:
    """Return the earlier checkpoint if the log continues it, or what is wrong."""
    try:
        earlier = open_checkpoint(old, keys, layout.origin).checkpoint
    except Corrupt as error:
        return f"the earlier checkpoint: {error.fact}"
    if earlier.size > reading.end:
        return f"the log was cut: the earlier checkpoint covers {earlier.size} entries, {reading.end} are left"
    if earlier.size > reading.tree.size:
        return f"the earlier checkpoint covers entry {reading.tree.size}, which is not sound: nothing can be proved"
    if earlier.root != reading.tree.root(earlier.size):
        return f"the log was rewritten: its first {earlier.size} entries are not those of the earlier checkpoint"
    return earlier


def _entries(start: int, end: int) -> str:
    """Return the words for entries start..end-1."""
    if end - start == 1:
        return f"entry {start} is"
    return f"among entries {start} to {end - 1} some are"
