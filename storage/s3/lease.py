"""Leases: the right to write, kept by renewal, for stores that cannot detect that a process died.

A lease is an object that its holder replaces by compare-and-swap every third of ``lease_seconds``. Another process may
take it over if it was not renewed for ``lease_seconds``, measured by the store's own clock, or by how long this process
has seen it unchanged. The clocks of two machines are never compared.

A lease is for liveness, not for safety: a holder that was paused longer than ``lease_seconds`` has lost the lease
without knowing. The fencing token, which is checked at every commit, keeps its writes out. A holder that died keeps
others out for up to ``lease_seconds``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Protocol

from storage.errors import Conflict, Corrupt, Invalid, ObjectMissing, SisaError, Unavailable, WriterBusy
from storage.objects import ObjectKey, VersionTag
from storage.records import decode_record, encode_record
from storage.s3.bucket import Read

_ATTEMPTS = 4
_RENEWALS = 3
"""How often a lease is renewed within its own time: two renewals may fail."""

_TIDIED_AFTER = 256
"""Renewals after which older versions are removed: about every twenty minutes with a lease of fifteen seconds."""

_MARGIN_SECONDS = 2.0
"""The store reports times in whole seconds."""

_NAMES = frozenset({"holder", "nonce", "renewals", "lease_milliseconds", "free"})

_WATCHED: dict[str, tuple[VersionTag, float]] = {}  # no lock: a lost update costs another look at the lease
"""For each place, the tag of the lease that this process last saw, and when it first saw that tag."""


class LeasePort(Protocol):
    """The operations of a store on the one object of a lease."""

    @property
    def place(self) -> ObjectKey:
        """The lease object's name in error messages."""
        ...

    def read(self) -> Read | None:
        """Return the object."""
        ...

    def write(self, payload: bytes, expected: VersionTag | None) -> VersionTag:
        """Create (None) or replace the object."""
        ...

    def tidy(self) -> None:
        """Remove older versions of the object, and of the objects that its holder has replaced since."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """The content of a lease."""

    holder: str
    nonce: str
    """The holder's nonce, which distinguishes two commands with the same text."""
    lease_seconds: float
    renewals: int = 0
    """Gives every renewal a different content, and so a different tag."""
    free: bool = False

    def to_bytes(self) -> bytes:
        """Return the stored form."""
        return encode_record(
            {
                "holder": self.holder,
                "nonce": self.nonce,
                "renewals": self.renewals,
                "lease_milliseconds": round(self.lease_seconds * 1000),
                "free": self.free,
            }
        )


def lease_from_bytes(payload: bytes, key: ObjectKey) -> LeaseRecord:
    """Return the record stored as ``payload``. Raises ``Corrupt``, ``Invalid`` as every record does."""
    fields = decode_record(payload, key, _NAMES)
    match fields:
        case {
            "holder": str(holder),
            "nonce": str(nonce),
            "renewals": int(renewals),
            "lease_milliseconds": int(milliseconds),
            "free": bool(free),
        }:
            return LeaseRecord(
                holder=holder, nonce=nonce, renewals=renewals, lease_seconds=milliseconds / 1000, free=free
            )
        case _:
            raise Corrupt(
                "a stored lease has the wrong fields", "Delete the object: no command holds the right.", key=key
            )


@dataclass(slots=True, kw_only=True)
class _Lease:
    """A lease taken, and its renewals."""

    port: LeasePort
    record: LeaseRecord
    tag: VersionTag

    def renew(self) -> bool:
        """Renew once; return whether the lease may still be ours. A store that is unreachable does not end it."""
        record = replace(self.record, renewals=self.record.renewals + 1)
        try:
            self.tag = self.port.write(record.to_bytes(), self.tag)
        except (Conflict, ObjectMissing):
            return False
        except SisaError:
            return self._find()
        self.record = record
        if record.renewals % _TIDIED_AFTER == 0:
            with suppress(SisaError):  # older versions do no harm, but they cost money
                self.port.tidy()
        return True

    def release(self) -> None:
        """Free the lease if it is still ours; if that fails, it expires because it is not renewed."""
        record = replace(self.record, renewals=self.record.renewals + 1, free=True)
        with suppress(SisaError):
            self.port.write(record.to_bytes(), self.tag)
            self.port.tidy()

    def _find(self) -> bool:
        """Find out whether a renewal of unknown outcome landed."""
        try:
            found = self.port.read()
            if found is None:
                return False
            record = lease_from_bytes(found.payload, self.port.place)
        except (Invalid, Unavailable):  # expired credentials may be renewed in time
            return True
        except SisaError:
            return False
        if record.nonce != self.record.nonce:
            # The tag stays as it was: with the new one, the end of the block would free the other holder's lease.
            return False
        self.tag, self.record = found.tag, record
        return True


@contextmanager
def leased(port: LeasePort, record: LeaseRecord, *, watch: str, monotonic: Callable[[], float]) -> Iterator[None]:
    """Hold the lease within the block; a thread of its own renews it.

    ``watch`` names the lease among all leases that this process knows. Raises ``WriterBusy`` when another holds it.
    """
    process = os.getpid()
    lease = _take(port, record, watch, monotonic)
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(record.lease_seconds / _RENEWALS) and lease.renew():
            pass

    renewer = threading.Thread(target=renew, name=f"lease of {port.place}", daemon=True)
    renewer.start()
    try:
        yield
    finally:
        if os.getpid() == process:  # a forked child does not hold the lease
            ended.set()
            renewer.join()
            lease.release()


def _take(port: LeasePort, record: LeaseRecord, watch: str, monotonic: Callable[[], float]) -> _Lease:
    for _ in range(_ATTEMPTS):
        seen = port.read()
        held = lease_from_bytes(seen.payload, port.place) if seen is not None else None
        if seen is not None and held is not None and not held.free and not _ended(seen, held, watch, monotonic()):
            raise _busy(port, held)
        try:
            return _Lease(port=port, record=record, tag=port.write(record.to_bytes(), seen.tag if seen else None))
        except (Conflict, ObjectMissing):
            continue  # another process was first: the next attempt reads its name
    raise Unavailable("others keep taking the right to write and freeing it", "Try again.", right=port.place)


def _ended(seen: Read, held: LeaseRecord, watch: str, now: float) -> bool:
    """Return whether the lease has expired: it was not renewed for ``lease_seconds``."""
    if seen.age_seconds is not None and seen.age_seconds >= held.lease_seconds + _MARGIN_SECONDS:
        return True
    tag, since = _WATCHED.get(watch, (None, now))
    if tag != seen.tag:
        _WATCHED[watch] = (seen.tag, now)
        return False
    return now - since >= held.lease_seconds


def _busy(port: LeasePort, held: LeaseRecord) -> WriterBusy:
    return WriterBusy(
        f"another command holds the right to write: {held.holder or 'it has not said who it is'}",
        f"Wait until it ends, or stop it. The right is free when it ends, or {held.lease_seconds:.0f} seconds after it"
        " died.",
        right=port.place,
    )
