"""Kill the command at every fail point and print the table: ``python -m tests.kills [KILLS [ZOMBIES [SEED]]]``.

With KILLS, at least so many more at random, most of them during recovery; with ZOMBIES, so many pairs of writers that
sleep, too. SEED is the first of their seeds. Ends with exit code 1 if anything went wrong.
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

from tests.kills.chance import try_kills, try_sleepers
from tests.kills.stage import Stage
from tests.kills.table import CELLS, as_lines, try_cell
from tests.kills.zombies import SLEEPERS, try_sleeper
from tests.kills.zygote import zygote

_PROCESSES: Final = 2
_KILLS_A_SEED: Final = 2
"""About; one at least."""

_Case = TypeVar("_Case")
_Result = TypeVar("_Result")


def main() -> int:
    """Do it all, print it, and return the exit code."""
    kills, zombies, seed = ([int(word) for word in sys.argv[1:]] + [0, 0, 0])[:3]
    with ExitStack() as stack:
        stages = [_stage(stack) for _ in range(_PROCESSES)]
        failures = [*_table(stages), *_sleepers(stages), *_random_kills(stages, kills, seed)]
        failures += _random_sleepers(stages, zombies, seed)
    for failure in failures:
        _say(f"FAILED: {failure}")
    return 1 if failures else 0


def _stage(stack: ExitStack) -> Stage:
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sisa-kills-"))
    return Stage(stack.enter_context(zygote()), Path(folder))


def _table(stages: Sequence[Stage]) -> Iterator[str]:
    found = _try_all(stages, CELLS, lambda stage, cell: try_cell(stage, *cell))
    outcomes = {
        (point.story, point.name, moment): result if isinstance(result, str) else "FAILED"
        for (point, moment), result in found
    }
    for line in as_lines(outcomes):
        _say(line)
    yield from _wrong(found)
    right = sum(isinstance(result, str) for _, result in found)
    _say(f"\n{len(found)} kills; after {right} of them the next command ended as if nothing had happened")


def _sleepers(stages: Sequence[Stage]) -> Iterator[str]:
    found = _try_all(stages, SLEEPERS, lambda stage, place: try_sleeper(stage, *place))
    yield from _wrong(found)
    fenced = sum(result is None for _, result in found)
    _say(f"{len(found)} zombies; {fenced} of them ended fenced, having changed nothing")


def _random_kills(stages: Sequence[Stage], kills: int, seed: int) -> Iterator[str]:
    counts: list[int] = []
    failures: list[str] = []
    while sum(counts) < kills and not failures:
        seeds = range(seed, seed + max(_PROCESSES, (kills - sum(counts)) // _KILLS_A_SEED))
        found = _try_all(stages, seeds, try_kills)
        failures += _wrong(found)
        counts += [result for _, result in found if isinstance(result, int)]
        seed = seeds.stop
    yield from failures
    if kills:
        _say(f"{sum(counts)} kills at random in {len(counts)} stories that ended as if nothing had happened")


def _random_sleepers(stages: Sequence[Stage], zombies: int, seed: int) -> Iterator[str]:
    found = _try_all(stages, range(seed, seed + zombies), try_sleepers)
    yield from _wrong(found)
    ends = Counter(result for _, result in found if isinstance(result, tuple))
    for (first, second), times in sorted(ends.items()):
        _say(f"{times} pairs of sleepers: the first ended {first}, the one who took over {second}")


def _try_all(
    stages: Sequence[Stage], cases: Sequence[_Case], attempt: Callable[[Stage, _Case], _Result]
) -> list[tuple[_Case, _Result | AssertionError]]:
    """Return what each case gave, or what was wrong with it; each stage has its share of them."""

    def share(number: int) -> list[tuple[_Case, _Result | AssertionError]]:
        return [(case, _try(attempt, stages[number], case)) for case in cases[number :: len(stages)]]

    with ThreadPoolExecutor(len(stages)) as threads:
        return [each for shared in threads.map(share, range(len(stages))) for each in shared]


def _try(attempt: Callable[[Stage, _Case], _Result], stage: Stage, case: _Case) -> _Result | AssertionError:
    try:
        return attempt(stage, case)
    except AssertionError as error:
        return error


def _wrong(found: Sequence[tuple[object, object]]) -> Iterator[str]:
    return (f"{case}: {result}" for case, result in found if isinstance(result, AssertionError))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
