"""Which store a coordinator writes, and how another process checks that it is the caller's store. No Ray in here.

``control/coordinator`` is copied along with a store, so that a copy names the original's coordinator. Paths and
addresses cannot distinguish the two: one store may have several names (a mount, another endpoint), and two stores may
share one. So the caller draws a nonce, the coordinator writes it into its store, and the caller looks for it in the
caller's own store. A copy is never written.

control/coordinator-proof     the nonces last written, and the coordinator's own name for its store
control/adoptions             when and why this store, a copy, became a separate federation
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Final

from cluster.coordinator_actor.record import RECORD_KEY, RELEASES_KEY
from storage.digests import Json
from storage.errors import Conflict, Corrupt, SisaError
from storage.location import place_name
from storage.objects import ObjectStore, object_key
from storage.registers.record import RecordRegister

PROOF_KEY: Final = object_key("control/coordinator-proof")

_ADOPTIONS_KEY: Final = object_key("control/adoptions")

_MOST_NONCES: Final = 256
"""How many other callers may ask before one caller has looked for its nonce in the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A coordinator's answer."""

    location: str
    """Its store, as a person would write it."""
    place: str
    """Its store, as ``place_name`` names it."""
    is_written: bool
    """Whether the nonce is in its store now; writing fails when the disk is full or its credentials have expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """Record of a copy that became a federation of its own."""

    id: str
    at: str
    """When, in UTC."""
    reason: str
    original: str
    """Namespace of the coordinator that the copy named; empty: it did not name one, and used the original's keys."""


class Prover:
    """The coordinator's side of the check. ``show`` may be called from any thread."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._record = _proof(store)
        self._nonces: deque[str] = deque(maxlen=_MOST_NONCES)  # under ``_lock``, as is the record in the store
        self._lock = Lock()

    def show(self, nonce: str) -> Shown:
        """Write ``nonce`` into the store."""
        with self._lock:
            self._nonces.append(nonce)
            fields: Mapping[str, Json] = {"nonces": list(self._nonces), "place": place_name(self._store)}
            try:
                self._record.change(lambda _: fields)
            except SisaError:
                return self._shown(is_written=False)
        return self._shown(is_written=True)

    def _shown(self, *, is_written: bool) -> Shown:
        return Shown(location=self._store.location, place=place_name(self._store), is_written=is_written)


def check_shown(shown: Shown, nonce: str, store: ObjectStore) -> None:
    """Raise ``Conflict`` when the coordinator that has shown ``nonce`` writes another store than ``store``.

    Where it could not write, the names of the places decide.
    """
    if shown.is_written:
        found = _proof(store).read()
        nonces = found and found["nonces"]
        is_own = isinstance(nonces, list) and nonce in nonces
    else:
        is_own = shown.place == place_name(store)
    if not is_own:
        raise is_copy(store, shown.location)


def is_place_on_record(store: ObjectStore) -> bool:
    """Return whether the coordinator that was launched last recorded the name for its store that ``store`` has here."""
    try:
        found = _proof(store).read()
    except Corrupt:
        return False
    return found is not None and found["place"] == place_name(store)


def is_copy(store: ObjectStore, theirs: str) -> Conflict:
    """Return the error for a store that names the coordinator of another one."""
    return Conflict(
        f"this store is a copy of {theirs}: the coordinator that it names writes there, not here; nothing was done",
        "Give the command for the original. If this store is to go on by itself, run 'sisa adopt --reason REASON'.",
        store=store.location,
    )


def record_adoption(store: ObjectStore, adoption: Adoption) -> None:
    """Make a copy a federation of its own, durably: it no longer names the original's coordinator.

    The caller holds the writer lock. May be repeated after an interruption.
    """
    record = RecordRegister(store=store, key=_ADOPTIONS_KEY, field_names=frozenset({"adoptions"}))

    def added(fields: Mapping[str, Json] | None) -> Mapping[str, Json]:
        kept = fields and fields["adoptions"]
        before = list(kept) if isinstance(kept, list) else []
        now: Json = {**asdict(adoption)}
        return {"adoptions": before if now in before else [*before, now]}

    record.change(added)
    for key in (PROOF_KEY, RELEASES_KEY, RECORD_KEY):
        store.delete(key)


def _proof(store: ObjectStore) -> RecordRegister:
    return RecordRegister(store=store, key=PROOF_KEY, field_names=frozenset({"nonces", "place"}))
