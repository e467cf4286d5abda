"""A bucket in memory that keeps versions and answers by plan: what the steps above a server are tested on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import md5

from storage.objects import VersionTag
from storage.s3.bucket import Listed, Mark, PutOutcome, PutReply, Read, Refusal, Seen, Upload, Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One version."""

    version: str
    payload: bytes
    mark: Mark
    marker: bool = False


def tag_of(payload: bytes) -> VersionTag:
    """Return the tag that the bucket gives ``payload``."""
    return VersionTag(md5(payload, usedforsecurity=False).hexdigest())


@dataclass(slots=True)
class FakeBucket:
    """Implements ``storage.s3.bucket.Bucket``."""

    held: dict[str, list[Stored]] = field(default_factory=dict)
    """All versions by name, the latest last."""
    answers: list[tuple[PutOutcome, bool]] = field(default_factory=list)
    """What the next puts answer, and whether they take effect; afterwards the truth."""
    refusals: list[list[str]] = field(default_factory=list)
    """Codes for the first versions of the next batch deletions."""
    looks: list[BaseException | None] = field(default_factory=list)
    """What the next looks raise."""
    retained: str | None = None
    puts: list[Mark] = field(default_factory=list)
    removed: list[Version] = field(default_factory=list)
    numbers: int = 0

    def store(self, name: str, payload: bytes, mark: Mark, *, marker: bool = False) -> VersionTag:
        """Add a version without a condition."""
        self.numbers += 1
        version = Stored(version=f"v{self.numbers}", payload=payload, mark=mark, marker=marker)
        self.held.setdefault(name, []).append(version)
        return tag_of(payload)

    def put(self, name: str, payload: bytes, expected: VersionTag | None, mark: Mark) -> PutReply:
        """Put by plan, or as a server would."""
        self.puts.append(mark)
        outcome, effective = self.answers.pop(0) if self.answers else (PutOutcome.LANDED, True)
        seen = self._current(name)
        if effective and (seen is None) == (expected is None) and (seen is None or tag_of(seen.payload) == expected):
            tag = self.store(name, payload, mark)
            return PutReply(outcome=outcome, tag=tag if outcome is PutOutcome.LANDED else None, cause=outcome.value)
        return PutReply(outcome=PutOutcome.REFUSED if effective else outcome, cause=outcome.value)

    def look(self, name: str) -> Seen | None:
        """Return the latest version."""
        error = self.looks.pop(0) if self.looks else None
        if error is not None:
            raise error
        current = self._current(name)
        return None if current is None else Seen(tag=tag_of(current.payload), mark=current.mark)

    def read(self, name: str) -> Read | None:
        """Return the latest version's payload."""
        current = self._current(name)
        return None if current is None else Read(payload=current.payload, tag=tag_of(current.payload), age_seconds=None)

    def objects(self, prefix: str) -> Iterator[Listed]:
        """Yield the latest versions."""
        for name in list(self.held):
            current = self._current(name)
            if name.startswith(prefix) and current is not None:
                yield Listed(name=name, payload_bytes=len(current.payload))

    def versions(self, name: str) -> Iterator[Version]:
        """Yield all versions, the latest first as S3 does."""
        held = self.held.get(name, [])
        for each in reversed(held):
            yield Version(name=name, version=each.version, latest=each is held[-1])

    def remove(self, versions: Sequence[Version]) -> list[Refusal]:
        """Delete versions, but for those planned to be refused."""
        codes = self.refusals.pop(0) if self.refusals else []
        for version in versions[len(codes) :]:
            self.held[version.name] = [each for each in self.held[version.name] if each.version != version.version]
            self.removed.append(version)
        return [Refusal(version=version, code=code) for version, code in zip(versions, codes, strict=False)]

    def retention(self, version: Version) -> str | None:
        """Return what keeps all versions."""
        return self.retained

    def uploads(self, prefix: str) -> Iterator[Upload]:
        """Yield nothing."""
        return iter(())

    def abort(self, upload: Upload) -> None:
        """Do nothing."""

    def _current(self, name: str) -> Stored | None:
        held = self.held.get(name)
        return None if not held or held[-1].marker else held[-1]
