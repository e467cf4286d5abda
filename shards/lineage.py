"""Lineage (E8): what a checkpoint was trained on, as a value that can be compared.

The lineage a checkpoint *should* have follows from the current slices and the current settings. A checkpoint whose
lineage differs is never used, regardless of the reason: an erased point, another learning rate, another thread count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Final, Literal

from shards.learner_kinds.guarantees import EXACT, Certified, Guarantee
from shards.learner_kinds.kinds import LEARNERS, is_cheaper_directly
from shards.slices.files import SliceRecord
from shards.specification import SHIPPED_FACTORIES, ShardId, SliceIndex
from storage.digests import Json, Sha256, canonical_json, canonical_object, digest_of, sha256
from storage.objects import ObjectKey

TRAINER_FORMAT = 1
"""Raised whenever our own training code changes the bits it produces."""

WORKERS_HASH_SEED: Final = "0"
"""PYTHONHASHSEED of every worker. Not part of the lineage: a model that depends on it is refused."""


Device = Literal["cpu", "cuda"]
"""The device that a network is computed on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericsProfile:
    """Everything besides the specification that affects bits (E7). Equal bits are promised within one profile only."""

    torch: str
    """Version, with its build suffix."""
    threads: int
    """Intra-op threads."""
    device: str
    """``cpu/<architecture>/<instruction set>`` or ``cuda/<device name>``."""
    dtype: str
    deterministic: bool
    packing: str
    """``none``: a constituent is trained alone, not packed together with others."""
    probe: Sha256 | None = None
    """Digest of fixed arithmetic on the worker (``shards.learners.torch.probe``). None: written by a release without
    probes, or the learner's bits are the same everywhere. Unequal probes prove that bits differ; equal probes prove
    nothing."""
    library: str | None = None
    """Name and version of the library that learns, where this is not torch: LightGBM, or NumPy with its BLAS."""

    def record(self) -> dict[str, Json]:
        """Return the profile as values for canonical JSON, without the fields an older release did not have (E16)."""
        return asdict(self, dict_factory=_without_none)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Everything except the data that determines a constituent's bytes."""

    settings: Sha256
    """Digest of the model, training and data settings that change results."""
    model_code: Sha256
    """Digest of the model's source code, as far as it can be reached through import statements."""
    seed: int
    profile: NumericsProfile
    code_manifest: Sha256 | None = None
    """Digest of the model's modules, installed packages and declared files, as a rehearsal found them. None: the model
    comes with this system, or the constituents are older than code manifests."""
    learner: str | None = None
    """The learner, as ``[model] learner`` names it; None: torch."""
    guarantee: Certified | None = None
    """What the learner promises about erased data points; None: exact."""

    @property
    def is_whole(self) -> bool:
        """Whether all slices of a shard are learned at once: then a chain is a single checkpoint."""
        return self.learner is not None and LEARNERS[self.learner].whole

    @property
    def promise(self) -> Guarantee:
        """The promise about erased data points."""
        return self.guarantee or EXACT

    def goes_directly(self, changes: int, left: int) -> bool:
        """Return whether ``changes`` points surely go directly, out of a constituent or into it; ``left`` remain.

        Of learners that do so at all.
        """
        if self.learner is None:
            return False
        return LEARNERS[self.learner].is_sure and is_cheaper_directly(self.learner, changes, left)

    def record(self) -> dict[str, Json]:
        """Return the configuration as values for canonical JSON, without the fields older releases lack (E16)."""
        return asdict(self, dict_factory=_without_none)


def _without_none(pairs: Sequence[tuple[str, Json]]) -> dict[str, Json]:
    return {name: value for name, value in pairs if value is not None}


def as_recorded(stored: Configuration, present: Configuration) -> Configuration:
    """Return ``present`` without the optional fields that ``stored`` lacks."""
    if stored.profile.probe is None:
        present = replace(present, profile=replace(present.profile, probe=None))
    return replace(present, code_manifest=None) if stored.code_manifest is None else present


def in_force(stored: Configuration | None, present: Configuration) -> Configuration:
    """Return the configuration to train under: the stored one or the current one.

    The stored one stays in force as long as the current one differs from it only in fields that an earlier release did
    not record, because these alone do not justify retraining (E16). If anything else differs, the current one applies
    with all its fields.
    """
    return stored if stored is not None and as_recorded(stored, present) == stored else present


def unrecorded(stored: Configuration, factory: str | None) -> tuple[str, ...]:
    """Return the optional fields that ``stored`` lacks, and that training ``factory``'s model now would record.

    ``factory`` None: the learner is not torch, and there is nothing that earlier releases did not record.
    """
    if factory is None:
        return ()
    lacks_manifest = stored.code_manifest is None and factory.partition(":")[0] != SHIPPED_FACTORIES
    return ("probe",) * (stored.profile.probe is None) + ("code_manifest",) * lacks_manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """The inputs of the checkpoint after one slice."""

    shard: ShardId
    slice: SliceIndex
    """1 where all slices are learned at once."""
    points: int
    """Data points of this slice."""
    points_digest: Sha256
    """Digest over their keyed digests, in order."""
    content_digest: Sha256
    """Digest over their content, in order."""
    configuration: Configuration
    parent: Sha256 | None
    """Digest of the lineage after the preceding slice; None for slice 1."""

    def record(self) -> dict[str, Json]:
        """Return the lineage as values for canonical JSON."""
        return {**self.own_record(), "configuration": self.configuration.record()}

    def own_record(self) -> dict[str, Json]:
        """Return the record without the configuration."""
        return {
            "trainer_format": TRAINER_FORMAT,
            "shard": self.shard,
            "slice": self.slice,
            "points": self.points,
            "points_digest": self.points_digest,
            "content_digest": self.content_digest,
            "parent": self.parent,
        }

    def digest(self) -> Sha256:
        """Return the digest that names this lineage."""
        return _digest(self)


@lru_cache(maxsize=4096)  # replaying a journal asks for the same lineages at every event
def _digest(lineage: Lineage) -> Sha256:
    """Return ``digest_of(lineage.record())``; the configuration, which all lineages share, is encoded once."""
    configuration = _encoded(lineage.configuration)
    parts = {name: canonical_json(value) for name, value in lineage.own_record().items()}
    return sha256(canonical_object({**parts, "configuration": configuration}))


@lru_cache(maxsize=8)
def _encoded(configuration: Configuration) -> bytes:
    return canonical_json(configuration.record())


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounted:
    """What a constituent with a certified guarantee has used of its budget; it depends on who was erased."""

    spent: float
    """Upper bound of its residual."""
    budget: float
    """Largest residual for which the guarantee holds."""

    @property
    def share(self) -> float:
        """The share of the budget that is used, rounded up to hundredths: exact ones would show single erasures."""
        return math.ceil(round(100 * self.spent / self.budget, 12)) / 100

    @property
    def rounded(self) -> Accounted:
        """The account in the form of records: unlike checkpoints, the journal and manifests are not encrypted."""
        return Accounted(spent=self.share * self.budget, budget=self.budget)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRecord:
    """A committed checkpoint: its object, its digests, and the digest of its lineage."""

    slice: SliceIndex
    key: ObjectKey
    sha256: Sha256
    """Digest of the stored object."""
    digest: Sha256
    """Digest of the constituent's parameters and buffers."""
    lineage: Sha256
    payload_bytes: int
    steps: int
    """Optimizer steps of this slice."""
    seconds: float
    """Time that training this slice took; for information only."""
    accounted: Accounted | None = None
    """For learners with a certified guarantee: ``Accounted.rounded``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A constituent that has seen other points than its shard now has, and from which a direct change may start.

    It is never served. Its objects are on the purge list, and are read before they are purged.
    """

    slices: tuple[SliceRecord, ...]
    """The slices that it has seen."""
    checkpoint: CheckpointRecord


def expected_lineages(
    shard: ShardId, slices: Sequence[SliceRecord], configuration: Configuration
) -> tuple[Lineage, ...]:
    """Return the lineages that the checkpoints after slices 1..R of ``shard`` must have.

    Of a learner that learns all slices at once, there is one lineage, whose slice is the whole shard.
    """
    if configuration.is_whole:
        slices = (_joined(slices),)
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


def _joined(slices: Sequence[SliceRecord]) -> SliceRecord:
    """Return the record of all slices as if they were one."""
    return SliceRecord(
        parts=(),
        points=sum(record.points for record in slices),
        points_digest=digest_of([record.points_digest for record in slices]),
        content_digest=digest_of([record.content_digest for record in slices]),
    )


def valid_prefix(chain: Sequence[CheckpointRecord], expected: Sequence[Lineage]) -> tuple[CheckpointRecord, ...]:
    """Return the longest prefix of ``chain`` whose lineages are the expected ones."""
    valid: list[CheckpointRecord] = []
    for checkpoint, lineage in zip(chain, expected, strict=False):
        if checkpoint.lineage != lineage.digest():
            break
        valid.append(checkpoint)
    return tuple(valid)


def shared_prefix(one: Sequence[Lineage], other: Sequence[Lineage]) -> int:
    """Return the number of leading slices whose lineages are equal in both."""
    shared = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        shared += 1
    return shared
