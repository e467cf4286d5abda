"""Many models are exact, or refused before training if another process would not reproduce them."""

from __future__ import annotations

import fcntl
import json
import os

import pytest

from shards.learners.torch.rehearsal import compare_rehearsals, run_rehearsals
from shards.learners.torch.rehearsal_process import RehearsalRequest, RehearsalResult
from shards.specification import ModelSettings, ShardId, TrainingSettings
from storage.errors import Invalid
from tests.doubles.federation import specification_of, survivors
from tests.exactness.federations import assert_exact, federation_of, make_points, train_alone
from tests.exactness.odd_zoo import ODD
from tests.exactness.zoo import EXACT
from tests.volume import spread

# On a busy machine two processes take minutes.
pytestmark = [pytest.mark.slow, pytest.mark.volume, pytest.mark.timeout(1200)]

_TRIED = spread(EXACT, 2)
_TRAINING = TrainingSettings(epochs=3, batch_size=4, learning_rate=0.05, optimizer="adam", seed=2)


def _factory(name: str) -> str:
    return f"tests.exactness.{'odd_zoo' if name in ODD else 'zoo'}:{name}"


def _model(name: str) -> ModelSettings:
    return ModelSettings(factory=_factory(name))


Results = dict[str, tuple[RehearsalResult, RehearsalResult]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """All models, rehearsed in the same two processes, which start like those of a single rehearsal.

    When several processes run tests, the first one here rehearses and the others read its results.
    """
    folder = tmp_path_factory.getbasetemp()
    file = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "zoo.json"
    names = [*_TRIED, *ODD]
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            requests = [
                RehearsalRequest(model=_model(name), training=_TRAINING, inputs=4, classes=2, device="cpu", threads=1)
                for name in names
            ]
            file.write_text(json.dumps([[each.to_json() for each in pair] for pair in run_rehearsals(requests)]))
    pairs = json.loads(file.read_bytes())
    read = RehearsalResult.from_json
    return {name: (read(first), read(second)) for name, (first, second) in zip(names, pairs, strict=True)}


def test_the_zoo_is_large() -> None:
    """There are more than sixty models, each once."""
    assert len({*EXACT} | {*ODD}) == len(EXACT) + len(ODD) >= 60


@pytest.mark.parametrize("name", sorted(ODD))
def test_odd_models_are_refused_with_the_reason(name: str, results: Results) -> None:
    """A model that is not reproducible is refused before training, and the likely cause is named."""
    with pytest.raises(Invalid, match=ODD[name]):
        compare_rehearsals(_factory(name), *results[name])


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("name", _TRIED)
def test_other_models_are_exact(name: str, results: Results) -> None:
    """A model that two processes with different hash seeds reproduce is exact, after an erasure and when resumed."""
    compare_rehearsals(_factory(name), *results[name])
    federation = federation_of(specification_of(shards=1, slices=2, training=_TRAINING, model=_model(name)))
    points = make_points(5, 14)
    federation.train(points)
    federation.erase(subjects=[points[0].subject], request_id="er")
    assert_exact(federation, survivors(points, subjects=[points[0].subject]))
    straight = [each.sha256 for each in federation.state.shards[0].chain]
    assert [each.sha256 for each in train_alone(federation, ShardId(0), 1)] == straight
