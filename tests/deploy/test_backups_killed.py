"""A restore that dies at any write: until it is repeated to its end nothing is answered from what is there."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime

import pytest

from cluster.backups.recovery import NOBODY_TELLS, restore
from cluster.backups.restore import Circumstances
from cluster.writer.place import read_identity
from coordinator.engine.ledger import read_state
from coordinator.receipts.rollback import refuse_forgotten
from storage.encryption.store import SealedStore
from storage.errors import SisaError
from storage.stores.local import LocalStore
from tests.doubles.stores.faulty_store import Crash, Fault, FaultyStore
from tests.doubles.user_folder import UserFolder

GIVEN = Circumstances(now=datetime(2026, 11, 29, tzinfo=UTC), progress=lambda _done, _of: None, has_partition_key=True)


@pytest.fixture
def lost(trained: UserFolder) -> UserFolder:
    """A federation whose store is lost, with a backup."""
    assert trained.json("backup", "backup", "--keys", "backup-keys").code == 0
    shutil.rmtree(trained.store)
    return trained


def restored_onto(home: UserFolder, store: FaultyStore) -> None:
    """Restore the backup into ``store``."""
    source, keys = (LocalStore(str(home.folder / name)) for name in ("backup", "backup-keys"))
    restore(SealedStore(store), source, keys, GIVEN, reason="a drill", erase=lambda: NOBODY_TELLS)


def answers(home: UserFolder) -> bool:
    """Return whether anything would be answered from the store."""
    try:
        refuse_forgotten(home.objects, lambda: read_state(home.objects))
        return read_state(home.objects) is not None
    except SisaError:
        return False


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.8, 0.9, 0.95, 0.98])
def test_killed_at_a_write_it_goes_on(lost: UserFolder, share: float) -> None:
    """Each of three kills comes further; the resulting federation has one new id, and one adoption."""
    calm = FaultyStore(LocalStore(str(lost.folder / "calm")))
    restored_onto(lost, calm)
    writes = sum(name.startswith(("put", "delete")) for name, _ in calm.calls)
    for further in (0, 2, 5):
        nth = max(1, int(share * writes) + further)
        faulty = FaultyStore(
            LocalStore(str(lost.store)), (Fault(when="after", operation="write", nth=nth, error=Crash),)
        )
        try:
            restored_onto(lost, faulty)
        except Crash:
            is_done = not list(faulty.inner.list("control/restoring"))
            assert answers(lost) == is_done
        else:
            is_done = True
        if is_done:
            break
    else:
        restored_onto(lost, FaultyStore(LocalStore(str(lost.store))))
    assert answers(lost)
    identity = read_identity(lost.objects)
    assert identity is not None
    assert len(identity.earlier) == 1
    assert lost.json("verify").code == 0
