"""What keeps the resident coordinator from working is tried again by itself, less and less often."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Event

import pytest

import cluster.training.workers
from cluster.config.specification import read_specification
from cluster.coordinator_actor import resident
from cluster.coordinator_actor.resident import Resident
from cluster.writer.corrections import draft_correction
from cluster.writer.training_data import source_of
from cluster.writer.writer import WriterSetup, drafted, writer_setup
from coordinator.interventions import Release
from coordinator.ports import Listener, Notice, RequestMoved
from coordinator.requests import RequestState
from shards.lineage import Configuration
from storage.errors import Invalid, SisaError, Unavailable
from tests.doubles.user_folder import MARKED, UserFolder, small_points
from tests.doubles.workers.local_workers import LocalWorkers

PATIENCE_SECONDS = 60.0
"""How long a failing test waits; one that passes does not."""


class _Moody(LocalWorkers):
    """Workers that cannot be had a few times."""

    refusals: Sequence[SisaError] = ()

    def configuration(self, width: int, tasks: int, stored: Configuration | None = None) -> Configuration:
        """Refuse while there are refusals left."""
        if type(self).refusals:
            first, *type(self).refusals = type(self).refusals
            raise first
        return super().configuration(width, tasks, stored)


@pytest.mark.parametrize("kind", [Invalid, Unavailable])
def test_what_passes_by_itself_needs_nobody(
    kind: type[SisaError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request for whose retraining there are no workers is carried out as soon as there are some again, though
    nothing arrives any more (D1): the waits between attempts double, up to a limit.
    """
    monkeypatch.setattr(cluster.training.workers, "RayPool", _Moody)
    monkeypatch.setattr(cluster.training.workers, "join_ray", lambda _: False)
    monkeypatch.setattr(resident, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(resident, "MOST_RETRY_SECONDS", 0.03)
    home = UserFolder(tmp_path).fill(erasure__batch_window_seconds=0.0)
    is_complete = Event()

    def listen(notice: Notice) -> None:
        if isinstance(notice, RequestMoved) and notice.request.state is RequestState.COMPLETE:
            is_complete.set()

    made = _Heard(home, listen)
    made.train()
    monkeypatch.setattr(_Moody, "refusals", [kind(f"no node, time {time}", "add one") for time in range(4)])
    made.accept(*drafted(made.setup, subjects=[MARKED], ids=(), request_id="er-1", held=""))
    assert is_complete.wait(PATIENCE_SECONDS)
    waits = (0.01, 0.02, 0.03, 0.03)
    assert made.attempts == [(f"no node, time {time}", seconds) for time, seconds in enumerate(waits)]
    assert made.verify(None).holds
    made.stop()


def test_lost_values_of_one_request_keep_no_other_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers that wait for another request get none about them; the attempts go on, and it is on record."""
    monkeypatch.setattr(cluster.training.workers, "RayPool", _Moody)
    monkeypatch.setattr(cluster.training.workers, "join_ray", lambda _: False)
    home = UserFolder(tmp_path).fill(erasure__batch_window_seconds=0.0)
    made = _Heard(home, lambda _: None)
    made.train()
    home.write("rows.parquet", {name: values[:1] for name, values in small_points().items()} | {"label": ["c"]})
    source = source_of(made.setup.specification, home.folder / "rows.parquet", lambda _: None)
    correction = draft_correction(made.setup, source, made.reserve(), request_id="c-1", held="to be looked at")
    accepted = made.accept(correction.request, correction.names)
    made.setup.store.delete(accepted.drafts[0].record.parts[0].key)
    made.intervene("c-1", Release())
    made.accept(*drafted(made.setup, subjects=[MARKED], ids=(), request_id="er-1", held=""))
    heard = made.hear(0, PATIENCE_SECONDS)
    while not heard.idle:
        heard = made.hear(heard.upto, PATIENCE_SECONDS)
    assert made.request("er-1").state is RequestState.COMPLETE
    failure = made.request("c-1").failure
    assert failure is not None
    assert "new values" in failure.reason
    assert made.attempts
    made.stop()


class _Heard(Resident):
    """A coordinator that sends its notices to one more listener."""

    def __init__(self, home: UserFolder, also: Listener) -> None:
        self.attempts: list[tuple[str, float]] = []
        """That failed, and the seconds until the next one."""

        def setup(listener: Listener) -> WriterSetup:
            def both(notice: Notice) -> None:
                listener(notice)
                also(notice)

            return writer_setup(read_specification(home.config), listener=both)

        super().__init__(setup)

    @property
    def setup(self) -> WriterSetup:
        """What writing takes."""
        return self._setup

    def _fail(self, error: SisaError) -> float:
        seconds = super()._fail(error)
        self.attempts.append((error.message, seconds))
        return seconds
