"""Conditional puts that recognise their own success.

If the answer to a put is lost and the put is repeated, the repetition meets the first attempt's success: the server
says that the condition does not hold, and the writer would believe that it lost. So every put has a nonce in the
object's metadata. After any answer but a plain success the writer reads the object's metadata, and only then decides or
tries again, always with the same name and nonce. Another writer may have replaced the object between the success and
that read; each replacement names the tag that it replaced, which distinguishes this case from a lost race.

Source: RFC 9110 section 13 (conditional requests); S3's ConditionalRequestConflict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from storage.digests import sha256
from storage.errors import (
    Invalid,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    SisaError,
    Unavailable,
)
from storage.objects import ObjectKey, VersionTag
from storage.s3.bucket import Bucket, Mark, PutOutcome, Seen, in_doubt

_ATTEMPTS = 6


class Verdict(Enum):
    """What the object's metadata say about a put."""

    MINE = "mine"
    AGAIN = "again"
    LOST = "lost"
    GONE = "gone"
    UNKNOWN = "unknown"


def judge(*, seen: Seen | None, mark: Mark, doubt: bool) -> Verdict:
    """Return the outcome of the put of ``mark``, given the object as ``seen`` after an unsuccessful attempt.

    ``doubt``: an attempt so far may have landed.
    """
    if seen is None:
        return Verdict.AGAIN if mark.replaced is None else Verdict.GONE
    if seen.mark is not None and seen.mark.nonce == mark.nonce:
        return Verdict.MINE
    if seen.tag == mark.replaced:
        return Verdict.AGAIN
    # The content is another writer's. This put lost the race to it, unless that content names another predecessor:
    # then this put may have landed first and been replaced.
    aimed_alike = seen.mark is not None and seen.mark.replaced == mark.replaced
    return Verdict.LOST if aimed_alike or not doubt else Verdict.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionalPut:
    """One put with its condition, repeated until its outcome is known."""

    bucket: Bucket
    name: str
    """The object's full name in the bucket."""
    key: ObjectKey
    """The object's name in error messages."""
    payload: bytes
    expected: VersionTag | None
    """None: the object must not exist."""
    nonce: str
    pause: Callable[[int], None]
    """Waits before attempt number 1, 2, … ."""

    def run(self) -> VersionTag:
        """Return the tag of the object put.

        Raises:
            ObjectExists, ObjectChanged, ObjectMissing: the condition does not hold; nothing of ours is there.
            OutcomeUnknown: an answer was lost and the outcome could not be found out.
            Unavailable: nothing was written, 6 times in a row, or the server refuses although the condition holds.
            Invalid: the server keeps objects in folders, and the key is one.
        """
        mark = Mark(nonce=self.nonce, sha256=sha256(self.payload), replaced=self.expected)
        doubt, cause, empty, refused = False, "", 0, 0
        for attempt in range(_ATTEMPTS):
            if attempt:
                self.pause(attempt)
            with self._certain(doubt=doubt):
                reply = self.bucket.put(self.name, self.payload, self.expected, mark)
                if reply.tag is not None:
                    return reply.tag
            doubt, cause = doubt or reply.outcome is PutOutcome.DOUBTFUL, reply.cause
            with self._certain(doubt=doubt):
                seen = self.bucket.look(self.name)
                empty += reply.outcome is PutOutcome.REFUSED and seen is None
                if empty > 1:
                    self._refuse_folder()
            verdict = judge(seen=seen, mark=mark, doubt=doubt)
            if verdict is Verdict.MINE and seen is not None:
                return seen.tag
            if verdict is not Verdict.AGAIN:
                raise self._failure(verdict, cause)
            refused += reply.outcome is PutOutcome.REFUSED
        if refused == _ATTEMPTS:
            raise self._without_reason()
        raise self._failure(Verdict.UNKNOWN if doubt else Verdict.AGAIN, cause)

    @contextmanager
    def _certain(self, *, doubt: bool) -> Iterator[None]:
        """Turn other errors into ``OutcomeUnknown`` if an earlier attempt may have landed."""
        try:
            yield
        except SisaError as error:
            if doubt:
                raise in_doubt(self.key, "", error) from error
            raise

    def _refuse_folder(self) -> None:
        """Raise when the name is refused although no object has it, because other names begin with it."""
        if next(self.bucket.objects(f"{self.name}/"), None) is not None:
            raise Invalid("the key is a folder of other objects' keys", "Choose another key.", key=self.key)

    def _without_reason(self) -> Unavailable:
        """Return the error for a server that rejects a condition although its other answers show that it holds."""
        done = "create an object that is not there (If-None-Match)"
        if self.expected is not None:
            done = "replace an object under the tag that it gives it (If-Match)"
        return Unavailable(
            f"the store's server refuses to {done}: its conditional puts are not usable",
            "Choose a server whose conditional puts work, with ETags in quotes. Nothing was published.",
            key=self.key,
        )

    def _failure(self, verdict: Verdict, cause: str) -> SisaError:
        match verdict:
            case Verdict.GONE:
                return ObjectMissing("the store has no such object", key=self.key)
            case Verdict.LOST if self.expected is None:
                return ObjectExists("an object with this key exists", "Read it, then decide.", key=self.key)
            case Verdict.LOST:
                return ObjectChanged("the object changed since it was read", "Read it again.", key=self.key)
            case Verdict.UNKNOWN:
                return in_doubt(self.key, cause)
            case _:
                return Unavailable(
                    f"the store did not take the object, {_ATTEMPTS} times in a row; nothing was published",
                    "Try again later.",
                    key=self.key,
                    cause=cause,
                )
