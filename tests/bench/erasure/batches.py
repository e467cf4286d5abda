"""What erasures cost beyond recomputation, and the speed-up of batches beside the closed form.

    python -m tests.bench.erasure [--out FOLDER] [--fashion-mnist FOLDER] [--epochs 11] [--no-ray]

20 shards of 10 slices in an encrypted local store. All but the last table are of one process, with the writer, the
worker and the store as a command has them, in seconds of its processor: other processes on the machine matter little.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.config.specification import FederationSpecification, read_specification
from cluster.experiments.experiment import Figure, Panel, Series
from cluster.writer.writer import Writer, WriterSetup, drafted, writer_setup, writing
from coordinator.engine.engine import Engine
from coordinator.state import FederationState
from deploy.demo_data import DemoData, write_digits, write_fashion_mnist
from deploy.plots import draw
from deploy.views.tables import table
from shards.cost import batch_fraction, replay_steps
from shards.learners.trainer import ConstituentTrainer
from shards.schedule import slice_epochs
from storage.stores.folder_memory import _MEMORIES
from storage.stores.local import LocalStore
from tests.bench.erasure.on_ray import report_running
from tests.doubles.demo_specification import demo_specification
from tests.doubles.workers.local_workers import without_ray

SHARDS: Final = 20
SLICES: Final = 10
BATCHES: Final = (1, 8, 18, 39, 100, 1000)
BATCH_SIZE: Final = 16
ONES: Final = 5
"""How many single erasures the first row is the mean of."""


def specification_in(
    folder: Path, data: DemoData, *, epochs: int, slices: int = SLICES, window: float = 0
) -> FederationSpecification:
    """Write a specification for the data in ``folder``, and read it."""
    file = folder / "sisa.toml"
    further = f"[erasure]\nbatch_window_seconds = {window}\n[cluster]\nworkers = 2\n"
    text = demo_specification(
        scale=data.scale, epochs=epochs, shards=SHARDS, slices=slices, batch_size=BATCH_SIZE, further=further
    )
    file.write_text(text, encoding="utf-8")
    return read_specification(file)


@dataclass(slots=True)
class Spent:
    """Seconds of this process's processor, and what was asked of the store."""

    whole: float = 0.0
    accepting: float = 0.0
    learning: float = 0.0
    """The learner's steps alone, a part of ``whole``."""
    slices: int = 0
    puts: int = 0
    asked: int = 0
    """Calls of the folder's store in all."""

    @property
    def beyond(self) -> float:
        """Everything but the learner's steps."""
        return self.whole - self.learning


@contextmanager
def measured() -> Iterator[Spent]:
    """Measure the block."""
    spent, began = Spent(), time.process_time()
    learn = ConstituentTrainer._learn

    def learning(*arguments: Any) -> Generator[Any, None, Any]:
        spent.slices += 1
        steps = learn(*arguments)
        while True:
            started = time.process_time()
            try:
                event = next(steps)
            except StopIteration as ended:
                return ended.value
            finally:
                spent.learning += time.process_time() - started
            yield event

    with patch.object(ConstituentTrainer, "_learn", learning), _counted(spent):
        yield spent
    spent.whole = time.process_time() - began


@contextmanager
def _counted(spent: Spent) -> Iterator[None]:
    def counting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            spent.asked += 1
            spent.puts += name.startswith("put")
            return call(*arguments, **named)

        return counted

    names = ("put_if_absent", "put_if_match", "get", "get_durable", "delete", "list", "contents", "unfinished")
    with ExitStack() as patched:
        for name in names:
            patched.enter_context(patch.object(LocalStore, name, counting(name, getattr(LocalStore, name))))
        yield


def erased(writer: Writer, setup: WriterSetup, people: Sequence[str]) -> Spent:
    """Erase each person with a request of their own, all in one batch."""
    with measured() as spent:
        began = time.process_time()
        for person in people:
            writer.accept(*drafted(setup, subjects=[person], ids=(), request_id=f"er-{person}", held=""))
        spent.accepting = time.process_time() - began
        writer.settle()
    return spent


def report_overhead(folder: Path, count: int = 8) -> list[Spent]:
    """Erase one person after another from tiny data, where next to everything is overhead; print and return it."""
    found = []
    for slices in (SLICES, 5 * SLICES):
        lines = []
        specification = specification_in(folder, write_digits(folder / "data"), epochs=slices + 1, slices=slices)
        with without_ray():
            setup = writer_setup(specification, listener=lambda _: None)
            with writing(setup, "train") as writer:
                writer.train()
                erased(writer, setup, ["person-0001"])
                lines = [erased(writer, setup, [f"person-{number:04d}"]) for number in range(2, 2 + count)]
            commands = [_command(specification, f"person-{number:04d}") for number in range(2 + count, 2 + 2 * count)]
        found.append(_report_one(lines, f"one erasure at {SHARDS} x {slices} slices of tiny data, medians of {count}"))
        _report_one(commands, "the same as a command: the federation is opened, and closed afterwards")
        (folder / "federation").rename(folder / f"done-{slices}")
    return found


def _command(specification: FederationSpecification, person: str) -> Spent:
    """Do what a command does that erases somebody and waits, without starting Python, and without Ray."""
    _MEMORIES.clear()  # a new process remembers no folder
    with measured() as spent:
        setup = writer_setup(specification, listener=lambda _: None)
        with writing(setup, "erase") as writer:
            writer.accept(*drafted(setup, subjects=[person], ids=(), request_id=f"er-{person}", held=""))
            writer.settle()
    return spent


def _report_one(lines: Sequence[Spent], title: str) -> Spent:
    slices, beyond = [line.slices for line in lines], [line.beyond * 1000 for line in lines]
    slope, fixed = (float(value) for value in np.polyfit(slices, beyond, 1))
    header = ("slices", "whole ms", "learning ms", "beyond ms", "a slice ms", "else ms", "puts", "asked of the store")
    middle = Spent(
        whole=median(line.whole for line in lines),
        learning=median(line.learning for line in lines),
        slices=int(median(slices)),
        puts=int(median(line.puts for line in lines)),
        asked=int(median(line.asked for line in lines)),
    )
    cells = (f"{value * 1000:.0f}" for value in (middle.whole, middle.learning, middle.beyond))
    print(f"\n{title}; a slice and the rest by least squares")
    print(table(header, [(middle.slices, *cells, f"{slope:.1f}", f"{fixed:.0f}", middle.puts, middle.asked)]))
    return middle


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch of K requests: speed-ups against training everything, by the closed form and as measured."""

    requests: int
    expected: float
    drawn: float
    """By the optimizer's steps of the slices that these people's data points were in."""
    learning: float
    """Measured, of the learner's steps alone."""
    whole: float
    """Measured, of everything but the acceptance of the requests."""
    with_requests: float
    """Measured, of everything."""


def report_batches(folder: Path, data: DemoData, epochs: int) -> list[Batch]:
    """Erase batches of random people; print and return the speed-ups."""
    specification = specification_in(folder, data, epochs=epochs)
    people = [f"person-{number:04d}" for number in np.random.default_rng(18).permutation(data.people)]
    found = []
    with without_ray():
        setup = writer_setup(specification, listener=lambda _: None)
        with writing(setup, "train") as writer:
            with measured() as read, patch.object(Engine, "settle", lambda *_, **__: None):
                writer.train()
            with measured() as full:
                writer.settle()
            print(
                f"\n{data.name}, {data.train_points:,} points, {epochs} epochs; reading them took {read.whole:.1f} s,"
                f" training {full.whole:.1f} s of the processor, of which {full.learning:.1f} are the learner's steps"
            )
            for count in BATCHES:
                repeats = ONES if count == 1 else 1
                chosen = [[people.pop() for _ in range(count)] for _ in range(repeats)]
                found.append(_batch(writer, setup, chosen, full, epochs))
                print(*_cells(found[-1]), sep=" | ", file=sys.stderr, flush=True)
    header = (
        "K",
        "closed form",
        "people drawn",
        "learner",
        "of drawn",
        "all but accepting",
        "of drawn",
        "all",
        "of drawn",
    )
    print("speed-up against training everything")
    print(table(header, [_cells(each) for each in found]))
    return found


def _cells(each: Batch) -> tuple[str, ...]:
    values = (each.learning, each.whole, each.with_requests)
    measured_ = (text for value in values for text in (f"{value:.2f}", f"{value / each.drawn:.3f}"))
    return (f"{each.requests:,}", f"{each.expected:.2f}", f"{each.drawn:.2f}", *measured_)


def _batch(writer: Writer, setup: WriterSetup, chosen: Sequence[Sequence[str]], full: Spent, epochs: int) -> Batch:
    share, spent = [], []
    for people in chosen:
        before = writer.state
        spent.append(erased(writer, setup, people))
        share.append(_steps(before, writer.state, epochs) / _steps(None, writer.state, epochs))
    count = len(chosen)
    return Batch(
        requests=len(chosen[0]),
        expected=1 / batch_fraction(SHARDS, SLICES, len(chosen[0])),
        drawn=count / sum(share),
        learning=full.learning * count / sum(each.learning for each in spent),
        whole=full.whole * count / sum(each.whole - each.accepting for each in spent),
        with_requests=full.whole * count / sum(each.whole for each in spent),
    )


def _steps(before: FederationState | None, after: FederationState, epochs: int) -> int:
    """Return the optimizer's steps of the slices that were trained again; without ``before``: of all."""
    schedule = slice_epochs(epochs, SLICES)
    steps = 0
    for number, shard in enumerate(after.shards):
        keys = {each.key for each in before.shards[number].chain} if before is not None else set()
        new = [each.slice for each in shard.chain if each.key not in keys]
        if new:
            points = [record.points for record in shard.slices]
            steps += replay_steps(points, schedule, BATCH_SIZE, min(new))
    return steps


def _part_of(data: DemoData, people: int) -> DemoData:
    """Keep the first ``people``, with all of their data points."""
    whole = pq.read_table(data.train)
    kept = whole.filter(pa.array(np.arange(len(whole)) % data.people < people))
    pq.write_table(kept, data.train)
    return replace(data, people=people, train_points=len(kept))


def figure_of(batches: Sequence[Batch], title: str) -> Figure:
    """Return the figure of the speed-ups."""
    counts = [each.requests for each in batches]
    series = {
        "closed form (SISA, section IV)": [each.expected for each in batches],
        "of these people": [each.drawn for each in batches],
        "measured, all but accepting": [each.whole for each in batches],
        "measured, all": [each.with_requests for each in batches],
    }
    panel = Panel(
        title="",
        x="requests in one batch (K)",
        y="times as fast as training everything",
        log_x=True,
        log_y=True,
        series=tuple(
            Series(name=name, x=tuple(counts), y=tuple(values), is_reference=name.startswith("closed"))
            for name, values in series.items()
        ),
    )
    return Figure(name="erasure-speed-up", title=title, panels=(panel,))


def main() -> None:
    """Measure, print tables, and with ``--out`` write the figure and its data."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.erasure")
    parser.add_argument("--out", type=Path, help="folder for the figure and its data")
    parser.add_argument("--fashion-mnist", type=Path, help="folder with its four files")
    parser.add_argument("--people", type=int, default=7500, help="how many of its people, with 8 data points each")
    parser.add_argument("--epochs", type=int, default=11)
    parser.add_argument("--ray", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--batches", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--one", action=argparse.BooleanOptionalAction, default=True)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if chosen.one:
            (folder / "one").mkdir()
            report_overhead(folder / "one")
        if chosen.batches:
            (folder / "many").mkdir()
            data = _part_of(write_fashion_mnist(folder / "many" / "data", chosen.fashion_mnist), chosen.people)
            found = report_batches(folder / "many", data, chosen.epochs)
            if chosen.out is not None:
                drawn = figure_of(found, f"{SHARDS} shards of {SLICES} slices, {data.name}, {chosen.epochs} epochs")
                draw(drawn, chosen.out)
                rows = [{name: getattr(each, name) for name in Batch.__slots__} for each in found]
                (chosen.out / "erasure-speed-up.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        if chosen.ray:
            (folder / "ray").mkdir()
            small = write_digits(folder / "ray" / "data")
            report_running(specification_in(folder / "ray", small, epochs=SLICES + 1, window=2.0))


if __name__ == "__main__":
    main()
