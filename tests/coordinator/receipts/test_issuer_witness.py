"""The witness: another store gets every checkpoint, and against it a log that was cut back or rewritten shows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from coordinator.receipts.issuer import Registrar
from storage.errors import Corrupt, OutcomeUnknown, SisaError, Unavailable
from storage.objects import ObjectStore, object_key
from storage.stores.memory import MemoryStore
from storage.transparency.witness import Witness
from tests.coordinator.receipts.facts import evidence_of
from tests.doubles.stores.faulty_store import Crash, Fault, FaultyStore
from tests.doubles.time_and_names import CountingNames, VirtualClock


@pytest.fixture
def other() -> Iterator[MemoryStore]:
    """The witness's store, empty."""
    store = MemoryStore("witness")
    store.forget()
    yield store
    store.forget()


def registrar(store: ObjectStore, witness: ObjectStore | None, reported: list[str] | None = None) -> Registrar:
    """A registrar of a process that has just started."""
    tell = (lambda _: None) if reported is None else reported.append
    return Registrar(
        store, VirtualClock(), CountingNames("log"), witness=Witness(witness) if witness else None, tell=tell
    )


def kept(witness: ObjectStore) -> list[int]:
    """The sizes of the checkpoints that are kept."""
    return [int(info.key.rpartition("/")[2]) for info in witness.list("witnessed/")]


def test_every_batch_is_witnessed(memory: MemoryStore, other: MemoryStore) -> None:
    """Each batch's checkpoint is kept as it is signed, and every check compares the log with the newest one."""
    reported: list[str] = []
    one = registrar(memory, other, reported)
    one.issue(evidence_of("a"))
    one.issue_all([evidence_of("b"), evidence_of("c")])
    one.issue(evidence_of("b"))  # issued before: nothing new
    assert sorted(kept(other)) == [1, 3]
    found = registrar(memory, other).check_log()
    assert (found.problems, found.earlier, found.checkpoint) == ((), 3, registrar(memory, other).witnessed())
    assert registrar(memory, None).check_log().earlier is None
    assert registrar(memory, other).check_all(["a", "b", "c"]).broken == ()
    assert reported == []


def test_a_log_that_was_cut_back_shows(memory: MemoryStore, other: MemoryStore) -> None:
    """A log put back to an earlier state, receipts and all, looks whole alone and is found out by the witness."""
    registrar(memory, other).issue(evidence_of("a"))
    before = {info.key: memory.get(info.key).payload for info in memory.list("")}
    registrar(memory, other).issue(evidence_of("b"))
    memory.forget()
    for key, payload in before.items():
        memory.put_if_absent(object_key(key), payload)
    assert registrar(memory, None).check_all(["a"]).broken == ()
    assert not registrar(memory, other).check_log().is_sound
    assert registrar(memory, other).check_all(["a"]).broken[0].startswith("log: ")
    reported: list[str] = []
    registrar(memory, other, reported).issue(evidence_of("c"))  # the same size again, and another entry
    assert len(reported) == 1
    assert "the witness keeps another checkpoint of this size: the log was rewritten since" in reported[0]
    assert not registrar(memory, other).check_log().is_sound


@pytest.mark.parametrize("error", [Unavailable, OutcomeUnknown, Corrupt])
@pytest.mark.parametrize("operation", ["put_if_absent", "get", "list"])
def test_a_witness_out_of_reach_stops_nothing(
    memory: MemoryStore, other: MemoryStore, operation: str, error: type[SisaError]
) -> None:
    """Any error of the witness's store is reported and later made up for; the receipt is issued and the log checked."""
    registrar(memory, other).issue(evidence_of("a"))
    faults = [Fault(when="before", operation=operation, error=error) for _ in range(70)]  # type: ignore[arg-type]
    witness, reported = FaultyStore(other, tuple(faults)), list[str]()
    bundle = registrar(memory, witness, reported).issue(evidence_of("b"))
    assert registrar(memory, witness, reported).check_all(["a", "b"]).broken == ()
    assert registrar(memory, None).find("b") == bundle
    assert all(each.startswith(("the witness did not take", "the log was not compared")) for each in reported)
    registrar(memory, other).issue(evidence_of("c"))
    assert registrar(memory, other).check_log().earlier == 3


def test_a_crash_at_the_witness_loses_no_receipt(memory: MemoryStore, other: MemoryStore) -> None:
    """A process that dies while it writes to the witness leaves a log that the next one continues."""
    witness = FaultyStore(other, (Fault(when="before", operation="put_if_absent", error=Crash),))
    with pytest.raises(Crash, match="^$"):
        registrar(memory, witness).issue(evidence_of("a"))
    registrar(memory, other).issue(evidence_of("a"))
    assert registrar(memory, other).check_all(["a"]).broken == ()
    assert kept(other) == [1]


def test_several_logs_share_a_witness(memory: MemoryStore, other: MemoryStore) -> None:
    """Checkpoints are stored under their log's name, so that those of two logs are never confused."""
    second = MemoryStore("witnessed-second")
    second.forget()
    registrar(memory, other).issue(evidence_of("a"))
    names = CountingNames("second")
    Registrar(second, VirtualClock(), names, witness=Witness(other)).issue(evidence_of("b"))
    assert kept(other) == [1, 1]
    for store in (memory, second):
        assert registrar(store, other).check_log().problems == ()
    second.forget()


def test_a_rotation_goes_on_under_the_same_witness(memory: MemoryStore, other: MemoryStore) -> None:
    """Checkpoints of old keys and new are one history to the witness."""
    registrar(memory, other).issue(evidence_of("a"))
    registrar(memory, other).rotate_keys()
    assert registrar(memory, other).check_log().earlier == 1
    registrar(memory, other).issue(evidence_of("b"))
    found = registrar(memory, other).check_log()
    assert (found.problems, found.earlier) == ((), 2)


def test_a_foreign_name_is_no_checkpoint(memory: MemoryStore, other: MemoryStore) -> None:
    """Foreign objects in the witness's folder are skipped; an invalid checkpoint is a problem."""
    registrar(memory, other).issue(evidence_of("a"))
    (info,) = other.list("witnessed/")
    folder = info.key.rpartition("/")[0]
    other.put_if_absent(object_key(f"{folder}/readme"), b"?")
    assert registrar(memory, other).check_log().is_sound
    other.put_if_absent(object_key(f"{folder}/{9:020d}"), b"\xff not a note")
    assert not registrar(memory, other).check_log().is_sound
