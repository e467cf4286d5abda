"""What ``sisa experiment`` prints: progress with the time left, where the results are, what differs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.experiments.catalog import EXPERIMENTS
from cluster.experiments.results import number_text, summary_of
from cluster.experiments.runner import CellDone, Finished
from deploy.views.output import Outcome, lasting
from deploy.views.progress import duration


def experiments_outcome() -> Outcome:
    """Return the experiments."""
    found = [{"name": each.name, "summary": each.summary} for each in EXPERIMENTS.values()]
    width = max((len(each["name"]) for each in found), default=0)
    lines = [f"{each['name']:<{width}}  {each['summary']}" for each in found]
    return Outcome(data={"experiments": found}, text="\n".join(lines))


def show_progress(clock: Callable[[], float] = time.monotonic) -> Callable[[CellDone], None]:
    """Return a function that reports on stderr which cell is done, and about how long the others take."""
    began = clock()

    def tell(done: CellDone) -> None:
        passed, finished = clock() - began, 1 - done.left_share
        left = passed * done.left_share / finished if finished > 0 else 0.0
        rest = f", about {duration(left)} left" if done.left_share > 0 else ""
        _print(f"{done.name}: done; {done.share:.0%} of the grid{rest}")

    return tell


def show_remarks() -> Callable[[str], None]:
    """Return a function that prints remarks on stderr, each only once."""
    last = ""

    def tell(text: str) -> None:
        nonlocal last
        if text != last:
            _print(text)
        last = text

    return tell


def _print(text: str) -> None:
    out = lasting(sys.stderr)
    out.write(f"{text}\n")
    out.flush()


def results_outcome(name: str, found: Finished, out: Path, figures: Sequence[Mapping[str, Any]]) -> Outcome:
    """Return the rows as JSON; as text, where they are and which checks do not hold."""
    checks = found.report.checks
    lines = [f"{name}: {len(found.rows):,} rows in {out}", f"Read {out / 'results.md'}."]
    if checks:
        lines.append(f"{summary_of(checks)}.")
    lines += [
        f"  differs: {check.what}: {number_text(check.ours)}, not {number_text(check.expected)} ({check.tolerance})"
        for check in checks
        if check.holds is False
    ]
    data = {
        "name": name,
        "settings": found.settings,
        "rows": found.rows,
        "figures": figures,
        "checks": [asdict(check) for check in checks],
        "folder": str(out),
    }
    return Outcome(data=data, text="\n".join(lines))
