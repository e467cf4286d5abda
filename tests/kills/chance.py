"""Kills and sleep by chance: at any step of any story, and again during the recovery. A seed says it all."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from tests.kills.fail_points import Moment, Strike
from tests.kills.stage import STORIES, Reference, Stage
from tests.kills.table import complaints
from tests.kills.zombies import wake_both

_MOST_KILLS: Final = 4
_RECOVERY_STEPS: Final = 60
"""A recovery takes about so many; one that is over sooner is not killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A story, and the blows in it."""

    story: str
    strikes: tuple[Strike, ...]


def draw_kills(seed: int, stage: Stage) -> Drawn:
    """Return one to four kills: of the command, then of those that recover from it."""
    random = Random(seed)  # noqa: S311  the same blows for the same seed
    story = random.choice(tuple(STORIES))
    again = [
        Strike(moment=_moment(random), nth=random.randint(1, _RECOVERY_STEPS))
        for _ in range(random.randrange(_MOST_KILLS))
    ]
    return Drawn(story=story, strikes=(_first(random, stage.reference(story)), *again))


def try_kills(stage: Stage, seed: int) -> int:
    """Kill as the seed says, recover, and return how many kills there were. Raises ``AssertionError``."""
    drawn = draw_kills(seed, stage)
    ending = stage.play(drawn.story, drawn.strikes)
    wrong = list(complaints(drawn.story, ending, stage.reference(drawn.story)))
    assert not wrong, "\n".join([f"seed {seed}: {drawn}", *wrong])
    return ending.kills


def draw_sleepers(seed: int, stage: Stage) -> Drawn:
    """Return where two writers fall asleep, one after the other, at a change or at a look."""
    random = Random(seed)  # noqa: S311  the same blows for the same seed
    story = random.choice(tuple(STORIES))
    reference = stage.reference(story)
    steps = len(reference.steps) + reference.looks
    first, second = random.randint(1, steps), random.randint(1, steps)
    moments: tuple[Moment, ...] = ("before", "after")
    strikes = [Strike(moment=random.choice(moments), nth=nth, looks=True, blow="stop") for nth in (first, second)]
    return Drawn(story=story, strikes=tuple(strikes))


def try_sleepers(stage: Stage, seed: int) -> tuple[str, str]:
    """Return how two writers end that sleep where the seed says, as ``wake_both`` does. Raises ``AssertionError``."""
    drawn = draw_sleepers(seed, stage)
    try:
        return wake_both(stage, drawn.story, *drawn.strikes)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {drawn}\n{error}") from error


def _first(random: Random, reference: Reference) -> Strike:
    """Return a strike that is sure to come."""
    moment = _moment(random)
    puts = [kind for kind in reference.steps if kind.startswith("put_")]
    return Strike(moment=moment, nth=random.randint(1, len(puts if moment == "within" else reference.steps)))


def _moment(random: Random) -> Moment:
    moments: tuple[Moment, ...] = ("before", "within", "after")
    return random.choice(moments)
