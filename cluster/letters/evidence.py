"""What a signed statement says, in plain words. Pure.

A statement may be of an older release, or altered before its signature was checked: a missing field is left out of the
letter, and nothing here raises an error for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cluster.letters.words import moment_text, with_noun
from coordinator.receipts.kinds import NOTHING_FOUND_TYPE, READMISSION_TYPE, RECTIFICATION_TYPE

Pairs = tuple[tuple[str, str], ...]
"""Terms, or times, with the text about each."""

_STEPS: Final = (
    ("accepted", "The request was accepted and put on record."),
    ("cancelled", "The request was withdrawn."),
    ("refused", "All data was searched, and nothing was found."),
    ("quarantined", "From this moment on no answer used a model that had learned from the {old}."),
    ("published", "Models without the {old} took over."),
    ("purged", "The last objects with the {old} were deleted from the store."),
    ("complete", "The whole store was searched for leftovers, and the receipt was signed."),
    ("readmitted", "From this moment on new data is accepted again."),
)
_KINDS: Final = {
    "slice": ("stored part of the data", "stored parts of the data"),
    "checkpoint": ("stored model", "stored models"),
    "names": ("list of the names in requests", "lists of the names in requests"),
    "tombstones": ("earlier list of erased people", "earlier lists of erased people"),
    "draft": ("draft of new values", "drafts of new values"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainStatement:
    """A signed statement in plain words."""

    found: Pairs
    removed: Pairs
    """Empty for statements about nothing removed."""
    proven: tuple[str, ...]
    not_proven: tuple[str, ...]
    not_covered: tuple[str, ...]
    """Places that the erasure does not reach, as the statement lists them: they depend on the store."""
    in_its_own_words: tuple[str, ...]
    """Its sentences about what it proves and does not prove, unchanged."""


def steps_of(times: Mapping[str, str], *, corrects: bool = False) -> Pairs:
    """Return what happened when, for the states of a request that a person can make sense of."""
    old = "old values" if corrects else "erased data"
    return tuple((moment_text(times[state]), text.format(old=old)) for state, text in _STEPS if state in times)


def guarantee_in(statement: Mapping[str, Any]) -> str:
    """Return the guarantee of a learner that is not exact, in a sentence; empty: it is exact, or nothing says so."""
    guarantee = _object(_object(statement.get("predicate")).get("guarantee"))
    if not guarantee:
        return ""
    epsilon, delta = guarantee.get("epsilon"), guarantee.get("delta")
    return (
        "The models in use since then are not exactly those that training without this data gives: somebody who does"
        " not know the noise in them cannot distinguish them from such models, up to the limits"
        f" epsilon {epsilon} and delta {delta}."
    )


def in_plain_words(statement: Mapping[str, Any], index: int) -> PlainStatement:
    """Return what the statement at this place of the log says. Raises nothing for fields that it lacks."""
    predicate = _object(statement.get("predicate"))
    kind = statement.get("predicateType")
    found, removed = _FACTS.get(str(kind), _erasure_facts)(predicate)
    return PlainStatement(
        found=found,
        removed=removed,
        proven=_proven(kind, predicate, index),
        not_proven=_not_proven(kind),
        not_covered=tuple(each for each in _list(predicate.get("exceptions")) if isinstance(each, str)),
        in_its_own_words=tuple(
            str(each) for each in (predicate.get("proves"), predicate.get("does_not_prove")) if isinstance(each, str)
        ),
    )


def _erasure_facts(predicate: Mapping[str, Any]) -> tuple[Pairs, Pairs]:
    corrects = "rectified" in predicate
    shards, held_out = _list(predicate.get("shards")), _object(predicate.get("holdout"))
    points = _object(predicate.get("rectified" if corrects else "erased")).get("points")
    found = [("Data points found", with_noun(points, "data point"))] if isinstance(points, int) else []
    unused = held_out.get("rectified" if corrects else "erased")
    if isinstance(unused, int) and unused:
        found.append(("Of these never used to train", f"{with_noun(unused, 'data point')}, only to measure models"))
    if shards:
        found.append(("Models that had learned from them", with_noun(len(shards), "model")))
    return tuple(found), _removed(predicate, corrects=corrects)


def _removed(predicate: Mapping[str, Any], *, corrects: bool) -> Pairs:
    purged = Counter(str(_object(each).get("what")) for each in _list(predicate.get("purged")))
    keys = sum(1 for _ in _list(predicate.get("keyrings")))
    scan = _object(predicate.get("scan"))
    kinds = ", ".join(with_noun(count, *_KINDS.get(what, (what, what))) for what, count in sorted(purged.items()))
    removed = [("Deleted from the store", f"{with_noun(purged.total(), 'object')}: {kinds}")] if purged else []
    if keys:
        removed.append(("Keys destroyed", f"{with_noun(keys, 'set of keys', 'sets of keys')}: copies cannot be read"))
    objects, findings = scan.get("objects"), scan.get("findings")
    if isinstance(objects, int) and isinstance(findings, int):
        left = "found nothing that should not be there"
        if findings:
            left = f"found {with_noun(findings, 'object')} that should not be there. Ask us about them"
        removed.append(("Search afterwards", f"The search through {with_noun(objects, 'object')} of the store {left}."))
    generation, floor = predicate.get("generation"), predicate.get("erasure_floor")
    if isinstance(generation, int) and isinstance(floor, int) and not corrects:
        removed.append(("Models in use", f"Set {generation} took over; no set before number {floor} is used again."))
    return tuple(removed)


def _nothing_found_facts(predicate: Mapping[str, Any]) -> tuple[Pairs, Pairs]:
    searched = _object(predicate.get("searched"))
    points, others = searched.get("points"), searched.get("being_erased")
    found = [("Data found under the names given", "nothing")]
    if isinstance(points, int):
        found.append(("Searched", with_noun(points, "data point")))
    if isinstance(others, int) and others:
        found.append(
            (
                "Not deleted yet",
                f"Data of {with_noun(others, 'other request')} was out of use and not yet deleted at that time.",
            )
        )
    return tuple(found), ()


def _readmission_facts(predicate: Mapping[str, Any]) -> tuple[Pairs, Pairs]:
    request, reason = _object(predicate.get("request")), predicate.get("reason")
    found = [("People who may come back", f"{request.get('subjects', '')}")]
    if isinstance(reason, str):
        found.append(("Reason on record", reason))
    return tuple(found), ()


_FACTS: Final = {NOTHING_FOUND_TYPE: _nothing_found_facts, READMISSION_TYPE: _readmission_facts}


def _proven(kind: object, predicate: Mapping[str, Any], index: int) -> tuple[str, ...]:
    bound = (
        f"We have signed these facts and entered them as number {index} into a log in which nothing can be changed or"
        " removed without notice. We cannot claim something else later."
    )
    if kind in (NOTHING_FOUND_TYPE, READMISSION_TYPE):
        return (bound,)
    without = "the old values" if kind == RECTIFICATION_TYPE else "your data"
    compared = (
        f"The receipt has a fingerprint of each new model. An auditor whom we let into our store can train the models"
        f" again without {without}, and compare the fingerprints."
    )
    if _object(predicate.get("guarantee")):
        compared = "The receipt has a fingerprint of each new model, and how much of its budget for erasures is used."
    return bound, compared


def _not_proven(kind: object) -> tuple[str, ...]:
    binds = "That the facts are true: a signature binds us to what we state, it does not make it true."
    names = (
        "Whom it is about: it names nobody. With the secret number (salt) that belongs to the request, and the names"
        " that the request gave, anybody can check that it is about them."
    )
    if kind == READMISSION_TYPE:
        return (
            "That you asked for it, or whom it is about: it names nobody.",
            "That anything erased came back. Nothing is restored: only new data is accepted.",
        )
    if kind == NOTHING_FOUND_TYPE:
        return (
            binds,
            "That nothing is held under a similar name, or that nothing was held earlier.",
            "That no data about you exists in other systems.",
            names,
        )
    return "That no copy exists outside this system.", binds, names


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
