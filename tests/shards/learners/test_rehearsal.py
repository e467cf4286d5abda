"""A rehearsal runs once and is recorded, and differences between its two processes are named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shards.learners.torch import rehearsal
from shards.learners.torch.model_code import read_source
from shards.learners.torch.rehearsal import compare_rehearsals, recorded_manifest, rehearsal_key, rehearsed
from shards.learners.torch.rehearsal_process import RehearsalRequest, RehearsalResult, SliceDigests
from shards.learners.torch.user_modules import locate
from shards.lineage import Configuration, NumericsProfile
from shards.specification import ModelSettings, TrainingSettings
from storage.digests import Sha256, sha256
from storage.errors import Invalid
from storage.stores.memory import MemoryStore

_REQUEST = RehearsalRequest(
    model=ModelSettings(factory="odd_mine:net"),
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
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Returns the factories rehearsed, without starting processes; the model is in ``tmp_path``."""
    found: list[str] = []
    (tmp_path / "odd_mine.py").write_text("WIDTH = 3\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)

    def rehearse(request: RehearsalRequest) -> tuple[dict[str, Sha256], list[str]]:
        found.append(request.model.factory)
        return {"odd_mine": sha256((tmp_path / "odd_mine.py").read_bytes())}, []

    monkeypatch.setattr(rehearsal, "rehearse", rehearse)
    read_source.cache_clear()
    yield found
    read_source.cache_clear()


def test_a_recorded_rehearsal_is_not_repeated(tried: list[str]) -> None:
    """A model is rehearsed once for each configuration and width; the record is written once."""
    store = MemoryStore("rehearsals")
    manifests = [rehearsed(_REQUEST, _CONFIGURATION, store, {}) for _ in range(2)]
    assert tried == [_REQUEST.model.factory]
    assert manifests[0] == manifests[1]
    assert manifests[0] is not None
    key = rehearsal_key(_REQUEST.inputs, _CONFIGURATION, manifests[0].digest())
    assert [info.key for info in store.list("")] == [key]
    found = recorded_manifest(_REQUEST.inputs, replace(_CONFIGURATION, code_manifest=manifests[0].digest()), store)
    assert found == manifests[0]
    rehearsed(replace(_REQUEST, inputs=5), _CONFIGURATION, store, {})
    rehearsed(_REQUEST, replace(_CONFIGURATION, model_code=sha256(b"other code")), store, {})
    assert len(tried) == len(list(store.list("rehearsals/"))) == 3


@pytest.mark.parametrize("damage", ["gone", "cut off", "another", "no record"])
def test_a_record_that_is_gone_or_damaged_is_made_again(tried: list[str], damage: str) -> None:
    """The model is rehearsed again; until then there is no manifest."""
    store = MemoryStore(f"damaged {damage}")
    manifest = rehearsed(_REQUEST, _CONFIGURATION, store, {})
    assert manifest is not None
    configuration = replace(_CONFIGURATION, code_manifest=manifest.digest())
    key = rehearsal_key(_REQUEST.inputs, _CONFIGURATION, manifest.digest())
    whole = store.get(key).payload
    others = {
        "cut off": whole[:-3],
        "another": whole.replace(b"odd_mine", b"odd_line"),
        "no record": b"[]",
    }
    store.delete(key)
    if damage != "gone":
        store.put_if_absent(key, others[damage])
    assert recorded_manifest(_REQUEST.inputs, configuration, store) is None
    assert rehearsed(_REQUEST, _CONFIGURATION, store, {}) == manifest
    assert len(tried) == 2
    assert store.get(key).payload == whole
    assert recorded_manifest(_REQUEST.inputs, configuration, store) == manifest


@pytest.mark.parametrize("changed", ["module", "file"])
def test_other_code_and_other_files_are_rehearsed(tried: list[str], tmp_path: Path, changed: str) -> None:
    """A record is of no use to a module that has changed, reached by import statements or not, nor to other files."""
    store = MemoryStore(f"changed {changed}")
    files = {"base.pt": sha256(b"weights")}
    first = rehearsed(_REQUEST, _CONFIGURATION, store, files)
    if changed == "module":
        (tmp_path / "odd_mine.py").write_text("WIDTH = 4\n", encoding="utf-8")
        read_source.cache_clear()
    second = rehearsed(_REQUEST, _CONFIGURATION, store, {"base.pt": sha256(b"others")} if changed == "file" else files)
    assert len(tried) == 2
    assert first is not None
    assert second is not None
    expected = {"module": "module odd_mine has changed", "file": "file base.pt has changed"}
    assert first.differences(second) == [expected[changed]]
    assert rehearsed(_REQUEST, _CONFIGURATION, store, second.files) == second
    assert len(tried) == 2


def test_a_file_edited_between_reading_and_rehearsing_is_noticed(tried: list[str], tmp_path: Path) -> None:
    """A rehearsal of newer files is not recorded for the files that this process has read."""
    assert locate("odd_mine") is not None
    read_source(tmp_path / "odd_mine.py")
    (tmp_path / "odd_mine.py").write_text("WIDTH = 4\n", encoding="utf-8")
    store = MemoryStore("edited")
    with pytest.raises(Invalid, match="its files have changed since a worker read them"):
        rehearsed(_REQUEST, _CONFIGURATION, store, {})
    assert list(store.list("")) == []
    assert len(tried) == 1


def test_our_own_factories_are_not_rehearsed(tried: list[str]) -> None:
    """Shipped models need no rehearsal."""
    store = MemoryStore("shipped")
    request = replace(_REQUEST, model=ModelSettings(factory="shards.models:mlp"))
    assert rehearsed(request, _CONFIGURATION, store, {}) is None
    assert tried == []
    assert list(store.list("")) == []


def test_a_model_that_is_refused_leaves_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused model is rehearsed again next time."""

    def refuse(_: RehearsalRequest) -> None:
        raise Invalid("no")

    monkeypatch.setattr(rehearsal, "rehearse", refuse)
    store = MemoryStore("refused")
    with pytest.raises(Invalid, match="no"):
        rehearsed(_REQUEST, _CONFIGURATION, store, {})
    assert list(store.list("")) == []


def test_requests_and_results_survive_serialization() -> None:
    """Reading gives what was written."""
    assert RehearsalRequest.from_json(_REQUEST.to_json()) == _REQUEST
    result = _result(_A, changed=["centre"])
    assert RehearsalResult.from_json(result.to_json()) == result


_A: SliceDigests = {"model/weight": sha256(b"a"), "its output": sha256(b"b")}
_B: SliceDigests = {**_A, "model/weight": sha256(b"c")}


def _result(straight: SliceDigests, **others: object) -> RehearsalResult:
    same = RehearsalResult(straight=[straight], again=[straight], resumed=[straight])
    return replace(same, **others)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (
            _result(_A, again=[_B]),
            _result(_A),
            r"differ in model/weight\. Draw with torch, .* probably uses .* that is not seeded",
        ),
        (_result(_A, resumed=[_B]), _result(_A), "A variable of the model's module or class probably"),
        (_result(_A), _result(_B, again=[_A]), "A variable of the model's module or class probably"),
        (_result(_A), _result(_B), "The model probably depends on how its process was started"),
        (_result(_A), _result(_A, changed=["net.mean"]), r"while the model learns: net\.mean\. Register each"),
        (
            _result(_A, modules={"a": _A["model/weight"]}),
            _result(_A),
            r"loaded different modules: a\. Sort the names, .* The model probably depends",
        ),
        (_result(_A), RehearsalResult(failure=["", "OSError: x", ""]), "one of two processes failed with OSError: x"),
        (RehearsalResult(failure=["invalid", "f", "r"]), RehearsalResult(failure=["invalid", "f", "r"]), r"^f\. r$"),
    ],
)
def test_what_differs_is_named_with_its_likely_cause(
    first: RehearsalResult, second: RehearsalResult, text: str
) -> None:
    """Each kind of difference has its own message; equal results pass."""
    compare_rehearsals("mine:net", _result(_A), _result(_A))
    with pytest.raises(Invalid, match=text):
        compare_rehearsals("mine:net", first, second)
