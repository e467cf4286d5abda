"""The manifest register: numbered statements of what is current, each written once.

    control/token/<n>   create-if-absent at a writer's start: its fencing token
    control/floor       compare-and-swap; raised before any manifest is deleted, never lowered, never deleted
    manifest/<n>        create-if-absent; the highest number is current

``storage.registers.numbered`` explains the floor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from storage.digests import CanonicalJson, Json
from storage.errors import (
    Conflict,
    Corrupt,
    Fenced,
    Invalid,
    InvariantBroken,
    ObjectExists,
    ObjectMissing,
    OutcomeUnknown,
    SisaError,
    Unavailable,
)
from storage.objects import ObjectKey, ObjectStore, object_key
from storage.records import decode_record, encode_record
from storage.registers.numbered import ATTEMPTS, Floor, Numbers, misshapen, scalar

_Found = TypeVar("_Found")

_MANIFEST_NAMES = frozenset({"number", "token", "nonce", "body"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One committed statement. ``body`` is JSON as it reads back; do not change it in place."""

    number: int
    """1 for the first, then without gaps."""
    token: int
    """The fencing token of the writer."""
    nonce: str
    """Drawn by the writer for this commit alone, so that it recognises its own success."""
    body: Mapping[str, Json]

    def to_bytes(self) -> bytes:
        """Return the stored form. Raises ``Invalid`` when the body is not JSON."""
        return _to_bytes(self.head, self.body)

    @property
    def head(self) -> ManifestHead:
        """The manifest without its body."""
        return ManifestHead(number=self.number, token=self.token, nonce=self.nonce)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestHead:
    """Which manifest it is, and whose; its fields are those of ``Manifest``."""

    number: int
    token: int
    nonce: str


def _to_bytes(head: ManifestHead, body: Mapping[str, Json] | CanonicalJson) -> bytes:
    return encode_record({"number": head.number, "token": head.token, "nonce": head.nonce, "body": body})


@lru_cache(maxsize=1)
def manifest_from_bytes(payload: bytes, key: ObjectKey) -> Manifest:
    """Return the manifest stored as ``payload``; ``to_bytes`` of it gives ``payload`` again.

    Parsed once: a start reads the current manifest several times, and it holds a whole state.
    Raises ``Corrupt`` when any byte is not what was written, ``Invalid`` when a newer version wrote it.
    """
    fields = decode_record(payload, key, _MANIFEST_NAMES)
    body = fields["body"]
    if not isinstance(body, Mapping):
        raise misshapen(key, "body")
    return Manifest(
        number=scalar(fields, "number", int, key),
        token=scalar(fields, "token", int, key),
        nonce=scalar(fields, "nonce", str, key),
        body=body,
    )


@dataclass(frozen=True, slots=True)
class ManifestRegister:
    """The manifests of one store. Unless it ``remembers``, it holds no state: every call reads the store.

    A second register in one store needs its own ``prefix`` and its own ``control``.
    """

    store: ObjectStore
    prefix: str = "manifest"
    control: str = "control"
    remembers: dict[int, ManifestHead] | None = None
    """The head of the last manifest that this register has read or written, by number; empty at first. For a writer,
    which checks before each deletion which writer has committed last: a manifest holds a whole state. A manifest at or
    above the floor is never replaced by another one. None: nothing is remembered."""

    def claim_token(self) -> int:
        """Return a fencing token higher than every token claimed or committed with before.

        A number whose creation is in doubt is skipped: gaps do no harm. Tokens below the current manifest's are
        removed: a paused writer that creates one of them again is fenced at its first commit.

        Raises ``Unavailable`` when other writers claim faster than this one, 64 times in a row.
        """
        for _ in range(ATTEMPTS):
            committed, claimed = self._tokens_in_use()
            token = max(committed, *claimed, 0) + 1
            try:
                self.store.put_if_absent(self._tokens.key(token), encode_record({"token": token}))
            except (ObjectExists, OutcomeUnknown):
                continue
            self._tokens.delete(number for number in claimed if number < committed)
            return token
        raise Unavailable("other writers keep claiming the fencing token", "Stop them, or try again.")

    def highest_token(self) -> int:
        """Return the highest fencing token claimed or committed with; 0 before the first. Raises as ``latest``."""
        committed, claimed = self._tokens_in_use()
        return max(committed, *claimed, 0)

    def highest_claimed(self) -> int:
        """Return the highest fencing token of the claims that a listing shows; 0: it shows no claim.

        Reads no manifest. A claim may be missed while a later writer starts, if a yet later one claims meanwhile: for
        callers that then read the journal, which has an entry with the token of each writer that began to commit.
        """
        return max(self._tokens.present(), default=0)

    def latest(self) -> Manifest | None:
        """Return the current manifest, None before the first commit.

        Raises:
            Corrupt: the current manifest is damaged, or manifests that the floor implies are gone.
            Invalid: a newer version wrote it.
            Unavailable: manifests were pruned faster than they could be read, 64 times in a row.
        """
        return self._latest(self._find)

    def _latest(self, found_at: Callable[[int], _Found | None]) -> _Found | None:
        """Return what ``found_at`` returns for the current manifest's number, None before the first commit.

        Raises as ``latest`` does.
        """
        lost = 0
        for _ in range(ATTEMPTS):
            floor = self.floor()  # before the listing: a manifest at the floor existed then
            number = max(self._manifests.present(), default=0)
            if number < floor:
                lost = floor
                continue  # a listing may miss both an object just pruned and one just created
            if number == 0:
                return None
            found = found_at(number)
            if found is not None:
                return found
        if lost:
            raise Corrupt("manifests are gone from the store", "Restore them from a copy of the store.", floor=lost)
        raise Unavailable("manifests are pruned faster than they can be read", "Try again.")

    def _latest_head(self) -> ManifestHead | None:
        """Return the current manifest's head, remembered or read. Raises as ``latest`` does."""
        return self._latest(self._head)

    def _head(self, number: int) -> ManifestHead | None:
        if self.remembers and number in self.remembers:
            return self.remembers[number]
        found = self._find(number)
        return None if found is None else self._remembered(found.head)

    def _remembered(self, head: ManifestHead) -> ManifestHead:
        if self.remembers is not None:
            self.remembers[head.number] = head
            for number in [number for number in self.remembers if number < head.number]:
                self.remembers.pop(number, None)
        return head

    def read(self, number: int) -> Manifest:
        """Return manifest ``number``. Raises ``ObjectMissing``, and ``Corrupt`` or ``Invalid`` as ``latest`` does."""
        return self._opened(number, self.store.get(self._manifests.key(number)).payload)

    def superseded(self) -> Iterator[Manifest]:
        """Yield the manifests that still exist although a later one is current."""
        current = self.latest()
        for number in self._manifests.present():
            if current is not None and number < current.number and (found := self._find(number)) is not None:
                yield found

    def commit(self, body: Mapping[str, Json], *, after: int, token: int, nonce: str) -> Manifest:
        """Write ``body`` durably as the manifest that follows number ``after`` (0: the first), and return it.

        After any doubt, repeat it with the same arguments: the nonce makes both attempts one commit. Raises as
        ``commit_encoded`` does.
        """
        head, payload = self._commit(body, after=after, token=token, nonce=nonce)
        return manifest_from_bytes(payload, self._manifests.key(head.number))

    def commit_encoded(self, body: CanonicalJson, *, after: int, token: int, nonce: str) -> ManifestHead:
        """Do what ``commit`` does for a body that is encoded already, which is not parsed.

        Raises:
            Conflict: another manifest follows ``after``, or ``after`` is not there: read ``latest`` again.
            Fenced: a writer with a higher token has committed, or this number was pruned long ago: stop for good.
            OutcomeUnknown: the store did not say, 64 times in a row, whether the manifest landed.
            Invalid: ``body`` is not JSON.
        """
        return self._commit(body, after=after, token=token, nonce=nonce)[0]

    def _commit(
        self, body: Mapping[str, Json] | CanonicalJson, *, after: int, token: int, nonce: str
    ) -> tuple[ManifestHead, bytes]:
        if after < 0 or token < 1 or not nonce:
            raise InvariantBroken("a commit needs a number before it, a claimed token and a nonce", after=after)
        mine = ManifestHead(number=after + 1, token=token, nonce=nonce)
        payload = _to_bytes(mine, body)
        self._refuse_stale(mine)
        for _ in range(ATTEMPTS):
            try:
                self.store.put_if_absent(self._manifests.key(mine.number), payload)
            except (ObjectExists, OutcomeUnknown):
                found = self._manifests.durable(mine.number)
                if found is None:
                    continue  # the same number again: the first attempt may still arrive under it
                if found != payload:
                    raise _other_error(self._opened(mine.number, found).head, mine) from None
            return self._confirmed(mine), payload
        raise OutcomeUnknown(
            "the store does not say whether the manifest landed", "Repeat the command.", number=mine.number
        )

    def prune(self, keep_from: int) -> int:
        """Delete the manifests below ``keep_from`` or the floor, whichever is higher; return how many.

        Raises ``Invalid`` when that would delete the current manifest.
        """
        current = self._latest_head()
        if keep_from > (current.number if current else 0):
            raise Invalid(
                "the current manifest cannot be pruned", "Choose keep_from up to its number.", keep_from=keep_from
            )
        floor = self._floor.raise_to(keep_from)
        return self._manifests.delete(number for number in self._manifests.present() if number < floor)

    def floor(self) -> int:
        """Return the number below which manifests may be gone; 0 before the first prune. Raises ``Corrupt``."""
        return self._floor.read()

    def _refuse_stale(self, mine: ManifestHead) -> None:
        """Raise, before anything is written, when the commit cannot or must not succeed."""
        current = self._latest_head()
        if current is not None and current.token > mine.token:
            raise _fenced(mine, current.token)
        if (current.number if current else 0) < mine.number - 1:
            raise Conflict("the manifest to follow is not in the store", "Read the latest one.", after=mine.number - 1)

    def _confirmed(self, mine: ManifestHead) -> ManifestHead:
        """Return ``mine``. Raises ``Fenced`` when its number was pruned before: then creating it means nothing."""
        floor = self.floor()
        if mine.number < floor:
            raise Fenced(
                "the manifest's number was pruned before it was written: this writer was paused while others committed",
                "Stop this process and start it again.",
                number=mine.number,
                floor=floor,
            )
        return self._remembered(mine)

    def _opened(self, number: int, payload: bytes) -> Manifest:
        key = self._manifests.key(number)
        found = manifest_from_bytes(payload, key)
        if found.number != number:
            raise misshapen(key, "number")
        return found

    def _find(self, number: int) -> Manifest | None:
        try:
            return self.read(number)
        except ObjectMissing:
            return None

    def _tokens_in_use(self) -> tuple[int, tuple[int, ...]]:
        """Return the current manifest's token (0: no manifest yet), then the claimed tokens that still exist."""
        current = self._latest_head()
        return current.token if current else 0, self._tokens.present()

    @property
    def _manifests(self) -> Numbers:
        return Numbers(self.store, self.prefix)

    @property
    def _tokens(self) -> Numbers:
        return Numbers(self.store, f"{self.control}/token")

    @property
    def _floor(self) -> Floor:
        return Floor(store=self.store, key=object_key(f"{self.control}/floor"), under="manifests")


def _other_error(found: ManifestHead, mine: ManifestHead) -> SisaError:
    """Return the error for another manifest at the number of ``mine``."""
    if found.nonce == mine.nonce:
        return InvariantBroken("one nonce was used for two different commits", number=mine.number)
    if found.token > mine.token:
        return _fenced(mine, found.token)
    return Conflict("another manifest has this number", "Read the latest one, then decide.", number=mine.number)


def _fenced(mine: ManifestHead, token: int) -> Fenced:
    return Fenced(
        "a writer with a higher fencing token has committed",
        "Stop this process: another one has taken over.",
        number=mine.number,
        token=mine.token,
        higher=token,
    )
