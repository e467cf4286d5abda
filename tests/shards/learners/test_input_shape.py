"""Images reach a model as images, words as whole numbers; everything else as rows of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shards.encoding import InputShape
from shards.learners.registry import open_learner
from shards.learners.torch.rehearsal_process import RehearsalRequest
from shards.learners.torch.seeding import set_numerics
from shards.points import ShardPoints
from shards.specification import ModelSettings, ShardId, SliceIndex, TrainingSettings
from storage.errors import Invalid
from tests.shards.people import settings

IMAGE = {"photo": {"image": [3, 4, 5]}}
WORDS = {"note": {"tokens": 6, "vocabulary": 9}}
MODELS = "tests.shards.learners.shaped_models"
KEYS = np.arange(7, dtype=np.uint64)


def shape_of(encode: dict[str, Any], *features: str) -> InputShape | None:
    """Return the form of a model's input for these features."""
    return settings(features=features or tuple(encode), encode=encode).input_shape


def learner_of(factory: str, shape: InputShape, arguments: dict[str, Any] | None = None) -> Any:
    """Return a learner of a model with inputs of this form."""
    set_numerics(1, "cpu")
    return open_learner(
        model=ModelSettings(factory=factory, arguments=arguments or {}),
        training=TrainingSettings(epochs=2, batch_size=3, learning_rate=0.1),
        inputs=shape.width,
        classes=2,
        slices=1,
        shape=shape,
    )


def trained(learner: Any, largest: int, width: int) -> np.ndarray[Any, Any]:
    """Return probabilities after some training, with a batch of one data point."""
    features = (np.arange(7 * width) % largest).astype(np.float32).reshape(7, width)
    points = ShardPoints(features_NF=features, labels_N=np.arange(7) % 2, keys_N=KEYS, subjects_N=KEYS, ends=(7,))
    state = learner.initial(ShardId(0))
    for _ in learner.learn(state, points, ShardId(0), SliceIndex(1)):
        pass
    found: np.ndarray[Any, Any] = learner.probabilities(state, features)
    return found


def test_the_form_follows_from_what_is_declared() -> None:
    """One image is an image, whole numbers alone are whole numbers; a mixture is a row of numbers."""
    index = {"categories": ["a", "b"], "other": True, "as": "index"}
    assert shape_of(IMAGE) == InputShape((3, 4, 5))
    assert shape_of(WORDS) == InputShape((6,), 10)
    assert shape_of({**WORDS, "plan": index, "city": {"hash": 40, "as": "index"}}) == InputShape((8,), 40)
    assert shape_of({**WORDS, **IMAGE}) is None
    assert shape_of(WORDS, "note", "x") is None
    assert shape_of({}, "x*") is None


def test_a_model_gets_images() -> None:
    """The factory gets the shape as ``inputs``, the model (N, C, H, W)."""
    shape = shape_of(IMAGE)
    assert shape is not None
    assert trained(learner_of(f"{MODELS}:convolution", shape), 255, 60).shape == (7, 2)


def test_a_model_gets_whole_numbers() -> None:
    """The factory gets the number of words, the model whole numbers for its embedding."""
    shape = shape_of(WORDS)
    assert shape is not None
    assert trained(learner_of(f"{MODELS}:embedded", shape, {"ids": 10}), 10, 6).shape == (7, 2)


def test_shipped_models_get_rows() -> None:
    """The factories that come with the system take images as rows of pixels, as before, and no numbers of words."""
    images, words = shape_of(IMAGE), shape_of(WORDS)
    assert images is not None
    assert words is not None
    assert trained(learner_of("shards.models:cnn", images, {"shape": [3, 4, 5], "channels": [2]}), 255, 60).shape == (
        7,
        2,
    )
    with pytest.raises(Invalid, match=r"takes numbers, and all features are whole numbers.*factory of your own"):
        learner_of("shards.models:mlp", words)


def test_the_error_for_a_model_that_does_not_fit_names_the_form() -> None:
    """The remedy names the form that the model must accept."""
    shape = shape_of(WORDS)
    assert shape is not None
    with pytest.raises(Invalid, match=r"accept \(N, features\) of whole numbers and check"):
        learner_of(f"{MODELS}:embedded", shape, {"ids": 0}).initial(ShardId(0))
    with pytest.raises(Invalid, match=r"accept \(N, 3, 4, 5\) and check"):
        learner_of("torch.nn:Linear", InputShape((3, 4, 5)), {"in_features": 7, "out_features": 2}).initial(ShardId(0))


@pytest.mark.parametrize("shape", [None, InputShape((3, 4, 5)), InputShape((6,), 10)])
def test_rehearsals_know_the_form(shape: InputShape | None) -> None:
    """A rehearsal's request arrives in its process as it was."""
    request = RehearsalRequest(
        model=ModelSettings(),
        training=TrainingSettings(epochs=1, batch_size=1, learning_rate=0.1),
        inputs=60,
        classes=2,
        device="cpu",
        threads=1,
        shape=shape,
    )
    assert RehearsalRequest.from_json(request.to_json()) == request
