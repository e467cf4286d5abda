"""The start-up probe: checks with concurrent writers whether a store keeps its promises.

Some stores answer conditional puts correctly one at a time, but let several of 8 concurrent writers win.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from storage.errors import Conflict, ObjectChanged, ObjectExists, ObjectMissing, Unavailable, WriterBusy
from storage.objects import ObjectKey, ObjectStore, VersionTag, object_key

PROBE_PREFIX = "probe/"
"""Prefix of the probe's objects while it runs."""

_WRITERS = 8
_KEYS = 5


def probe_store(store: ObjectStore) -> None:
    """Check that ``store`` keeps its promises, with 80 racing puts.

    Takes well under a second on a local disk or AWS, and up to 15 s on a server that polls for its locks (SeaweedFS).
    The probe's objects are always removed.

    Raises:
        Unavailable: a promise is broken; the message names it.
        SisaError: the store cannot be written; raised by the store itself.
    """
    probe = _Probe(store=store, prefix=f"{PROBE_PREFIX}{secrets.token_hex(8)}-")
    try:
        probe.create()
        probe.swap()
        probe.erase()
        probe.race_creates()
        probe.race_swaps()
        probe.exclude()
    finally:
        for info in tuple(store.list(probe.prefix)):
            store.delete(info.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probe:
    store: ObjectStore
    prefix: str

    def key(self, name: str) -> ObjectKey:
        return object_key(f"{self.prefix}{name}")

    def create(self) -> None:
        key = self.key("create")
        tag = self.store.put_if_absent(key, b"first")
        found = self.store.get(key)
        self._require(found.payload == b"first" and found.tag == tag, "does not return what was just written")
        listed = [info.payload_bytes for info in self.store.list(self.prefix)]
        self._require(listed == [5], "does not list an object that was just written")
        again = _won(lambda: self.store.put_if_absent(key, b"second"), ObjectExists)
        self._require(not again and self._payload(key) == b"first", "creates an object over an existing one")

    def swap(self) -> None:
        key = self.key("swap")
        stale = self.store.put_if_absent(key, b"first")
        fresh = self.store.put_if_match(key, b"second", stale)
        found = self.store.get(key)
        self._require(found.payload == b"second" and found.tag == fresh, "loses a replacement with the right tag")
        again = _won(lambda: self.store.put_if_match(key, b"third", stale), ObjectChanged)
        self._require(not again and self._payload(key) == b"second", "replaces an object under a stale tag")

    def erase(self) -> None:
        key = self.key("erase")
        tag = self.store.put_if_absent(key, b"first")
        self.store.delete(key)
        self._require(self._payload(key) is None, "still returns an object after its deletion")
        self.store.delete(key)
        revived = _won(lambda: self.store.put_if_match(key, b"second", tag), ObjectMissing)
        self._require(not revived, "replaces an object that was deleted")

    def race_creates(self) -> None:
        self._race_all(self._race_create)

    def race_swaps(self) -> None:
        self._race_all(self._race_swap)

    def _race_all(self, race: Callable[[int], None]) -> None:
        """Run the races of all keys at once: some servers take a second to answer a loser."""
        with ThreadPoolExecutor(_KEYS) as pool:
            list(pool.map(race, range(_KEYS)))

    def _race_create(self, number: int) -> None:
        key = self.key(f"race-create-{number}")
        self._race(key, "create", partial(self.store.put_if_absent, key))

    def _race_swap(self, number: int) -> None:
        key = self.key(f"race-swap-{number}")
        tag = self.store.put_if_absent(key, b"before")
        self._race(key, "replace", partial(self.store.put_if_match, key, expected=tag))

    def exclude(self) -> None:
        try:
            with self.store.exclusive("probe", "start-up probe"):
                second = _won(self._hold, WriterBusy)
        except WriterBusy:  # another probe holds it at this moment, which proves the same promise
            return
        self._require(not second, "gives the writer's right to two holders at once")

    def _hold(self) -> None:
        with self.store.exclusive("probe", "start-up probe, second holder"):
            pass

    def _race(self, key: ObjectKey, verb: str, put: Callable[[bytes], VersionTag]) -> None:
        start = threading.Barrier(_WRITERS)

        def attempt(writer: int) -> bool:
            start.wait()
            return _won(lambda: put(b"writer %d" % writer), Conflict)

        with ThreadPoolExecutor(_WRITERS) as pool:
            wins = list(pool.map(attempt, range(_WRITERS)))
        self._require(sum(wins) == 1, f"lets {sum(wins)} of {_WRITERS} writers {verb} the same object")
        winner = b"writer %d" % wins.index(True)
        self._require(self._payload(key) == winner, f"keeps another content than that of the writer who did {verb} it")

    def _payload(self, key: ObjectKey) -> bytes | None:
        try:
            return self.store.get(key).payload
        except ObjectMissing:
            return None

    def _require(self, kept: bool, breach: str) -> None:  # noqa: FBT001  a condition, not an option
        if not kept:
            raise Unavailable(
                f"this store {breach}",
                "Choose a store that keeps its promises, such as a folder on a local disk.",
                store=self.store.location,
            )


def _won(put: Callable[[], object], refusal: type[Exception]) -> bool:
    """Return whether ``put`` succeeded although it should be refused."""
    try:
        put()
    except refusal:
        return False
    return True
