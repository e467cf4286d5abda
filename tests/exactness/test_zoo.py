"""Nothing is certified that another process would not repeat: a zoo of models is exact, or refused before it learns."""

from __future__ import annotations

from functools import cache

import pytest

from shards.learners.torch.performance import Performance, Request
from shards.learners.torch.rehearsal import judge, performances
from shards.specification import ModelSettings, ShardId, TrainingSettings
from storage.errors import Invalid
from tests.doubles.federation import specification_of, survivors
from tests.exactness.odd_zoo import ODD
from tests.exactness.worlds import assert_exact, federation_of, make_points, train_alone
from tests.exactness.zoo import EXACT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # on a busy machine two processes take minutes

_TRAINING = TrainingSettings(epochs=3, batch_size=4, learning_rate=0.05, optimizer="adam", seed=2)


def _factory(name: str) -> str:
    return f"tests.exactness.{'odd_zoo' if name in ODD else 'zoo'}:{name}"


def _model(name: str) -> ModelSettings:
    return ModelSettings(factory=_factory(name))


@cache
def _performances() -> dict[str, tuple[Performance, Performance]]:
    """Rehearse all of them in the same two processes, which start as those of a single rehearsal do."""
    names = [*EXACT, *ODD]
    requests = [
        Request(model=_model(name), training=_TRAINING, inputs=4, classes=2, device="cpu", threads=1) for name in names
    ]
    return dict(zip(names, performances(requests), strict=True))


def test_the_zoo_is_large() -> None:
    """There are sixty models and more, each once."""
    assert len({*EXACT} | {*ODD}) == len(EXACT) + len(ODD) >= 60


@pytest.mark.parametrize("name", sorted(ODD))
def test_odd_models_are_refused_in_words_that_say_why(name: str) -> None:
    """What another process would not repeat is refused before it learns, and the likely cause is named."""
    with pytest.raises(Invalid, match=ODD[name]):
        judge(_factory(name), *_performances()[name])


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("name", EXACT)
def test_other_models_are_exact(name: str) -> None:
    """What two processes with other hash seeds repeat is exact: after an erasure, and from every checkpoint on."""
    judge(_factory(name), *_performances()[name])
    federation = federation_of(specification_of(shards=1, slices=2, training=_TRAINING, model=_model(name)))
    points = make_points(5, 14)
    federation.train(points)
    federation.erase(subjects=[points[0].subject], request_id="er")
    assert_exact(federation, survivors(points, subjects=[points[0].subject]))
    straight = [each.sha256 for each in federation.state.shards[0].chain]
    assert [each.sha256 for each in train_alone(federation, ShardId(0), 1)] == straight
