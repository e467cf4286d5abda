"""What the engines' tests share."""

from __future__ import annotations

from typing import Any

import pytest

from shards.learners.torch.engines.replay import Replay


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Returns the learning rates of all steps that are replayed, those of trials among them."""
    rates: list[float] = []
    whole = Replay.step

    def noting(self: Replay, rate: float, generator: Any) -> Any:
        rates.append(rate)
        return whole(self, rate, generator)

    monkeypatch.setattr(Replay, "step", noting)
    return rates
