"""What the last verification of a federation found, for people who were not there: counts, and when it was.

    control/last-verification    replaced by each verification; no name, no digest

The record proves nothing: anyone who can write to the store can write it. A proof is made by verifying again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from cluster.results.federation import Verification
from storage.digests import Json
from storage.objects import ObjectStore, object_key
from storage.registers.record import RecordRegister

VERIFICATION_KEY: Final = object_key("control/last-verification")


@dataclass(frozen=True, slots=True, kw_only=True)
class LastVerification:
    """A verification in counts."""

    at: str
    """When it ended, UTC, ISO 8601."""
    generation: int
    """The generation that was verified."""
    shards: int
    """Constituents that the federation had."""
    proved: int
    """How many of them were retrained or measured, and compared."""
    kept: int
    """How many of the proved constituents keep their guarantee."""
    guarantee: str
    objects: int
    """Objects of the store that were looked at."""
    residue: int
    """How many of these objects were left over, unfinished or damaged."""
    receipts: int
    """Receipts that were checked."""
    broken: int
    """What was wrong with receipts and their log."""
    everything: bool
    """Whether receipts and records that an earlier verification had found sound were read again."""

    @property
    def holds(self) -> bool:
        """Whether all that was looked at was in order."""
        return self.kept == self.proved and not self.residue and not self.broken

    @classmethod
    def of(cls, found: Verification, *, at: str, generation: int, shards: int, everything: bool) -> LastVerification:
        """Return what is kept of a verification that has just ended."""
        return cls(
            at=at,
            generation=generation,
            shards=shards,
            proved=len(found.shards),
            kept=sum(proof.holds for proof in found.shards),
            guarantee=found.guarantee,
            objects=found.residue.objects,
            residue=len(found.residue.found),
            receipts=found.receipts.checked,
            broken=len(found.receipts.broken),
            everything=everything,
        )


def keep_verification(store: ObjectStore, found: LastVerification) -> None:
    """Record a verification, replacing the one before, unless that ended later."""

    def changed(kept: Mapping[str, Json] | None) -> Mapping[str, Json]:
        return kept if kept is not None and str(kept["at"]) > found.at else asdict(found)

    _register(store).change(changed)


def last_verification(store: ObjectStore) -> LastVerification | None:
    """Return the last recorded verification; None: none was recorded. Raises ``Corrupt`` when the record is damaged."""
    kept: Any = _register(store).read()
    return LastVerification(**kept) if kept is not None else None


def _register(store: ObjectStore) -> RecordRegister:
    names = frozenset(each.name for each in fields(LastVerification))
    return RecordRegister(store=store, key=VERIFICATION_KEY, field_names=names)
