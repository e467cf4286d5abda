"""A partition key that is given in the specification, and what goes to Ray in its place."""

from __future__ import annotations

import pickle
import secrets
from pathlib import Path

import pytest

import cluster
import cluster.training.workers
from cluster.config.specification import read_specification
from cluster.coordinator_actor import launch
from cluster.coordinator_actor.launch import launch_coordinator
from cluster.writer.identity import KEY_OBJECT, partition_key, with_key_in_store
from cluster.writer.stores import open_objects
from shards.routing import PartitionKey
from storage.errors import Conflict, Unavailable
from storage.stores.local import LocalStore
from storage.stores.memory import MemoryStore
from tests.doubles.user_folder import UserFolder
from tests.doubles.workers.local_workers import LocalWorkers

KEY = "5e" * 32
OTHER = "07" * 32


@pytest.fixture
def home(tmp_path: Path) -> UserFolder:
    """A folder whose specification gives the key."""
    home = UserFolder(tmp_path).fill()
    home.specify(partition__key=KEY)
    return home


@pytest.fixture
def store() -> MemoryStore:
    """An empty store."""
    return MemoryStore(secrets.token_hex(8))


def test_a_given_key_is_in_the_store_and_not_in_what_travels(home: UserFolder, store: MemoryStore) -> None:
    """A process that gets the specification through Ray finds the same key, in the store."""
    specification = read_specification(home.config)
    travels = with_key_in_store(store, specification)
    assert KEY.encode() in pickle.dumps(specification)
    assert KEY.encode() not in pickle.dumps(travels)
    assert partition_key(store, travels, draw=False) == PartitionKey(bytes.fromhex(KEY))
    assert with_key_in_store(store, travels) is travels
    assert with_key_in_store(store, specification) == travels


def test_one_that_was_drawn_and_never_used_gives_way(home: UserFolder, store: MemoryStore) -> None:
    """A key given after one was drawn is the federation's: the store has it from then on."""
    specification = read_specification(home.config)
    store.put_if_absent(KEY_OBJECT, OTHER.encode())
    assert partition_key(store, with_key_in_store(store, specification), draw=False) == bytes.fromhex(KEY)


def test_another_federations_key_is_never_put_into_its_store(home: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that was trained with a given key never gets another one that a later specification gives."""
    monkeypatch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
    monkeypatch.setattr(cluster.training.workers, "join_ray", lambda _: False)
    assert home.json("train").code == 0
    store = open_objects(read_specification(home.config))
    store.delete(KEY_OBJECT)  # releases before 0.2 did not put it there
    home.specify(partition__key=OTHER)
    with pytest.raises(Conflict, match="another specification"):
        with_key_in_store(store, read_specification(home.config))
    home.specify(partition__key=KEY)
    travels = with_key_in_store(store, read_specification(home.config))
    with cluster.connect(travels) as federation:
        assert federation.evaluate(home.folder / "train.parquet").points > 0


def test_an_account_that_only_reads_serves_what_was_trained(home: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training puts a given key into the store, so that serving needs no write; otherwise the error has a remedy."""
    monkeypatch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
    monkeypatch.setattr(cluster.training.workers, "join_ray", lambda _: False)
    assert home.json("train").code == 0
    specification = read_specification(home.config)
    store = open_objects(specification)

    def refused(*_: object) -> None:
        raise Unavailable("the store's server denied this account's request")

    for name in ("put_if_absent", "put_if_match"):
        monkeypatch.setattr(LocalStore, name, refused)
    travels = with_key_in_store(store, specification)
    assert partition_key(store, travels, draw=False) == bytes.fromhex(KEY)
    store.delete(KEY_OBJECT)
    with pytest.raises(Unavailable, match="cannot be put there: the store's server denied") as reported:
        with_key_in_store(store, specification)
    assert "'sisa train' or 'sisa launch' once" in reported.value.remedy


def test_the_coordinator_gets_none(home: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``sisa launch`` hands to Ray, which keeps it with its metadata, names no key."""
    handed: list[object] = []

    def joined(specification: object) -> None:
        handed.append(specification)
        raise Unavailable("no Ray here")

    monkeypatch.setattr(launch, "_join", joined)
    with pytest.raises(Unavailable, match="no Ray here"):
        launch_coordinator(read_specification(home.config))
    assert KEY.encode() not in pickle.dumps(handed)
