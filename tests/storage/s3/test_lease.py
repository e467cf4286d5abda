"""Leases: one holder at a time, renewed while it lives, taken over only when it was not renewed for its whole time."""

from __future__ import annotations

import os
import secrets
import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import pytest

from storage.errors import Corrupt, ObjectChanged, ObjectExists, OutcomeUnknown, SisaError, Unavailable, WriterBusy
from storage.objects import ObjectKey, VersionTag, object_key
from storage.s3 import lease
from storage.s3.bucket import Read
from storage.s3.lease import LeaseRecord, lease_from_bytes, leased

RECORD = LeaseRecord(holder="sisa train, process 1", nonce="first", lease_seconds=15.0)
OTHER = LeaseRecord(holder="sisa erase, process 2", nonce="second", lease_seconds=15.0)
BRISK = replace(RECORD, lease_seconds=0.03)


@dataclass
class Port:
    """A lease's object in memory. Implements ``storage.s3.lease.LeasePort``."""

    payload: bytes | None = None
    age_seconds: float | None = None
    errors: list[SisaError] = field(default_factory=list)
    """What the next writes raise; they take effect when it is ``OutcomeUnknown``."""
    read_errors: list[SisaError] = field(default_factory=list)
    """What the next reads raise."""
    written: threading.Condition = field(default_factory=threading.Condition)
    writes: int = 0
    tidied: int = 0

    @property
    def place(self) -> ObjectKey:
        """What errors call it."""
        return object_key("lease")

    @property
    def tag(self) -> VersionTag:
        """The current tag."""
        return VersionTag((self.payload or b"").hex())

    def read(self) -> Read | None:
        """Return the object, or fail by plan."""
        if self.read_errors:
            raise self.read_errors.pop(0)
        if self.payload is None:
            return None
        return Read(payload=self.payload, tag=self.tag, age_seconds=self.age_seconds)

    def write(self, payload: bytes, expected: VersionTag | None) -> VersionTag:
        """Write under the condition, or fail by plan."""
        with self.written:
            error = self.errors.pop(0) if self.errors else None
            self.writes += 1
            self.written.notify_all()
            if error is not None and not isinstance(error, OutcomeUnknown):
                raise error
            if expected is None and self.payload is not None:
                raise ObjectExists("taken")
            if expected is not None and expected != self.tag:
                raise ObjectChanged("changed")
            self.payload = payload
            if error is not None:
                raise error
            return self.tag

    def tidy(self) -> None:
        """Count."""
        self.tidied += 1

    def record(self) -> LeaseRecord:
        """Return what stands in the object."""
        assert self.payload is not None
        return lease_from_bytes(self.payload, self.place)

    def await_writes(self, count: int) -> None:
        """Return once so many writes were tried."""
        with self.written:
            assert self.written.wait_for(lambda: self.writes >= count, timeout=30)


@dataclass
class Clock:
    """Seconds that the test moves."""

    now: float = 0.0

    def __call__(self) -> float:
        """Return them."""
        return self.now


def hold(
    port: Port, record: LeaseRecord = RECORD, clock: Clock | None = None, watch: str = ""
) -> AbstractContextManager[None]:
    """Return the context that holds the lease."""
    return leased(port, record, watch=watch or secrets.token_hex(4), monotonic=clock or Clock())


def test_a_record_reads_back() -> None:
    """What is written is read, byte for byte."""
    for record in (RECORD, replace(RECORD, renewals=7, free=True, lease_seconds=0.25)):
        assert lease_from_bytes(record.to_bytes(), object_key("lease")) == record


def test_damage_is_named() -> None:
    """A lease that this system did not write is refused."""
    with pytest.raises(Corrupt, match="not what was written"):
        lease_from_bytes(RECORD.to_bytes().replace(b"15000", b"15001"), object_key("lease"))


def test_one_holds_and_the_other_is_reported() -> None:
    """While one holds it, another is refused with the holder's name; afterwards it is free and tidy."""
    port = Port()
    with hold(port):
        with (
            pytest.raises(WriterBusy, match=r"sisa train, process 1.*right=lease.*15 seconds after it died"),
            hold(port, OTHER),
        ):
            pass
        assert not port.record().free
    assert port.record().free
    assert port.tidied == 1
    with hold(port, OTHER):
        assert port.record().holder == OTHER.holder


@pytest.mark.parametrize(("age", "ends"), [(16.9, False), (17.0, True), (1e9, True), (-5.0, False), (None, False)])
def test_the_stores_clock_ends_a_lease(age: float | None, *, ends: bool) -> None:
    """A lease ends when the store says that it is older than its time and two seconds more."""
    port = Port(payload=RECORD.to_bytes(), age_seconds=age)
    if ends:
        with hold(port, OTHER):
            assert port.record().nonce == OTHER.nonce
    else:
        with pytest.raises(WriterBusy, match="process 1"), hold(port, OTHER):
            pass


def test_a_watch_ends_an_unchanged_lease() -> None:
    """Without the store's times, a lease ends once this process has seen it unchanged for its whole time."""
    port, clock = Port(payload=RECORD.to_bytes()), Clock()
    for now in (0.0, 14.9):
        clock.now = now
        with pytest.raises(WriterBusy, match="process 1"), hold(port, OTHER, clock, "watched"):
            pass
    port.payload = replace(RECORD, renewals=1).to_bytes()
    for now in (15.0, 29.9):
        clock.now = now
        with pytest.raises(WriterBusy, match="process 1"), hold(port, OTHER, clock, "watched"):
            pass
    clock.now = 30.0
    with hold(port, OTHER, clock, "watched"):
        assert port.record().nonce == OTHER.nonce


def test_a_lease_is_renewed_while_it_is_held() -> None:
    """Every renewal is another content, by compare-and-swap on the last."""
    port = Port()
    with hold(port, BRISK):
        port.await_writes(5)
        assert port.record().renewals >= 3
    assert port.record().free


@pytest.mark.parametrize("errors", [[], [Unavailable("away")]], ids=["reported", "found out"])
def test_a_lost_lease_is_left_alone(errors: list[SisaError]) -> None:
    """A holder that was replaced stops renewing and frees nothing, however it learns of it."""
    port = Port()
    with hold(port, BRISK):
        with port.written:
            port.payload, port.errors = OTHER.to_bytes(), errors
        (renewer,) = (each for each in threading.enumerate() if each.name == f"lease of {port.place}")
        renewer.join(30)
        assert not renewer.is_alive()
        assert port.record() == OTHER
    assert port.record() == OTHER


@pytest.mark.parametrize("error", [Unavailable("away"), OutcomeUnknown("in doubt")])
def test_a_store_that_is_away_does_not_end_a_lease(error: SisaError) -> None:
    """A renewal that failed or is in doubt is followed by the next."""
    port = Port()
    with hold(port, BRISK):
        with port.written:
            port.errors = [error, error]
            before = port.writes
        port.await_writes(before + 5)
        assert port.record().nonce == BRISK.nonce
    assert port.record().free


def test_a_store_that_tells_nothing_does_not_end_a_lease() -> None:
    """If neither a renewal nor the read after it is answered, the next one is tried: the lease may still be ours."""
    port = Port()
    with hold(port, BRISK):
        with port.written:
            port.errors, port.read_errors = [Unavailable("away")] * 2, [Unavailable("away")] * 2
            before = port.writes
        port.await_writes(before + 5)
        assert port.record().nonce == BRISK.nonce
    assert port.record().free


def test_a_forked_child_frees_nothing() -> None:
    """A child that leaves the block which its parent is in does not give away what is the parent's."""
    port = Port()
    held = hold(port)
    held.__enter__()
    child = os.fork()
    if child == 0:
        held.__exit__(None, None, None)
        os._exit(port.record().free)
    assert os.waitpid(child, 0) == (child, 0)
    held.__exit__(None, None, None)
    assert port.record().free


@dataclass
class Overtaken(Port):
    """Shows nothing at the first look, and then another holder."""

    looks: int = 0

    def read(self) -> Read | None:
        """Return the object."""
        self.looks += 1
        if self.looks == 2:
            self.payload = OTHER.to_bytes()
        return super().read()


def test_a_take_that_loses_names_the_winner() -> None:
    """The loser of a race gets an error that names the winner."""
    port = Overtaken(errors=[ObjectExists("taken")])
    with pytest.raises(WriterBusy, match="process 2"), hold(port):
        pass
    assert port.record() == OTHER


def test_losing_every_race_ends() -> None:
    """Four lost races without a holder to name are reported as such."""
    port = Port()
    port.errors = [ObjectExists("taken")] * 4
    with pytest.raises(Unavailable, match="others keep taking the right"), hold(port):
        pass


def test_a_long_holder_tidies_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewals and replaced objects leave versions, which are removed regularly, not only at the end."""
    monkeypatch.setattr(lease, "_TIDIED_AFTER", 3)
    port = Port()
    with hold(port, BRISK):
        port.await_writes(8)
        assert port.tidied >= 1
    assert port.tidied >= 2


def test_a_store_that_refuses_to_tidy_keeps_its_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease is kept even if its older versions cannot be removed."""
    monkeypatch.setattr(lease, "_TIDIED_AFTER", 1)
    port = Port()
    monkeypatch.setattr(Port, "tidy", lambda _: (_ for _ in ()).throw(Unavailable("the server refuses")))
    with hold(port, BRISK):
        port.await_writes(4)
    assert port.record().free
