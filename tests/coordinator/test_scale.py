"""Work that must not grow with the number of shards or requests, counted instead of timed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest

from coordinator.engine import evidence, state_encoder
from coordinator.engine.codec import decode_state, encode_element, encode_state
from coordinator.engine.ledger import Ledger
from coordinator.engine.state_encoder import StateEncoder
from coordinator.requests import RequestState
from coordinator.state import FederationState
from shards.specification import TrainingSettings
from storage.digests import canonical_json
from storage.objects import ObjectKey, StoredObject
from storage.stores.memory import MemoryStore
from tests.doubles.federation import Point, SmallFederation, plain_conditions, specification_of
from tests.doubles.workers.fake_learner import HashLearner, HashState

FEW, MANY = 3, 24


@contextmanager
def trained(shards: int, people: int | None = None) -> Iterator[SmallFederation[HashState]]:
    """Yield a trained federation of so many shards of two slices."""
    specification = specification_of(
        shards=shards, slices=2, training=TrainingSettings(epochs=2, batch_size=16, learning_rate=0.1)
    )
    store = MemoryStore(f"scale-{shards}")
    small: SmallFederation[HashState] = SmallFederation(
        specification=specification,
        store=store,
        learners=lambda _: HashLearner(slices=2, training_epochs=2),
        conditions=lambda _: plain_conditions(specification),
    )
    try:
        numbers = range(people or 8 * shards)
        small.train([Point(id=f"p{n}", subject=f"s{n}", label="ab"[n % 2], features=(1.0, 2.0)) for n in numbers])
        yield small
    finally:
        store.forget()


def _encoded(shards: int) -> Counter[str]:
    """Return how many elements an erasure encodes, by field."""
    counts: Counter[str] = Counter()

    def counted(name: str, element: Any) -> Any:
        counts[name] += 1
        return encode_element(name, element)

    with trained(shards) as small:
        small.erase(subjects=["s0"], request_id="first")  # what starting has left to do is done
        with patch.object(state_encoder, "encode_element", counted):
            assert small.erase(subjects=["s1"], request_id="second").state is RequestState.COMPLETE
    return counts


def test_an_erasure_encodes_as_many_shards_for_any_number_of_them() -> None:
    """The manifests of an erasure encode the shard that changed, and nothing of the others."""
    few, many = _encoded(FEW), _encoded(MANY)
    assert few == many
    assert few["shards"] <= 6


def test_each_state_is_encoded_as_by_the_codec() -> None:
    """The bytes are those of the whole state encoded from the start, after every event, with and without a place."""
    states: list[FederationState] = []
    original = Ledger.record

    def noted(ledger: Ledger, *events: Any) -> Any:
        change = original(ledger, *events)
        states.append(change.after)
        return change

    with patch.object(Ledger, "record", noted), trained(FEW) as small:
        small.erase(subjects=["s0", "s1", "s2"], request_id="first")
        small.erase(subjects=["nobody"], request_id="second")
        encoder = StateEncoder()
        for state in states:
            assert encoder(state).text == canonical_json(encode_state(state))
        place = {"journal": {"number": 7}}
        assert encoder(states[-1], place).text == canonical_json({**encode_state(states[-1]), **place})
    assert len({state.generation for state in states}) > 2


def test_an_element_that_stands_twice_is_written_twice() -> None:
    """Shards without data points may be one object in memory: each of them is in the text."""
    with trained(FEW) as small:
        shard = small.state.shards[0]
        state = replace(small.state, shards=(shard, shard, small.state.shards[1]))
        assert StateEncoder()(state).text == canonical_json(encode_state(state))


@pytest.mark.parametrize("requests", [1, 6])
def test_what_a_batch_shares_is_read_once_for_its_receipts(requests: int) -> None:
    """The state before a batch is decoded once, however many receipts are written from it."""
    with trained(FEW) as small, patch.object(evidence, "decode_state", wraps=decode_state) as decoded:
        for number in range(requests):
            small.accept(subjects=[f"s{number}"], request_id=f"r{number}")
        small.engine.settle()
        assert [each.state for each in small.state.requests] == [RequestState.COMPLETE] * requests
    assert decoded.call_count == 1


def test_what_is_kept_for_receipts_has_only_the_affected_shards() -> None:
    """The object kept until the receipt names objects of the erased person's shard, and of no other one."""
    kept: list[bytes] = []
    with trained(MANY) as small:
        original = MemoryStore.put_if_absent

        def noted(store: MemoryStore, key: ObjectKey, payload: bytes) -> Any:
            if key.endswith(".before"):
                kept.append(payload)
            return original(store, key, payload)

        with patch.object(MemoryStore, "put_if_absent", noted):
            done = small.erase(subjects=["s0"], request_id="first")
    (payload,) = kept
    (shard,) = done.found.shards
    named = [number for number in range(MANY) if b'"shards/%04d/' % number in payload]
    assert named == [shard]


def test_a_writer_does_not_read_its_own_manifest_again() -> None:
    """A manifest holds the whole state, so an erasure reads none: the writer knows who wrote the last one."""
    read: list[str] = []
    with trained(FEW) as small:
        small.erase(subjects=["s0"], request_id="first")
        original = MemoryStore.get

        def noted(store: MemoryStore, key: ObjectKey) -> StoredObject:
            if key.startswith("manifest/"):
                read.append(key)
            return original(store, key)

        with patch.object(MemoryStore, "get", noted):
            small.engine.refuse_superseded()
            small.engine._ledger._shorten()
            small.engine.refuse_superseded()
    assert read == []
