"""What a learner promises about erased data points: its guarantee. Declared by the learner, never by the user."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """A constituent's bytes are those of a run that never saw the erased data points."""

    kind: Literal["exact"] = "exact"

    def __str__(self) -> str:
        return self.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """A constituent is as good as one trained again on the remaining data points, up to epsilon and delta.

    Certified removal as Guo et al. define it (ICML 2020): any outcome is at most ``exp(epsilon)`` times more likely for
    one than for the other, except with probability ``delta``.
    """

    epsilon: float
    delta: float
    kind: Literal["certified"] = "certified"

    def __str__(self) -> str:
        return f"certified(epsilon={self.epsilon}, delta={self.delta})"

    @property
    def constant(self) -> float:
        """The noise's deviation times epsilon, divided by this constant, is the budget of a constituent's residual."""
        return math.sqrt(2 * math.log(1.5 / self.delta))


@dataclass(frozen=True, slots=True, kw_only=True)
class Approximate:
    """Nothing is proved about a constituent: for experiments only."""

    reason: str
    """What the guarantee lacks, as a fragment of a sentence."""
    kind: Literal["approximate"] = "approximate"

    def __str__(self) -> str:
        return self.kind


Guarantee = Exact | Certified | Approximate

EXACT: Final = Exact()

_NUMBER: Final = r"([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)"
_CERTIFIED: Final = re.compile(rf"certified\(epsilon={_NUMBER}, delta={_NUMBER}\)")
_WORDED: Final = re.compile(r"[a-z_]{1,40}(\([a-z0-9_=., +-]{0,100}\))?")

ASKED: Final = ("exact", "certified")
"""The values of ``[model] guarantee``."""


def guarantee_problem(learner: str, promised: Guarantee, asked: str) -> str | None:
    """Return why a federation that asks for the guarantee ``asked`` refuses the learner; None: it does not.

    >>> guarantee_problem("ridge", EXACT, "exact")
    >>> guarantee_problem("ridge", EXACT, "certified")
    "guarantee = 'certified' is weaker than what the learner ridge promises, which is exact: leave it out"
    """
    if asked not in ASKED:
        return f"guarantee must be one of {', '.join(ASKED)}, got {asked!r}"
    match promised:
        case Approximate():
            return f"the learner {learner} only approximates an erasure, {promised.reason}: take another learner"
        case Exact() if asked != promised.kind:
            promise = f"what the learner {learner} promises, which is exact"
            return f"guarantee = {asked!r} is weaker than {promise}: leave it out"
        case Certified() if asked != promised.kind:
            return (
                f"the learner {learner} promises no exact erasure, only a certified one: take another learner, or set"
                " guarantee = 'certified' and read docs/guarantees.md"
            )
        case _:
            return None


def is_guarantee(text: str) -> bool:
    r"""Return whether the text may be a guarantee in words, of this release or of a later one.

    >>> is_guarantee("certified(epsilon=1.0, delta=1e-05)"), is_guarantee("exact\nnothing is left")
    (True, False)
    """
    return _WORDED.fullmatch(text) is not None


def weakest(promised: Iterable[str]) -> str:
    """Return the guarantee, in words, that holds for all constituents if each of these holds for some of them.

    >>> weakest(["exact", "certified(epsilon=0.5, delta=0.0001)", "certified(epsilon=1.0, delta=1e-05)"])
    'certified(epsilon=1.0, delta=0.0001)'
    """
    less = [each for each in promised if each != str(EXACT)]
    found = [_CERTIFIED.fullmatch(each) for each in less]
    pairs = [(float(each[1]), float(each[2])) for each in found if each is not None]
    if len(pairs) < len(less):  # a later release has others
        return next(each for each, known in zip(less, found, strict=True) if known is None)
    if not pairs:
        return str(EXACT)
    epsilons, deltas = zip(*pairs, strict=True)
    return str(Certified(epsilon=max(epsilons), delta=max(deltas)))


def recorded_guarantee(promised: Guarantee) -> Certified | None:
    """Return the guarantee in the form of records: None for exact, since the first releases knew no other.

    >>> recorded_guarantee(EXACT)
    """
    return promised if isinstance(promised, Certified) else None
