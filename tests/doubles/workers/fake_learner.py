"""A learner that trains in microseconds and records every data point it was trained on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from shards.learners.protocol import Learning
from shards.lineage import Lineage
from shards.ordering import SHUFFLE, epoch_order, stream
from shards.points import ShardPoints
from shards.schedule import batch_bounds, slice_epochs
from shards.specification import ShardId, SliceIndex
from storage.digests import Sha256, canonical_json
from storage.errors import Corrupt


@dataclass(frozen=True, slots=True, kw_only=True)
class HashState:
    """The links of a hash chain, and the keys of the data points in it."""

    chain: bytes
    seen: frozenset[int] = frozenset()
    """First 8 bytes of the digests of all points seen, as numbers (``ShardPoints.keys_N``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HashLearner:
    """Implements ``Learner[HashState]``: every step hashes the points in the order of its epoch.

    The result depends on the key, features, label and position in the epoch of every point, and on seed, shard and
    slice, like that of a real learner.
    """

    slices: int
    training_epochs: int = 4
    batch_size: int = 3
    seed: int = 0
    classes: int = 2

    def initial(self, shard: ShardId) -> HashState:
        """Return the first link."""
        return HashState(chain=sha256(f"{self.seed}/{shard}".encode()).digest())

    def learn(self, state: HashState, points: ShardPoints, shard: ShardId, slice_: SliceIndex) -> Learning[HashState]:
        """Hash slices 1..``slice_`` for the epochs of ``slice_``."""
        end = points.ends[slice_ - 1]
        if end == 0:
            return state
        for epoch in range(self.epochs(slice_)):
            order = epoch_order(points.keys_N[:end], stream(self.seed, shard, slice_, epoch, SHUFFLE))
            links = sha256(state.chain)
            for index in order:
                links.update(int(points.keys_N[index]).to_bytes(8, "big"))
                links.update(points.features_NF[index].tobytes() + points.labels_N[index].tobytes())
            state = HashState(chain=links.digest(), seen=state.seen | set(points.keys_N[:end].tolist()))
            yield epoch + 1
        return state

    def epochs(self, slice_: SliceIndex) -> int:
        """Return the slice's epochs."""
        return slice_epochs(self.training_epochs, self.slices)[slice_ - 1]

    def steps(self, points: ShardPoints, slice_: SliceIndex) -> int:
        """Return the slice's steps."""
        return self.epochs(slice_) * len(batch_bounds(points.ends[slice_ - 1], self.batch_size))

    def probabilities(self, state: HashState, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return probability 1 for one class."""
        sure_NC = np.zeros((len(features_NF), self.classes), dtype=np.float64)
        sure_NC[:, state.chain[0] % self.classes] = 1.0
        return sure_NC

    def digest(self, state: HashState) -> Sha256:
        """Return the last link."""
        return Sha256(state.chain.hex())

    def to_bytes(self, state: HashState, lineage: Lineage) -> bytes:
        """Return the state as JSON."""
        return canonical_json(
            {"chain": state.chain.hex(), "seen": [str(key) for key in sorted(state.seen)], "lineage": lineage.digest()}
        )

    def from_bytes(self, payload: bytes, shard: ShardId) -> HashState:
        """Return the state that ``to_bytes`` wrote."""
        return decode_state(payload)


def decode_state(payload: bytes) -> HashState:
    """Return the state in a checkpoint. Raises ``Corrupt`` when ``payload`` is not a checkpoint."""
    try:
        record = json.loads(payload)
        return HashState(chain=bytes.fromhex(record["chain"]), seen=frozenset(map(int, record["seen"])))
    except (ValueError, KeyError) as error:
        raise Corrupt("a checkpoint is not one of the hash learner's") from error
