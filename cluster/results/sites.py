"""Results of the front door of a federation of several sites."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.results.federation import Evaluation, SubjectFound, Verification
from coordinator.effects import HoldoutMeasure
from coordinator.receipts.bundles import ReceiptBundle
from coordinator.sites import TookPart, answered_together
from coordinator.status import FederationStatus
from shards.data.prediction_files import PredictionBatch, predictions_table, write_predictions
from shards.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SitesAnswers:
    """Predictions, computed as they are read; ``batches`` can be read once. The same sites answer all of them."""

    sites: tuple[TookPart, ...]
    absent: Mapping[str, str]
    """Why each of the other members does not take part, by site."""
    target: Target
    id_column: str
    batches: Iterator[PredictionBatch]

    @property
    def constituents(self) -> int:
        """How many answer, of ``shards``."""
        return answered_together(self.sites).constituents

    @property
    def shards(self) -> int:
        """Number of shards at the sites that take part."""
        return answered_together(self.sites).shards

    def table(self) -> Any:
        """Return the answers as a ``pyarrow.Table``; see ``cluster.results.federation.Answers``."""
        return predictions_table(self.batches, self.target, self.id_column)

    def write(self, path: Path) -> int:
        """Write the answers to a Parquet, Arrow or CSV file; return how many there are."""
        return write_predictions(path, self.batches, self.target, self.id_column)


@dataclass(frozen=True, slots=True, kw_only=True)
class SitesEvaluation:
    """How often the federation was right, and which sites took part."""

    overall: Evaluation
    sites: tuple[TookPart, ...]
    absent: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SitesMeasures:
    """How well each site's own constituents do on its own hold-out points; the federation's answers are others."""

    sites: Mapping[str, HoldoutMeasure]
    together: Mapping[str, float]
    """Over the hold-out points of all these sites; see ``coordinator.sites.measured_together``."""
    absent: Mapping[str, str]
    """Why each of the other sites gave none, by site."""

    @property
    def points(self) -> int:
        """How many hold-out points these sites have."""
        return sum(each.points for each in self.sites.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteStatus:
    """One site of a federation."""

    site: str
    membership: str
    """``member``, ``withdrawn`` (its data are being purged), ``purged``, or ``new`` (it has not joined)."""
    leaves: str
    """What may leave it: ``predictions`` or ``weights``."""
    joined_at: str
    withdrawn_at: str
    purged_at: str
    reason: str
    """Why it was withdrawn, or why it cannot be reached; empty if neither is the case."""
    status: FederationStatus | None
    """None: it cannot be reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SitesStatus:
    """The whole federation."""

    name: str
    store: str
    sites: tuple[SiteStatus, ...]

    @property
    def waits_for(self) -> tuple[str, ...]:
        """Sites that cannot be reached although they have something to do or to report."""
        return tuple(each.site for each in self.sites if each.status is None and each.membership != "purged")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteReceipt:
    """What proves an erasure at a site."""

    site: str
    at_site: ReceiptBundle
    """Signed with the site's keys, in the site's log: what was done."""
    at_federation: ReceiptBundle
    """Signed with the federation's keys, in its log: that the site gave exactly this receipt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SitesLookup:
    """What each site holds of some subjects."""

    sites: Mapping[str, tuple[SubjectFound, ...]]
    """In the order in which they were named. One name may mean different people at different sites."""
    absent: Mapping[str, str]
    """Why each of the other sites gave no answer, by site."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SitesVerification:
    """Proof that each site is exact, or what contradicts it."""

    sites: Mapping[str, Verification]
    absent: Mapping[str, str]
    """Sites that could not be reached, and why."""

    @property
    def holds(self) -> bool:
        """Whether every member could be asked and every proof holds."""
        return not self.absent and all(each.holds for each in self.sites.values())
