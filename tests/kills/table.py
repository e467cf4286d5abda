"""The table of fail points: every durable step of training and erasing, at which the command dies.

A row is one step of one story, named for people; its columns are the moments. A step that happens many times has a row
for its first time, and one for its last where that means something else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.kills.command_cases import COMMAND_CASES, CaseOutcome, CaseRunner, Reference
from tests.kills.fail_points import Blow, Kind, Moment, Strike

MOMENTS: Final[tuple[Moment, ...]] = ("before", "within", "after")


@dataclass(frozen=True, slots=True, kw_only=True)
class FailPoint:
    """One row."""

    case_name: str
    name: str
    kind: Kind
    nth: int
    moments: tuple[Moment, ...]
    """Only a put has a middle, and one of each kind is enough."""

    def strike(self, moment: Moment, blow: Blow = "kill") -> Strike:
        """Return the blow at that moment."""
        return Strike(moment=moment, kind=self.kind, nth=self.nth, blow=blow)


_SLICE = "put_if_absent shards/n/slices/n/*.parquet"
_CHECKPOINT = "put_if_absent shards/n/checkpoints/n/*.safetensors"
_SLICE_GONE = "delete shards/n/slices/n/*.parquet"
_CHECKPOINT_GONE = "delete shards/n/checkpoints/n/*.safetensors"
_MANIFEST = "put_if_absent manifest/#"
_MANIFEST_GONE = "delete manifest/#"
_RING = "put_if_match keyrings/n/ring"
_KEY_GONE = "delete keyrings/n/kek-n-*"
_FLOOR = "put_if_match control/floor"
_JOURNAL_FLOOR = "put_if_match control/journal-floor"
_JOURNAL_GONE = "delete journal/#"
_LEARNED = "put_if_absent journal/# checkpoint_written"

_ROWS: Final[Mapping[str, tuple[tuple[str, str, int], ...]]] = {
    "train": (
        ("partition key: drawn", "put_if_absent control/partition-key", 1),
        ("start: fencing token claimed", "put_if_absent control/token/#", 1),
        ("start: fence entry appended", "put_if_absent journal/#", 1),
        ("start: first manifest", _MANIFEST, 1),
        ("start: manifests' floor made", "put_if_absent control/floor", 1),
        ("start: journal's floor made", "put_if_absent control/journal-floor", 1),
        ("start: fence entry pruned", _JOURNAL_GONE, 1),
        ("start: id and place of the store", "put_if_absent control/identity", 1),
        ("ingest: key-encryption key drawn", "put_if_absent keyrings/n/kek-n-*", 1),
        ("ingest: keyring made", "put_if_absent keyrings/n/ring", 1),
        ("ingest: slice put", _SLICE, 1),
        ("ingest: keyring gets another key", _RING, 1),
        ("ingest: last slice put", _SLICE, 6),
        ("event: ingested", "put_if_absent journal/# ingested", 1),
        ("event: training configured", "put_if_absent journal/# training_configured", 1),
        ("training: keyring gets a checkpoint's key", _RING, 4),
        ("training: checkpoint put", _CHECKPOINT, 1),
        ("event: checkpoint written", _LEARNED, 1),
        ("training: last checkpoint put", _CHECKPOINT, 6),
        ("event: last checkpoint written, published", _LEARNED, 6),
        ("end: manifest", _MANIFEST, 2),
        ("end: manifests' floor raised", _FLOOR, 1),
        ("end: older manifest deleted", _MANIFEST_GONE, 1),
        ("end: journal's floor raised", _JOURNAL_FLOOR, 1),
        ("end: journal's first entry pruned", _JOURNAL_GONE, 2),
        ("end: journal's last entry pruned", _JOURNAL_GONE, 9),
    ),
    "erase": (
        ("start: fencing token claimed", "put_if_absent control/token/#", 1),
        ("start: fence entry appended", "put_if_absent journal/#", 1),
        ("start: manifest", _MANIFEST, 1),
        ("event: request accepted", "put_if_absent journal/# erasure_accepted", 1),
        ("removal: keyring gets the new slice's key", _RING, 1),
        ("removal: slice without the points put", _SLICE, 1),
        ("removal: tombstones put", "put_if_absent tombstones/*.digests", 1),
        ("removal: state before kept", "put_if_absent requests/*.before", 1),
        ("event: points removed, quarantined", "put_if_absent journal/# points_removed", 1),
        ("retraining: checkpoint put", _CHECKPOINT, 1),
        ("event: checkpoint written", _LEARNED, 1),
        ("retraining: last checkpoint put", _CHECKPOINT, 2),
        ("event: last checkpoint written, published", _LEARNED, 2),
        ("purge: new key-encryption key drawn", "put_if_absent keyrings/n/kek-n-*", 1),
        ("purge: keyring without the tainted keys", _RING, 4),
        ("purge: old key-encryption key destroyed", _KEY_GONE, 1),
        ("purge: tainted slice deleted", _SLICE_GONE, 1),
        ("purge: tainted checkpoint deleted", _CHECKPOINT_GONE, 1),
        ("purge: last tainted checkpoint deleted", _CHECKPOINT_GONE, 2),
        ("event: purged", "put_if_absent journal/# purged", 1),
        ("purge: manifest", _MANIFEST, 2),
        ("purge: manifests' floor raised", _FLOOR, 2),
        ("purge: older manifest deleted", _MANIFEST_GONE, 2),
        ("purge: journal's floor raised", _JOURNAL_FLOOR, 2),
        ("purge: journal's first entry pruned", _JOURNAL_GONE, 2),
        ("receipt: private signing key made", "put_if_absent control/signing/receipts/#", 1),
        ("receipt: public signing key published", "put_if_absent log/keys/receipts/*", 1),
        ("receipt: statement signed", "put_if_absent receipts/envelopes/*", 1),
        ("log: named", "put_if_absent log/origin", 1),
        ("log: private checkpoint key made", "put_if_absent control/signing/checkpoints/#", 1),
        ("log: public checkpoint key published", "put_if_absent log/keys/checkpoints/*", 1),
        ("log: entry", "put_if_absent log/entries/#", 1),
        ("log: checkpoint signed", "put_if_absent log/checkpoint/#", 1),
        ("receipt: bundle", "put_if_absent receipts/bundles/*", 1),
        ("event: receipt issued", "put_if_absent journal/# receipt_issued", 1),
        ("end: state before deleted", "delete requests/*.before", 1),
        ("event: purged once more, complete", "put_if_absent journal/# purged", 2),
        ("end: last manifest", _MANIFEST, 3),
        ("end: last older manifest deleted", _MANIFEST_GONE, 3),
        ("end: last entry pruned", _JOURNAL_GONE, 8),
    ),
    "erase many": (
        ("start: token of the past removed", "delete control/token/#", 1),
        ("request: names put", "put_if_absent requests/*.digests", 1),
        ("event: request accepted", "put_if_absent journal/# erasure_accepted", 1),
        ("removal: tombstones put", "put_if_absent tombstones/*.digests", 1),
        ("event: points removed, quarantined", "put_if_absent journal/# points_removed", 1),
        ("purge: names deleted", "delete requests/*.digests", 1),
        ("purge: older tombstones deleted", "delete tombstones/*.digests", 1),
        ("log: second entry", "put_if_absent log/entries/#", 1),
        ("log: second checkpoint signed", "put_if_absent log/checkpoint/#", 1),
        ("log: tile of both", "put_if_absent log/tiles/#", 1),
        ("log: said to have packs", "put_if_match log/origin", 1),
        ("receipts: both packed", "put_if_absent log/packs/#", 1),
        ("receipts: index names one", "put_if_absent receipts/index/*", 1),
        ("receipts: index names both", "put_if_absent receipts/index/*", 2),
        ("receipts: first by itself deleted", "delete receipts/bundles/*", 1),
        ("receipts: last statement by itself deleted", "delete receipts/envelopes/*", 2),
        ("log: first entry deleted", "delete log/entries/#", 1),
        ("log: older checkpoint deleted", "delete log/checkpoint/#", 1),
        ("log: last entry deleted", "delete log/entries/#", 2),
    ),
    "erase nobody": (
        ("event: request accepted", "put_if_absent journal/# erasure_accepted", 1),
        ("event: nothing to erase, refused", "put_if_absent journal/# nothing_to_erase", 1),
        ("receipt: statement signed", "put_if_absent receipts/envelopes/*", 1),
        ("log: second entry", "put_if_absent log/entries/#", 1),
        ("log: second checkpoint signed", "put_if_absent log/checkpoint/#", 1),
        ("receipt: bundle", "put_if_absent receipts/bundles/*", 1),
        ("event: statement issued", "put_if_absent journal/# receipt_issued", 1),
        ("end: manifest", _MANIFEST, 2),
        ("end: journal's last entry pruned", _JOURNAL_GONE, 4),
    ),
    "erase alike": (
        ("event: request accepted", "put_if_absent journal/# erasure_accepted", 1),
        ("removal: slice without the points put", _SLICE, 1),
        ("removal: tombstones put", "put_if_absent tombstones/*.digests", 1),
        ("removal: names of nobody put", "put_if_absent requests/*.digests", 2),
        ("event: points removed, quarantined", "put_if_absent journal/# points_removed", 1),
        ("event: last checkpoint written, published", _LEARNED, 2),
        ("purge: older tombstones deleted", "delete tombstones/*.digests", 1),
        ("event: purged", "put_if_absent journal/# purged", 1),
        ("event: receipt issued", "put_if_absent journal/# receipt_issued", 1),
    ),
    "readmit": (
        ("start: fencing token claimed", "put_if_absent control/token/#", 1),
        ("tombstones without theirs put", "put_if_absent tombstones/*.digests", 1),
        ("event: subjects readmitted", "put_if_absent journal/# subjects_readmitted", 1),
        ("receipt: statement signed", "put_if_absent receipts/envelopes/*", 1),
        ("log: second entry", "put_if_absent log/entries/#", 1),
        ("log: second checkpoint signed", "put_if_absent log/checkpoint/#", 1),
        ("receipt: bundle", "put_if_absent receipts/bundles/*", 1),
        ("event: statement issued", "put_if_absent journal/# receipt_issued", 1),
        ("purge: older tombstones deleted", "delete tombstones/*.digests", 1),
        ("end: manifest", _MANIFEST, 2),
    ),
    "train back": (
        ("ingest: slice put", _SLICE, 1),
        ("event: ingested", "put_if_absent journal/# ingested", 1),
        ("event: purged", "put_if_absent journal/# purged", 1),
    ),
    "train again": (
        ("ingest: slice put", _SLICE, 1),
        ("ingest: last slice put", _SLICE, 6),
        ("event: ingested", "put_if_absent journal/# ingested", 1),
        ("purge: old key-encryption key destroyed", _KEY_GONE, 2),
        ("purge: last slice deleted", _SLICE_GONE, 6),
        ("event: purged", "put_if_absent journal/# purged", 1),
    ),
}


def _fail_points() -> Iterator[FailPoint]:
    seen: set[str] = set()
    for case_name, rows in _ROWS.items():
        for name, kind, nth in rows:
            has_middle = kind.startswith("put_") and kind not in seen
            moments: tuple[Moment, ...] = MOMENTS if has_middle else ("before", "after")
            yield FailPoint(case_name=case_name, name=name, kind=Kind(kind), nth=nth, moments=moments)
            seen.add(kind)


FAIL_POINTS: Final = tuple(_fail_points())

CELLS: Final = tuple((point, moment) for point in FAIL_POINTS for moment in point.moments)
"""One kill for each row and each of its moments."""


def complaints(name: str, outcome: CaseOutcome, reference: Reference) -> Iterator[str]:
    """Yield what is wrong with how a case ended; nothing when all is as if nothing had happened."""
    yield from differences(reference.outcome, outcome.answer["outcome"])
    request = COMMAND_CASES[name].request
    if request and outcome.answer["again"] != outcome_state(reference, request):
        yield f"the request given again is {outcome.answer['again']}"
    if f"{request} accepted" in outcome.reported and outcome.found["request"] is None:
        yield "a request that was acknowledged is lost"
    quarantined = outcome.found["request"] not in {None, "accepted"}
    if quarantined and (tainted := reference.tainted.intersection(outcome.found["served"])):
        yield f"a tainted constituent answered: {tainted}"


def differences(expected: Mapping[str, Any], outcome: Mapping[str, Any]) -> Iterator[str]:
    """Yield where an outcome is another one than was expected."""
    for what, value in expected.items():
        if outcome[what] != value:
            yield f"{what}: expected {value}, got {outcome[what]}"


def outcome_state(reference: Reference, request: str) -> str:
    """Return the state that the request ends in."""
    return next(str(state) for request_id, state, *_ in reference.outcome["requests"] if request_id == request)


def try_cell(runner: CaseRunner, point: FailPoint, moment: Moment) -> str:
    """Kill the command at the fail point, let the next one recover, and return in a few words what was found between.

    Raises ``AssertionError`` with all that is wrong.
    """
    outcome = runner.play(point.case_name, [point.strike(moment)])
    assert outcome.kills == 1, "the fail point was not reached"
    wrong = list(complaints(point.case_name, outcome, runner.reference(point.case_name)))
    assert not wrong, "\n".join(wrong)
    return found_words(point.case_name, outcome)


def found_words(case_name: str, outcome: CaseOutcome) -> str:
    """Return what the first reader saw: how far the request was, or how much was learned, and how many answered."""
    request = COMMAND_CASES[case_name].request
    reached = outcome.found["request"] or "not accepted" if request else f"{outcome.found['learned']} of 6 learned"
    return f"{reached}, {len(outcome.found['served'])}/3 answer"


def as_lines(outcomes: Mapping[tuple[str, str, Moment], str]) -> Iterator[str]:
    """Yield the table in Markdown: a row a fail point, a column a moment, in each what was found after the kill."""
    yield "| killed at | before | within | after |"
    yield "| --- | --- | --- | --- |"
    for point in FAIL_POINTS:
        cells = [outcomes.get((point.case_name, point.name, moment), "–") for moment in MOMENTS]
        yield f"| {point.case_name} · {point.name} | {' | '.join(cells)} |"
