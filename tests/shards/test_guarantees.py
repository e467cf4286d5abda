"""What learners promise about erased data points, and what a federation refuses."""

from __future__ import annotations

import pytest

from shards.learner_kinds.guarantees import EXACT, Approximate, Certified, guarantee_problem

CERTIFIED = Certified(epsilon=1.0, delta=1e-4)


def test_an_approximation_is_refused_whatever_is_asked() -> None:
    """The error gives the learner's reason."""
    promised = Approximate(reason="as its error has no bound")
    for asked in ("exact", "certified"):
        problem = guarantee_problem("scrubbing", promised, asked)
        assert problem is not None
        assert problem.startswith("the learner scrubbing only approximates an erasure, as its error has no bound")


def test_a_certified_learner_has_to_be_asked_for() -> None:
    """Nobody gets less than exact erasures without having said so."""
    refused = guarantee_problem("certified_linear", CERTIFIED, "exact")
    assert refused is not None
    assert "promises no exact erasure, only a certified one" in refused
    assert guarantee_problem("certified_linear", CERTIFIED, "certified") is None


@pytest.mark.parametrize(("promised", "text"), [(EXACT, "exact"), (CERTIFIED, "certified(epsilon=1.0, delta=0.0001)")])
def test_guarantees_read_alike_everywhere(promised: Certified, text: str) -> None:
    """Status, answers and verification show this text."""
    assert str(promised) == text


def test_the_constant_of_the_theorem() -> None:
    """Guo et al., theorem 3: sigma 10, epsilon 1 and delta 1e-4 give a budget of 2.28."""
    assert 10 * CERTIFIED.epsilon / CERTIFIED.constant == pytest.approx(2.2803, abs=1e-4)
