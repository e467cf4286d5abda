"""Reading and printing for ``sisa receipt`` and ``sisa log``.

A receipt to be checked may come from anyone. So nothing in it is believed before its signatures are verified, any field
may be missing or of another type, and control characters are removed before it is printed.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coordinator.receipts.bundles import ReceiptBundle, ReceiptCheck, bundle_from_bytes, statement_of, verify_bundle
from coordinator.receipts.kinds import NOTHING_FOUND_TYPE, READMISSION_TYPE, RECTIFICATION_TYPE, REFUTATION_TYPE
from coordinator.receipts.openings import commitment, commitment_in
from deploy.views.handed_over import public_keys_in, receipt_in
from deploy.views.output import ExitCode, Outcome, Problem
from deploy.views.tables import table
from storage.errors import Corrupt, Invalid
from storage.transparency.check import LogCheck
from storage.transparency.keys import PublicKey

_MOST_PROBLEMS_SHOWN = 50
_NOT_KNOWN = "-"
_SALT = re.compile(r"[0-9a-f]+")


def receipt_outcome(bundle: ReceiptBundle) -> Outcome:
    """Return a receipt as ``sisa receipt REQUEST`` prints it; checks use ``data.bundle`` in canonical JSON."""
    found = statement_of(bundle)
    data = {"request_id": found["predicate"]["request"]["id"], "bundle": json.loads(bundle.to_bytes())}
    return Outcome(data=data, text=receipt_text(bundle, found))


def print_receipt(bundle: ReceiptBundle, *, quiet: bool) -> Outcome:
    """Print what the receipt says on stderr, unless ``quiet``; return it for stdout, to be saved and checked."""
    outcome = receipt_outcome(bundle)
    if not quiet:
        sys.stderr.write(outcome.text + "\n")
    return replace(outcome, text=bundle.to_bytes().decode("ascii"))


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """The names that a receipt may be about, and its salt, without which they cannot be checked."""

    salt: str
    subjects: tuple[str, ...]
    """All of them, as they were given to the request."""
    ids: tuple[str, ...]


def check_receipt(file: Path, key_files: Sequence[Path] = (), about: About | None = None) -> Outcome:
    """Return whether the receipt in ``file`` is genuine, judged by the public keys in ``key_files``.

    Without key files the keys in the receipt itself are used. They show that the receipt is unaltered and in the log
    that it names, but not whose it is: the outcome is ``UNTRUSTED``, and ``trusted`` is false.
    A file that a shell or an editor has reformatted is accepted.

    With ``about``, also check that the receipt is about these names.

    Raises ``Invalid`` when a file cannot be read, is not a public key, or was written by a newer version, and when
    ``about`` is given for a receipt that commits to no names.
    """
    payload, is_respelled = receipt_in(file)
    keys = tuple(key for each in key_files for key in public_keys_in(each))
    try:
        bundle = bundle_from_bytes(payload)
    except Corrupt as error:
        return _refused(ReceiptCheck(failures=(error.message,)), str(file))
    check = verify_bundle(bundle, keys or bundle.keys)
    if not check.is_valid or check.statement is None:
        return _refused(check, str(file))
    data = _check_data(check) | {
        "trusted": bool(keys),
        "respelled": is_respelled,
        "keys": _key_data(bundle.keys),
        "keys_given": bool(keys),
    }
    lines = [receipt_text(bundle, check.statement), *_verdict(check, bundle.keys, given=bool(keys))]
    if is_respelled:
        lines.append("a shell or an editor has reformatted the file; the signed statement in it is intact")
    if about is not None:
        if not _is_about(check.statement, about):
            return _not_about(check, str(file))
        data |= {"about_these_names": True}
        lines.append("it is about the names given: with the salt they yield its digest")
    if keys:
        return Outcome(data=data, text="\n".join(lines))
    problem = Problem(
        kind="untrusted",
        message=f"the receipt is intact, but no trusted key was given: anybody may have made it [file={file}]",
        remedy="Give the operator's public keys with --key: a file that 'sisa keys --export' wrote, from the operator.",
    )
    return Outcome(data=data, text="\n".join(lines), problem=problem, code=ExitCode.UNTRUSTED)


def log_outcome(check: LogCheck) -> Outcome:
    """Return what ``sisa log --check`` found."""
    data = {
        "sound": check.is_sound,
        "entries": check.entries,
        "root": check.root,
        "checkpoint": check.checkpoint,
        "uncovered": check.uncovered,
        "problems": list(check.problems),
        "earlier": check.earlier,
        "consistency": list(check.consistency),
    }
    if check.is_sound:
        return Outcome(data=data, text=log_text(check))
    return Outcome(
        data=data,
        text=log_text(check),
        problem=Problem(
            kind="proof_failed",
            message=f"the receipts' log is not what was signed: {len(check.problems)} findings",
            remedy="Keep the store as it is, and compare the log with a copy. Receipts handed out stay verifiable.",
        ),
        code=ExitCode.PROOF_FAILED,
    )


def receipt_text(bundle: ReceiptBundle, found: dict[str, Any]) -> str:
    """Return a receipt for people; ``found`` is its statement."""
    predicate = _record(found.get("predicate"))
    request = _record(predicate.get("request"))
    title, *facts = _facts_text(found.get("predicateType"), predicate, request)
    return "\n".join(
        [
            f"{title} {_shown(request.get('id'))}",
            f"  federation {_shown(predicate.get('federation'))}",
            f"  issued {_shown(predicate.get('issued_at'))}, entry {bundle.index} of the log",
            *facts,
            f"it proves: {_shown(predicate.get('proves'))}",
            f"it does not prove: {_shown(predicate.get('does_not_prove'))}",
            *(f"not covered: {_shown(each)}" for each in _list(predicate.get("exceptions"))),
            "the log's checkpoint, to be kept elsewhere:",
            *(f"  {_shown(line)}" for line in bundle.checkpoint.splitlines()),
        ]
    )


def _facts_text(kind: object, predicate: dict[str, Any], request: dict[str, Any]) -> list[str]:
    """Return the kind of a statement, and its facts: an erasure, a request that found nothing, or a readmission."""
    named = f"  named: {_shown(request.get('subjects'))} subjects"
    digest = f"  digest of what was named: {_shown(request.get('digest'))}"
    to_names = "  commitment to the names, which needs the asker's salt:"
    if kind == READMISSION_TYPE:
        return ["readmission", named, digest, *_times_text(request), f"  reason: {_shown(predicate.get('reason'))}"]
    if kind == REFUTATION_TYPE:
        others = ", ".join(_shown(each) for each in _list(predicate.get("receipts_about_this_shard")))
        return [
            "constituent found wrong:",
            f"  shard {_shown(predicate.get('shard'))}, slice {_shown(predicate.get('slice'))}",
            f"  constituent {_shown(predicate.get('constituent'))}",
            f"  retrained {_shown(predicate.get('retrained'))}",
            *_times_text(request),
            f"  receipts about this shard: {others or 'none'}",
        ]
    named += f", {_shown(request.get('ids'))} data points"
    if kind == NOTHING_FOUND_TYPE:
        searched = _record(predicate.get("searched"))
        similar = _record(searched.get("similar"))
        others = f"  not yet purged: what {_shown(searched.get('being_erased'))} other requests have taken out"
        return [
            "nothing found for erasure request",
            f"{named}; nothing of any of them among {_shown(searched.get('points'))} data points",
            (
                f"  names were compared in the form {_shown(searched.get('subject_form'))}; spelt alike:"
                f" {_shown(similar.get('subjects'))} subjects, {_shown(similar.get('points'))} data points"
            ),
            *([others] if searched.get("being_erased") else []),
            f"{to_names} {_shown(request.get('digest'))}",
            *_times_text(request),
        ]
    is_correction = kind == RECTIFICATION_TYPE
    kind_of_fact = "rectified" if is_correction else "erased"
    erased, held_out = (_record(each) for each in (predicate.get(kind_of_fact), predicate.get("holdout")))
    of_them = f", of which hold-out points: {_shown(held_out.get(kind_of_fact))}" if held_out else ""
    return [
        "receipt for a request to correct data points" if is_correction else "receipt for erasure request",
        f"{named}; {_shown(request.get('unknown'))} of them have nothing here",
        digest,
        *([f"{to_names} {_shown(request['commitment'])}"] if "commitment" in request else []),
        f"  {'corrected' if is_correction else 'erased'}: {_shown(erased.get('points'))} data points{of_them}",
        *_times_text(request),
        *_models_text(predicate),
        *_store_text(predicate),
    ]


def _is_about(statement: dict[str, Any], about: About) -> bool:
    stated = commitment_in(statement)
    if stated is None:
        raise Invalid(
            "this receipt commits to no names: readmissions, and receipts of requests to release 0.1, do not",
            "Leave --salt, --subject and --id out.",
        )
    # With a salt of another form, part of a name could be moved into the salt, and another name would be accepted.
    is_salt = _SALT.fullmatch(about.salt) is not None
    return is_salt and stated == commitment(about.salt, subjects=about.subjects, ids=about.ids)


def log_text(check: LogCheck) -> str:
    """Return a check of the log for people."""
    lines = [f"log: {check.entries} entries, root {check.root}"]
    if check.uncovered:
        lines.append(f"  {check.uncovered} entries await their checkpoint; the next receipt covers them")
    if check.earlier is not None:
        lines.append(f"  continues the earlier checkpoint of {check.earlier} entries")
    shown = check.problems[:_MOST_PROBLEMS_SHOWN]
    lines += [f"  {_shown(problem)}" for problem in shown]
    if len(shown) < len(check.problems):
        lines.append(f"  and {len(check.problems) - len(shown)} more")
    if check.checkpoint is not None:
        lines += ["newest checkpoint, to be kept elsewhere:", *(f"  {line}" for line in check.checkpoint.splitlines())]
    return "\n".join(lines)


def _times_text(request: dict[str, Any]) -> list[str]:
    times = _record(request.get("times"))
    lines = [(_shown(state), _shown(at)) for state, at in sorted(times.items(), key=lambda each: str(each[1]))]
    due = [f"  due {_shown(request['due_at'])}"] if "due_at" in request else []
    return [*table(("state", "reached"), lines).splitlines(), *due]


def _models_text(predicate: dict[str, Any]) -> list[str]:
    shards = [_record(each) for each in _list(predicate.get("shards"))]
    lines = [
        (
            _shown(shard.get("shard")),
            ", ".join(_shown(each) for each in _list(shard.get("slices"))),
            f"{_shown(shard.get('points_before'))} to {_shown(shard.get('points_after'))}",
            len(_list(shard.get("superseded"))),
            _shown(shard.get("constituent"))[:16],
        )
        for shard in shards
    ]
    generation, floor = _shown(predicate.get("generation")), _shown(predicate.get("erasure_floor"))
    return [
        *table(("shard", "slices", "data points", "checkpoints superseded", "constituent"), lines).splitlines(),
        f"  generation {generation} took over; none below {floor} is ever served",
        *_guarantee_text(_record(predicate.get("guarantee")), shards),
    ]


def _guarantee_text(guarantee: dict[str, Any], shards: list[dict[str, Any]]) -> list[str]:
    if not guarantee:
        return []
    kind, epsilon, delta = (_shown(guarantee.get(name)) for name in ("kind", "epsilon", "delta"))
    used = [f"{_shown(each.get('budget_used'))} of the budget of shard {_shown(each.get('shard'))}" for each in shards]
    return [f"  guarantee: {kind}, epsilon {epsilon}, delta {delta}; used: {', '.join(used) or _NOT_KNOWN}"]


def _store_text(predicate: dict[str, Any]) -> list[str]:
    purged = Counter(_shown(_record(each).get("what")) for each in _list(predicate.get("purged")))
    kinds = ", ".join(f"{count} {what}" for what, count in sorted(purged.items()))
    scan, store = _record(predicate.get("scan")), _record(predicate.get("store"))
    return [
        f"  purged: {purged.total()} objects ({kinds or 'none'}) from a store of kind {_shown(store.get('kind'))}",
        f"  scan after it: {_shown(scan.get('objects'))} objects, {_shown(scan.get('findings'))} findings",
    ]


def _verdict(check: ReceiptCheck, keys: Iterable[PublicKey], *, given: bool) -> list[str]:
    whole = f"signed, and entry {check.index} of a log of {check.log_size}"
    if given:
        return [f"the receipt is genuine: {whole}"]
    return [
        f"the receipt is unaltered: {whole}",
        "WHOSE it is was not checked, because no public key was given: pass the operator's with --key, or compare",
        "these ids with those that the operator has published:",
        *(f"  {key.purpose}: {key.key_id}" for key in keys),
    ]


def _refused(check: ReceiptCheck, file: str) -> Outcome:
    return Outcome(
        data=_check_data(check),
        text="\n".join(f"  {_shown(failure)}" for failure in check.failures),
        problem=Problem(
            kind="proof_failed",
            message=f"the receipt is not genuine, or not by these keys: {len(check.failures)} findings [file={file}]",
            remedy="Ask who issued it for the receipt and for the public keys again.",
        ),
        code=ExitCode.PROOF_FAILED,
    )


def _not_about(check: ReceiptCheck, file: str) -> Outcome:
    """Return the outcome for a sound receipt about other names: the user has to check the names, not the receipt."""
    fact = "it is not about these names, or the salt is another one"
    return replace(
        _refused(replace(check, failures=(fact,)), file),
        problem=Problem(
            kind="proof_failed",
            message=f"the receipt is not about these names, or the salt is another one [file={file}]",
            remedy="Give all names that the request gave, spelt as they were given, and the salt from its answer.",
        ),
    )


def _check_data(check: ReceiptCheck) -> dict[str, Any]:
    return {
        "valid": check.is_valid,
        "trusted": False,
        "failures": list(check.failures),
        "request_id": _shown(check.request_id) if check.is_valid else None,
        "index": check.index,
        "log_size": check.log_size,
        "origin": check.origin,
    }


def _key_data(keys: Iterable[PublicKey]) -> list[dict[str, str]]:
    return [{"purpose": key.purpose, "key_id": key.key_id} for key in keys]


def _record(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _shown(value: Any) -> str:
    """Return a value of a receipt that is safe to print: one line, no control characters."""
    text = _NOT_KNOWN if value is None else str(value)
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
