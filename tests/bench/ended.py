"""The cost of finished requests: the same steps with none and with 10^5, ``python -m tests.bench.ended [requests]``.

The requests are made up and put into the store as the engine would; the log has no receipts of theirs. Two federations
side by side do each step in turn, so that what else the machine does falls on both.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from statistics import median
from typing import Final
from unittest.mock import patch

from coordinator.decisions.decide import next_state
from coordinator.decisions.ended import TOGETHER
from coordinator.engine import ended
from coordinator.engine.codec import encode_state
from coordinator.engine.ended import keep_ended
from coordinator.engine.ledger import read_state
from coordinator.receipts.rollback import forgotten_by
from coordinator.requests import ErasureRequest, RequestState
from coordinator.state import FederationState
from coordinator.status import describe_federation
from coordinator.verification import scan_residue
from deploy.views.tables import table
from storage.digests import canonical_json, sha256
from storage.stores.local import LocalStore
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
    with _federation(0) as few, _federation(requests) as many:
        lines = []
        for name, step in _STEPS.items():
            times = [(_seconds(step, few), _seconds(step, many)) for _ in range(REPEATS)]
            none, some = (median(each) for each in zip(*times, strict=True))
            lines.append((name, f"{none * 1000:.1f}", f"{some * 1000:.1f}", f"{some / none:.2f}"))
        sizes = [len(canonical_json(encode_state(each.state))) for each in (few, many)]
    print(table(("step", "ms with none", f"ms with {requests:,}", "ratio"), lines))
    print(f"bytes of the state: {sizes[0]:,} and {sizes[1]:,}")


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
    assert scan_residue(small.store, small.state).found == ()


_STEPS: Final[dict[str, Callable[[SmallFederation[HashState]], None]]] = {
    "start of a writer": _start,
    "status": _status,
    "erase one, to complete": _erase,
    "a request again": _repeat,
    "verify: scan of the store": _scan,
}


def _seconds(step: Callable[[SmallFederation[HashState]], None], small: SmallFederation[HashState]) -> float:
    began = time.perf_counter()
    step(small)
    return time.perf_counter() - began


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
        points=3,
        times=dict.fromkeys(_STAGES, AT),
    )


if __name__ == "__main__":
    main()
