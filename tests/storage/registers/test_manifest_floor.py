"""Fencing tokens and the floor under pruned manifests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import pytest

from storage.errors import Corrupt, Fenced, Invalid, ObjectMissing, Unavailable
from storage.objects import ObjectInfo, ObjectKey, ObjectStore, VersionTag
from storage.registers.manifest import ManifestRegister
from tests.doubles.stores.faulty_store import Crash, Fault, FaultyStore
from tests.storage.registers.filled import filled, number_key

# -------------------------------------------------------------------------------------------------------------- token


def test_tokens_rise(store: ObjectStore) -> None:
    """Each claim is higher than all earlier claims and all committed tokens, even if the token objects are gone."""
    register = ManifestRegister(store)
    assert [register.claim_token() for _ in range(3)] == [1, 2, 3]
    register.commit({}, after=0, token=7, nonce="n")
    assert register.claim_token() == 8
    for info in tuple(store.list("control/token/")):
        store.delete(info.key)
    assert register.claim_token() == 8


def test_fenced_tokens_are_removed_and_the_highest_stays(store: ObjectStore) -> None:
    """Tokens that can commit nothing any more are removed at the next claim; the count starts at the highest."""
    register = ManifestRegister(store)
    for number in range(10):
        register.commit({}, after=number, token=register.claim_token(), nonce=f"n{number}")
    assert len(list(store.list("control/token/"))) == 2
    assert register.claim_token() == 11


def test_eight_claims_are_eight_tokens(store: ObjectStore) -> None:
    """8 writers that start at once get 8 different tokens."""
    register = ManifestRegister(store)
    start = threading.Barrier(8)

    def claim(_: int) -> list[int]:
        start.wait()
        return [register.claim_token() for _ in range(4)]

    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(claim, range(8)))
    assert sorted(token for tokens in claims for token in tokens) == list(range(1, 33))
    assert all(tokens == sorted(tokens) for tokens in claims)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_token_in_doubt_is_not_used(store: ObjectStore, when: Literal["before", "after"]) -> None:
    """A token whose creation is in doubt is skipped: it could be another writer's."""
    register = ManifestRegister(FaultyStore(store, (Fault(when=when, operation="put_if_absent"),)))
    assert register.claim_token() == (1 if when == "before" else 2)
    assert register.claim_token() == (2 if when == "before" else 3)


def test_claims_give_up(store: ObjectStore) -> None:
    """A store where every claim is in doubt ends in an error, not in an endless loop."""
    faults = tuple(Fault(when="before", operation="put_if_absent", nth=nth) for nth in range(1, 200))
    with pytest.raises(Unavailable, match="other writers keep claiming"):
        ManifestRegister(FaultyStore(store, faults)).claim_token()


# ------------------------------------------------------------------------------------------------------ floor, prune


def test_pruning_keeps_what_is_asked(store: ObjectStore) -> None:
    """Manifests below the number go, the others stay, and the floor is the number."""
    register = filled(store, 10)
    assert register.prune(7) == 6
    assert [info.key for info in store.list("manifest/")] == [number_key(number) for number in range(7, 11)]
    assert register.floor() == 7
    latest = register.latest()
    assert latest is not None
    assert latest.number == 10


def test_the_floor_never_falls(store: ObjectStore) -> None:
    """Pruning lower than before changes nothing."""
    register = filled(store, 10)
    assert register.prune(7) == 6
    assert register.prune(3) == 0
    assert register.prune(7) == 0
    assert register.floor() == 7
    assert register.prune(8) == 1
    assert register.floor() == 8


def test_the_current_manifest_is_not_pruned(store: ObjectStore) -> None:
    """Pruning the current manifest away is refused; keeping it alone is allowed."""
    register = filled(store, 3)
    with pytest.raises(Invalid, match=r"the current manifest cannot be pruned.*keep_from=4"):
        register.prune(4)
    assert register.floor() == 0
    assert register.prune(3) == 2
    assert register.read(3).body == {"n": 3}


def test_the_floor_rises_before_anything_is_deleted(store: ObjectStore) -> None:
    """A pruner that dies at its first delete has raised the floor; the next prune finishes its work."""
    faulty = FaultyStore(store)
    register = filled(faulty, 5)
    faulty.plan(Fault(when="before", operation="delete", error=Crash))
    with pytest.raises(Crash, match=r"^$"):
        register.prune(4)
    assert register.floor() == 4
    assert len(list(store.list("manifest/"))) == 5
    assert register.prune(2) == 3


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("first", [True, False])
def test_a_floor_in_doubt_is_read_again(store: ObjectStore, when: Literal["before", "after"], first: bool) -> None:
    """Whether the floor's put landed or not, the floor is where it has to be before anything is deleted."""
    faulty = FaultyStore(store)
    register = filled(faulty, 5)
    if not first:
        register.prune(2)
    faulty.plan(Fault(when=when, operation="put_if_absent" if first else "put_if_match", prefix="control/"))
    assert register.prune(4) == (3 if first else 2)
    assert register.floor() == 4


def test_a_floor_that_cannot_be_raised_is_reported(store: ObjectStore) -> None:
    """When the outcome of every put of the floor is unknown, nothing is deleted and the caller gets an error."""
    faulty = FaultyStore(store)
    register = filled(faulty, 3)
    faulty.plan(*(Fault(when="before", operation="put_if_absent", nth=nth) for nth in range(1, 200)))
    with pytest.raises(Unavailable, match=r"floor under the manifests could not be raised.*floor=2"):
        register.prune(2)
    assert len(list(store.list("manifest/"))) == 3


def test_superseded_manifests_are_those_before_the_current(store: ObjectStore) -> None:
    """What is superseded is every manifest still there but the current one; in an empty register nothing."""
    assert list(ManifestRegister(store).superseded()) == []
    register = filled(store, 5)
    assert [manifest.number for manifest in register.superseded()] == [1, 2, 3, 4]
    register.prune(3)
    assert [manifest.number for manifest in register.superseded()] == [3, 4]


def test_a_writer_that_slept_through_a_prune_is_fenced(store: ObjectStore) -> None:
    """A put that creates a number which was pruned meanwhile is not a commit: a store forgets deleted keys."""

    class Asleep(FaultyStore):
        def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
            rival = ManifestRegister(self.inner)
            for after in (2, 3):
                rival.commit({"rival": after}, after=after, token=1, nonce=f"rival-{after}")
            rival.prune(4)
            return self.inner.put_if_absent(key, payload)

    filled(store, 2)
    with pytest.raises(Fenced, match=r"was pruned before it was written.*number=3 floor=4"):
        ManifestRegister(Asleep(store)).commit({"late": True}, after=2, token=1, nonce="late")
    latest = ManifestRegister(store).latest()
    assert latest is not None
    assert latest.body == {"rival": 3}
    assert ManifestRegister(store).prune(4) == 1


def test_a_reader_beside_a_pruner_finds_the_latest(store: ObjectStore) -> None:
    """A manifest that is pruned between the listing and its reading is not the latest any more: the reader finds it."""

    class Pruned(FaultyStore):
        rounds = 0

        def list(self, prefix: str) -> Iterator[ObjectInfo]:
            found = tuple(self.inner.list(prefix))
            if prefix == "manifest/" and Pruned.rounds < 5:
                Pruned.rounds += 1
                rival = ManifestRegister(self.inner)
                current = rival.latest()
                assert current is not None
                rival.commit({}, after=current.number, token=1, nonce=f"r{current.number}")
                rival.prune(current.number + 1)
            return iter(found)

    filled(store, 1)
    latest = ManifestRegister(Pruned(store)).latest()
    assert latest is not None
    assert latest.number == 6


def test_an_object_that_is_listed_and_never_there_is_reported(store: ObjectStore) -> None:
    """A reader that loses every round against pruners gives up with an error."""
    filled(store, 1)
    faults = tuple(
        Fault(when="before", operation="get", prefix="manifest/", nth=nth, error=ObjectMissing) for nth in range(1, 200)
    )
    with pytest.raises(Unavailable, match="pruned faster than they can be read"):
        ManifestRegister(FaultyStore(store, faults)).latest()


@pytest.mark.parametrize("lost", [(3,), (2, 3)])
def test_lost_manifests_are_not_an_empty_register(store: ObjectStore, lost: tuple[int, ...]) -> None:
    """When the floor names manifests that are gone, no one starts over or continues from an older one."""
    register = filled(store, 3)
    older = store.get(number_key(2)).payload
    register.prune(3)
    if lost == (3,):
        store.put_if_absent(number_key(2), older)
    store.delete(number_key(3))
    for attempt in (register.latest, register.claim_token):
        with pytest.raises(Corrupt, match=r"manifests are gone.*floor=3.*Restore them"):
            attempt()
    with pytest.raises(Corrupt, match="manifests are gone"):
        register.commit({}, after=2, token=1, nonce="n")


def test_two_registers_share_a_store(store: ObjectStore) -> None:
    """Registers with their own prefix and control do not meet."""
    first, second = filled(store, 2), ManifestRegister(store, prefix="other/manifest", control="other/control")
    second.commit({"second": True}, after=0, token=second.claim_token(), nonce="n")
    second.prune(1)
    assert first.floor() == 0
    assert first.claim_token() == 2
    assert second.claim_token() == 2
