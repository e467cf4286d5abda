"""Histories of a learner whose guarantee is certified: its residuals are compared with what is accounted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.verification import prove_shards, scan_residue
from shards.learners.tensors import decode_arrays, encode_arrays
from shards.learners.torch.learner import TorchState
from shards.learners.trainer import read_checkpoint
from shards.specification import ModelSettings, ShardId
from storage.digests import sha256
from tests.doubles.federation import SmallFederation, specification_of, survivors
from tests.doubles.workers.in_process_pool import Death
from tests.exactness.federations import federation_of, make_points
from tests.exactness.strategies import History, other_histories
from tests.volume import examples

ARGUMENTS: dict[str, Any] = {"norm": 3.0, "clip": True, "noise": 0.3, "penalty": 0.01}


def certified(federation: SmallFederation[TorchState]) -> list[float]:
    """Prove every shard; return the residuals that are accounted."""
    state = federation.state
    every = [ShardId(number) for number in range(len(state.shards))]
    proofs = prove_shards(state, every, federation.pool, lambda _: None)
    assert all(proof.holds for proof in proofs)
    assert not any(proof.exact for proof in proofs)
    assert scan_residue(federation.store, state).found == ()
    return [proof.accounted or 0.0 for proof in proofs]


@pytest.mark.volume
@pytest.mark.parametrize("target", ["class", "number"])
def test_any_history_keeps_to_its_account(target: str) -> None:
    """After any erasures and crashes the true residual on the survivors is at most the accounted one."""

    @settings(max_examples=examples(12, few=5))
    @given(
        history=other_histories("certified_linear", target, ARGUMENTS),
        deaths=st.dictionaries(st.integers(0, 8), st.sampled_from(["before_telling", "after_telling"]), max_size=2),
    )
    def check(history: History, deaths: dict[int, Death]) -> None:
        federation = federation_of(history.specification, deaths)
        federation.train(history.points)
        left = list(history.points)
        for number, step in enumerate(history.steps):
            for position, erasure in enumerate(step.erasures):
                federation.accept(subjects=erasure.subjects, ids=erasure.ids, request_id=f"er-{number}-{position}")
                left = survivors(left, subjects=erasure.subjects, ids=erasure.ids)
            federation.restart()
            federation.engine.settle()
            certified(federation)
        assert sum(shard.points for shard in federation.state.shards) == len(left)

    check()


def _trained(points: int = 60, **changes: Any) -> SmallFederation[TorchState]:
    model = ModelSettings(learner="certified_linear", arguments=ARGUMENTS | changes, guarantee="certified")
    federation = federation_of(specification_of(shards=1, slices=2, classes=("a", "b"), model=model))
    federation.train(make_points(5, points))
    return federation


def _noise(federation: SmallFederation[TorchState]) -> Any:
    (checkpoint,) = federation.state.shards[0].chain
    return decode_arrays(read_checkpoint(federation.store, checkpoint, ShardId(0)))["noise"]


def test_erasures_add_up_until_new_noise_is_drawn() -> None:
    """The account is durable: neither a crash nor a repeated training resets it, only new noise does."""
    federation = _trained(noise=0.1)
    noise, accounts = _noise(federation), certified(federation)
    for number, point in enumerate(make_points(5, 60)[:40]):
        federation.accept(ids=[point.id], request_id=f"er-{number}")
        federation.restart()
        federation.engine.settle()
        accounts += certified(federation)
        if (_noise(federation) != noise).any():
            break
        federation.train(make_points(5, 60))
        assert certified(federation) == accounts[-1:]
    assert accounts[:-1] == sorted(accounts[:-1])
    assert accounts[-1] < accounts[-2] / 10
    assert len(accounts) > 3


def test_the_exact_account_is_in_the_checkpoint_alone() -> None:
    """The journal and manifests are not encrypted, and the difference of two accounts is a fact about the erased."""
    federation = _trained()
    federation.accept(ids=[make_points(5, 60)[3].id], request_id="er-1")
    federation.engine.settle()
    (checkpoint,) = federation.state.shards[0].chain
    spent = float(decode_arrays(read_checkpoint(federation.store, checkpoint, ShardId(0)))["spent"][0])
    recorded = checkpoint.accounted
    assert recorded is not None
    assert spent < recorded.spent == recorded.share * recorded.budget
    assert recorded.rounded == recorded
    objects = [federation.store.get(each.key).payload for each in federation.store.list("")]
    assert any(repr(recorded.spent).encode() in each for each in objects)
    assert not any(repr(spent).encode() in each for each in objects)


def test_corrections_and_new_points_are_learned_with_new_noise() -> None:
    """They are not removals, so no budget is accounted for them."""
    federation = _trained()
    noises = [_noise(federation)]
    federation.rectify([replace(make_points(5, 60)[3], label="a", features=(9.0,) * 4)], request_id="rect-1")
    noises.append(_noise(federation))
    federation.train(make_points(5, 70))
    noises.append(_noise(federation))
    assert not any(np.isclose(one, other).any() for one, other in zip(noises[1:], noises, strict=False))
    certified(federation)


def test_a_constituent_that_is_not_what_was_accounted_is_refuted() -> None:
    """Coefficients that are moved a little are found out, and so is an account that was written smaller."""
    for name, change in (("coefficients", 1e-4), ("spent", -1.0)):
        federation = _trained()
        (checkpoint,) = federation.state.shards[0].chain
        arrays = decode_arrays(read_checkpoint(federation.store, checkpoint, ShardId(0)))
        arrays[name] = arrays[name] + change * (1 if name == "coefficients" else arrays[name])
        payload = encode_arrays(arrays, federation.state.lineages(ShardId(0))[0])
        federation.store.delete(checkpoint.key)
        federation.store.put_if_absent(checkpoint.key, payload)
        shard = replace(federation.state.shards[0], chain=(replace(checkpoint, sha256=sha256(payload)),))
        altered = replace(federation.state, shards=(shard,))
        (proof,) = prove_shards(altered, [ShardId(0)], federation.pool, lambda _: None)
        assert (proof.holds, proof.refutation is not None) == (False, True)


def test_no_value_of_an_erased_point_is_in_the_checkpoint() -> None:
    """Neither as float32, as it is stored, nor as float64, as it is computed with."""
    federation = _trained()
    marked = replace(make_points(5, 60)[7], id="marked", subject="marked", features=(0.1234567, -1.7654321, 0.5, 0.25))
    federation.train([*make_points(5, 60), marked])
    federation.accept(ids=["marked"], request_id="er-1")
    federation.engine.settle()
    (checkpoint,) = federation.state.shards[0].chain
    payload = read_checkpoint(federation.store, checkpoint, ShardId(0))
    traps: list[Any] = [np.array(marked.features[:2], dtype=dtype) for dtype in (np.float32, np.float64)]
    assert not any(value.tobytes() in payload for trap in traps for value in (*trap, *(trap / 3.0)))
