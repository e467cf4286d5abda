"""The arguments of naive Bayes, ridge and item-to-item counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from shards.learner_kinds.admissible import ANYTHING, GRID_FEATURES, MOST_ON_GRID, Admissible, Range
from shards.learner_kinds.bounds import not_positive, outside

LATER: Final = {"later": True}
"""Metadata of an argument that came later than its learner: at its default, records leave it out."""
FORMS: Final = ("gaussian", "bernoulli", "multinomial", "categorical")
"""What naive Bayes assumes about features within a class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NaiveBayesArguments:
    """The arguments of ``naive_bayes``."""

    form: str = "gaussian"
    """One of ``FORMS``. Bernoulli: a feature above 0.5 is present; multinomial: features are counts, 0 or more;
    categorical: features are codes 0 .. ``values`` - 1."""
    smoothing: float = 1.0
    """Added to every count; gaussian adds it, times 1e-9 and the largest variance of a feature, to each variance."""
    values: int = 0
    """How many codes a categorical feature may have: declared, never learned."""
    select: int = field(default=0, metadata=LATER)
    """How many features answers look at: those that depend most on the class by chi-square, chosen from the counts
    whenever these change. Of equally dependent ones the first are taken. 0: all features. Not for the form gaussian."""

    @property
    def admitted(self) -> Admissible:
        """What features are taken."""
        if self.form == "gaussian":
            return Admissible(features=GRID_FEATURES)
        if self.form == "multinomial":
            remedy = 'Use arguments = { form = "gaussian" }, or encode the column otherwise.'
            return Admissible(features=Range(least=0, most=MOST_ON_GRID, remedy=remedy))
        if self.form == "categorical":
            remedy = 'Set values in [model] arguments to the number of codes, and encode categories with as = "index".'
            return Admissible(features=Range(least=0, most=self.values - 1, is_whole=True, remedy=remedy))
        return ANYTHING

    def problems(self) -> list[str]:
        """Return what is wrong with them."""
        problems = []
        if self.form not in FORMS:
            problems.append(f"form must be one of {', '.join(FORMS)}, got {self.form!r}")
        problems += not_positive(self, "smoothing")
        if self.form == "categorical" and not 2 <= self.values <= 65536:
            problems.append(f"values must be 2 .. 65536 for the form categorical, got {self.values}")
        if self.form != "categorical" and self.values:
            problems.append("values belongs to the form categorical: leave it out")
        if self.select < 0:
            problems.append(f"select must be 0 or more, got {self.select}")
        if self.form == "gaussian" and self.select:
            problems.append("select belongs to the forms that count, not to gaussian: leave it out")
        return problems


@dataclass(frozen=True, slots=True, kw_only=True)
class RidgeArguments:
    """The arguments of ``ridge``."""

    penalty: float = 1.0
    """The weight of the squared coefficients, as scikit-learn's ``alpha``; the intercept is not penalised."""

    def problems(self) -> list[str]:
        """Return what is wrong with them."""
        return not_positive(self, "penalty")


@dataclass(frozen=True, slots=True, kw_only=True)
class CooccurrenceArguments:
    """The arguments of ``cooccurrence``."""

    top: int = 5
    """How many items an answer names at most."""

    def problems(self) -> list[str]:
        """Return what is wrong with them."""
        return outside(self, {"top": (1, 1000)})
