"""Federations that are thrown away: nothing of them is left, erased people stay out, and one that fails is reported."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.config.specification import FederationSpecification, read_specification
from cluster.writer.one_process import OneProcessFederation, Spent
from cluster.writer.pace import PaceTrial
from cluster.writer.throw_away import WhoStaysOut, layout_of, temporary_store, thrown_away, try_layout
from cluster.writer.training_data import open_train
from coordinator.decisions.optimise import Layout
from coordinator.decisions.pace import BATCHES, MANY, PLACES, REQUESTS
from shards.data.samples import count_points, sampled
from shards.data.sources import Source
from storage.errors import Invalid
from storage.objects import object_key
from tests.doubles.user_folder import MARKER, UserFolder, small_points


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UserFolder]:
    """A folder with data of hold-out points, and a place of its own for temporary folders."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    yield UserFolder(tmp_path).fill(data__holdout=0.3, training__epochs=2)
    assert list((tmp_path / "temporary").glob("*sisa-plan*")) == []
    assert not (tmp_path / "federation").exists()


def who_of(home: UserFolder) -> WhoStaysOut:
    """Return the naming of the federation in the folder, which was never begun."""
    return WhoStaysOut.of(read_specification(home.config), home.objects, None)


def test_nothing_readable_is_on_the_disk_and_nothing_is_left(home: UserFolder) -> None:
    """Data points and models are encrypted under keys in memory, and the folder goes even after an error."""
    specification, source = read_specification(home.config), open_train(read_specification(home.config))
    with pytest.raises(KeyboardInterrupt, match="pressed"):
        _interrupted(home, specification, source)
    with temporary_store() as store:
        store.put_if_absent(object_key("shards/0000/slices/a"), MARKER)
        assert store.get(object_key("shards/0000/slices/a")).payload == MARKER
        assert [info.key for info in store.inner.list("keyrings/")] == ["keyrings/identity"]
        assert store.keys is not None
        assert len(list(store.keys.list("keyrings/"))) > 1


def _interrupted(home: UserFolder, specification: FederationSpecification, source: Source) -> None:
    with thrown_away(layout_of(specification, Layout(2, 2)), who_of(home)) as made:
        made.ingest(source)
        made.train()
        files = [path for path in (home.folder / "temporary").rglob("*") if path.is_file()]
        assert any("shards" in str(path) for path in files)
        assert not any(MARKER in path.read_bytes() for path in files)
        raise KeyboardInterrupt("pressed")


def test_a_layout_is_tried_and_one_that_fails_says_why(home: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracy is measured on the hold-out points; an error of the model's own code is not quoted."""
    specification, source = read_specification(home.config), open_train(read_specification(home.config))
    found = try_layout(specification, Layout(2, 2), who_of(home), source, None)
    assert (found.failed, found.figure, found.is_larger_better) == ("", "accuracy", True)
    assert 0 <= found.value <= 1
    assert 0 < found.points < 120
    assert found.training_seconds > 0
    many = try_layout(specification, Layout(30, 1), who_of(home), source, None)
    assert many.empty_shards > 0
    home.specify(data__holdout=0.3, model__factory="no_such_module:made", model__arguments=None)
    failed = try_layout(read_specification(home.config), Layout(2, 2), who_of(home), source, None)
    assert "no_such_module" in failed.failed

    def diverged(_federation: OneProcessFederation) -> Spent:
        raise RuntimeError("secret-person-001 is in my text")

    with monkeypatch.context() as patch:
        patch.setattr(OneProcessFederation, "train", diverged)
        odd = try_layout(specification, Layout(2, 2), who_of(home), source, None)
    assert odd.failed == "the model failed with RuntimeError"
    home.specify()
    unmeasured = try_layout(read_specification(home.config), Layout(1, 1), who_of(home), source, None)
    assert unmeasured.failed == "there are no hold-out points"


def test_a_schedule_without_epochs_is_refused(home: UserFolder) -> None:
    """The schedule is refused before anything is read."""
    with pytest.raises(Invalid, match="gives some of 9 slices no epoch"):
        layout_of(read_specification(home.config), Layout(2, 9))


def test_amounts_are_what_the_engine_did(home: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """With batches of one data point, the number of batches is the point-epochs that the worker counted."""
    home.specify(data__holdout=0.3, training__epochs=2, training__batch_size=1, training__engine="eager")
    specification, who = read_specification(home.config), who_of(home)
    source = open_train(specification)
    trial = PaceTrial(specification, who, source, points=120, budget=1e-9)
    done: list[tuple[float, int]] = []
    original: Any = trial._note

    def noting(found: Any, federation: Any, requests: list[Any], act: Callable[[], Spent]) -> None:
        spent: list[Spent] = []

        def kept() -> Spent:
            spent.append(act())
            return spent[0]

        original(found, federation, requests, kept)
        amounts = found.works[-1].amounts
        done.append((amounts.get(BATCHES, 0) + amounts.get(f"{BATCHES}{MANY}", 0), spent[0].point_epochs))
        if requests:
            assert amounts[REQUESTS] == len(requests)
            assert 1 <= amounts[PLACES] <= len(requests)

    monkeypatch.setattr(trial, "_note", noting)
    trial._run(Layout(3, 2), 60, 2)
    trial._run(Layout(1, 1), 30, 3)
    assert len(done) >= 8
    assert all(batches == point_epochs for batches, point_epochs in done)


def test_a_pace_is_measured_with_few_steps(home: UserFolder) -> None:
    """No second is below 0, and the checkpoint has its size."""
    specification = read_specification(home.config)
    pace = PaceTrial(specification, who_of(home), open_train(specification), points=120, budget=1e-9).pace()
    assert pace.checkpoint_bytes > 500
    assert (pace.batch_size, pace.many_steps) == (8, 200)
    assert sum(pace.workers.values()) > 0
    assert min(*pace.workers.values(), *pace.coordinator.values()) >= 0


def test_a_sample_is_from_all_places(home: UserFolder) -> None:
    """Every so many data points, and people are counted once."""
    specification = read_specification(home.config)
    source = open_train(specification)
    assert count_points(source, specification.data) == (120, 30)
    few = sampled(source, specification.data, 25, 120)
    assert count_points(few, specification.data)[0] == 24
    assert few.files[0].reader.schema().names[0] == "id"
    ids = few.files[0].reader.table.column("id").to_pylist()  # type: ignore[attr-defined]
    assert ids == small_points()["id"][::5]
    assert few.encoding == source.encoding
