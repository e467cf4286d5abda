"""A trained federation of any size in a folder, made up: training it would take hours and measure the learner.

All slices hold the same two data points, but those of the people to be erased, and all checkpoints the same bytes. The
objects, keyrings, state, lineages and digests have the forms and numbers that a training leaves, and are encrypted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from cluster.config.specification import settings_record
from coordinator.decisions.events import CheckpointWritten, Ingested
from coordinator.state import DataState, ShardState
from shards.learners.trainer import checkpoint_key
from shards.lineage import CheckpointRecord, expected_lineages
from shards.points import PointBlock
from shards.routing import SliceId, point_digest, subject_digest
from shards.slices.files import SliceRecord, record_slice, write_part
from shards.slices.ingest import FeatureLayout, taken_from
from shards.specification import ShardId, SliceIndex, TrainingSettings
from storage.digests import sha256
from storage.encryption.cipher import encrypt, fresh_key, fresh_nonce, wrap
from storage.encryption.keyring import _ring
from storage.encryption.store import SealedStore
from storage.objects import ObjectKey, new_name
from storage.stores.local import LocalStore
from storage.stores.memory import MemoryStore
from tests.doubles.federation import KEY, NAMING, Point, SmallFederation, plain_conditions, specification_of
from tests.doubles.workers.fake_learner import HashLearner, HashState

AT: Final = "2026-01-01T00:00:00.000+00:00"
_SECONDS: Final = 1.0
"""Recorded for each checkpoint, so that costs can be forecast."""


@contextmanager
def made_up_federation(shards: int, slices: int, people: int) -> Iterator[SmallFederation[HashState]]:
    """Yield a trained federation whose data points of ``people`` are there to be erased: s0, s1, ..."""
    with TemporaryDirectory() as folder:
        epochs = slices // 2 + 1
        specification = specification_of(
            shards=shards,
            slices=slices,
            training=TrainingSettings(epochs=epochs, batch_size=16, learning_rate=0.1),
        )
        small: SmallFederation[HashState] = SmallFederation(
            specification=specification,
            store=SealedStore(LocalStore(folder)),
            learners=lambda _: HashLearner(slices=slices, training_epochs=epochs),
            conditions=lambda _: plain_conditions(specification),
        )
        _fill(small, Path(folder), people)
        yield small


def _fill(small: SmallFederation[HashState], folder: Path, people: int) -> None:
    partition, data = small.specification.partition, small.specification.data
    records, payloads = _slices(partition.shards, partition.slices, people)
    configuration = plain_conditions(small.specification)
    learner = HashLearner(slices=partition.slices)
    learned = HashState(chain=bytes(32))
    trained = []
    for number in range(partition.shards):
        shard = ShardId(number)
        own = tuple(records[SliceId(shard, SliceIndex(slice_))] for slice_ in range(1, partition.slices + 1))
        chain = []
        for lineage in expected_lineages(shard, own, configuration):
            payload = learner.to_bytes(learned, lineage)
            key = checkpoint_key(shard, lineage.slice, new_name())
            payloads[f"{number:04d}"][key] = payload
            chain.append(
                CheckpointRecord(
                    slice=lineage.slice,
                    key=key,
                    sha256=sha256(payload),
                    digest=learner.digest(learned),
                    lineage=lineage.digest(),
                    payload_bytes=len(payload),
                    steps=1,
                    seconds=_SECONDS,
                )
            )
        trained.append(ShardState(slices=own, chain=tuple(chain)))
    _seal(small, folder, payloads)
    layout = FeatureLayout(width=2, dtype="float32", features=("x0", "x1"))
    state = DataState(layout=layout, inventory=(), taken=taken_from(data), refused=0)
    small.engine.record(Ingested(data=state, slices=records, at=AT))
    small.engine.configure(settings_record(small.specification), configuration)
    *others, last = trained
    ledger = small.engine._ledger
    # All but the last checkpoint: the engine itself publishes the first generation.
    ledger._state = replace(ledger.state, shards=(*others, replace(last, chain=last.chain[:-1])))
    small.engine.record(CheckpointWritten(shard=ShardId(len(others)), checkpoint=last.chain[-1], at=AT))
    ledger._shorten()
    small.engine.settle()


def _slices(
    shards: int, slices: int, people: int
) -> tuple[dict[SliceId, SliceRecord], dict[str, dict[ObjectKey, bytes]]]:
    """Return all slices, and the objects of each shard by key."""
    at: dict[SliceId, list[str]] = defaultdict(list)
    for person in (f"s{number}" for number in range(people)):
        at[Point(id=person, subject=person, label="a", features=()).slice_id(shards, slices)].append(person)
    draft = MemoryStore("made-up")
    places = [SliceId(ShardId(shard), SliceIndex(slice_)) for shard in range(shards) for slice_ in range(1, slices + 1)]
    same = _written(draft, ["nobody", "nobody else"], places[0])
    records, payloads = {}, defaultdict[str, dict[ObjectKey, bytes]](dict)
    for place in places:
        record = _written(draft, ["nobody", *at[place]], place) if place in at else same
        (part,) = record.parts
        key = ObjectKey(f"shards/{place.shard:04d}/slices/{place.slice:04d}/{new_name()}.parquet")
        payloads[f"{place.shard:04d}"][key] = draft.get(part.key).payload
        records[place] = replace(record, parts=(replace(part, key=key),))
    draft.forget()
    return records, payloads


def _written(store: MemoryStore, names: list[str], place: SliceId) -> SliceRecord:
    block = PointBlock(
        points_N=np.frombuffer(b"".join(point_digest(KEY, name) for name in names), dtype="V16"),
        subjects_N=np.frombuffer(b"".join(subject_digest(KEY, name, NAMING) for name in names), dtype="V16"),
        labels_N=np.zeros(len(names), dtype=np.int32),
        features_NF=np.ones((len(names), 2), dtype=np.float32),
    )
    return record_slice(store, [write_part(store, block, place, new_name)])


def _seal(small: SmallFederation[HashState], folder: Path, payloads: Mapping[str, Mapping[ObjectKey, bytes]]) -> None:
    """Put the objects of each ring into the folder, encrypted; not durably, and each ring is written once."""
    assert isinstance(small.store, SealedStore)
    keyrings = small.store._made_keyrings()
    for name, objects in payloads.items():
        kek = keyrings._draw(name, 1)
        data_keys = {key: fresh_key() for key in objects}
        ring = _ring(name, kek, {key: wrap(data_key, kek.secret) for key, data_key in data_keys.items()})
        assert keyrings._swap(None, ring, kek) is not None
        for key, payload in objects.items():
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encrypt(payload, key, data_keys[key], fresh_nonce()))
