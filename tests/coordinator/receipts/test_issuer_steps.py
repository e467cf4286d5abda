"""The registrar at what takes many writes, receipts of a whole batch and new keys: broken off anywhere and repeated."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from coordinator.receipts.bundles import CHECKPOINTS, RECEIPTS, verify_bundle
from coordinator.receipts.issuer import Registrar
from storage.errors import OutcomeUnknown
from storage.objects import ObjectStore, object_key
from storage.stores.memory import MemoryStore
from storage.transparency.check import LogCheck
from storage.transparency.key_rotation import KeyState
from tests.coordinator.receipts.facts import evidence_of
from tests.doubles.stores.faulty_store import WRITES, Crash, Fault, FaultyStore
from tests.doubles.time_and_names import CountingNames, VirtualClock

BATCH = [evidence_of(f"r{number}") for number in range(3)]
BATCH_WRITES = 11  # for each receipt statement, entry and bundle; the log's name, which is there; one checkpoint
ROTATION_WRITES = 10


@pytest.fixture
def memory() -> Iterator[MemoryStore]:
    """A store with one receipt."""
    store = MemoryStore("registrar-steps")
    store.forget()
    registrar(store).issue(evidence_of("before"))
    yield store
    store.forget()


def registrar(store: ObjectStore, names: str = "registrar") -> Registrar:
    """A registrar of a process that has just started."""
    return Registrar(store, VirtualClock(), CountingNames(names))


def copied(store: MemoryStore, name: str) -> MemoryStore:
    """A second store that holds the same."""
    other = MemoryStore(name)
    other.forget()
    for info in store.list(""):
        other.put_if_absent(info.key, store.get(info.key).payload)
    return other


def assert_sound(store: ObjectStore, *request_ids: str) -> None:
    """These requests have receipts and entries, one each, and everything holds."""
    check = registrar(store).check_all(request_ids)
    assert (check.broken, check.checked) == ((), len(request_ids))
    assert len(list(store.list("log/entries/"))) == len(request_ids)


def test_all_writes_of_a_batch_were_crash_points(memory: MemoryStore) -> None:
    """The crash test below reaches every write of a batch, and a batch costs one checkpoint."""
    store = FaultyStore(memory)
    registrar(store).issue_all(BATCH)
    keys = [key for operation, key in store.calls if operation in WRITES]
    assert len(keys) == BATCH_WRITES
    assert sum(key.startswith("log/checkpoint/") for key in keys) == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [Crash, OutcomeUnknown])
@pytest.mark.parametrize("nth", range(1, BATCH_WRITES + 1))
def test_a_batch_that_breaks_off(memory: MemoryStore, when: str, error: type[BaseException], nth: int) -> None:
    """Any write of a batch may fail or end the process: any registrar that repeats the batch gets the same bytes."""
    store = FaultyStore(memory, (Fault(when=when, operation="write", nth=nth, error=error),))  # type: ignore[arg-type]
    try:
        registrar(store).issue_all(BATCH)
    except Crash:
        assert registrar(memory).check_log().problems == ()
    twin = copied(memory, "registrar-steps-twin")
    bundles = registrar(memory, "one").issue_all(BATCH)
    assert registrar(twin, "other").issue_all(BATCH) == bundles
    assert [registrar(memory).find(each.request_id) for each in BATCH] == list(bundles)
    assert registrar(memory).issue_all(list(reversed(BATCH))) == tuple(reversed(bundles))
    twin.forget()
    assert_sound(memory, "before", "r0", "r1", "r2")


def test_a_batch_is_repeated_in_parts(memory: MemoryStore) -> None:
    """Receipts of a batch that broke off may be issued one by one, and in another order."""
    store = FaultyStore(memory, (Fault(when="after", operation="write", prefix="log/entries/", nth=2, error=Crash),))
    with pytest.raises(Crash, match="^$"):
        registrar(store).issue_all(BATCH)
    bundles = [registrar(memory).issue(each) for each in reversed(BATCH)]
    assert registrar(memory).issue_all(BATCH) == tuple(reversed(bundles))
    assert_sound(memory, "before", "r0", "r1", "r2")


def test_keys_are_read_once_for_a_batch(memory: MemoryStore) -> None:
    """How many receipts there are does not change how often the keys are looked for."""
    counts = []
    for batch in (BATCH[:1], BATCH[1:]):
        store = FaultyStore(memory)
        registrar(store).issue_all(batch)
        counts.append(sum(key.startswith(("control/signing/", "log/keys/")) for _, key in store.calls))
    assert counts[0] == counts[1]


def checked(store: ObjectStore, checkpoint: str | None) -> LogCheck:
    """The log, compared with a checkpoint that was kept."""
    found = registrar(store).check_log(checkpoint)
    assert found.problems == ()
    return found


def test_new_keys_take_over(memory: MemoryStore) -> None:
    """After a rotation new keys sign, old receipts and checkpoints verify, and all registrars continue the log."""
    at_work = registrar(memory)
    old = at_work.issue(evidence_of("old"))
    kept = checked(memory, None).checkpoint
    reported = registrar(memory).rotate_keys()
    assert [each.state for each in reported] == [KeyState.SIGNS, KeyState.SIGNS, KeyState.RETIRED, KeyState.RETIRED]
    new = at_work.issue(evidence_of("new"))
    signing = {each.key for each in reported if each.state is KeyState.SIGNS}
    assert set(new.keys) == signing
    assert not set(old.keys) & signing
    for bundle in (old, new):
        assert verify_bundle(bundle, registrar(memory).public_keys()).is_valid
        assert verify_bundle(bundle, bundle.keys).is_valid
    assert checked(memory, kept).earlier == 2
    assert registrar(memory).find("old") == old
    assert at_work.issue(evidence_of("old")) == old
    assert_sound(memory, "before", "old", "new")


def test_all_writes_of_a_rotation_were_crash_points(memory: MemoryStore) -> None:
    """The crash test below reaches every write of a rotation."""
    store = FaultyStore(memory)
    registrar(store).rotate_keys()
    assert sum(operation in WRITES for operation, _ in store.calls) == ROTATION_WRITES


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [Crash, OutcomeUnknown])
@pytest.mark.parametrize("nth", range(1, ROTATION_WRITES + 1))
def test_a_rotation_that_breaks_off(memory: MemoryStore, when: str, error: type[BaseException], nth: int) -> None:
    """Receipts are issued and verify before, in the middle of and after a rotation that breaks off at any write."""
    kept = checked(memory, None).checkpoint
    store = FaultyStore(memory, (Fault(when=when, operation="write", nth=nth, error=error),))  # type: ignore[arg-type]
    try:
        registrar(store).rotate_keys()
    except (Crash, OutcomeUnknown):
        registrar(memory).issue(evidence_of("amid"))
        assert_sound(memory, "before", "amid")
    reported = registrar(memory).rotate_keys()
    assert [each.state for each in reported].count(KeyState.SIGNS) == 2
    assert KeyState.REPLACED not in [each.state for each in reported]
    bundle = registrar(memory).issue(evidence_of("after"))
    assert set(bundle.keys) == {each.key for each in reported if each.state is KeyState.SIGNS}
    assert registrar(memory).check_all(["before", "after"]).broken == ()
    assert checked(memory, kept).earlier == 1
    for purpose in (RECEIPTS, CHECKPOINTS):
        assert len(list(memory.list(f"control/signing/{purpose}/"))) == 1


def test_what_old_keys_signed_needs_them(memory: MemoryStore) -> None:
    """Without the old public keys the log and the receipts they signed do not verify: they stay published for ever."""
    old = registrar(memory).public_keys()
    registrar(memory).rotate_keys()
    registrar(memory).issue(evidence_of("new"))
    memory.delete(object_key(f"log/keys/{old[0].purpose}/{old[0].key_id}"))
    assert any("signature" in each for each in registrar(memory).check_all().broken)
