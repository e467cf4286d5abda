"""Loading a generation: constituents are read several at a time, and what goes wrong with one of them is reported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from threading import Barrier

import numpy as np
import pytest

from cluster.config.specification import read_specification
from cluster.ensemble import loaded
from cluster.ensemble.loaded import Ensemble
from coordinator.state import servable
from shards.learners.trainer import read_checkpoint
from storage.digests import Sha256
from storage.encryption.store import SealedStore
from storage.errors import Corrupt
from storage.objects import ObjectKey, StoredObject
from tests.serving.world import World


class _Meeting(SealedStore):
    """A store whose checkpoints are read by two at a time, or not at all."""

    def pieces(self, key: ObjectKey) -> Iterator[memoryview]:
        """Wait for another reading of a checkpoint."""
        BARRIER.wait(20)
        return super().pieces(key)


BARRIER = Barrier(2)


def test_checkpoints_are_read_at_the_same_time(still_world: World) -> None:
    """Two constituents are on their way at once, and are in the order of their shards."""
    state, specification = still_world.resident.state(), read_specification(still_world.home.config)
    one = replace(state, shards=state.shards[: len(state.shards) // 2 * 2])  # readers meet in pairs
    together = Ensemble.load(_Meeting(still_world.home.objects.inner), one, specification)
    alone = Ensemble.load(SealedStore(still_world.home.objects.inner), one, specification)
    asked = np.ones((2, 16), np.float32)
    assert together.checkpoints == alone.checkpoints
    assert np.array_equal(together.answer(asked), alone.answer(asked))


class _Whole(SealedStore):
    """A store that refuses to return a checkpoint as a whole, or by pieces."""

    def get(self, key: ObjectKey) -> StoredObject:
        """Refuse a checkpoint."""
        if key.endswith(".safetensors"):
            raise Corrupt("it was read as a whole")
        return super().get(key)


class _Torn(SealedStore):
    """A store whose pieces are damaged, or come to an error."""

    def pieces(self, key: ObjectKey) -> Iterator[memoryview]:
        """Yield other bytes than were stored; of one shard, then fail."""
        yield from (memoryview(bytes(each)[:-1] + b"?") for each in super().pieces(key))
        if "/0001/" in key:
            raise Corrupt("the key has changed meanwhile")


def test_no_checkpoint_is_in_memory_as_a_whole(still_world: World) -> None:
    """It is digested and opened while it is decrypted; if that fails, it is read again as a whole, and used."""
    state, specification = still_world.resident.state(), read_specification(still_world.home.config)
    inner, asked = still_world.home.objects.inner, np.ones((2, 16), np.float32)
    first = servable(state)[0]
    by_pieces = Ensemble.load(_Whole(inner), state, specification)
    again = Ensemble.load(_Torn(inner), state, specification)
    assert np.array_equal(by_pieces.answer(asked), again.answer(asked))
    with pytest.raises(Corrupt, match="as a whole"):
        read_checkpoint(_Whole(inner), first.checkpoint, first.shard)


def test_a_large_checkpoint_is_read_alone(still_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints that would fill the memory together are read one after the other."""
    state = still_world.resident.state()
    constituents = servable(state)
    assert loaded._readers(constituents) > 1
    largest = max(each.checkpoint.payload_bytes for each in constituents)
    monkeypatch.setattr(loaded, "_READING_BYTES", largest * 2 - 1)
    assert loaded._readers(constituents) == 1


def test_damage_of_one_checkpoint_is_reported(still_world: World) -> None:
    """The others do not hide it, and it is the error of that checkpoint."""
    state, specification = still_world.resident.state(), read_specification(still_world.home.config)
    last = state.shards[-1]
    spoilt = replace(last, chain=tuple(replace(each, sha256=Sha256("0" * 64)) for each in last.chain))
    other = replace(state, shards=(*state.shards[:-1], spoilt))
    with pytest.raises(Corrupt, match="digest differs from the manifest"):
        Ensemble.load(SealedStore(still_world.home.objects.inner), other, specification)
