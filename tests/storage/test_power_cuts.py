"""A power cut after failed system calls: what was reported as done is there, and what is there is consistent.

Each kind of object is written on a disk that forgets what was not synced, with every single call failing, and with
pairs of calls: in ``make soak`` with every error and every pair, in ``make test`` with a spread of them.

After a failure a new process, which sees the page cache, does it again. Wherever an attempt returns, the
power is cut, and what it wrote has to be there for a third process.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from coordinator.receipts.bundles import statement_of
from coordinator.receipts.issuer import Registrar
from storage.digests import sha256
from storage.encryption.store import SealedStore
from storage.errors import ObjectExists, ObjectMissing, SisaError
from storage.objects import ObjectStore, object_key
from storage.registers.create_once import create_or_read
from storage.registers.journal import START, Journal, Position
from storage.registers.manifest import ManifestRegister
from storage.registers.numbered import Floor
from storage.registers.record import RecordRegister
from storage.stores.local import LocalStore
from storage.transparency import packs
from storage.transparency.check import read_leaves
from storage.transparency.keys import KeyFolder
from storage.transparency.layout import LogLayout, is_discarded, read_pack
from storage.transparency.log import TransparencyLog
from storage.transparency.packs import PackedEntry
from tests.coordinator.receipts.facts import evidence_of
from tests.doubles.stores.forgetful_disk import Fault, ForgetfulDisk, KeptDisk
from tests.doubles.time_and_names import CountingNames, VirtualClock
from tests.volume import spread

pytestmark = pytest.mark.volume

KEY = object_key("folder/object")
SECRET = object_key("shards/0001/secret")
OTHER = object_key("shards/0001/other")
LAYOUT = LogLayout(origin="test")
CODES = (errno.EIO, errno.ENOSPC, errno.EACCES)


def _nothing(_: Stores) -> None:
    """Prepare nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Something that is written, as one process does it."""

    write: Callable[[Stores], None]
    """Writes it, or continues where another process stopped. Returns only when it is durable."""
    check: Callable[[Stores], None]
    """Fails unless it is there, whole."""
    prepare: Callable[[Stores], None] = _nothing
    """What is there, durably, before."""
    look: Callable[[Stores], None] = lambda _: None
    """Reads what is there; raises ``Corrupt`` when it is not consistent."""


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores as one process has them."""

    root: Path

    @property
    def plain(self) -> LocalStore:
        """Objects as they are put."""
        return LocalStore(str(self.root / "store"))

    @property
    def sealed(self) -> SealedStore:
        """Objects encrypted, their keys beside them."""
        return SealedStore(self.plain)

    @property
    def apart(self) -> SealedStore:
        """Objects encrypted, their keys in a store of their own."""
        return SealedStore(self.plain, LocalStore(str(self.root / "keys")))


# ------------------------------------------------------------------------------------------------------ the kinds


def _create(stores: Stores) -> None:
    assert create_or_read(stores.plain, KEY, b"content") == b"content"


def _has_content(stores: Stores) -> None:
    assert stores.plain.get(KEY).payload == b"content"


def _replace(stores: Stores) -> None:
    found = stores.plain.get_durable(KEY)
    if found.payload != b"content":
        stores.plain.put_if_match(KEY, b"content", found.tag)


def _old(stores: Stores) -> None:
    stores.plain.put_if_absent(KEY, b"old")


def _delete(stores: Stores) -> None:
    stores.plain.delete(KEY)


def _is_gone(stores: Stores) -> None:
    with pytest.raises(ObjectMissing, match="no such object"):
        stores.plain.get(KEY)


def _append(stores: Stores) -> None:
    """Append as a writer that begins does: after what is there, which it makes durable first."""
    journal = Journal(stores.plain)
    entries = journal.read(START)
    position = START
    for entry in entries:
        position = Position(number=entry.number, digest=sha256(entry.to_bytes()))
    journal.settle(position)
    journal.append(["mine"], after=position, token=1, nonce=f"n{position.number}")


def _is_appended(stores: Stores) -> None:
    assert [list(entry.records) for entry in Journal(stores.plain).read(START)][-1] == ["mine"]


def _two_entries(stores: Stores) -> None:
    journal = Journal(stores.plain)
    place = journal.append(["first"], after=START, token=1, nonce="a")
    journal.append(["second"], after=place, token=1, nonce="b")


def _read_journal(stores: Stores) -> None:
    Journal(stores.plain).read(START)


def _commit(stores: Stores) -> None:
    register = ManifestRegister(stores.plain)
    token, latest = register.claim_token(), register.latest()
    mine = register.commit({"state": "mine"}, after=latest.number if latest else 0, token=token, nonce=f"n{token}")
    register.prune(keep_from=mine.number)


def _is_committed(stores: Stores) -> None:
    latest = ManifestRegister(stores.plain).latest()
    assert latest is not None
    assert latest.body == {"state": "mine"}
    assert ManifestRegister(stores.plain).floor() == latest.number
    assert ManifestRegister(stores.plain).prune(latest.number) <= 1  # one that came back is below the floor
    assert list(ManifestRegister(stores.plain).superseded()) == []


def _first_manifest(stores: Stores) -> None:
    register = ManifestRegister(stores.plain)
    register.commit({"state": "old"}, after=0, token=register.claim_token(), nonce="old")


def _read_manifest(stores: Stores) -> None:
    ManifestRegister(stores.plain).latest()


def _raise_floor(stores: Stores) -> None:
    assert _floor(stores).raise_to(3) == 3


def _is_raised(stores: Stores) -> None:
    assert _floor(stores).read() == 3


def _floor(stores: Stores) -> Floor:
    return Floor(store=stores.plain, key=object_key("control/floor"), under="objects")


def _change(stores: Stores) -> None:
    _record(stores).change(lambda _: {"tokens": "mine"})


def _is_changed(stores: Stores) -> None:
    assert _record(stores).read() == {"tokens": "mine"}


def _record(stores: Stores) -> RecordRegister:
    return RecordRegister(store=stores.plain, key=object_key("control/tokens"), field_names=frozenset({"tokens"}))


def _seal(stores: Stores) -> None:
    _seal_in(stores.sealed)


def _seal_apart(stores: Stores) -> None:
    _seal_in(stores.apart)


def _seal_in(store: ObjectStore) -> None:
    """Put an object as a worker does: under another name where the outcome of an attempt is not known."""
    for number in count():
        with suppress(ObjectExists):
            store.put_if_absent(object_key(f"{SECRET}-{number}"), b"content")
            return


def _opens(stores: Stores) -> None:
    _open_in(stores.sealed)


def _opens_apart(stores: Stores) -> None:
    _open_in(stores.apart)


def _open_in(store: ObjectStore) -> None:
    keys = [info.key for info in store.list(SECRET)]
    assert store.get(keys[-1]).payload == b"content"


def _others(stores: Stores) -> None:
    stores.sealed.put_if_absent(OTHER, b"other")
    stores.sealed.put_if_absent(SECRET, b"content")


def _others_apart(stores: Stores) -> None:
    stores.apart.put_if_absent(OTHER, b"other")


def _read_other(stores: Stores) -> None:
    assert stores.sealed.get(OTHER).payload == b"other"


def _read_other_apart(stores: Stores) -> None:
    assert stores.apart.get(OTHER).payload == b"other"


def _shred(stores: Stores) -> None:
    stores.sealed.delete(SECRET)


def _is_shredded(stores: Stores) -> None:
    """What was removed by a process whose syncs all failed may come back; the next writer finds and removes it."""
    with pytest.raises(ObjectMissing, match="no such object"):
        stores.sealed.get(SECRET)
    stores.sealed.remove_unfinished("")
    assert len([info for info in stores.plain.list("keyrings/") if "/kek-" in info.key]) == 1


def _log_of(stores: Stores) -> TransparencyLog:
    keys = KeyFolder(stores.plain, stores.plain)
    return TransparencyLog(
        stores.plain,
        LAYOUT,
        signer=keys.current("checkpoints"),
        keys=lambda: keys.published("checkpoints"),
        admits=lambda _: True,
    )


def _log(stores: Stores) -> None:
    _log_of(stores).append([b"leaf"])


def _is_logged(stores: Stores) -> None:
    """The log still continues the state that a writer once returned: the next writer misses no entry of it."""
    assert len(list(stores.plain.list("log/entries/"))) == 1
    assert len(list(stores.plain.list("log/checkpoint/"))) == 1
    assert len(list(stores.plain.list("control/signing/"))) == 1
    _log(stores)  # publishes the key again where that was lost: nothing but the private half could
    assert len(list(stores.plain.list("log/entries/"))) == 1
    assert len(list(stores.plain.list("log/keys/"))) == 1


LEAVES = [b"leaf", b"last"]


def _full_log(stores: Stores) -> None:
    _log_of(stores).append(LEAVES)


def _pack(stores: Stores) -> None:
    """Pack as a writer that begins does: it finishes what another one has left."""
    log = _log_of(stores)
    if entries := log.unpacked():
        log.discard(log.pack([PackedEntry(leaf=leaf, beside=b"") for _, leaf in entries]))
    elif not is_discarded(stores.plain, LAYOUT, 0):
        read_pack(stores.plain, LAYOUT, 0, durable=True)
        log.discard(0)


def _read_log(stores: Stores) -> None:
    assert [leaf for _, leaf in read_leaves(stores.plain, LAYOUT)] == LEAVES
    assert _log_of(stores).last() == LEAVES[-1]


def _is_packed(stores: Stores) -> None:
    assert len(list(stores.plain.list("log/packs/"))) == 1
    _read_log(stores)


def _registrar(stores: Stores) -> Registrar:
    return Registrar(stores.plain, VirtualClock(), CountingNames())


def _issue_two(stores: Stores) -> None:
    for name in ("r0", "r1"):
        _registrar(stores).issue(evidence_of(name))


def _issue_and_pack(stores: Stores) -> None:
    registrar = _registrar(stores)
    registrar.issue(evidence_of("r2"))
    registrar.pack()


def _have_receipts(stores: Stores) -> None:
    """Each receipt is there, in one place or the other, and the log has all of them."""
    _read_receipts(stores)
    assert _registrar(stores).find("r2").index == 2


def _read_receipts(stores: Stores) -> None:
    registrar = _registrar(stores)
    assert [registrar.find(name).index for name in ("r0", "r1")] == [0, 1]
    assert [statement_of(registrar.find(name))["predicate"]["request"]["id"] for name in ("r0", "r1")] == ["r0", "r1"]
    assert registrar.check_log().problems == ()


def _rotate(stores: Stores) -> None:
    KeyFolder(stores.plain, stores.plain).rotate("checkpoints")


def _is_rotated(stores: Stores) -> None:
    keys = KeyFolder(stores.plain, stores.plain)
    assert len(keys.numbers("checkpoints")) == 1
    assert keys.current("checkpoints").public in keys.published("checkpoints")


def _first_key(stores: Stores) -> None:
    KeyFolder(stores.plain, stores.plain).current("checkpoints")


KINDS = {
    "create once": Kind(write=_create, check=_has_content),
    "replace": Kind(write=_replace, check=_has_content, prepare=_old),
    "delete": Kind(write=_delete, check=_is_gone, prepare=_old),
    "journal, first entry": Kind(write=_append, check=_is_appended, look=_read_journal),
    "journal, next entry": Kind(write=_append, check=_is_appended, look=_read_journal, prepare=_two_entries),
    "manifest, first": Kind(write=_commit, check=_is_committed, look=_read_manifest),
    "manifest, next": Kind(write=_commit, check=_is_committed, look=_read_manifest, prepare=_first_manifest),
    "floor": Kind(write=_raise_floor, check=_is_raised),
    "record": Kind(write=_change, check=_is_changed),
    "sealed object in a new ring": Kind(write=_seal, check=_opens),
    "sealed object": Kind(write=_seal, check=_opens, look=_read_other, prepare=_others),
    "sealed object, first, keys apart": Kind(write=_seal_apart, check=_opens_apart),
    "sealed object, keys apart": Kind(
        write=_seal_apart, check=_opens_apart, look=_read_other_apart, prepare=_others_apart
    ),
    "shredding": Kind(write=_shred, check=_is_shredded, look=_read_other, prepare=_others),
    "signing key and log": Kind(write=_log, check=_is_logged),
    "log that is packed": Kind(write=_pack, check=_is_packed, look=_read_log, prepare=_full_log),
    "receipts that are packed": Kind(
        write=_issue_and_pack, check=_have_receipts, look=_read_receipts, prepare=_issue_two
    ),
    "rotation": Kind(write=_rotate, check=_is_rotated, prepare=_first_key),
}

# ------------------------------------------------------------------------------------------------------ the faults


def failing_at(numbers: Iterable[int], code: int) -> Fault:
    """Let the calls with these numbers fail."""
    chosen = frozenset(numbers)
    return lambda number, _call, _path: OSError(code, os.strerror(code)) if number in chosen else None


def failing_from(first: int) -> Fault:
    """Let every call fail from this number on."""
    return lambda number, _call, _path: OSError(errno.EIO, "") if number >= first else None


def failing_sync(nth: int) -> Fault:
    """Let the sync fail that is the ``nth`` of the process."""
    syncs = count(1)
    return lambda _number, call, _path: OSError(errno.EIO, "") if call == "fsync" and next(syncs) == nth else None


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs of as many entries as the log has here."""
    monkeypatch.setattr(packs, "TILE_ENTRIES", len(LEAVES))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[ForgetfulDisk]:
    """An empty disk."""
    root = tmp_path / "disk"
    root.mkdir()
    with ForgetfulDisk(root).mounted() as mounted:
        yield mounted


_PREPARED: dict[Callable[[Stores], None], KeptDisk] = {}
"""What a preparation leaves: each is made once, and all cases that begin with it begin with the same bytes."""


def prepared(disk: ForgetfulDisk, kind: Kind) -> Stores:
    """Bring the disk to where ``kind`` begins."""
    disk.restart()
    stores = Stores(disk.root)
    if kind.prepare in _PREPARED:
        disk.bring_back(_PREPARED[kind.prepare])
    else:
        disk.clear()
        kind.prepare(stores)
        _PREPARED[kind.prepare] = disk.keep()
    disk.restart()
    return stores


def reported_done(kind: Kind, stores: Stores) -> bool:
    """Let a process write; return whether the write reported success."""
    try:
        kind.write(stores)
    except SisaError:
        return False
    return True


def judge(disk: ForgetfulDisk, kind: Kind, stores: Stores, faults: Iterable[Fault]) -> None:
    """Let one process after another write, each with its faults, the last with none; cut the power when one of them
    succeeds, and look.
    """
    for fault in (*faults, None):
        disk.restart(*([fault] if fault else []))
        done = reported_done(kind, stores)
        disk.fault = lambda _number, _call, _path: None
        if done:
            disk.power_cut()
            kind.look(stores)
            kind.check(stores)
            return
        kind.look(stores)
    raise AssertionError("the last process, which had no fault, did not succeed")


def calls_of(disk: ForgetfulDisk, kind: Kind) -> list[str]:
    """Return the calls that ``kind`` makes where nothing fails."""
    stores = prepared(disk, kind)
    kind.write(stores)
    return [call for call, _ in disk.calls]


def syncs_of(disk: ForgetfulDisk, kind: Kind) -> list[int]:
    """Return which of its calls are syncs: those whose failure leaves something to be seen that is not durable."""
    return [number for number, call in enumerate(calls_of(disk, kind), start=1) if call == "fsync"]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("code", CODES)
def test_one_call_fails(disk: ForgetfulDisk, name: str, code: int) -> None:
    """For every system call that fails: work that was reported as done is there after a power cut. If the first process
    got an error, the next process, which sees the page cache, completes the work.
    """
    kind = KINDS[name]
    calls = range(1, len(calls_of(disk, kind)) + 1)
    # Every other call fails, each with one of the codes; in two turns every call.
    for at in spread(calls, 2 * len(CODES), shift=2 * CODES.index(code)):
        judge(disk, kind, prepared(disk, kind), [failing_at([at], code)])


@pytest.mark.parametrize("name", KINDS)
def test_a_sync_fails_and_then_another_call(disk: ForgetfulDisk, name: str) -> None:
    """A second failure, in what the process does about the first, changes nothing of that."""
    kind = KINDS[name]
    for first in syncs_of(disk, kind):
        for second in spread(range(first + 1, first + 7), 6, shift=first):
            judge(disk, kind, prepared(disk, kind), [failing_at([first, second], errno.EIO)])


@pytest.mark.parametrize("name", KINDS)
def test_syncs_fail_in_two_processes(disk: ForgetfulDisk, name: str) -> None:
    """Nor does it where all fails from some sync on, and one sync of the next process as well."""
    kind = KINDS[name]
    syncs = syncs_of(disk, kind)
    for first in syncs:
        for second in spread(range(1, min(len(syncs), 6) + 1), 6, shift=first):
            judge(disk, kind, prepared(disk, kind), [failing_from(first), failing_sync(second)])


@pytest.mark.parametrize("name", KINDS)
def test_the_power_fails_after_the_disk(disk: ForgetfulDisk, name: str) -> None:
    """Where the power is cut after a failure, whichever folders have kept their new names, what is left is consistent,
    and the next process gets its work done.
    """
    kind = KINDS[name]
    for at in syncs_of(disk, kind):
        for kept in spread(("none", "first", "others"), 3, shift=at):
            stores = prepared(disk, kind)
            disk.restart(failing_from(at))
            reported_done(kind, stores)
            first, *others = disk.unsynced() or [""]
            disk.power_cut(keeping={"none": [], "first": [first], "others": others}[kept].__contains__)
            kind.look(stores)
            judge(disk, kind, stores, [])
