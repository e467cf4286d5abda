"""Checking the log: every alteration of every object is found, and named."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import Corrupt, Invalid
from storage.objects import ObjectKey, object_key
from storage.stores.memory import MemoryStore
from storage.transparency.check import LogCheck, check_log, log_growth
from storage.transparency.checkpoint import LogCheckpoint, open_checkpoint, sign_checkpoint
from storage.transparency.keys import SigningKey
from storage.transparency.layout import LogLayout, entry_to_bytes
from storage.transparency.log import TransparencyLog
from storage.transparency.merkle import verify_consistency
from storage.transparency.packs import TILE_ENTRIES
from tests.volume import spread

LAYOUT = LogLayout(origin="sisa-ray/tests")
KEY = SigningKey("checkpoints", bytes(range(32)))
OTHER = SigningKey("checkpoints", bytes(range(1, 33)))
BATCHES = ([b"zero"], [b"one"], [b"two", b"three"], [b"four"])
ENTRIES = 5


def fill(name: str) -> MemoryStore:
    """A store whose log has five entries and checkpoints at 1, 2, 4 and 5."""
    store = MemoryStore(name)
    store.forget()
    log = TransparencyLog(store, LAYOUT, signer=KEY, keys=lambda: (KEY.public,), admits=lambda _: True)
    for leaves in BATCHES:
        log.append(leaves)
    return store


@pytest.fixture
def log() -> Iterator[MemoryStore]:
    """The filled store."""
    store = fill("log-check")
    yield store
    store.forget()


def replace(store: MemoryStore, key: ObjectKey, payload: bytes) -> None:
    """Put other bytes in an object's place, as someone with access to the store could."""
    store.delete(key)
    store.put_if_absent(key, payload)


def check(store: MemoryStore, old: str | None = None) -> LogCheck:
    """Check with the true key."""
    return check_log(store, LAYOUT, [KEY.public], old)


def note(store: MemoryStore, size: int) -> str:
    """The checkpoint of this size."""
    return store.get(LAYOUT.checkpoint(size)).payload.decode()


def test_growth_is_proved_without_a_check(log: MemoryStore) -> None:
    """From every earlier size the proof holds towards the newest checkpoint, as a whole check gives it."""
    for size in (1, 2, 4, 5):
        grown = log_growth(log, LAYOUT, [KEY.public], size)
        assert grown is not None
        assert (grown.checkpoint, grown.size) == (note(log, ENTRIES), ENTRIES)
        assert grown.consistency == check(log, note(log, size)).consistency
    with pytest.raises(Invalid, match=r"the log has fewer entries than that \[entries=5\]"):
        log_growth(log, LAYOUT, [KEY.public], ENTRIES + 1)
    assert log_growth(MemoryStore("log-check-empty"), LAYOUT, [KEY.public]) is None


def test_growth_of_a_long_log_reads_its_tiles() -> None:
    """Entries under whole tiles are not read, and what is read is what the checkpoint signed."""
    store = MemoryStore("log-check-long")
    store.forget()
    log = TransparencyLog(store, LAYOUT, signer=KEY, keys=lambda: (KEY.public,), admits=lambda _: True)
    for part in range(3):
        log.append([f"{part} {number}".encode() for number in range(100)])
    whole = check(store, note(store, 100)).consistency
    store.delete(LAYOUT.entry(TILE_ENTRIES - 1))
    grown = log_growth(store, LAYOUT, [KEY.public], 100)
    assert grown is not None
    assert grown.consistency == whole
    tile = store.get(LAYOUT.tile(0)).payload
    replace(store, LAYOUT.tile(0), tile[:-1] + bytes([tile[-1] ^ 1]))
    with pytest.raises(Corrupt, match="not what its newest checkpoint has signed"):
        log_growth(store, LAYOUT, [KEY.public], 100)
    store.delete(LAYOUT.tile(0))
    with pytest.raises(Corrupt, match="entry 255 is missing"):
        log_growth(store, LAYOUT, [KEY.public], 100)
    with pytest.raises(Corrupt, match="newest checkpoint does not hold"):
        log_growth(store, LAYOUT, [OTHER.public], 100)
    store.forget()


def test_a_sound_log(log: MemoryStore) -> None:
    """A log that nobody touched is sound, and its newest checkpoint is the one to keep."""
    found = check(log)
    assert (found.is_sound, found.entries, found.uncovered, found.earlier) == (True, ENTRIES, 0, None)
    assert found.checkpoint == note(log, 5)
    assert open_checkpoint(note(log, 5), [KEY.public]).checkpoint.root.hex() == found.root


@pytest.mark.volume
def test_every_flipped_bit_is_found_and_named(log: MemoryStore) -> None:
    """One flipped bit in any byte of any object of the log is found, and the object is named."""
    for info in list(log.list("log/")):
        whole = log.get(info.key).payload
        kind, number = info.key.split("/")[1], int(info.key.split("/")[2])
        name = f"entry {number}" if kind == "entries" else f"checkpoint {number}"
        for place in spread(range(len(whole)), 3):
            flipped = whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :]
            replace(log, info.key, flipped)
            assert any(name in problem for problem in check(log).problems), (info.key, place)
        for length in spread(range(len(whole)), 3):
            replace(log, info.key, whole[:length])
            assert any(name in problem for problem in check(log).problems), (info.key, length)
        replace(log, info.key, whole)
    assert check(log).is_sound


@pytest.mark.parametrize("number", range(ENTRIES))
def test_every_missing_entry_is_named(log: MemoryStore, number: int) -> None:
    """A missing entry is named, at the end as in the middle, because checkpoints cover it."""
    log.delete(LAYOUT.entry(number))
    words = "entry 4 is missing: checkpoint 5 covers them" if number == 4 else f"entry {number} is missing"
    assert check(log).problems == (words,)
    assert check(log).entries == number


def test_a_cut_log_is_named(log: MemoryStore) -> None:
    """Entries cut off the end are named by the checkpoints that cover them."""
    log.delete(LAYOUT.entry(4))
    log.delete(LAYOUT.entry(3))
    assert check(log).problems == (
        "entry 3 is missing: checkpoint 4 covers them",
        "among entries 3 to 4 some are missing: checkpoint 5 covers them",
    )


@pytest.mark.parametrize("first", range(ENTRIES))
@pytest.mark.parametrize("second", range(ENTRIES))
def test_every_reordering_is_named(log: MemoryStore, first: int, second: int) -> None:
    """Two swapped entries are both named; if they are also sealed again, the signed roots show it."""
    if first >= second:
        return
    one, two = (log.get(LAYOUT.entry(number)).payload for number in (first, second))
    replace(log, LAYOUT.entry(first), two)
    replace(log, LAYOUT.entry(second), one)
    named = check(log).problems
    assert [problem.split(":")[0] for problem in named] == [f"entry {first}", f"entry {second}"]
    leaves = [leaf for batch in BATCHES for leaf in batch]
    replace(log, LAYOUT.entry(first), entry_to_bytes(first, leaves[second]))
    replace(log, LAYOUT.entry(second), entry_to_bytes(second, leaves[first]))
    covered = "among entries 2 to 3 some are" if first in (2, 3) else f"entry {first} is"
    assert check(log).problems[0].startswith(f"{covered} not what checkpoint")


@pytest.mark.parametrize("number", range(ENTRIES))
def test_every_forged_entry_is_named(log: MemoryStore, number: int) -> None:
    """An entry replaced by another well-formed one shows at the first checkpoint over it."""
    replace(log, LAYOUT.entry(number), entry_to_bytes(number, b"forged"))
    problems = check(log).problems
    covered = "among entries 2 to 3 some are" if number in (2, 3) else f"entry {number} is"
    size = {0: 1, 1: 2, 2: 4, 3: 4, 4: 5}[number]
    assert problems[0] == f"{covered} not what checkpoint {size} has signed"


def test_forged_and_swapped_checkpoints_are_named(log: MemoryStore) -> None:
    """A checkpoint by another key, of another size, of another log or over another root is named."""
    true = open_checkpoint(note(log, 5), [KEY.public]).checkpoint
    cases = {
        sign_checkpoint(true, OTHER): "checkpoint 5: the checkpoint is signed by none of the known keys",
        note(log, 4): "checkpoint 5: it is the one of size 4",
        sign_checkpoint(LogCheckpoint(origin="other", size=5, root=true.root), KEY): "checkpoint 5: the checkpoint is",
        sign_checkpoint(LogCheckpoint(origin=true.origin, size=5, root=bytes(32)), KEY): "entry 4 is not what",
    }
    for text, words in cases.items():
        replace(log, LAYOUT.checkpoint(5), text.encode())
        assert len(check(log).problems) == 1
        assert check(log).problems[0].startswith(words)


def test_foreign_objects_are_named(log: MemoryStore) -> None:
    """Foreign objects in the log's folders are named."""
    log.put_if_absent(object_key("log/entries/extra"), b"")
    log.put_if_absent(object_key("log/checkpoint/7"), b"")
    assert check(log).problems == (
        "log/entries/extra: not part of a log of this system",
        "log/checkpoint/7: not part of a log of this system",
    )


def test_an_uncovered_entry_is_no_damage(log: MemoryStore) -> None:
    """An entry that a crash left without checkpoint is counted, and nothing is wrong."""
    log.put_if_absent(LAYOUT.entry(5), entry_to_bytes(5, b"five"))
    found = check(log)
    assert (found.is_sound, found.entries, found.uncovered, found.checkpoint) == (True, 6, 1, note(log, 5))


@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_consistency_with_every_earlier_checkpoint(log: MemoryStore, size: int) -> None:
    """The log continues each of its checkpoints, and the proof convinces someone who has only the two."""
    found = check(log, note(log, size))
    assert (found.is_sound, found.earlier) == (True, size)
    assert found.checkpoint is not None
    old, new = (open_checkpoint(text, [KEY.public]).checkpoint for text in (note(log, size), found.checkpoint))
    assert verify_consistency(
        old_size=old.size,
        old_root=old.root,
        size=new.size,
        root=new.root,
        proof=[bytes.fromhex(each) for each in found.consistency],
    )


def test_a_rollback_shows_by_an_earlier_checkpoint_only(log: MemoryStore) -> None:
    """A log cut back together with its checkpoints looks whole, until someone shows a later one."""
    kept = note(log, 5)
    for key in (LAYOUT.entry(4), LAYOUT.checkpoint(5)):
        log.delete(key)
    assert check(log).is_sound
    assert check(log, kept).problems == ("the log was cut: the earlier checkpoint covers 5 entries, 4 are left",)


def test_a_rewritten_log_shows_by_an_earlier_checkpoint(log: MemoryStore) -> None:
    """A log that the key's holder has rewritten looks sound until someone shows a checkpoint of the first one."""
    kept = note(log, 4)
    log.forget()
    TransparencyLog(log, LAYOUT, signer=KEY, keys=lambda: (KEY.public,), admits=lambda _: True).append(
        [b"zero", b"one", b"another", b"three", b"four"]
    )
    assert check(log).is_sound
    found = check(log, kept)
    assert found.problems == ("the log was rewritten: its first 4 entries are not those of the earlier checkpoint",)
    assert (found.earlier, found.consistency) == (None, ())


def test_bad_earlier_checkpoints_are_named(log: MemoryStore) -> None:
    """An earlier checkpoint that was altered, is another log's, or speaks of a damaged entry proves nothing."""
    assert check(log, "nothing").problems == ("the earlier checkpoint: this text is not a signed checkpoint",)
    other = sign_checkpoint(LogCheckpoint(origin="other", size=1, root=bytes(32)), KEY)
    assert check(log, other).problems == ("the earlier checkpoint: the checkpoint is another log's",)
    log.delete(LAYOUT.entry(1))
    assert check(log, note(log, 4)).problems == (
        "entry 1 is missing",
        "the earlier checkpoint covers entry 1, which is not sound: nothing can be proved",
    )


def test_tiles_are_compared_with_the_entries() -> None:
    """A tile that is missing, cut off or altered in any byte is named."""
    store = MemoryStore("log-check-tiles")
    store.forget()
    log = TransparencyLog(store, LAYOUT, signer=KEY, keys=lambda: (KEY.public,), admits=lambda _: True)
    log.append([b"%d" % number for number in range(2 * TILE_ENTRIES)])
    assert check(store).is_sound
    whole = store.get(LAYOUT.tile(1)).payload
    for other in (whole[:-1], b"", bytes([whole[0] ^ 1]) + whole[1:], whole[:-1] + bytes([whole[-1] ^ 128])):
        replace(store, LAYOUT.tile(1), other)
        assert check(store).problems == ("tile 1: it does not hold the hashes of its entries",)
    replace(store, LAYOUT.tile(1), whole)
    store.delete(LAYOUT.tile(0))
    assert check(store).problems == ("tile 0 is missing",)
    store.delete(LAYOUT.entry(3))
    assert check(store).problems[0] == "entry 3 is missing"
    store.forget()


@given(st.data())
def test_random_edits_are_found(data: st.DataObject) -> None:
    """Any edit of any number of the log's objects is found, unless it only takes away checkpoints or cuts the log."""
    store = fill("log-check-random")
    before = {info.key: store.get(info.key).payload for info in store.list("")}
    kept = note(store, 5)
    for key in data.draw(st.lists(st.sampled_from(sorted(before)), min_size=1, max_size=4)):
        payload = data.draw(
            st.one_of(
                st.none(),
                st.sampled_from(sorted(before.values())),
                st.binary(max_size=100),
                st.integers(0, 4).map(lambda number: entry_to_bytes(number, b"forged")),
            )
        )
        store.delete(key)
        if payload is not None:
            store.put_if_absent(key, payload)
    after = {info.key: store.get(info.key).payload for info in store.list("")}
    assert check(store, kept).is_sound == _is_harmless(before, after)
    store.forget()


def _is_harmless(before: dict[ObjectKey, bytes], after: dict[ObjectKey, bytes]) -> bool:
    """Return whether the only difference is missing checkpoints: the kept one still proves all entries."""
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    return all(key.startswith("log/checkpoint/") and key not in after for key in changed)
