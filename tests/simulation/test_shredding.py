"""Crypto-shredding: a thief with every byte that the store ever held cannot decrypt what was erased (E12)."""

from __future__ import annotations

import secrets

import pytest

from storage.digests import sha256
from storage.encryption.store import SealedStore
from storage.objects import ObjectStore
from tests.doubles.federation import Point, SmallFederation, plain_conditions, specification_of
from tests.doubles.stores.recording_store import RecordingStore, opened, stolen
from tests.doubles.workers.fake_learner import HashLearner, HashState

_SPECIFICATION = specification_of(shards=2, slices=3)
POINTS = [Point(id=f"p{n}", subject=f"s{n // 2}", label="ab"[n % 2], features=(float(n), 0.5)) for n in range(18)]


def _federation(store: ObjectStore) -> SmallFederation[HashState]:
    return SmallFederation(
        specification=_SPECIFICATION,
        store=store,
        learners=lambda _: HashLearner(slices=3),
        conditions=lambda _: plain_conditions(_SPECIFICATION),
    )


@pytest.mark.parametrize("is_apart", [False, True])
def test_everything_before_an_erasure_is_closed_for_good(is_apart: bool) -> None:
    """After train, erase and purge, a thief with every byte except destroyed keys can decrypt only current parts and
    checkpoints; before the erasure, all of them.
    """
    objects, keys = RecordingStore(secrets.token_hex(8)), RecordingStore(secrets.token_hex(8))
    store = SealedStore(objects, keys if is_apart else None)
    federation = _federation(store)
    federation.train(POINTS)
    first = {info.key for info in store.list("shards/")}
    assert opened(stolen(objects, keys)).keys() == first
    federation.erase(subjects=["s1", "s4"], ids=["p11"], request_id="er-1")
    current = {info.key for info in store.list("shards/")}
    ever = {key for key, _ in objects.history if key.startswith("shards/")}
    gone = ever - current
    loot = opened(stolen(objects, keys))
    assert loot.keys() == current
    assert len(gone & first) >= 4
    assert list(store.unfinished("")) == []
    records = [record for shard in federation.state.shards for record in shard.slices]
    digests = {part.key: part.sha256 for record in records for part in record.parts}
    digests |= {each.key: each.sha256 for shard in federation.state.shards for each in shard.chain}
    assert {key: {sha256(payload) for payload in payloads} for key, payloads in loot.items()} == {
        key: {digest} for key, digest in digests.items()
    }
    objects.forget()
    keys.forget()
