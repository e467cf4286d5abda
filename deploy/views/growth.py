"""Checks from two files, without a store, whether a log continues an earlier checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from coordinator.receipts.bundles import CHECKPOINTS
from deploy.views.handed_over import public_keys_in, read_growth, read_log_checkpoint
from deploy.views.output import ExitCode, Outcome, Problem
from storage.errors import Corrupt, Invalid
from storage.transparency.checkpoint import LogCheckpoint, open_checkpoint
from storage.transparency.keys import PublicKey
from storage.transparency.merkle import verify_consistency


def check_growth(earlier: Path, later: Path, key_files: Sequence[Path]) -> Outcome:
    """Return whether the log of the checkpoint in ``later`` continues that of the one in ``earlier``.

    ``later`` is what ``sisa log EARLIER --json`` printed, or ``GET /v1/log/checkpoint`` answered: it holds the proof.
    Raises ``Invalid`` when a file cannot be read or holds something else, or when the proof is missing.
    """
    keys = tuple(key for each in key_files for key in public_keys_in(each) if key.purpose == CHECKPOINTS)
    grown = read_growth(later)
    failures: list[str] = []
    old = _opened("earlier", read_log_checkpoint(earlier), keys, failures)
    new = _opened("later", grown.checkpoint, keys, failures)
    if old is not None and new is not None:
        needs_proof = 0 < old.size < new.size
        if needs_proof and not grown.proof:
            raise Invalid(
                "the file with the later checkpoint holds no proof that its log continues the earlier one",
                f"Have the operator run 'sisa log {earlier.name} --json', and give what it prints.",
                file=str(later),
            )
        failures += _differences(old, new, (grown.proof or ()) if needs_proof else ())
    data = {
        "consistent": not failures,
        "failures": failures,
        "origin": new.origin if new else None,
        "earlier": old.size if old else None,
        "log_size": new.size if new else None,
        "checkpoint": grown.checkpoint if new else None,
    }
    if failures:
        problem = Problem(
            kind="proof_failed",
            message=f"the log does not continue the earlier checkpoint, or is not signed by these keys [file={later}]",
            remedy="Keep both files: two checkpoints by one key that no proof joins show that the log was rewritten.",
        )
        text = "\n".join(f"  {each}" for each in failures)
        return Outcome(data=data, text=text, problem=problem, code=ExitCode.PROOF_FAILED)
    assert old is not None
    assert new is not None
    text = f"the log {new.origin} of {new.size} entries continues the earlier checkpoint of {old.size}"
    return Outcome(data=data, text=text)


def _opened(which: str, note: str, keys: Sequence[PublicKey], failures: list[str]) -> LogCheckpoint | None:
    try:
        return open_checkpoint(note, keys).checkpoint
    except Corrupt as error:
        failures.append(f"the {which} checkpoint: {error.fact}")
        return None


def _differences(old: LogCheckpoint, new: LogCheckpoint, proof: Sequence[bytes]) -> Iterator[str]:
    """Yield why the log does not continue the old checkpoint."""
    if old.origin != new.origin:
        yield "the two checkpoints are of different logs"
    elif new.size < old.size:
        yield f"the later checkpoint covers {new.size} entries, fewer than the earlier one, which covers {old.size}"
    elif not verify_consistency(old_size=old.size, old_root=old.root, size=new.size, root=new.root, proof=proof):
        yield "the later log does not begin with the earlier one's entries, or the proof is not for these checkpoints"
