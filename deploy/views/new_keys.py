"""Checks from two files whether new keys are signed by keys that an auditor already has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploy.views.handed_over import endorsements_in, public_keys_in
from deploy.views.output import ExitCode, Outcome, Problem
from storage.transparency.key_rotation import trusted_through


def check_keys(file: Path, pinned: Sequence[Path]) -> Outcome:
    """Return whether every key in ``file`` is in ``pinned``, or is signed, directly or through others, by one that is.

    Raises ``Invalid`` when a file cannot be read or holds no keys.
    """
    known = {key for each in pinned for key in public_keys_in(each)}
    offered = public_keys_in(file)
    trusted = trusted_through(known, [each for source in (file, *pinned) for each in endorsements_in(source)])
    unsigned = [key for key in offered if key not in trusted]
    new = [key for key in offered if key in trusted and key not in known]
    data = {
        "trusted": not unsigned,
        "new": [key.key_id for key in new],
        "unsigned": [key.key_id for key in unsigned],
    }
    lines = [
        *(f"  new, and signed by a key that you have: {key.purpose} {key.key_id}" for key in new),
        *(f"  not signed by a key that you have: {key.purpose} {key.key_id}" for key in unsigned),
    ]
    if not unsigned:
        text = "\n".join([*lines, f"all {len(offered)} keys are yours, or are signed by them: keep this file instead"])
        return Outcome(data=data, text=text)
    problem = Problem(
        kind="proof_failed",
        message=f"{len(unsigned)} keys are not signed by any key that you have [file={file}]",
        remedy="Ask the operator, by another channel than the one the file came by, whether these keys are theirs.",
    )
    return Outcome(data=data, text="\n".join(lines), problem=problem, code=ExitCode.PROOF_FAILED)
