"""A guarantee that is not exact is part of lineages, status and receipts; an exact one leaves records as they were."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

import pytest

from coordinator.decisions.decide import decide
from coordinator.decisions.events import CheckpointWritten, ConstituentRefuted, TrainingConfigured
from coordinator.engine.codec import decode_event, decode_state, encode_event, encode_state
from coordinator.ports import WorkerPool
from coordinator.receipts.evidence import collect_evidence, statement
from coordinator.receipts.statements import Refuted, statement_owed
from coordinator.requests import Refutation
from coordinator.sites import TookPart, answered_together
from coordinator.status import describe_federation, for_the_public
from coordinator.verification import prove_shards
from shards.learner_kinds.guarantees import Certified
from shards.learners.trainer import ResidualFound, TrainTask
from shards.lineage import Accounted
from shards.routing import SliceId
from shards.specification import ShardId, SliceIndex
from tests.coordinator.receipts.facts import SCAN, STORE, accepted, purged, quarantined, trained
from tests.coordinator.records import DATA, checkpoint_of, configuration, federation
from tests.coordinator.test_state import NOW

CERTIFIED = replace(configuration(), guarantee=Certified(epsilon=0.5, delta=1e-5))
TEXT = "certified(epsilon=0.5, delta=1e-05)"
_EXACT = configuration()


def _configured(chosen: object) -> TrainingConfigured:
    assert isinstance(chosen, type(CERTIFIED))
    return TrainingConfigured(settings={"model": {}, "training": {"epochs": 4}}, configuration=chosen)


def test_it_is_part_of_the_lineage() -> None:
    """So that no checkpoint of another guarantee is used; without one, digests are what they were."""
    state = federation((5, 4, 3))
    (exact, _), (certified, _) = (decide(state, _configured(each)) for each in (_EXACT, CERTIFIED))
    assert "guarantee" not in exact.lineages(ShardId(0))[0].record()["configuration"]  # type: ignore[operator]
    assert exact.lineages(ShardId(0)) != certified.lineages(ShardId(0))


@pytest.mark.parametrize(("chosen", "version"), [(_EXACT, 2), (CERTIFIED, 6)])
def test_it_is_stored(chosen: object, version: int) -> None:
    """In the newest format, which older releases refuse."""
    event = _configured(chosen)
    record = encode_event(event)
    assert (record["format_version"], decode_event(json.loads(json.dumps(record)))) == (version, event)
    state, _ = decide(federation((5, 4, 3)), event)
    assert decode_state(json.loads(json.dumps(encode_state(state)))) == state


def test_what_is_used_of_a_budget_is_stored() -> None:
    """With the checkpoint that used it, also while this is the base of the next one; others stay as they were."""
    accounted = Accounted(spent=0.0125, budget=0.5)
    state, _ = decide(federation((5, 4, 3)), _configured(_EXACT))
    plain = CheckpointWritten(shard=ShardId(0), checkpoint=checkpoint_of(state.lineages(ShardId(0))[0]), at="")
    assert "accounted" not in json.dumps(encode_event(plain))
    event = replace(plain, checkpoint=replace(plain.checkpoint, accounted=accounted))
    record = encode_event(event)
    assert (record["format_version"], decode_event(json.loads(json.dumps(record)))) == (6, event)
    learning = replace(state, configuration=replace(CERTIFIED, learner="certified_linear"))
    checkpoint = replace(checkpoint_of(learning.lineages(ShardId(0))[0]), accounted=accounted)
    learned, _ = decide(learning, CheckpointWritten(shard=ShardId(0), checkpoint=checkpoint, at=""))
    (status,) = describe_federation(learned, "here", NOW).constituents
    assert status.budget_used == 0.03
    assert for_the_public(describe_federation(learned, "here", NOW)).constituents[0].budget_used is None
    erased = quarantined(accepted(learned, "first"), "first", SliceId(ShardId(0), SliceIndex(2)), (900,))
    assert erased.shards[0].base is not None
    for each in (learned, erased):
        body = encode_state(each)
        assert body["format_version"] == 6
        assert decode_state(json.loads(json.dumps(body))) == each


def test_status_says_it() -> None:
    """Everybody who may see a status sees the guarantee."""
    state, _ = decide(federation((5, 4, 3)), _configured(CERTIFIED))
    status = describe_federation(state, "here", NOW)
    assert (status.guarantee, for_the_public(status).guarantee) == (TEXT, TEXT)
    assert describe_federation(federation((1,)), "here", NOW).guarantee == "exact"


@pytest.mark.parametrize("chosen", [_EXACT, CERTIFIED], ids=["exact", "certified"])
def test_a_receipt_states_it(chosen: object) -> None:
    """A certified one must not say that digests equal those of a run that never saw the points."""
    state, _ = decide(federation((5, 4, 3)), _configured(chosen))
    before = accepted(trained(state), "first")
    after = purged(trained(quarantined(before, "first", SliceId(ShardId(0), SliceIndex(2)), (900,))))
    evidence = collect_evidence("first", before, after, manifests={}, scan=SCAN, store=STORE)
    predicate = json.loads(statement(evidence, NOW.isoformat()))["predicate"]
    if chosen is _EXACT:
        assert "guarantee" not in predicate
        assert "compared with the objects in the store, and the constituents' digests with" in predicate["proves"]
    else:
        assert {**predicate["guarantee"], "budget": ""} == {
            "kind": "certified",
            "epsilon": 0.5,
            "delta": 1e-5,
            "budget": "",
        }
        assert "The constituents are not equal to those of a training run" in predicate["proves"]


@pytest.mark.parametrize(("chosen", "said"), [(_EXACT, "unlike one trained on"), (CERTIFIED, "than was accounted")])
def test_a_statement_of_a_wrong_constituent_says_what_was_compared(chosen: object, said: str) -> None:
    """A certified one is compared with its account, not with another constituent."""
    state, _ = decide(federation((5, 4, 3)), _configured(chosen))
    state = trained(state)
    wrong = state.shards[0].chain[0]
    refutation = Refutation(
        shard=ShardId(0),
        slice=wrong.slice,
        checkpoint=wrong.key,
        lineage=wrong.lineage,
        digest=wrong.digest,
        retrained_digest=None,
        at="",
    )
    state, _ = decide(state, ConstituentRefuted(refutation=refutation, at=""))
    stated = statement_owed(state, refutation.request_id, STORE, lambda: ())
    assert isinstance(stated, Refuted)
    assert said in stated.predicate("")["proves"]
    assert ("which of the two" in stated.predicate("")["does_not_prove"]) == (chosen is _EXACT)


@pytest.mark.parametrize(
    ("residual", "found", "recorded", "holds"),
    [
        (0.01, (0.012, 0.5), (0.0125, 0.5), True),  # the record is rounded up to hundredths of the budget
        (0.012, (0.012, 0.5), (0.0125, 0.5), True),
        (0.013, (0.012, 0.5), (0.0125, 0.5), False),
        (0.01, (0.6, 0.5), (0.6, 0.5), False),
        (0.01, (0.012, 0.5), (0.01, 0.5), False),
        (0.01, (0.012, 0.5), (0.0125, 0.4), False),
        (0.01, (0.012, 0.5), None, False),
    ],
)
def test_a_certified_constituent_is_proved_by_its_account(
    residual: float, found: tuple[float, float], recorded: tuple[float, float] | None, *, holds: bool
) -> None:
    """It is at most as far from its optimum as its checkpoint says, within its budget, and the record says the same."""
    account = Accounted(spent=found[0], budget=found[1])
    in_record = None if recorded is None else Accounted(spent=recorded[0], budget=recorded[1])
    settings = {"model": {}, "training": {"epochs": 1}, "data": {"scale": 1.0}}
    chosen = TrainingConfigured(settings=settings, configuration=replace(CERTIFIED, learner="certified_linear"))
    state, _ = decide(replace(federation((5, 4, 3)), data=DATA), chosen)
    checkpoint = replace(checkpoint_of(state.lineages(ShardId(0))[0]), accounted=in_record)
    learned, _ = decide(state, CheckpointWritten(shard=ShardId(0), checkpoint=checkpoint, at=""))

    class Pool:
        def train(self, tasks: Sequence[TrainTask]) -> Iterator[ResidualFound]:
            for task in tasks:
                yield ResidualFound(shard=task.shard, residual=residual, accounted=account)

    (proof,) = prove_shards(learned, [ShardId(0)], cast("WorkerPool", Pool()), lambda _: None)
    assert (proof.holds, proof.exact, proof.residual, proof.accounted) == (holds, False, residual, found[0])
    assert (proof.refutation is None) == holds


def test_an_answer_of_several_sites_has_the_weakest_guarantee() -> None:
    """Exact holds only where it holds at every site."""
    exact = TookPart(site="north", generation=3, constituents=2, shards=2)
    certified = replace(exact, site="south", guarantee=TEXT)
    assert answered_together((exact, exact)).guarantee == "exact"
    assert answered_together((exact, certified)).guarantee == TEXT
    weaker = replace(exact, guarantee="certified(epsilon=1.0, delta=1e-06)")
    together = "certified(epsilon=1.0, delta=1e-05)"
    assert answered_together((exact, certified, weaker)).guarantee == together
    assert answered_together((weaker, certified)).guarantee == together
    for unknown in ("something else", "certified(epsilon=-, delta=1)", "certified(epsilon=1.2.3, delta=1)"):
        assert answered_together((certified, replace(exact, guarantee=unknown))).guarantee == unknown
