"""Random kills and sleeps at any step of any case, and again during the recovery, determined by a seed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from tests.kills.command_cases import COMMAND_CASES, CaseRunner, Reference
from tests.kills.fail_points import Moment, Strike
from tests.kills.table import complaints
from tests.kills.zombies import wake_both

_MOST_KILLS: Final = 4
_RECOVERY_STEPS: Final = 60
"""A recovery takes about so many; one that is over sooner is not killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomCase:
    """A case, and where its processes are struck."""

    case_name: str
    strikes: tuple[Strike, ...]


def draw_kills(seed: int, runner: CaseRunner) -> RandomCase:
    """Return one to four kills: of the command, then of those that recover from it."""
    random = Random(seed)  # noqa: S311  the same blows for the same seed
    case_name = random.choice(tuple(COMMAND_CASES))
    again = [
        Strike(moment=_moment(random), nth=random.randint(1, _RECOVERY_STEPS))
        for _ in range(random.randrange(_MOST_KILLS))
    ]
    return RandomCase(case_name=case_name, strikes=(_first(random, runner.reference(case_name)), *again))


def try_kills(runner: CaseRunner, seed: int) -> int:
    """Kill as the seed says, recover, and return how many kills there were. Raises ``AssertionError``."""
    random_case = draw_kills(seed, runner)
    outcome = runner.play(random_case.case_name, random_case.strikes)
    wrong = list(complaints(random_case.case_name, outcome, runner.reference(random_case.case_name)))
    assert not wrong, "\n".join([f"seed {seed}: {random_case}", *wrong])
    return outcome.kills


def draw_sleepers(seed: int, runner: CaseRunner) -> RandomCase:
    """Return where two writers are stopped, one after the other: at a change of the store, or at a read of it."""
    random = Random(seed)  # noqa: S311  the same blows for the same seed
    case_name = random.choice(tuple(COMMAND_CASES))
    reference = runner.reference(case_name)
    steps = len(reference.steps) + reference.looks
    first, second = random.randint(1, steps), random.randint(1, steps)
    moments: tuple[Moment, ...] = ("before", "after")
    strikes = [Strike(moment=random.choice(moments), nth=nth, looks=True, blow="stop") for nth in (first, second)]
    return RandomCase(case_name=case_name, strikes=tuple(strikes))


def try_sleepers(runner: CaseRunner, seed: int) -> tuple[str, str]:
    """Stop two writers where the seed says, and return how they end: see ``wake_both``. Raises ``AssertionError``."""
    random_case = draw_sleepers(seed, runner)
    try:
        return wake_both(runner, random_case.case_name, *random_case.strikes)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {random_case}\n{error}") from error


def _first(random: Random, reference: Reference) -> Strike:
    """Return a strike at a step that the command is certain to reach."""
    moment = _moment(random)
    puts = [kind for kind in reference.steps if kind.startswith("put_")]
    return Strike(moment=moment, nth=random.randint(1, len(puts if moment == "within" else reference.steps)))


def _moment(random: Random) -> Moment:
    moments: tuple[Moment, ...] = ("before", "within", "after")
    return random.choice(moments)
