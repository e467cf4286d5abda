"""What a federation must hold after erasures, corrections and trainings, worked out without it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from coordinator.state import FederationState
from shards.slices.files import SliceRecord
from storage.digests import Sha256
from tests.doubles.federation import Point

Essence = list[tuple[list[tuple[Sha256, Sha256]], list[tuple[int, Sha256, Sha256]]]]


@dataclass(slots=True)
class Truth:
    """The data points of a federation, one request after another."""

    present: dict[str, Point] = field(default_factory=dict)
    old: set[Point] = field(default_factory=set)
    """Contents that were corrected, and that no source may bring back."""
    subjects: set[str] = field(default_factory=set)
    """Erased."""
    ids: set[str] = field(default_factory=set)
    """Erased."""
    held: dict[str, dict[str, Point]] = field(default_factory=dict)
    """New values of paused requests, in the order of acceptance."""

    def train(self, source: Iterable[Point]) -> int:
        """Read a source; return how many of its data points have old values."""
        before, self.present, outdated = self.present, {}, 0
        for point in source:
            if point.id in self.ids or point.subject in self.subjects:
                continue
            if point not in self.old:
                self.present[point.id] = point
                continue
            outdated += 1
            corrected = before.get(point.id)
            if corrected is not None and corrected.subject == point.subject:
                self.present[point.id] = corrected
        return outdated

    def erase(self, subjects: Iterable[str] = (), ids: Iterable[str] = ()) -> None:
        """Erase; names without a data point leave no trace."""
        people, single = set(subjects), set(ids)

        def is_named(point: Point) -> bool:
            return point.subject in people or point.id in single

        gone = [point for point in self.present.values() if is_named(point)]
        self.subjects |= people & {point.subject for point in gone}
        self.ids |= {point.id for point in gone}
        self.present = {point.id: point for point in self.present.values() if not is_named(point)}
        erased = {point.id for point in gone}
        self.old = {point for point in self.old if not is_named(point) and point.id not in erased}
        self.held = {
            request_id: {row.id: row for row in rows.values() if not is_named(row) and row.id not in erased}
            for request_id, rows in self.held.items()
        }

    def rectify(self, rows: Iterable[Point], earlier: Iterable[str] | None = None) -> None:
        """Correct; ``earlier``: paused requests that were accepted before, by default all."""
        for row in rows:
            was = self.present.get(row.id)
            if was is None or was.subject != row.subject:
                continue
            if was != row:
                self.old.add(was)
                self.old.discard(row)
                self.present[row.id] = row
            for request_id in self.held if earlier is None else earlier:
                self.held[request_id].pop(row.id, None)

    def hold(self, request_id: str, rows: Iterable[Point]) -> None:
        """Accept a paused correction of these data points, as far as they are here."""
        self.held[request_id] = {
            row.id: row for row in rows if row.id in self.present and self.present[row.id].subject == row.subject
        }

    def release(self, request_id: str) -> None:
        """Carry out a paused correction."""
        earlier = list(self.held)[: list(self.held).index(request_id)]
        self.rectify(self.held[request_id].values(), earlier)
        del self.held[request_id]


def essence(state: FederationState) -> Essence:
    """Return what depends only on the data points: the bytes of checkpoints, and the contents of all slices."""
    shards: Essence = [
        (
            [(checkpoint.digest, checkpoint.lineage) for checkpoint in shard.chain],
            [_essence(record) for record in shard.slices],
        )
        for shard in state.shards
    ]
    return [*shards, ([], [_essence(record) for record in state.holdout])]


def _essence(record: SliceRecord) -> tuple[int, Sha256, Sha256]:
    return record.points, record.points_digest, record.content_digest
