"""The cost of finished requests: the same steps with none, some and 10^5, ``python -m tests.bench.ended [requests]``.

The requests are made up and put into the store as the engine would, each with a signed receipt. Three federations side
by side do each step in turn, so that what else the machine does falls on all. The one with some keeps as many requests
in its state, and as many receipts outside packs, as the one with many: what is more there grows, the rest does not.

Times are milliseconds of the processor, because other processes share it; beside them, those that passed, with waiting.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count, pairwise
from statistics import median
from typing import Final
from unittest.mock import patch

from coordinator.decisions.decide import next_state
from coordinator.decisions.ended import TOGETHER
from coordinator.engine import ended
from coordinator.engine.codec import encode_state
from coordinator.engine.ended import keep_ended
from coordinator.engine.ledger import read_state
from coordinator.receipts.archive import Archive, to_pack
from coordinator.receipts.bundles import CHECKPOINTS, RECEIPTS, ReceiptBundle
from coordinator.receipts.evidence import statement
from coordinator.receipts.issuer import Registrar
from coordinator.receipts.kinds import PAYLOAD_TYPE
from coordinator.receipts.rollback import forgotten_by
from coordinator.requests import ErasureRequest, Found, RequestState
from coordinator.state import FederationState
from coordinator.status import describe_federation
from coordinator.verification import scan_residue
from deploy.views.tables import table
from storage.digests import canonical_json, sha256
from storage.each import in_turn
from storage.stores.local import LocalStore
from storage.transparency.checkpoint import LogCheckpoint, sign_checkpoint
from storage.transparency.envelope import sign_envelope
from storage.transparency.layout import tile_bytes
from storage.transparency.merkle import MerkleTree, leaf_hash
from storage.transparency.packs import TILE_ENTRIES, Pack, pack_to_bytes
from tests.coordinator.receipts.facts import evidence_of
from tests.doubles.federation import Point, SmallFederation, plain_conditions, specification_of
from tests.doubles.workers.fake_learner import HashLearner, HashState

REPEATS: Final = 15
AT: Final = "2026-01-01T00:00:00.000+00:00"
_SPECIFICATION = specification_of(shards=5, slices=5)
_NUMBERS = count()
_STAGES = ("accepted", "planned", "quarantined", "retraining", "published", "purged", "complete")


def main() -> None:
    """Measure, and print a table."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    few = TILE_ENTRIES + requests % TILE_ENTRIES
    with ExitStack() as stack:
        each = [stack.enter_context(_federation(count)) for count in (0, few, requests)]
        lines = [_objects(each), _bytes(each)]
        for name, step in _STEPS.items():
            times = [[_seconds(step, one) for one in each] for _ in range(REPEATS)]
            (none, _), (some, _), (many, _) = medians = [
                tuple(map(median, zip(*side, strict=True))) for side in zip(*times, strict=True)
            ]
            shown = (f"{cpu * 1000:.1f} ({wall * 1000:.1f})" for cpu, wall in medians)
            lines.append((name, *shown, f"{some / none:.2f}", f"{many / some:.2f}", f"{many / none:.2f}"))
        sizes = (f"{len(canonical_json(encode_state(one.state))):,}" for one in each)
        lines.append(("bytes of the state", *sizes, "", "", ""))
    heads = ("none", f"{few:,}", f"{requests:,}")
    print(table(("", *heads, *(f"{late} / {early}" for early, late in pairwise(heads)), f"{heads[2]} / none"), lines))


def _objects(each: Sequence[SmallFederation[HashState]]) -> tuple[str, ...]:
    return ("objects", *(f"{len(list(one.store.list(''))):,}" for one in each), "", "", "")


def _bytes(each: Sequence[SmallFederation[HashState]]) -> tuple[str, ...]:
    sizes = (sum(info.payload_bytes for info in one.store.list("")) for one in each)
    return ("MB", *(f"{size / 1e6:.2f}" for size in sizes), "", "", "")


def _start(small: SmallFederation[HashState]) -> None:
    small.restart()
    assert small.engine.state.data is not None


def _status(small: SmallFederation[HashState]) -> None:
    state = read_state(small.store)
    assert state is not None
    describe_federation(state, "bench", small.clock.now())
    assert forgotten_by(small.store, lambda: state) == ()


def _erase(small: SmallFederation[HashState]) -> None:
    number = next(_NUMBERS)
    assert small.erase(subjects=[f"s{number}"], request_id=f"erase-{number}").state is RequestState.COMPLETE


def _repeat(small: SmallFederation[HashState]) -> None:
    small.accept(subjects=["s2999"], request_id="first")


def _scan(small: SmallFederation[HashState]) -> None:
    assert scan_residue(small.store, small.state, everything=False).found == ()


def _receipts(small: SmallFederation[HashState]) -> None:
    registrar = Registrar(small.store, small.clock, small.names)
    stated = {each.request_id: each.receipt for each in small.state.requests if each.receipt is not None}
    assert registrar.verify_all(stated).broken == ()


_STEPS: Final[dict[str, Callable[[SmallFederation[HashState]], None]]] = {
    "start of a writer": _start,
    "status": _status,
    "erase one, to complete": _erase,
    "a request again": _repeat,
    "verify: scan of the store": _scan,
    "verify: new receipts": _receipts,
}


def _seconds(
    step: Callable[[SmallFederation[HashState]], None], small: SmallFederation[HashState]
) -> tuple[float, float]:
    """Return the processor time that a step takes, and the time that passes meanwhile; short steps are repeated."""
    times = 50 if step in {_status, _repeat} else 1
    began, passed = time.process_time(), time.perf_counter()
    for _ in range(times):
        step(small)
    return (time.process_time() - began) / times, (time.perf_counter() - passed) / times


@contextmanager
def _federation(requests: int) -> Iterator[SmallFederation[HashState]]:
    """Yield a trained federation in a folder of its own that has so many finished requests."""
    with tempfile.TemporaryDirectory() as folder:
        small: SmallFederation[HashState] = SmallFederation(
            specification=_SPECIFICATION,
            store=LocalStore(folder),
            learners=lambda _: HashLearner(slices=5),
            conditions=lambda _: plain_conditions(_SPECIFICATION),
        )
        numbers = range(3_000)
        small.train([Point(id=f"p{n}", subject=f"s{n}", label="ab"[n % 2], features=(1.0, 2.0)) for n in numbers])
        small.erase(subjects=["s2999"], request_id="first")
        if requests:
            _fill(small, requests)
        yield small


def _fill(small: SmallFederation[HashState], requests: int) -> None:
    """Put them into the store in a few steps, each of which moves many out of the state."""
    _fill_log(small, requests)
    ledger = small.engine._ledger
    state = ledger.state
    for start in range(0, requests, 20_000):
        made = tuple(map(_complete, range(start, min(start + 20_000, requests))))
        state = _without_ended(small, replace(state, requests=(*state.requests, *made)))
    ledger._state = state
    ledger._shorten()
    small.restart()
    small.engine._is_untidy = True
    small.engine.settle()


def _fill_log(small: SmallFederation[HashState], requests: int) -> None:
    """Put their receipts into packs, and what fills no pack into single objects, as a registrar would."""
    registrar = Registrar(small.store, small.clock, small.names)
    signers = registrar.keys.current(RECEIPTS), registrar.keys.current(CHECKPOINTS)
    keys = tuple(each.public for each in signers)
    layout = registrar._layout()
    assert layout is not None
    first = registrar.find("first").envelope
    tree, whole = MerkleTree(), (requests + 1) // TILE_ENTRIES
    note = ""
    numbers = {"first": 0}
    for tile in range(whole):
        ids = [f"er-{number - 1}" for number in range(tile * TILE_ENTRIES, (tile + 1) * TILE_ENTRIES)]
        leaves = [
            sign_envelope(statement(evidence_of(each), AT), PAYLOAD_TYPE, signers[0]) if each != "er--1" else first
            for each in ids
        ]
        for leaf in leaves:
            tree.append(leaf_hash(leaf))
        checkpoint = LogCheckpoint(origin=layout.origin, size=tree.size, root=tree.root(tree.size))
        note = sign_checkpoint(checkpoint, signers[1])
        start = tile * TILE_ENTRIES
        bundles = (
            ReceiptBundle(
                envelope=leaf,
                index=start + place,
                proof=tree.inclusion_proof(start + place, tree.size),
                checkpoint=note,
                keys=keys,
            )
            for place, leaf in enumerate(leaves)
        )
        pack = Pack(number=tile, subtrees=tree.subtrees(tree.size), entries=tuple(map(to_pack, bundles)))
        small.store.put_if_absent(layout.pack(tile), pack_to_bytes(pack))
        small.store.put_if_absent(layout.tile(tile), tile_bytes(tree, tile))
        numbers |= {each: start + place for place, each in enumerate(ids) if each != "er--1"}
    small.store.put_if_absent(layout.checkpoint(tree.size), note.encode())
    Archive(small.store, in_turn).note(numbers)
    Archive(small.store, in_turn).take_out(["first"])
    small.store.delete_all([layout.entry(0), layout.checkpoint(1)])
    registrar.issue_all([evidence_of(f"er-{number}") for number in range(whole * TILE_ENTRIES - 1, requests)])


def _without_ended(small: SmallFederation[HashState], state: FederationState) -> FederationState:
    """Return the state as the engine leaves it, in one step instead of 64 requests at a time."""
    going = state.requests[:-TOGETHER]
    with patch.object(ended, "leaving", lambda _: going):
        event = keep_ended(small.store, small.names, state)
    assert event is not None
    return next_state(state, event)


def _complete(number: int) -> ErasureRequest:
    return ErasureRequest(
        request_id=f"er-{number}",
        body=sha256(b"%d" % number),
        names=None,
        subjects=1,
        ids=0,
        received_at=AT,
        due_at=AT,
        state=RequestState.COMPLETE,
        found=Found(points=3),
        receipt=number + 1,
        times=dict.fromkeys(_STAGES, AT),
    )


if __name__ == "__main__":
    main()
