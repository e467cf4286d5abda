"""What the store says of which releases are at work, for those who ask no process."""

from __future__ import annotations

import pytest

from cluster.coordinator_actor import record
from cluster.coordinator_actor.record import (
    RECORD_KEY,
    RELEASES_KEY,
    Launched,
    note_release,
    noted_releases,
    releases_of,
    write_record,
)
from cluster.release import EARLIER, own_release
from deploy.views.text import releases_text
from storage.objects import ObjectStore
from storage.release import RELEASE
from storage.stores.memory import MemoryStore

OTHER = "9.9.9+api1.sites1.state9.training1"


@pytest.fixture
def store(request: pytest.FixtureRequest) -> ObjectStore:
    """A federation whose coordinator was launched."""
    made = MemoryStore(request.node.name)
    write_record(made, Launched(address="there", namespace="sisa", head=None))
    return made


def _by_another(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(record, "own_release", lambda: OTHER)


def test_each_is_noted_by_who_starts_it(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was started by an older command stays noted when the coordinator is launched by another one."""
    with monkeypatch.context() as patch:
        _by_another(patch)
        note_release(store, "coordinator", is_there=True)
        note_release(store, "server", is_there=True)
        assert releases_of(store) == dict.fromkeys(("command", "coordinator", "server"), "9.9.9")
        assert releases_text(releases_of(store)) == ""
    assert releases_of(store) == {"command": RELEASE, "coordinator": "9.9.9", "server": "9.9.9"}
    note_release(store, "coordinator", is_there=True)
    assert noted_releases(store) == {"coordinator": own_release(), "server": OTHER}
    releases = f"command {RELEASE}, coordinator {RELEASE}, server 9.9.9"
    reported = f"releases differ: {releases}; see docs/upgrades.md"
    assert releases_text(releases_of(store)).strip() == reported
    note_release(store, "server", is_there=False)
    note_release(store, "server", is_there=False)
    assert releases_of(store) == {"command": RELEASE, "coordinator": RELEASE}


def test_one_that_is_not_there_is_not_reported(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release that notes nothing may have stopped what another one had launched, or have launched it."""
    assert releases_of(store) == {"command": RELEASE, "coordinator": EARLIER}
    with monkeypatch.context() as patch:
        _by_another(patch)
        note_release(store, "coordinator", is_there=True)
    store.delete(RECORD_KEY)
    assert releases_of(store) == {"command": RELEASE}


def test_what_is_damaged_hinders_nobody(store: ObjectStore) -> None:
    """What nobody depends on is not worth an error."""
    store.put_if_absent(RELEASES_KEY, b"{")
    assert noted_releases(store) == {}


def test_nothing_is_written_where_nothing_changes() -> None:
    """Ending what was never started leaves no record behind."""
    store = MemoryStore("empty")
    note_release(store, "server", is_there=False)
    assert [*store.list("control/")] == []
