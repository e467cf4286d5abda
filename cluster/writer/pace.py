"""What work costs on this machine: small federations on a sample of the data are trained, erased from and thrown away.

Each is the real engine with the user's model, so everything that training and erasing takes is in the figures: steps,
checkpoints, reading, encryption, journal, receipts, purge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from cluster.config.specification import FederationSpecification
from cluster.writer.one_process import OneProcessFederation, Spent
from cluster.writer.throw_away import WhoStaysOut, thrown_away
from coordinator.decisions.optimise import Layout
from coordinator.decisions.pace import (
    BATCH_WORK,
    BATCHES,
    PLACES,
    POINTS_READ,
    RECORDED,
    REQUESTS,
    REWRITTEN,
    TASKS,
    Amounts,
    GrowingCost,
    MeasuredWork,
    Pace,
    exact_amounts,
    fitted,
    in_federation,
    summed,
)
from coordinator.state import FederationState
from shards.data.columns import read_texts
from shards.data.readers import Wanted
from shards.data.samples import sampled
from shards.data.sources import Source
from shards.learner_kinds.kinds import TORCH
from shards.recipe.engines import replayed_from
from shards.routing import subject_digest
from shards.schedule import minimum_epochs
from shards.specification import PartitionSettings
from shards.tombstones import DigestSet

_FEW: Final = 2.5
_SOME: Final = 20.5
_MANY: Final = 100.5
"""Batches in the data points of small federations; the half one makes odd batches part of what is measured."""
_SIZES: Final = (125, 250, 500, 1000, 2000, 4000, 8000, 16_000, 32_000)
_SMALLEST: Final = 16
_LAYOUTS: Final = (Layout(4, 4), Layout(10, 10))
_POINTS_A_SLICE: Final = 3
_BATCH: Final = 10
_SINGLES: Final = 3
_ENOUGH: Final = 20
_ERASED_DIRECTLY: Final = 5
_SHARE_OF_LAYOUTS: Final = 0.5


@dataclass(slots=True, kw_only=True)
class _Measured:
    """What has been measured so far."""

    works: list[MeasuredWork] = field(default_factory=list)
    checkpoints: list[tuple[int, int, float]] = field(default_factory=list)
    """Data points, epochs and bytes of shards that are one slice."""
    sizes: list[float] = field(default_factory=list)
    learned: list[float] = field(default_factory=list)
    forgotten: list[float] = field(default_factory=list)
    seconds: float = 0.0


class PaceTrial:
    """Measures the pace of a specification's model; ``budget`` is about how many seconds of the processor it takes."""

    def __init__(
        self,
        specification: FederationSpecification,
        who: WhoStaysOut,
        source: Source,
        *,
        points: int,
        budget: float,
        remark: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``source`` is a sample, of ``points`` data points."""
        self._specification = replace(specification, data=replace(specification.data, holdout=None))
        self._who = who
        self._source = source
        self._points = points
        self._budget = budget
        self._remark = remark
        self._found = _Measured()
        kind = specification.model.learner
        self._batch = specification.training.batch_size if kind == TORCH else 1
        self._many_steps = replayed_from(specification.training.engine) if kind == TORCH else math.inf

    def pace(self) -> Pace:
        """Return the pace. Raises what training raises."""
        self._run(
            Layout(1, 1), self._size(_FEW), 1, keep=False
        )  # the first steps also load what all others find loaded
        if self._specification.model.is_whole:
            return self._whole()
        for points, epochs in self._steps():
            if not self._found.works or self._found.seconds < self._budget:
                self._run(Layout(1, 1), points, epochs)
        self._layouts()
        workers, coordinator, misfit = fitted(self._found.works)
        checkpoint, epoch = _checkpoint_bytes(self._found.checkpoints)
        return Pace(
            workers=workers,
            coordinator=coordinator,
            checkpoint_bytes=checkpoint,
            epoch_bytes=epoch,
            batch_size=self._batch,
            many_steps=self._many_steps,
            misfit=misfit,
        )

    def _steps(self) -> Iterator[tuple[int, int]]:
        """Yield data points and epochs of shards that are one slice."""
        if self._specification.model.learner != TORCH:
            for size in _SIZES[2::2]:
                yield from ((min(size, self._points), 2), (min(size, self._points), 10))
            return
        few, some, many = map(self._size, (_FEW, _SOME, _MANY))
        yield from ((few, 2), (few, 20), (some, 2))
        below = max(3, int(0.7 * min(self._many_steps, 250) // max(1, some // self._batch)))
        yield some, below
        if math.isfinite(self._many_steps):
            least = math.ceil(1.1 * self._many_steps / max(1, some // self._batch))
            yield from ((some, least), (many, max(2, math.ceil(400 * self._batch / many))), (some, 4 * least))
            yield few, math.ceil(1.3 * self._many_steps / max(1, few // self._batch))
        else:
            yield many, 4

    def _size(self, batches: float) -> int:
        return max(min(self._points, int(batches * self._batch)), min(self._points, _SMALLEST))

    def _layouts(self) -> None:
        """Train and erase from federations of several shards and slices, for what their number costs."""
        for layout in _LAYOUTS:
            points = min(self._points, max(_POINTS_A_SLICE * layout.shards * layout.slices, self._batch))
            count = layout.shards * layout.slices
            epochs = 1 if self._specification.model.is_whole else minimum_epochs(layout.slices)
            known = self._found.works[:1]
            least = 0.0 if not known else 1.5 * count * known[0].worker_seconds
            if points >= count and least <= self._budget * _SHARE_OF_LAYOUTS:
                self._run(layout, points, epochs)

    def _whole(self) -> Pace:
        found = self._found
        for size in dict.fromkeys(min(size, self._points) for size in _SIZES):
            if not found.sizes or found.seconds < self._budget:
                self._run(Layout(1, 1), size, 1)
        learned = GrowingCost.through(found.sizes, found.learned)
        forgotten = GrowingCost.through(found.sizes, found.forgotten)
        grown = GrowingCost.through(found.sizes, [max(size, 1.0) for _, _, size in found.checkpoints])
        self._layouts()
        _, coordinator, misfit = fitted(found.works)
        return Pace(
            workers={},
            coordinator=coordinator,
            checkpoint_bytes=0.0,
            learning=learned,
            forgetting=forgotten,
            learned_bytes=grown,
            misfit=misfit,
        )

    def _run(self, layout: Layout, points: int, epochs: int, *, keep: bool = True) -> None:
        """Train a federation, erase from it one by one and several at once, and note what each took."""
        own = replace(
            self._specification,
            partition=PartitionSettings(shards=layout.shards, slices=layout.slices),
            training=replace(self._specification.training, epochs=epochs),
        )
        source = sampled(self._source, own.data, points, self._points)
        found = _Measured()
        with thrown_away(own, self._who) as federation:
            federation.ingest(source)
            held = sum(shard.points for shard in federation.state.shards)
            self._note(found, federation, [], federation.train)
            names = self._names(source)
            singles = _ERASED_DIRECTLY if own.model.is_whole else _SINGLES
            if layout == _LAYOUTS[0]:
                singles = _ENOUGH  # an erasure takes longer with each one before it, up to a limit
            forgotten = 0.0
            for _ in range(min(singles, max(0, len(names) - 1))):
                request = [names.pop()]
                before = len(found.works)
                self._note(found, federation, request, partial(federation.erase, *request))
                forgotten += sum(work.worker_seconds for work in found.works[before:])
            if layout != Layout(1, 1) and len(names) > 2 * _BATCH:
                batch, names = names[:_BATCH], names[_BATCH:]
                self._note(found, federation, batch, lambda: federation.erase(*batch))
            if not keep:
                return
            self._found.works += found.works
            self._found.seconds += sum(work.worker_seconds + work.coordinator_seconds for work in found.works)
            if layout == Layout(1, 1):
                (shard,) = federation.state.shards
                self._found.checkpoints.append((held, epochs, float(shard.chain[-1].payload_bytes)))
                self._found.sizes.append(float(max(held, 1)))
                self._found.learned.append(max(found.works[0].worker_seconds, 1e-9))
                self._found.forgotten.append(max(forgotten / singles, 1e-9))

    def _note(
        self,
        found: _Measured,
        federation: OneProcessFederation,
        requests: Sequence[DigestSet],
        act: Callable[[], Spent],
    ) -> None:
        before = federation.state
        spent = act()
        amounts = self._amounts(before, federation, len(requests))
        if requests and not amounts[PLACES]:
            return  # nobody was found: nothing was done
        seconds = spent.worker_seconds
        found.works.append(
            MeasuredWork(amounts=amounts, worker_seconds=seconds, coordinator_seconds=spent.seconds - seconds)
        )

    def _amounts(self, before: FederationState, federation: OneProcessFederation, requests: int) -> Amounts:
        """Return how much was done: for requests on the slices that have changed, else on all."""
        after, epochs = federation.state, federation.specification.training.epochs
        count = sum(len(shard.slices) for shard in after.shards)
        amounts: dict[str, float] = {}
        places, rewritten = 0, 0
        for old, new in zip(before.shards, after.shards, strict=True):
            pairs = enumerate(zip(old.slices, new.slices, strict=True), start=1)
            changed = [number for number, (one, other) in pairs if one != other] if requests else [1]
            if not changed or not any(record.points for record in (*old.slices, *new.slices)):
                continue
            if requests:
                places += len(changed)
                rewritten += sum(old.slices[number - 1].points for number in changed)
            if self._specification.model.is_whole:
                own = {TASKS: 1.0, RECORDED: 1.0}
                own[POINTS_READ] = 0.0 if requests else float(new.points)
            else:
                own = exact_amounts(
                    self._batch,
                    self._many_steps,
                    [record.points for record in new.slices],
                    epochs,
                    first=changed[0],
                )
            amounts = summed(amounts, own)
        if requests:
            asked = {BATCH_WORK: 1.0, REQUESTS: float(requests), PLACES: float(places), REWRITTEN: float(rewritten)}
            amounts = summed(amounts, asked)
        return in_federation(amounts, float(count), float(len(before.requests)))

    def _names(self, source: Source) -> list[DigestSet]:
        """Return some subjects of the source, each as a request."""
        column, naming = self._specification.data.subject_column, self._who.naming
        names: dict[str, None] = {}
        for batch in source.batches(Wanted(texts=(column,), numbers=()), 4096):
            names.update(dict.fromkeys(read_texts(batch, column)))
        step = max(1, len(names) // (4 * _BATCH))
        chosen = list(names)[::step]
        return [DigestSet.of(subjects=[subject_digest(self._who.key, name, naming)], points=()) for name in chosen]


def recorded_pace(
    seconds_per_point_epoch: float, checkpoint_bytes: float, *, points_per_shard: float, is_whole: bool
) -> Pace:
    """Return the pace that a federation's own records say. Of slices and requests themselves they know nothing."""
    if not is_whole:
        workers = {BATCHES: seconds_per_point_epoch}
        return Pace(workers=workers, coordinator={}, checkpoint_bytes=checkpoint_bytes, source="records")
    return Pace(
        workers={},
        coordinator={},
        checkpoint_bytes=0.0,
        learning=GrowingCost((points_per_shard,), (seconds_per_point_epoch * points_per_shard,)),
        learned_bytes=GrowingCost((points_per_shard,), (checkpoint_bytes,)),
        source="records",
    )


def _checkpoint_bytes(found: Sequence[tuple[int, int, float]]) -> tuple[float, float]:
    """Return the bytes of a checkpoint before any epoch, and by how much each epoch makes it larger."""
    most = max(points for points, _, _ in found)
    largest = [(epochs, size) for points, epochs, size in found if points >= most / 2]
    if len({epochs for epochs, _ in largest}) < 2:
        return largest[-1][1], 0.0
    (few, small), (many, large) = min(largest), max(largest)
    slope = max(0.0, (large - small) / (many - few))
    return max(0.0, small - few * slope), slope
