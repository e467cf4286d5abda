"""Kill the command at every fail point and print the table: ``python -m tests.kills [KILLS [ZOMBIES [SEED]]]``.

KILLS adds at least that many kills at random, most of them during recovery; ZOMBIES adds that many pairs of writers
that sleep; their seeds begin at SEED. The exit code is 1 if anything went wrong.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final, TypeVar

from tests.kills.command_cases import CaseRunner
from tests.kills.fork_server import fork_server
from tests.kills.random_cases import try_kills, try_sleepers
from tests.kills.table import CELLS, as_lines, try_cell
from tests.kills.zombies import SLEEPERS, try_sleeper

_PROCESSES: Final = 2
_KILLS_A_SEED: Final = 2
"""About; one at least."""

_Case = TypeVar("_Case")
_Result = TypeVar("_Result")


def main() -> int:
    """Do it all, print it, and return the exit code."""
    kills, zombies, seed = ([int(word) for word in sys.argv[1:]] + [0, 0, 0])[:3]
    with ExitStack() as stack:
        runners = [_runner(stack) for _ in range(_PROCESSES)]
        failures = [*_table(runners), *_sleepers(runners), *_random_kills(runners, kills, seed)]
        failures += _random_sleepers(runners, zombies, seed)
    for failure in failures:
        _say(f"FAILED: {failure}")
    return 1 if failures else 0


def _runner(stack: ExitStack) -> CaseRunner:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sisa-kills-"))
    return CaseRunner(stack.enter_context(fork_server()), Path(folder))


def _table(runners: Sequence[CaseRunner]) -> Iterator[str]:
    found = _try_all(runners, CELLS, lambda runner, cell: try_cell(runner, *cell))
    outcomes = {
        (point.case_name, point.name, moment): result if isinstance(result, str) else "FAILED"
        for (point, moment), result in found
    }
    for line in as_lines(outcomes):
        _say(line)
    yield from _wrong(found)
    right = sum(isinstance(result, str) for _, result in found)
    _say(f"\n{len(found)} kills; after {right} of them the next command ended as if nothing had happened")


def _sleepers(runners: Sequence[CaseRunner]) -> Iterator[str]:
    found = _try_all(runners, SLEEPERS, lambda runner, place: try_sleeper(runner, *place))
    yield from _wrong(found)
    fenced = sum(result is None for _, result in found)
    _say(f"{len(found)} zombies; {fenced} of them ended fenced, having changed nothing")


def _random_kills(runners: Sequence[CaseRunner], kills: int, seed: int) -> Iterator[str]:
    counts: list[int] = []
    failures: list[str] = []
    while sum(counts) < kills and not failures:
        seeds = range(seed, seed + max(_PROCESSES, (kills - sum(counts)) // _KILLS_A_SEED))
        found = _try_all(runners, seeds, try_kills)
        failures += _wrong(found)
        counts += [result for _, result in found if isinstance(result, int)]
        seed = seeds.stop
    yield from failures
    if kills:
        _say(f"{sum(counts)} kills at random in {len(counts)} stories that ended as if nothing had happened")


def _random_sleepers(runners: Sequence[CaseRunner], zombies: int, seed: int) -> Iterator[str]:
    found = _try_all(runners, range(seed, seed + zombies), try_sleepers)
    yield from _wrong(found)
    ends = Counter(result for _, result in found if isinstance(result, tuple))
    for (first, second), times in sorted(ends.items()):
        _say(f"{times} pairs of sleepers: the first ended {first}, the one who took over {second}")


def _try_all(
    runners: Sequence[CaseRunner], cases: Sequence[_Case], attempt: Callable[[CaseRunner, _Case], _Result]
) -> list[tuple[_Case, _Result | AssertionError]]:
    """Return what each case gave, or what was wrong with it; each stage has its share of them."""

    def share(number: int) -> list[tuple[_Case, _Result | AssertionError]]:
        return [(case, _try(attempt, runners[number], case)) for case in cases[number :: len(runners)]]

    with ThreadPoolExecutor(len(runners)) as threads:
        return [each for shared in threads.map(share, range(len(runners))) for each in shared]


def _try(attempt: Callable[[CaseRunner, _Case], _Result], runner: CaseRunner, case: _Case) -> _Result | AssertionError:
    try:
        return attempt(runner, case)
    except AssertionError as error:
        return error


def _wrong(found: Sequence[tuple[object, object]]) -> Iterator[str]:
    return (f"{case}: {result}" for case, result in found if isinstance(result, AssertionError))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
