"""The output of ``sisa verify``."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.results.federation import Verification
from coordinator.verification import ShardProof
from deploy.views.output import ExitCode, Outcome, Problem, json_value
from deploy.views.text import verification_text
from shards.learner_kinds.guarantees import EXACT

_PROVED = ("shard", "digest", "retrained_digest", "exact")
_CERTIFIED = ("shard", "digest", "residual", "accounted", "holds")

_OWN_RESIDUE = ("object", "unfinished write", "superseded manifest", "journal entry")
"""Prefixes of findings that the next training repairs."""


def verification_outcome(found: Verification) -> Outcome:
    """Return the outcome of a verification: success if everything holds, otherwise a failure with all findings."""
    data = {
        "exact": found.exact,
        "guarantee": found.guarantee,
        "shards": [proof_json(proof, found.guarantee) for proof in found.shards],
        "residue": finding_json(json_value(found.residue)),
        "receipts": finding_json(json_value(found.receipts)),
    }
    text = verification_text(found)
    if found.holds:
        is_exact = found.guarantee == str(EXACT)
        kept = "all constituents are byte-equal" if is_exact else f"all constituents are {found.guarantee}"
        return Outcome(data=data, text=f"{text}\n{kept}, and nothing is left over")
    problem = Problem(kind="proof_failed", message=_what_failed(found), remedy=" ".join(_remedies(found)))
    return Outcome(data=data, text=text, problem=problem, code=ExitCode.PROOF_FAILED)


def proof_json(proof: ShardProof, guarantee: str) -> dict[str, object]:
    """Return a shard's proof in the form of the API contract, with the fields of a refutation if there is one."""
    names = _PROVED if guarantee == str(EXACT) else _CERTIFIED
    found = {name: json_value(getattr(proof, name)) for name in names}
    if guarantee != str(EXACT):
        found["guarantee"] = guarantee
    wrong = {} if proof.refutation is None else {"refutation": json_value(proof.refutation), "again": proof.again}
    return found | wrong


def finding_json(found: dict[str, object]) -> dict[str, object]:
    """Return findings in the form of the API contract; ``unread`` is present only if something was not read."""
    return found if found["unread"] else {name: value for name, value in found.items() if name != "unread"}


def _what_failed(found: Verification) -> str:
    if not found.is_kept:
        wrong = ", ".join(str(proof.shard) for proof in found.shards if proof.refutation is not None)
        is_exact = found.guarantee == str(EXACT)
        fact = "a constituent is not byte-equal" if is_exact else "a constituent's residual is not what was accounted"
        return f"{fact}{f'; no longer answering: shard {wrong}' if wrong else ''}"
    left_over = "the store holds objects that it should not hold"
    return left_over if found.residue.found else "a receipt or the receipts' log is broken"


def _remedies(found: Verification) -> Iterator[str]:
    """Yield a remedy for each kind of finding."""
    if any(proof.again for proof in found.shards) and found.guarantee != str(EXACT):
        yield "Retraining did not help last time: keep the store as it is and report this."
    elif any(proof.again for proof in found.shards):
        yield (
            "Retraining did not help last time, so the model's result depends on the process that trains it:"
            " docs/own-model.md says what a model may not use. Correct the model, then train."
        )
    elif not found.is_kept:
        yield "Run 'sisa train', which retrains what is wrong or not trained, then verify again."
    own = [each for each in found.residue.found if each.startswith(_OWN_RESIDUE)]
    if own and found.is_kept:
        yield "Run 'sisa train', which finishes what was interrupted and rebuilds what is damaged, then verify again."
    if any(each.startswith("file that is not ours") for each in found.residue.found):
        yield "Move files that sisa-ray did not write out of the store: no command touches them."
    if any("erased data points" in each for each in found.residue.found):
        yield "Keep the store as it is and report this: a slice holds data points that have tombstones."
    forgotten = [each for each in found.receipts.broken if each.endswith("the state does not know it")]
    if forgotten:
        yield "Submit again, under their ids, the requests that the state does not know, or restore the whole store."
    if len(forgotten) < len(found.receipts.broken):
        yield "Restore log/ and receipts/ from a copy: signed statements cannot be made again."
