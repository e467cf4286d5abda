"""Lineage (E8): what a checkpoint has seen, as a value that can be compared.

The lineage a checkpoint *should* have follows from the slices as they are now and from the settings as they are now. A
checkpoint whose lineage differs is never used, whatever the reason: an erased point, another learning rate, another
thread count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Final

from shards.slices.files import SliceRecord
from shards.specification import SHIPPED_FACTORIES, ShardId, SliceIndex
from storage.digests import Json, Sha256, digest_of
from storage.objects import ObjectKey

TRAINER_FORMAT = 1
"""Raised whenever our own training code changes the bits it produces."""

WORKERS_HASH_SEED: Final = "0"
"""PYTHONHASHSEED of every worker. In no lineage: a model that depends on it is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericsProfile:
    """What decides the bits besides the specification (E7). Equality is claimed within one profile."""

    torch: str
    """Version, with its build suffix."""
    threads: int
    """Intra-op threads."""
    device: str
    """``cpu/<architecture>/<instruction set>`` or ``cuda/<device name>``."""
    dtype: str
    deterministic: bool
    packing: str
    """``none``: a constituent is trained alone, whoever its companions are."""
    probe: Sha256 | None = None
    """Digest of fixed arithmetic on the worker (``shards.learners.torch.probe``); None: an earlier release, which had
    no probe, or a learner without torch. Unequal probes prove other bits; equal ones prove nothing."""

    def record(self) -> dict[str, Json]:
        """Return the profile as canonical JSON can hold it, without what an older release did not know (E16)."""
        return asdict(self, dict_factory=_without_none)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Everything but the data that decides a constituent's bytes."""

    settings: Sha256
    """Digest of the model, training and data settings that change results."""
    model_code: Sha256
    """Digest of the source code that the model is made of, as far as import statements lead to it."""
    seed: int
    profile: NumericsProfile
    code_manifest: Sha256 | None = None
    """Digest of all that a rehearsal found the model to be made of: modules, installed packages, declared files. None:
    the model comes with this system, or the constituents are older than such manifests."""

    def record(self) -> dict[str, Json]:
        """Return the configuration as canonical JSON can hold it, without what an older release did not know (E16)."""
        return asdict(self, dict_factory=_without_none)


def _without_none(pairs: Sequence[tuple[str, Json]]) -> dict[str, Json]:
    return {name: value for name, value in pairs if value is not None}


def as_recorded(stored: Configuration, present: Configuration) -> Configuration:
    """Return ``present`` without those optional fields that ``stored`` does not have."""
    if stored.profile.probe is None:
        present = replace(present, profile=replace(present.profile, probe=None))
    return replace(present, code_manifest=None) if stored.code_manifest is None else present


def in_force(stored: Configuration | None, present: Configuration) -> Configuration:
    """Return the configuration to train under, of the one in the store and the present one.

    The stored one stays in force as long as the present one differs from it only in fields that an earlier release did
    not record: these alone are no reason to train anew (E16). Once anything else differs it is the present one, whole.
    """
    return stored if stored is not None and as_recorded(stored, present) == stored else present


def unrecorded(stored: Configuration, factory: str) -> tuple[str, ...]:
    """Return which optional fields a stored configuration lacks that training ``factory``'s model now would record."""
    lacks_manifest = stored.code_manifest is None and factory.partition(":")[0] != SHIPPED_FACTORIES
    return ("probe",) * (stored.profile.probe is None) + ("code_manifest",) * lacks_manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """What the checkpoint after one slice has seen."""

    shard: ShardId
    slice: SliceIndex
    points: int
    """Data points of this slice."""
    points_digest: Sha256
    """Over their keyed digests, in order."""
    content_digest: Sha256
    """Over their content, in order."""
    configuration: Configuration
    parent: Sha256 | None
    """Digest of the lineage after the slice before; None for slice 1."""

    def record(self) -> dict[str, Json]:
        """Return the lineage as canonical JSON can hold it."""
        return {
            "trainer_format": TRAINER_FORMAT,
            "shard": self.shard,
            "slice": self.slice,
            "points": self.points,
            "points_digest": self.points_digest,
            "content_digest": self.content_digest,
            "configuration": self.configuration.record(),
            "parent": self.parent,
        }

    def digest(self) -> Sha256:
        """Return the digest that names this lineage."""
        return _digest(self)


@lru_cache(maxsize=4096)  # whoever replays a journal asks for the same lineages at every event
def _digest(lineage: Lineage) -> Sha256:
    return digest_of(lineage.record())


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRecord:
    """A committed checkpoint: where it is, what it is, what it has seen."""

    slice: SliceIndex
    key: ObjectKey
    sha256: Sha256
    """Of the stored object."""
    digest: Sha256
    """Of the constituent's parameters and buffers."""
    lineage: Sha256
    payload_bytes: int
    steps: int
    """Optimizer steps of this slice."""
    seconds: float
    """Time that learning this slice took; informative only."""


def expected_lineages(
    shard: ShardId, slices: Sequence[SliceRecord], configuration: Configuration
) -> tuple[Lineage, ...]:
    """Return the lineages that the checkpoints after slices 1..R of ``shard`` must have."""
    lineages: list[Lineage] = []
    parent: Sha256 | None = None
    for number, record in enumerate(slices, start=1):
        lineage = Lineage(
            shard=shard,
            slice=SliceIndex(number),
            points=record.points,
            points_digest=record.points_digest,
            content_digest=record.content_digest,
            configuration=configuration,
            parent=parent,
        )
        lineages.append(lineage)
        parent = lineage.digest()
    return tuple(lineages)


def valid_prefix(chain: Sequence[CheckpointRecord], expected: Sequence[Lineage]) -> tuple[CheckpointRecord, ...]:
    """Return the longest start of ``chain`` whose lineages are the expected ones."""
    valid: list[CheckpointRecord] = []
    for checkpoint, lineage in zip(chain, expected, strict=False):
        if checkpoint.lineage != lineage.digest():
            break
        valid.append(checkpoint)
    return tuple(valid)


def shared_prefix(one: Sequence[Lineage], other: Sequence[Lineage]) -> int:
    """Return after how many slices the two still have seen the same."""
    shared = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        shared += 1
    return shared
