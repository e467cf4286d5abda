"""What ``sisa verify`` says."""

from __future__ import annotations

from cluster.results.federation import Verification
from deploy.views.output import ExitCode, Outcome, Problem
from deploy.views.text import verification_text


def verification_outcome(found: Verification) -> Outcome:
    """Return what a verification found: a failure, with all that was found, unless everything holds."""
    data = {
        "exact": found.exact,
        "shards": found.shards,
        "residue": found.residue,
        "receipts": found.receipts,
    }
    text = verification_text(found)
    if found.holds:
        return Outcome(data=data, text=f"{text}\nall constituents are byte-equal, and nothing is left over")
    problem = Problem(
        kind="proof_failed",
        message=_what_failed(found),
        remedy="run 'sisa train': it finishes what was interrupted and rebuilds what is damaged; then verify again",
    )
    return Outcome(data=data, text=text, problem=problem, code=ExitCode.PROOF_FAILED)


def _what_failed(found: Verification) -> str:
    if not found.exact:
        return "a constituent is not byte-equal"
    return "the store holds what it should not" if found.residue.found else "a receipt or the receipts' log is broken"
