"""A check of the whole log: reads every entry, recomputes every root, verifies every signature.

Problems are returned by name, never raised. A log that was cut back to an earlier state together with its checkpoints
looks sound: only a checkpoint kept elsewhere shows the loss, which is why ``check_log`` takes one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from storage.errors import Corrupt, Invalid, ObjectMissing
from storage.objects import ObjectStore
from storage.transparency import packs
from storage.transparency.checkpoint import LogCheckpoint, open_checkpoint
from storage.transparency.keys import PublicKey
from storage.transparency.layout import ANY_LOG, LogLayout, read_entry, read_pack, resumed, tile_bytes, tile_hashes
from storage.transparency.merkle import MerkleTree, leaf_hash
from storage.transparency.packs import Pack

_REMEDY = "Keep the store as it is, and compare the log with a copy."
_FOLDERS = ("entries", "checkpoint", "tiles", "packs")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogCheck:
    """What a check found."""

    entries: int
    """Entries that are sound and without a gap, from the first on."""
    root: str
    """Root over these entries, hexadecimal."""
    checkpoint: str | None = None
    """The newest signed checkpoint that is valid: keep it elsewhere. None: there is no valid one."""
    uncovered: int = 0
    """Sound entries after that checkpoint; a crash may leave some, and the next append covers them."""
    problems: tuple[str, ...] = ()
    """Everything that is wrong, by name."""
    earlier: int | None = None
    """Size of the earlier checkpoint that this log provably continues; None: none was given, or it does not."""
    packed: int = 0
    """How many packs there are."""
    unread: int = 0
    """The first entries, if they were not read because an earlier check had found their packs sound."""
    consistency: tuple[str, ...] = ()
    """The proof that ``checkpoint`` continues the earlier one, hexadecimal (RFC 9162 section 2.1.4)."""

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundPacks:
    """What an earlier check found sound."""

    packs: int
    """The first packs."""
    checkpoint: LogCheckpoint
    """Over their entries, and perhaps more."""


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
    packed: int
    """How many packs there are."""
    problems: tuple[str, ...]


def check_log(store: ObjectStore, layout: LogLayout, keys: Sequence[PublicKey], old: str | None = None) -> LogCheck:
    """Return what is wrong with the log, and whether it continues the log of the checkpoint ``old``."""
    return examine_log(store, layout, keys, old)[0]


def examine_log(
    store: ObjectStore,
    layout: LogLayout,
    keys: Sequence[PublicKey],
    old: str | None = None,
    since: SoundPacks | None = None,
) -> tuple[LogCheck, MerkleTree]:
    """Return what ``check_log`` does, and the tree over the log's sound entries.

    The packs of ``since`` are not read again unless ``old`` needs them. They have to exist, and the subtrees recorded
    in the last of them prove that the log continues their checkpoint.
    """
    # In this order, because others may be writing: a tile follows its checkpoint, a checkpoint its entries. A pack that
    # is written during the check is found where an entry is missing; the newest checkpoint is never among those that it
    # replaces.
    tiles, sizes = (layout.numbers(store, folder)[0] for folder in ("tiles", "checkpoint"))
    earlier = None if old is None else _opened(old, layout, keys)
    first = since.packs if since else 0
    if isinstance(earlier, LogCheckpoint):
        first = min(first, earlier.size // packs.TILE_ENTRIES)
    reading = _read_entries(store, layout, first)
    newest, problems = _check_checkpoints(store, layout, keys, reading, sizes)
    problems = [*_foreign(store, layout), *reading.problems, *problems, *_check_tiles(store, layout, reading, tiles)]
    covered = newest[0] if newest else 0
    if not problems and covered < (packed := reading.packed * packs.TILE_ENTRIES):
        problems.append(f"the newest checkpoints are missing: one covered the {packed} entries in packs")
    earlier = _compare(earlier, reading) if isinstance(earlier, LogCheckpoint) else earlier
    if since and isinstance(changed := _compare(since.checkpoint, reading), str):
        problems.append(f"since the last check: {changed}")
    if isinstance(earlier, str):
        problems.append(earlier)
    continued = earlier if isinstance(earlier, LogCheckpoint) else None
    proof = reading.tree.consistency_proof(continued.size, max(covered, continued.size)) if continued else ()
    check = LogCheck(
        entries=reading.tree.size,
        root=reading.tree.root(reading.tree.size).hex(),
        checkpoint=newest[1] if newest else None,
        uncovered=reading.tree.size - covered,
        problems=tuple(problems),
        earlier=continued.size if continued else None,
        packed=reading.packed,
        unread=reading.tree.start,
        consistency=tuple(each.hex() for each in proof),
    )
    return check, reading.tree


def log_growth(store: ObjectStore, layout: LogLayout, keys: Sequence[PublicKey], earlier: int = 0) -> LogGrowth | None:
    """Return the newest checkpoint, and the proof that it continues the first ``earlier`` entries; None: none yet.

    Reads the stored hashes, and only the entries after them. Raises ``Invalid`` when the log has fewer
    entries, ``Corrupt`` when it is not what its newest checkpoint has signed.
    """
    tiles, sizes = (layout.numbers(store, folder)[0] for folder in ("tiles", "checkpoint"))
    if not sizes:
        return None
    found = _checkpoint(store, layout, keys, sizes[-1])
    if found is None or isinstance(found, str):
        raise Corrupt(f"the log's newest checkpoint does not hold: {found or 'it vanished'}", _REMEDY)
    checkpoint, note = found
    if earlier > checkpoint.size:
        raise Invalid(
            "the log has fewer entries than that", "Give the size of a checkpoint of this log.", entries=checkpoint.size
        )
    if earlier in {0, checkpoint.size}:
        return LogGrowth(checkpoint=note, size=checkpoint.size, consistency=())
    tree = _hashed(store, layout, tiles, earlier, checkpoint.size)
    if tree.root(checkpoint.size) != checkpoint.root:
        raise Corrupt("the log's entries are not what its newest checkpoint has signed", _REMEDY)
    proof = tree.consistency_proof(earlier, checkpoint.size)
    return LogGrowth(checkpoint=note, size=checkpoint.size, consistency=tuple(each.hex() for each in proof))


def _hashed(store: ObjectStore, layout: LogLayout, tiles: Sequence[int], earlier: int, size: int) -> MerkleTree:
    """Return the tree over the first ``size`` entries, from tiles as far as they exist.

    It covers the entries after ``earlier``, and relies on the subtrees that the last pack before that records.
    """
    packed, _ = layout.numbers(store, "packs")
    tree = resumed(store, layout, min(len(packed), earlier // packs.TILE_ENTRIES))
    for number in tiles:
        if number * packs.TILE_ENTRIES == tree.size and tree.size + packs.TILE_ENTRIES <= size:
            for each in tile_hashes(store.get(layout.tile(number)).payload, number):
                tree.append(each)
    for number in range(tree.size, size):
        leaf = _leaf(store, layout, number)
        if isinstance(leaf, str):
            raise Corrupt(f"the log is damaged: {leaf}", _REMEDY)
        tree.append(leaf_hash(leaf))
    return tree


def read_leaves(store: ObjectStore, layout: LogLayout, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield number and leaf of every sound entry from ``start`` on, in rising order; other entries are skipped."""
    for number, found in _leaves(store, layout, start):
        if isinstance(found, bytes):
            yield number, found


def has_entry(store: ObjectStore, number: int) -> bool:
    """Return whether the log has an entry of this number, sound or not."""
    try:
        read_entry(store, ANY_LOG, number)
    except ObjectMissing:
        return False
    except (Corrupt, Invalid):
        return True
    return True


def read_leaf(store: ObjectStore, number: int) -> bytes | None:
    """Return the leaf of an entry; None when the entry is missing or damaged."""
    found = _leaf(store, ANY_LOG, number)
    return found if isinstance(found, bytes) else None


def _read_entries(store: ObjectStore, layout: LogLayout, first: int) -> _Reading:
    """Return the packs and entries from pack ``first`` on; earlier ones have to exist, and their last is read."""
    numbers, _ = layout.numbers(store, "packs")
    packed = numbers[-1] + 1 if numbers else 0
    try:
        tree = resumed(store, layout, min(first, packed))
    except (ObjectMissing, Corrupt, Invalid):
        tree = MerkleTree()  # then read from the beginning, which reports what is wrong
    end = tree.size
    gone = sorted({*range(end // packs.TILE_ENTRIES)} - {*numbers})
    problems = [f"pack {number} is missing" for number in gone]
    alone, _ = layout.numbers(store, "entries")  # in this order: an entry is deleted after its pack has come
    for number in range(end // packs.TILE_ENTRIES, packed):
        pack = _pack(store, layout, number)
        end += packs.TILE_ENTRIES
        if isinstance(pack, str):
            problems.append(pack)
        elif not problems:
            for entry in pack.entries:
                tree.append(leaf_hash(entry.leaf))
            if pack.subtrees != tree.subtrees(end):
                problems.append(f"pack {number}: the hashes that it records are not those of the entries up to its end")
    for number in range(end, alone[-1] + 1 if alone else 0):
        found = _leaf(store, layout, number, packed)
        end += 1
        if isinstance(found, str):
            problems.append(found)
        elif not problems:
            tree.append(leaf_hash(found))
    return _Reading(tree=tree, end=end, packed=packed, problems=tuple(problems))


def _leaves(store: ObjectStore, layout: LogLayout, start: int) -> Iterator[tuple[int, bytes | str]]:
    """Yield the number of each entry from ``start`` on, rising, and its leaf or what is wrong with it."""
    numbers, _ = layout.numbers(store, "packs")
    alone, _ = layout.numbers(store, "entries")
    for number in numbers:
        pack = _pack(store, layout, number) if (number + 1) * packs.TILE_ENTRIES > start else ""
        if not isinstance(pack, str):
            found = ((pack.start + place, each.leaf) for place, each in enumerate(pack.entries))
            yield from (each for each in found if each[0] >= start)
    packed = numbers[-1] + 1 if numbers else 0
    start = max(start, packed * packs.TILE_ENTRIES)
    yield from ((number, _leaf(store, layout, number, packed)) for number in alone if number >= start)


def _pack(store: ObjectStore, layout: LogLayout, number: int) -> Pack | str:
    """Return the pack, or what is wrong with it."""
    try:
        return read_pack(store, layout, number)
    except ObjectMissing:
        return f"pack {number} is missing"
    except (Corrupt, Invalid) as error:
        return f"pack {number}: {error.fact}"


def _leaf(store: ObjectStore, layout: LogLayout, number: int, packed: int | None = None) -> bytes | str:
    """Return the leaf, or what is wrong with the entry."""
    try:
        return read_entry(store, layout, number, packed)
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
        if found is None:  # a pack was written during the check; it never replaces the newest checkpoint
            problems += [f"checkpoint {size} vanished while it was read"][: size == sizes[-1]]
        elif isinstance(found, str):
            problems.append(found)
        elif size > reading.end:
            problems.append(f"{_entries(reading.end, size)} missing: checkpoint {size} covers them")
        elif not reading.tree.start <= size <= reading.tree.size:
            continue  # it was checked before, or an entry before it is damaged, and named
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
) -> tuple[LogCheckpoint, str] | str | None:
    """Return the checkpoint and its text, or what is wrong with it; None: there is none."""
    try:
        note = store.get(layout.checkpoint(size)).payload.decode("utf-8")
        opened = open_checkpoint(note, keys, layout.origin).checkpoint
    except ObjectMissing:
        return None
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
    for number in (each for each in numbers if each * packs.TILE_ENTRIES >= reading.tree.start):
        if reading.problems and reading.tree.size < (number + 1) * packs.TILE_ENTRIES:
            continue  # an entry of it is damaged, and named
        is_short = reading.tree.size < (number + 1) * packs.TILE_ENTRIES
        if is_short or store.get(layout.tile(number)).payload != tile_bytes(reading.tree, number):
            yield f"tile {number}: it does not hold the hashes of its entries"


def _foreign(store: ObjectStore, layout: LogLayout) -> Iterator[str]:
    for folder in _FOLDERS:
        for key in layout.numbers(store, folder)[1]:
            yield f"{key}: not part of a log of this system"


def _opened(old: str, layout: LogLayout, keys: Sequence[PublicKey]) -> LogCheckpoint | str:
    """Return the earlier checkpoint, or what is wrong with it."""
    try:
        return open_checkpoint(old, keys, layout.origin).checkpoint
    except Corrupt as error:
        return f"the earlier checkpoint: {error.fact}"


def _compare(earlier: LogCheckpoint, reading: _Reading) -> LogCheckpoint | str:
    """Return the earlier checkpoint if the log continues it, or what is wrong."""
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
