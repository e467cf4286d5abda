"""A rehearsal is done once and recorded, and what differs between its two halves is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shards.learners.torch import rehearsal
from shards.learners.torch.performance import Performance, Request, Stage
from shards.learners.torch.rehearsal import judge, rehearsal_key, rehearse_once
from shards.lineage import Configuration, NumericsProfile
from shards.specification import ModelSettings, TrainingSettings
from storage.digests import sha256
from storage.errors import Invalid
from storage.stores.memory import MemoryStore

_REQUEST = Request(
    model=ModelSettings(factory="mine:net"),
    training=TrainingSettings(epochs=3, batch_size=4, learning_rate=0.05),
    inputs=4,
    classes=2,
    device="cpu",
    threads=1,
)
_CONFIGURATION = Configuration(
    settings=sha256(b"settings"),
    model_code=sha256(b"code"),
    seed=1,
    profile=NumericsProfile(torch="2", threads=1, device="cpu/x", dtype="float32", deterministic=True, packing="none"),
)


@pytest.fixture
def rehearsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns the factories that were rehearsed, which takes no process here."""
    found: list[str] = []
    monkeypatch.setattr(rehearsal, "rehearse", lambda request: found.append(request.model.factory))
    return found


def test_a_record_spares_the_next_one(rehearsed: list[str]) -> None:
    """A model is rehearsed once for each configuration and width; the record is written once."""
    store = MemoryStore("rehearsals")
    for _ in range(2):
        rehearse_once(_REQUEST, _CONFIGURATION, store)
    assert rehearsed == ["mine:net"]
    assert [info.key for info in store.list("")] == [rehearsal_key(_REQUEST, _CONFIGURATION)]
    rehearse_once(replace(_REQUEST, inputs=5), _CONFIGURATION, store)
    rehearse_once(_REQUEST, replace(_CONFIGURATION, model_code=sha256(b"other code")), store)
    assert len(rehearsed) == len(list(store.list("rehearsals/"))) == 3


def test_our_own_factories_are_not_rehearsed(rehearsed: list[str]) -> None:
    """The models that come with the system cost nothing."""
    store = MemoryStore("shipped")
    rehearse_once(replace(_REQUEST, model=ModelSettings(factory="shards.models:mlp")), _CONFIGURATION, store)
    assert rehearsed == []
    assert list(store.list("")) == []


def test_a_model_that_is_refused_leaves_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was refused is tried again the next time."""

    def refuse(_: Request) -> None:
        raise Invalid("no")

    monkeypatch.setattr(rehearsal, "rehearse", refuse)
    store = MemoryStore("refused")
    with pytest.raises(Invalid, match="no"):
        rehearse_once(_REQUEST, _CONFIGURATION, store)
    assert list(store.list("")) == []


def test_requests_and_performances_survive_the_way_between_processes() -> None:
    """What is read is what was written."""
    assert Request.from_json(_REQUEST.to_json()) == _REQUEST
    performance = _performance(_A, changed=["centre"])
    assert Performance.from_json(performance.to_json()) == performance


_A: Stage = {"model/weight": sha256(b"a"), "its output": sha256(b"b")}
_B: Stage = {**_A, "model/weight": sha256(b"c")}


def _performance(straight: Stage, **others: object) -> Performance:
    same = Performance(straight=[straight], again=[straight], resumed=[straight])
    return replace(same, **others)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (_performance(_A, again=[_B]), _performance(_A), "differ in model/weight probably .* nobody seeds"),
        (_performance(_A, resumed=[_B]), _performance(_A), "probably a variable of its module or class"),
        (_performance(_A), _performance(_B, again=[_A]), "probably a variable of its module or class"),
        (_performance(_A), _performance(_B), "probably it depends on how its process was started"),
        (_performance(_A), _performance(_A, changed=["net.mean"]), "while the model learns: net.mean register each"),
        (_performance(_A), Performance(failure=["", "OSError: x", ""]), "one of two processes failed with OSError: x"),
        (Performance(failure=["invalid", "f", "r"]), Performance(failure=["invalid", "f", "r"]), "^f r$"),
    ],
)
def test_what_differs_is_named_with_its_likely_cause(first: Performance, second: Performance, text: str) -> None:
    """Each kind of difference is refused in its own words; equal halves pass."""
    judge("mine:net", _performance(_A), _performance(_A))
    with pytest.raises(Invalid, match=text):
        judge("mine:net", first, second)
