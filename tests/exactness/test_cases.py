"""The law in the cases that are easy to get wrong, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from operator import itemgetter
from typing import Any

import pytest

from cluster.config.specification import FederationSpecification
from cluster.runtime.learners import learner_of
from coordinator.engine.tasks import train_task
from coordinator.requests import RequestState
from coordinator.state import servable
from shards.learners.torch.learner import TorchLearner, TorchState
from shards.learners.trainer import SliceLearned
from shards.routing import SliceId, point_digest
from shards.schedule import minimum_epochs
from shards.slices.files import load_shard
from shards.specification import ModelSettings, ShardId, TrainingSettings
from tests.doubles.federation import KEY, Point, SmallFederation, specification_of, survivors
from tests.exactness.federations import (
    assert_exact,
    assert_untouched,
    checkpoints,
    digests,
    federation_of,
    make_points,
    train_alone,
)
from tests.exactness.strategies import MODELS, OPTIMIZERS
from tests.volume import one_of_each, spread

pytestmark = pytest.mark.volume


def specification(
    *, shards: int = 2, slices: int = 3, model: str = "mlp-dropout", optimizer: int = 3, batch_size: int = 4
) -> FederationSpecification:
    """Return a specification with noise and optimizer state."""
    factory, arguments, _ = MODELS[model]
    return specification_of(
        shards=shards,
        slices=slices,
        training=TrainingSettings(
            epochs=minimum_epochs(slices) + 2, batch_size=batch_size, learning_rate=0.1, seed=5, **OPTIMIZERS[optimizer]
        ),
        model=ModelSettings(factory=factory, arguments=arguments),
    )


def points_for(model: str, count: int = 30, seed: int = 1) -> list[Point]:
    """Return data points that fit the model."""
    return make_points(seed, count, width=6 if model.startswith("cnn") else 4)


def trained(spec: FederationSpecification, points: list[Point]) -> SmallFederation[TorchState]:
    """Return a federation trained on the points."""
    federation = federation_of(spec)
    federation.train(points)
    return federation


def in_shard(points: list[Point], spec: FederationSpecification, shard: int) -> list[Point]:
    """Return the points that are routed to ``shard``."""
    return [point for point in points if _place(point, spec).shard == shard]


def _place(point: Point, spec: FederationSpecification) -> SliceId:
    return point.slice_id(spec.partition.shards, spec.partition.slices)


def _each_with_any(first: Sequence[Any], second: Sequence[Any]) -> Sequence[tuple[Any, Any]]:
    """Return the pairs in which each of the first is there, with another one of the second; all pairs in a soak."""
    return one_of_each(list(product(first, second)), itemgetter(0))


def _erase_and_check(
    spec: FederationSpecification, points: list[Point], gone: list[Point], request: str = "er"
) -> None:
    federation = trained(spec, points)
    before = federation.state
    done = federation.erase(ids=[point.id for point in gone], request_id=request)
    assert (done.state, done.found.points) == (RequestState.COMPLETE, len(gone))
    assert_untouched(before, federation.state, [_place(point, spec) for point in gone])
    assert_exact(federation, survivors(points, ids=[point.id for point in gone]))


@pytest.mark.parametrize(("optimizer", "model"), _each_with_any(range(len(OPTIMIZERS)), list(MODELS)))
def test_every_model_with_every_optimizer(model: str, optimizer: int) -> None:
    """One subject erased from each kind of model under each kind of optimizer leaves no trace."""
    spec, points = specification(model=model, optimizer=optimizer), points_for(model)
    federation = trained(spec, points)
    subject = points[7].subject
    federation.erase(subjects=[subject], request_id="er-1")
    assert_exact(federation, survivors(points, subjects=[subject]))


@pytest.mark.parametrize("slice_", [1, 2, 3])
def test_a_slice_that_becomes_empty(slice_: int) -> None:
    """Erasing all points of a slice equals never having had any in it."""
    spec, points = specification(), points_for("mlp")
    gone = [point for point in in_shard(points, spec, 0) if _place(point, spec).slice == slice_]
    assert gone
    _erase_and_check(spec, points, gone)


def test_a_shard_that_becomes_empty() -> None:
    """Erasing a whole shard leaves its initial state, which is not used for predictions, and changes no other shard."""
    spec, points = specification(), points_for("mlp")
    gone = in_shard(points, spec, 1)
    federation = trained(spec, points)
    federation.erase(ids=[point.id for point in gone], request_id="er-1")
    left = survivors(points, ids=[point.id for point in gone])
    assert_exact(federation, left)
    learner = learner_of(spec, 4)
    assert digests(federation)[1] == [learner.digest(learner.initial(ShardId(1)))] * 3
    assert [constituent.shard for constituent in servable(federation.state)] == [0]


@pytest.mark.parametrize("model", MODELS)
def test_all_points_erased(model: str) -> None:
    """With everything erased, every constituent is in its initial state and none predicts."""
    spec, points = specification(model=model), points_for(model, 12)
    federation = trained(spec, points)
    federation.erase(subjects=sorted({point.subject for point in points}), request_id="er-1")
    assert_exact(federation, [])
    assert servable(federation.state) == ()
    federation.train(points)
    assert_exact(federation, [])


@pytest.mark.parametrize("model", MODELS)
def test_a_shard_with_one_point(model: str) -> None:
    """A shard may shrink to a single point and is then trained on it, even with batch normalisation."""
    spec, points = specification(model=model, slices=2), points_for(model, 24)
    for kept in spread(in_shard(points, spec, 0)[:3], 3, shift=list(MODELS).index(model)):
        gone = [point for point in in_shard(points, spec, 0) if point is not kept]
        _erase_and_check(spec, points, gone)


@pytest.mark.parametrize(("end", "model"), _each_with_any(["first", "last"], ["mlp-dropout", "cnn-batch-norm-dropout"]))
def test_the_ends_of_the_canonical_order(model: str, end: str) -> None:
    """The last and the first point of a shard are unlearned like any other."""
    spec, points = specification(model=model), points_for(model)
    for shard in range(spec.partition.shards):
        own = sorted(
            in_shard(points, spec, shard), key=lambda point: (_place(point, spec), point_digest(KEY, point.id))
        )
        _erase_and_check(spec, points, [own[0 if end == "first" else -1]])


@pytest.mark.parametrize(("shards", "slices"), [(1, 1), (1, 4), (4, 1), (3, 2)])
def test_few_shards_and_slices(shards: int, slices: int) -> None:
    """One shard, one slice, or both, are as exact as many."""
    spec, points = specification(shards=shards, slices=slices), points_for("mlp")
    _erase_and_check(spec, points, points[3:5])


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_batches_of_any_size(batch_size: int) -> None:
    """Batches of one point, a merged last batch, and a single batch for all points are exact."""
    spec, points = specification(batch_size=batch_size, shards=1, slices=2), points_for("mlp", 21)
    for point in points[:2]:
        _erase_and_check(spec, points, [point])


@pytest.mark.parametrize("number", spread([0, 6, 13], 3))
def test_orders_of_erasure(number: int) -> None:
    """A then B, B then A, and both together give the same checkpoints (E9)."""
    spec, points = specification(), points_for("mlp")
    first, second = points[number].subject, points[number + 12].id
    ends = []
    for order in (("first", "second"), ("second", "first"), ("both",)):
        federation = trained(spec, points)
        for request in order:
            federation.erase(
                subjects=[first] if request != "second" else [],
                ids=[second] if request != "first" else [],
                request_id=request,
            )
        assert_exact(federation, survivors(points, subjects=[first], ids=[second]))
        ends.append(checkpoints(federation))
    assert ends[0] == ends[1] == ends[2]


@pytest.mark.parametrize(("model", "optimizer"), _each_with_any(list(MODELS), [1, 2, 4, 5]))
def test_resumed_equals_uninterrupted(model: str, optimizer: int) -> None:
    """Training resumed from each slice with a new learner gives the bytes of uninterrupted training (E4)."""
    spec = specification(model=model, optimizer=optimizer, shards=1)
    federation = trained(spec, points_for(model, 20))
    straight = [(each.sha256, each.digest, each.lineage) for each in federation.state.shards[0].chain]
    for done in range(3):
        resumed = train_alone(federation, ShardId(0), done)
        assert [(each.sha256, each.digest, each.lineage) for each in resumed] == straight


@pytest.mark.parametrize(("model", "optimizer"), _each_with_any(list(MODELS), [0, 2, 3, 5]))
def test_continuing_from_memory_equals_continuing_from_bytes(model: str, optimizer: int) -> None:
    """A checkpoint has everything that the state in memory has: continuing from either gives the same bytes (E4)."""
    spec, data = specification(model=model, optimizer=optimizer, shards=1), points_for(model, 15)
    federation = trained(spec, data)
    shard, width = federation.state.shards[0], len(data[0].features)
    points = load_shard(federation.store, shard.slices, width, 1.0)
    learner = learner_of(spec, width)
    state = learner.initial(ShardId(0))
    for record in shard.chain:
        for _ in learner.learn(state, points, ShardId(0), record.slice):
            pass  # training changes torch's state in place
        assert learner.digest(state) == record.digest


def test_a_worker_dying_in_mid_slice_changes_no_bit() -> None:
    """Workers that die at every third event, reported or not, give the same bytes as workers that live."""
    spec, points = specification(), points_for("mlp")
    alive = trained(spec, points)
    federation = federation_of(
        spec, deaths={n: "before_telling" if n % 2 else "after_telling" for n in range(1, 40, 3)}
    )
    federation.train(points)
    assert checkpoints(federation) == checkpoints(alive)
    assert federation.pool.slices_learned < 2 * alive.pool.slices_learned


def test_initial_weights_differ_between_shards() -> None:
    """Each constituent starts from its own weights, drawn from seed and shard, the same every time."""
    learner = learner_of(specification(), 4)
    starts = [learner.digest(learner.initial(ShardId(shard))) for shard in (0, 1, 2, 0)]
    assert starts[0] == starts[3]
    assert len(set(starts)) == 3


def test_shuffling_noise_and_weights_follow_the_seed() -> None:
    """A different seed gives different bytes in every constituent after every slice."""
    spec, points = specification(), points_for("mlp")
    other = replace(spec, training=replace(spec.training, seed=6))
    ours, theirs = digests(trained(spec, points)), digests(trained(other, points))
    assert all(a != b for one, two in zip(ours, theirs, strict=True) for a, b in zip(one, two, strict=True))


def test_checkpoints_have_the_same_bytes_every_time() -> None:
    """Encoding a state twice, or training it twice in one process, gives the same object byte for byte."""
    spec, points = specification(model="cnn-batch-norm-dropout"), points_for("cnn")
    first, second = trained(spec, points), trained(spec, points)
    assert checkpoints(first) == checkpoints(second)
    learner, record = learner_of(spec, 6), first.state.shards[0].chain[-1]
    payload = checkpoints(first)[0][-1]
    lineage = first.state.lineages(ShardId(0))[record.slice - 1]
    assert learner.to_bytes(learner.from_bytes(payload, ShardId(0)), lineage) == payload


def test_training_reads_back_only_what_it_goes_on_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is each checkpoint but the last of a task (E4)."""
    from_bytes, opened = TorchLearner.from_bytes, []

    def noting(learner: TorchLearner, payload: bytes, shard: ShardId) -> TorchState:
        opened.append(payload)
        return from_bytes(learner, payload, shard)

    monkeypatch.setattr(TorchLearner, "from_bytes", noting)
    federation = trained(specification(shards=1), points_for("mlp"))
    assert opened == checkpoints(federation)[0][:-1]
    assert len(opened) == 2


def test_alignment_in_memory_changes_nothing() -> None:
    """A checkpoint whose tensors are unaligned is restored to the same bits, and so is training from it (E7)."""
    spec = specification(model="mlp-batch-norm", shards=1)
    federation = trained(spec, points_for("mlp", 25))
    payloads, shard = checkpoints(federation)[0], federation.state.shards[0]
    points = load_shard(federation.store, shard.slices, 4, 1.0)
    for shift in (1, 2, 3, 5):
        learner = learner_of(spec, 4)
        state = learner.from_bytes(_shifted(payloads[0], shift), ShardId(0))
        assert learner.digest(state) == shard.chain[0].digest
        for _ in learner.learn(state, points, ShardId(0), shard.chain[1].slice):
            pass  # training changes torch's state in place
        assert learner.digest(state) == shard.chain[1].digest


def _shifted(payload: bytes, shift: int) -> bytes:
    """Return the same safetensors file with ``shift`` blanks after its header, which move all tensors."""
    size = int.from_bytes(payload[:8], "little")
    return (size + shift).to_bytes(8, "little") + payload[8 : 8 + size] + b" " * shift + payload[8 + size :]


def test_training_for_proof_writes_nothing() -> None:
    """Training for proof reports the digests of the chain and does not change the store."""
    spec, points = specification(), points_for("mlp")
    federation = trained(spec, points)
    task = train_task(federation.state, ShardId(0), done=0, token=None)
    before = {info.key for info in federation.store.list("")}
    events = [event for event in federation.pool.train([task]) if isinstance(event, SliceLearned)]
    assert [event.digest for event in events] == digests(federation)[0]
    assert [event.checkpoint for event in events] == [None] * 3
    assert {info.key for info in federation.store.list("")} == before


def test_unknown_names_get_no_tombstone() -> None:
    """A request with unknown names erases the known ones, and counts the unknown ones without tombstones."""
    spec = specification()
    points = points_for("mlp-dropout")
    known, stranger = points[0].subject, "stranger"
    federation = trained(spec, points)
    done = federation.erase(subjects=[known, stranger], request_id="both")
    assert (done.state, done.found.unknown) == (RequestState.COMPLETE, 1)
    newcomer = replace(points[0], id="new", subject=stranger)
    federation.train([*points, newcomer])
    assert_exact(federation, [*survivors(points, subjects=[known]), newcomer])
