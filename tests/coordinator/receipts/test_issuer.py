"""The registrar: one receipt for a request, through every crash and race."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from coordinator.receipts.bundles import (
    CHECKPOINTS,
    RECEIPTS,
    ReceiptBundle,
    bundle_from_bytes,
    statement_of,
    verify_bundle,
)
from coordinator.receipts.evidence import ErasureEvidence
from coordinator.receipts.issuer import Registrar
from storage.digests import sha256
from storage.errors import Conflict, Corrupt, Fenced, ObjectMissing, OutcomeUnknown, Unavailable
from storage.objects import ObjectKey, ObjectStore, object_key
from storage.stores.memory import MemoryStore
from storage.transparency.check import read_leaves
from storage.transparency.checkpoint import open_checkpoint
from storage.transparency.keys import KeyFolder
from storage.transparency.layout import LogLayout, entry_to_bytes
from tests.coordinator.receipts.facts import evidence_of
from tests.doubles.stores.faulty_store import WRITES, Crash, Fault, FaultyStore
from tests.doubles.time_and_names import CountingNames, VirtualClock
from tests.volume import examples

FIRST_WRITES = 9  # two private and two public keys, statement, log's name, entry, checkpoint, bundle
NEXT_WRITES = 4


def registrar(store: ObjectStore, private_keys: ObjectStore | None = None) -> Registrar:
    """A registrar of a process that has just started."""
    return Registrar(store, VirtualClock(), CountingNames("registrar"), private_keys)


def assert_sound(store: ObjectStore, *request_ids: str) -> None:
    """These requests have receipts and entries, one each, and everything holds."""
    check = registrar(store).check_all(request_ids)
    assert check.broken == ()
    assert check.checked == len(request_ids)
    assert len(list(store.list("log/entries/"))) == len(request_ids)


def replaced(store: MemoryStore, key: ObjectKey, payload: bytes | None) -> None:
    """Put other bytes in an object's place, or none, as someone with access to the store could."""
    store.delete(key)
    if payload is not None:
        store.put_if_absent(key, payload)


def name(request_id: str, kind: str = "bundles") -> ObjectKey:
    """Key of a request's receipt."""
    return object_key(f"receipts/{kind}/{sha256(request_id.encode())}")


def test_a_receipt_is_issued_and_found(memory: MemoryStore) -> None:
    """A receipt verifies by the published keys, is found by its request id, and says so."""
    bundle = registrar(memory).issue(evidence_of("first"))
    reader = registrar(memory)
    assert reader.find("first") == bundle
    check = verify_bundle(bundle, reader.public_keys())
    assert (check.failures, check.request_id, check.index, check.log_size) == ((), "first", 0, 1)
    assert check.origin == "sisa-ray/registrar-000001"
    assert memory.get(name("first")).payload == bundle.to_bytes()
    assert_sound(memory, "first")


def test_a_receipt_stays_as_it_was_first_issued(memory: MemoryStore) -> None:
    """Issuing again, by the same or another registrar and with evidence gathered again, gives the same receipt."""
    one = registrar(memory)
    bundle = one.issue(evidence_of("first"))
    one.issue(evidence_of("second"))
    for again in (one, registrar(memory)):
        assert again.issue(evidence_of("first")) == bundle
        assert again.issue(replace(evidence_of("first"), generation=99)) == bundle
    assert_sound(memory, "first", "second")


def test_a_receipt_is_dated_no_earlier_than_the_last(memory: MemoryStore) -> None:
    """Under a clock that was set back it has the date of the log's last statement, also from a process that is new."""

    def issued(request_id: str, at: datetime, by: Registrar | None = None) -> str:
        clock.advance_to(at)
        bundle = (by or Registrar(memory, clock, CountingNames("registrar"))).issue(evidence_of(request_id))
        return str(statement_of(bundle)["predicate"]["issued_at"])

    clock, march = VirtualClock(), datetime(2026, 3, 1, tzinfo=UTC)
    first = issued("first", march)
    assert first > march.isoformat()
    clock = VirtualClock()
    one = Registrar(memory, clock, CountingNames("registrar"))
    assert [issued(each, march.replace(month=2), one) for each in ("second", "third")] == [first, first]
    assert issued("fourth", march.replace(month=2)) == first
    assert issued("fifth", march.replace(month=4)) > first


def test_receipts_of_one_batch_share_a_checkpoint(memory: MemoryStore) -> None:
    """A thousand requests that end together cost one checkpoint; those issued before keep theirs."""
    earlier = registrar(memory).issue(evidence_of("r3"))
    bundles = registrar(memory).issue_all([evidence_of(f"r{number}") for number in range(20)])
    assert bundles[3] == earlier
    assert [bundle.index for bundle in bundles] == [1, 2, 3, 0, *range(4, 20)]
    assert len({bundle.checkpoint for bundle in bundles}) == 2
    assert_sound(memory, *(f"r{number}" for number in range(20)))
    assert registrar(memory).issue_all([]) == ()


def test_the_same_id_for_something_else_is_a_conflict(memory: MemoryStore) -> None:
    """A receipt is never given out for another body than the one it states."""
    registrar(memory).issue(evidence_of("first"))
    with pytest.raises(Conflict, match=r"states the erasure of something else \[request=first\]"):
        registrar(memory).issue(replace(evidence_of("first"), request_digest=sha256(b"other")))
    assert_sound(memory, "first")


def test_no_receipt(memory: MemoryStore) -> None:
    """A request without receipt is named when it is looked for and when it is expected; an empty store is sound."""
    with pytest.raises(ObjectMissing, match=r"there is no receipt for this request \[request=first\]"):
        registrar(memory).find("first")
    assert registrar(memory).check_all().broken == ()
    assert registrar(memory).check_log().is_sound
    assert registrar(memory).check_all(["first"]).broken == ("request first: it has no receipt",)
    assert list(memory.list("")) == []


def test_all_writes_were_crash_points(memory: MemoryStore) -> None:
    """The crash tests below reach every write of a first and of a further receipt."""
    store = FaultyStore(memory)
    registrar(store).issue(evidence_of("first"))
    assert sum(operation in WRITES for operation, _ in store.calls) == FIRST_WRITES
    store.plan()
    registrar(store).issue(evidence_of("second"))
    writes = [(operation, key) for operation, key in store.calls if operation in WRITES]
    assert len(writes) == NEXT_WRITES + 1  # the log's name is there already: an attempt to create it finds it


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [Crash, OutcomeUnknown])
@pytest.mark.parametrize(
    ("done", "nth"),
    [
        *((0, nth) for nth in range(1, FIRST_WRITES + 1)),
        *((1, nth) for nth in range(1, NEXT_WRITES + 2)),
        *((2, nth) for nth in range(1, NEXT_WRITES + 2)),
    ],
)
def test_crashes_at_every_write(
    memory: MemoryStore, when: str, error: type[BaseException], done: int, nth: int
) -> None:
    """Any write may fail or end the process: issuing again ends in one receipt and one entry, both sound."""
    before = [registrar(memory).issue(evidence_of(f"before-{number}")) for number in range(done)]
    store = FaultyStore(memory, (Fault(when=when, operation="write", nth=nth, error=error),))  # type: ignore[arg-type]
    handed_out: ReceiptBundle | None = None
    try:
        handed_out = registrar(store).issue(evidence_of("first"))
    except Crash:
        assert registrar(memory).check_log().problems == ()
    bundle = registrar(memory).issue(evidence_of("first"))
    assert handed_out in (None, bundle)
    assert [registrar(memory).find(f"before-{number}") for number in range(done)] == before
    assert_sound(memory, *(f"before-{number}" for number in range(done)), "first")


@pytest.mark.parametrize("nth", range(1, 40))
def test_failing_reads_lose_nothing(memory: MemoryStore, nth: int) -> None:
    """A read or listing that fails ends in an error or in the receipt; trying again ends in the receipt."""
    store = FaultyStore(memory, (Fault(when="before", nth=nth, error=Unavailable),))
    one = registrar(store)
    for _ in range(2):
        try:
            one.issue(evidence_of("first"))
        except Unavailable:
            continue
    assert_sound(memory, "first")


def test_another_error_passes_through(memory: MemoryStore) -> None:
    """Errors of the store that do not concern the outcome of the write are raised."""
    store = FaultyStore(memory, (Fault(when="before", operation="write", prefix="receipts/", error=Fenced),))
    with pytest.raises(Fenced, match="planned fault"):
        registrar(store).issue(evidence_of("first"))


def test_racing_registrars(memory: MemoryStore) -> None:
    """Eight registrars that issue the same and other receipts at once hand out one receipt for each request."""
    results: dict[int, list[ReceiptBundle]] = {}
    evidence: dict[int, list[ErasureEvidence]] = {
        worker: [evidence_of(f"shared-{n}") for n in range(4)] + [evidence_of(f"own-{worker}")] for worker in range(8)
    }
    barrier = threading.Barrier(8)

    def work(worker: int) -> None:
        own = registrar(memory)
        barrier.wait()
        results[worker] = [own.issue(each) for each in evidence[worker]]

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(4):
        assert len({bundles[n].to_bytes() for bundles in results.values()}) == 1
    assert_sound(memory, *(f"shared-{n}" for n in range(4)), *(f"own-{worker}" for worker in range(8)))


@pytest.mark.parametrize("nth", range(1, FIRST_WRITES + 1))
def test_a_registrar_that_comes_between(memory: MemoryStore, nth: int) -> None:
    """Another registrar that issues the same receipt between any two writes of the first leaves one receipt."""
    first = FaultyStore(memory, (Fault(when="before", operation="write", nth=nth, error=Crash),))
    slow = registrar(first)
    with pytest.raises(Crash, match="^$"):
        slow.issue(evidence_of("first"))
    quick = registrar(memory).issue(evidence_of("first"))
    assert slow.issue(evidence_of("first")) == quick
    assert_sound(memory, "first")


def test_rotation_keeps_all_receipts_valid(memory: MemoryStore) -> None:
    """Receipts of all keys verify after rotations, and a registrar that was at work through it goes on."""
    one = registrar(memory)
    bundles = [one.issue(evidence_of("r0"))]
    for number in range(1, 4):
        KeyFolder(memory, memory).rotate(RECEIPTS)
        KeyFolder(memory, memory).rotate(CHECKPOINTS)
        bundles.append((one if number % 2 else registrar(memory)).issue(evidence_of(f"r{number}")))
    keys = one.public_keys()
    assert len(keys) == 8
    assert all(verify_bundle(bundle, keys).is_valid for bundle in bundles)
    assert_sound(memory, *(f"r{number}" for number in range(4)))


def test_private_keys_kept_elsewhere(memory: MemoryStore) -> None:
    """With a place of their own no private key is in the store, which checks out alone but signs nothing."""
    elsewhere = MemoryStore("registrar-keys")
    elsewhere.forget()
    registrar(memory, elsewhere).issue(evidence_of("first"))
    assert not list(memory.list("control/"))
    assert_sound(memory, "first")
    with pytest.raises(Unavailable, match="the private signing key is not in its place"):
        registrar(memory).issue(evidence_of("second"))
    registrar(memory, elsewhere).issue(evidence_of("second"))
    assert_sound(memory, "first", "second")
    elsewhere.forget()


def test_no_private_key_is_in_a_receipt(memory: MemoryStore) -> None:
    """Nothing of the private keys' objects is in any other object."""
    registrar(memory).issue(evidence_of("first"))
    private = [memory.get(info.key).payload for info in memory.list("control/signing/")]
    lines = [line for payload in private for line in payload.split(b"\\n") if b"-----" not in line and line]
    others = b"".join(memory.get(info.key).payload for info in memory.list("") if "signing" not in info.key)
    assert len(lines) == 4  # the key's line, and the rest of the record, of each
    assert not any(line in others for line in lines[::2])


def test_request_ids_are_not_in_keys(memory: MemoryStore) -> None:
    """No name in the store shows a request id."""
    registrar(memory).issue(evidence_of("erase-somebody"))
    assert not any("somebody" in info.key for info in memory.list(""))


def test_the_log_continues_every_checkpoint_handed_out(memory: MemoryStore) -> None:
    """The checkpoint on each receipt is one that the log can be held to later."""
    one = registrar(memory)
    bundles = [one.issue(evidence_of(f"r{number}")) for number in range(5)]
    for size, bundle in enumerate(bundles, start=1):
        found = one.check_log(bundle.checkpoint)
        assert (found.problems, found.earlier, found.entries) == ((), size, 5)
    keys = one.public_keys()
    newest = one.check_log().checkpoint
    assert newest is not None
    assert open_checkpoint(newest, keys).checkpoint.size == 5


def test_a_forged_entry_is_not_signed(memory: MemoryStore) -> None:
    """An envelope that someone without the key left in the log stops the registrar before it signs."""
    registrar(memory).issue(evidence_of("first"))
    thief = MemoryStore("registrar-thief")
    thief.forget()
    forged = registrar(thief).issue(evidence_of("forged")).envelope
    layout = LogLayout(origin="any")
    memory.put_if_absent(layout.entry(1), entry_to_bytes(1, forged))
    with pytest.raises(Corrupt, match="not ours: nothing was signed"):
        registrar(memory).issue(evidence_of("second"))
    memory.delete(layout.entry(1))
    replaced(memory, name("third", "envelopes"), forged)
    with pytest.raises(Corrupt, match="a stored statement was not signed by us, or was altered"):
        registrar(memory).issue(evidence_of("third"))
    thief.forget()


@pytest.mark.volume
def test_every_flipped_byte_is_found(memory: MemoryStore) -> None:
    """One flipped bit in any byte of receipts, statements, log, its name and published keys is found."""
    registrar(memory).issue(evidence_of("first"))
    registrar(memory).issue(evidence_of("second"))
    for info in [*memory.list("receipts/"), *memory.list("log/")]:
        whole = memory.get(info.key).payload
        for place in range(0, len(whole), 1 + len(whole) // examples(150, few=60)):
            replaced(memory, info.key, whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
            assert registrar(memory).check_all().broken, (info.key, place)
        replaced(memory, info.key, whole[:-1])
        assert registrar(memory).check_all().broken, info.key
        replaced(memory, info.key, None)
        if info.key != "log/checkpoint/00000000000000000001":
            assert registrar(memory).check_all().broken, info.key
        replaced(memory, info.key, whole)
    assert_sound(memory, "first", "second")


def test_what_is_broken_is_named(memory: MemoryStore) -> None:
    """Swapped receipts, a receipt of another log, a missing receipt and a cut log are distinguished."""
    one = registrar(memory)
    payloads = [one.issue(evidence_of(each)).to_bytes() for each in ("first", "second")]
    replaced(memory, name("first"), payloads[1])
    replaced(memory, name("second"), payloads[0])
    swapped = "it is the receipt of another request than its name says"
    assert sum(swapped in each for each in one.check_all().broken) == 2
    with pytest.raises(Corrupt, match="the receipt under this request's name is another request's"):
        one.find("first")
    replaced(memory, name("second"), payloads[1])
    replaced(memory, name("first"), None)
    assert one.check_all().broken == (
        f"receipts/envelopes/{sha256(b'first')}: it was not finished",
        "entry 0: its receipt is missing",
    )
    assert one.issue(evidence_of("first")).index == 0
    assert one.check_all().broken == ()
    for key in ("log/entries/00000000000000000001", "log/checkpoint/00000000000000000002"):
        memory.delete(object_key(key))
    assert one.check_log().is_sound
    assert f"{name('second')}: its checkpoint of size 2 is not the log's" in one.check_all().broken


def test_a_log_without_name_is_no_empty_log(memory: MemoryStore) -> None:
    """Where receipts or an earlier checkpoint exist and the log is gone, that is named."""
    one = registrar(memory)
    bundle = one.issue(evidence_of("first"))
    for info in list(memory.list("log/")):
        if "keys" not in info.key:
            memory.delete(info.key)
    assert one.check_log().problems == ("there is no log: its name is missing",)
    assert one.check_log(bundle.checkpoint).problems == ("there is no log: its name is missing",)


def test_a_damaged_receipt_is_not_handed_out(memory: MemoryStore) -> None:
    """A receipt that is not what was written is neither found nor issued over."""
    one = registrar(memory)
    whole = one.issue(evidence_of("first")).to_bytes()
    replaced(memory, name("first"), whole[:-1])
    with pytest.raises(Corrupt, match="this is not a receipt of ours, or it was altered"):
        one.find("first")
    with pytest.raises(Corrupt, match="this is not a receipt of ours, or it was altered"):
        one.issue(evidence_of("first"))


def test_entries_are_the_receipts(memory: MemoryStore) -> None:
    """What the log holds is what the receipts hold, byte for byte."""
    bundles = registrar(memory).issue_all([evidence_of("first"), evidence_of("second")])
    origin = bundle_from_bytes(bundles[0].to_bytes()).checkpoint.split("\n")[0]
    leaves = dict(read_leaves(memory, LogLayout(origin=origin)))
    assert leaves == {bundle.index: bundle.envelope for bundle in bundles}
