"""Simulations from the command line.

``python -m tests.simulation 4711``: one seed, printing every operation.
``python -m tests.simulation --soak 1000000``: that many seeds, on all processors, until the first that breaks a law.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Iterator

from tests.doubles.remembered import remembering
from tests.simulation.campaign import Totals, run
from tests.simulation.model.scenario import draw_scenario
from tests.simulation.simulate import LawBroken, carry_out

_BLOCK = 500


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _replay(seed: int) -> int:
    scenario = draw_scenario(seed)
    _say(str(scenario))
    try:
        with remembering():
            outcome = carry_out(scenario)
    except LawBroken as failure:
        _say(str(failure))
        return 1
    for actor, operation, key, event in outcome.trace:
        _say(f"{actor:8} {operation:14} {key} {event}".rstrip())
    _say(", ".join(f"{count} {what}" for what, count in sorted(outcome.counts.items())))
    _say("every law held")
    return 0


def _blocks(first: int, seeds: int) -> Iterator[range]:
    return (range(start, min(start + _BLOCK, first + seeds)) for start in range(first, first + seeds, _BLOCK))


def _soak(first: int, seeds: int, processes: int) -> int:
    total = Totals()
    # Not forked: a process that has run threads cannot be forked safely.
    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=20) as pool:
        try:
            for totals in pool.imap_unordered(run, _blocks(first, seeds)):
                total += totals
                if total.seeds % (20 * _BLOCK) == 0:
                    _say(f"{total.seeds:,} seeds")
        except LawBroken as failure:
            _say(str(failure))
            return 1
    _say(str(total))
    return 1 if total.missing else 0


def main() -> int:
    """Return 0 when every law held."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("seed", type=int, nargs="?", default=0, help="the seed to replay, or to begin with")
    parser.add_argument("--soak", type=int, metavar="N", help="run N seeds instead")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args()
    return _replay(chosen.seed) if chosen.soak is None else _soak(chosen.seed, chosen.soak, chosen.processes)


if __name__ == "__main__":
    sys.exit(main())
