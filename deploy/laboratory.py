"""What ``sisa experiment`` prints: progress with the time left, where the results are, what differs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.experiments.catalog import EXPERIMENTS
from cluster.experiments.runner import CellDone, Finished
from deploy.views.output import Outcome, lasting


def experiments_outcome() -> Outcome:
    """Return the experiments."""
    found = [{"name": each.name, "summary": each.summary} for each in EXPERIMENTS.values()]
    width = max((len(each["name"]) for each in found), default=0)
    lines = [f"{each['name']:<{width}}  {each['summary']}" for each in found]
    return Outcome(data={"experiments": found}, text="\n".join(lines))


def show_progress(quiet: bool, clock: Callable[[], float] = time.monotonic) -> Callable[[CellDone], None]:
    """Return what reports on stderr which cell is done, and about how long the others take."""
    out, began = lasting(sys.stderr), clock()

    def tell(done: CellDone) -> None:
        if quiet:
            return
        passed, finished = clock() - began, 1 - done.left_share
        left = passed * done.left_share / finished if finished > 0 else 0.0
        rest = f", about {_duration(left)} left" if done.left_share > 0 else ""
        out.write(f"{done.name}: done; {done.share:.0%} of the grid{rest}\n")
        out.flush()

    return tell


def show_remark(text: str) -> None:
    """Print a remark on stderr."""
    lasting(sys.stderr).write(f"{text}\n")


def results_outcome(name: str, found: Finished, out: Path, figures: Sequence[Mapping[str, Any]]) -> Outcome:
    """Return the rows for machines; for people where they are, and which checks do not hold."""
    checks = found.report.checks
    differing = [check for check in checks if check.holds is False]
    unmeasured = sum(check.holds is None for check in checks)
    lines = [f"{name}: {len(found.rows):,} rows in {out}", f"Read {out / 'results.md'}."]
    if checks:
        compared = len(checks) - unmeasured
        lines.append(f"{compared - len(differing)} of {compared} figures are as expected, {unmeasured} not measured.")
        lines += [
            f"  differs: {check.what}: {check.ours:.4g}, expected {check.expected:.4g} ({check.tolerance})"
            for check in differing
            if check.ours is not None and check.expected is not None
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


def _duration(seconds: float) -> str:
    """Return a duration for people.

    >>> _duration(95), _duration(4000)
    ('2 minutes', '1.1 hours')
    """
    if seconds < 60:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 3600 else f"{seconds / 3600:.1f} hours"
