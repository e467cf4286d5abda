"""The answer to the person who asked, by kind and state of the request. Pure.

The first word answers the question that people have, "is my data gone?"; the sentences after it say what remains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cluster.letters.words import day_text, with_noun
from coordinator.requests import RequestState
from coordinator.status import RequestStatus

_OUT_OF_USE: Final = frozenset({"quarantined", "retraining", "published", "purged"})
"""Stages in which answers no longer use the data points, but the request is not complete yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterAnswer:
    """The first lines of a letter."""

    subject: str
    """What the letter is about."""
    verdict: str
    """The answer in a few words."""
    sentences: tuple[str, ...]


def answer_to(request: RequestStatus, *, guarantee: str = "") -> LetterAnswer:
    """Return the answer about a request in its current state.

    ``guarantee``: the guarantee in words, if the learner does not promise exactly the models of a training without the
    data points; empty: it does.
    """
    corrects = request.kind == "rectification"
    verdict, sentences = _said(request, corrects=corrects, guarantee=guarantee)
    return LetterAnswer(
        subject=f"Your request to {'correct' if corrects else 'erase'} personal data",
        verdict=verdict,
        sentences=(*sentences, *_delays(request)),
    )


def readmission_answer(subjects: int, without_ids: int, at: str) -> LetterAnswer:
    """Return the answer about a readmission: what may come back from that time on, and what stays erased."""
    stays = "Data that had been erased stays erased: it is kept out by its number, also where a source still has it."
    if without_ids:
        whose = "Of" if without_ids == subjects else f"Of {without_ids:,} of them"
        stays = (
            f"{whose} what had been erased, no numbers of single data points are known: it comes back as well if a"
            " source still has it."
        )
    who = "You were" if subjects == 1 else f"{with_noun(subjects, 'person', 'people')} were"
    return LetterAnswer(
        subject="New data about you may be used again",
        verdict="From now on, new data is accepted again.",
        sentences=(f"{who} erased here earlier. Since {day_text(at)} new data about you is accepted again.", stays),
    )


def _said(request: RequestStatus, *, corrects: bool, guarantee: str) -> tuple[str, list[str]]:
    match request.state:
        case RequestState.COMPLETE.value:
            return _corrected(request) if corrects else _erased(request, guarantee)
        case RequestState.REFUSED.value:
            return _nothing_held(request, corrects=corrects)
        case RequestState.CANCELLED.value:
            return "The request was withdrawn.", [
                (
                    f"It was withdrawn on {day_text(request.times.get('cancelled', ''))}, before anything was"
                    f" {'corrected' if corrects else 'erased'}. Reason on record: {request.reason}"
                )
            ]
        case RequestState.WAITING.value:
            return "Not yet: the request is on hold.", [
                f"It has been on hold since {day_text(request.held_at)}. Reason on record: {request.held}",
                (
                    "Nothing has been changed yet. When the hold ends, the request is carried out; the date by which it"
                    " is due moves by the length of the hold."
                ),
            ]
        case _:
            return _under_way(request, corrects=corrects)


def _erased(request: RequestStatus, guarantee: str) -> tuple[str, list[str]]:
    named = request.subjects + request.ids
    points, on = with_noun(request.points, "data point"), day_text(request.times.get("complete", ""))
    said = [
        (
            f"We have erased {points}, from the store of this system and from every model that had learned from it."
            f" This was finished on {on}."
        )
    ]
    if guarantee:
        said.append(guarantee)
    elif request.points > request.held_out:
        said.append("The models in use since then are those that training without this data gives.")
    verdict = "Yes, your data is erased."
    if request.unknown:
        verdict = "Yes, what we held is erased."
        said.append(
            f"For {request.unknown:,} of the {named:,} names that the request gave we held nothing. This may be a"
            " matter of spelling, or of an earlier erasure."
        )
    return verdict, [*said, *_similar(request)]


def _corrected(request: RequestStatus) -> tuple[str, list[str]]:
    on = day_text(request.times.get("complete", ""))
    said = [
        (
            f"We have corrected {with_noun(request.points, 'data point')}. The old values are deleted from the store of"
            f" this system, and models that had learned from them are replaced. This was finished on {on}."
        )
    ]
    if request.unknown:
        said.append(f"For {request.unknown:,} of the {request.ids:,} data points named we hold nothing.")
    return "Yes, your data is corrected.", said


def _nothing_held(request: RequestStatus, *, corrects: bool) -> tuple[str, list[str]]:
    on = day_text(request.times.get("refused", ""))
    if corrects:
        return "Nothing was to be corrected.", [
            f"On {on} we searched for the data points named. We hold none of them, or they have these values already."
        ]
    named = request.subjects + request.ids
    what = "the name" if named == 1 else f"any of the {named:,} names"
    return "We hold no data about you.", [
        (
            f"On {on} we searched all data of this system for {what} given in the request, and found nothing. Nothing"
            " was changed. This letter comes with a signed statement that says so."
        ),
        "If you expected us to hold something, check with us how the name is spelt in our records.",
        *_similar(request),
    ]


def _under_way(request: RequestStatus, *, corrects: bool) -> tuple[str, list[str]]:
    done = "corrected" if corrects else "erased"
    late = f" It was due on {day_text(request.due_at)}, so we are late." if request.overdue else ""
    by = "" if request.overdue else f" This is due by {day_text(request.due_at)}."
    if request.stage in _OUT_OF_USE:
        since = day_text(request.times.get("quarantined", ""))
        old = "old values" if corrects else "data"
        verdict = "Partly: it is no longer used, and not yet completely gone."
        said = [
            (
                f"Since {since} no answer of this system uses a model that had learned from your {old}"
                f" ({with_noun(request.points, 'data point')})."
            ),
            f"What is still to be done: {_left(request.stage)}.{by}{late}",
        ]
    else:
        verdict = "Not yet: the request is accepted and not carried out."
        said = [f"Nothing has been {done} yet. The request is on record and will be carried out.{by}{late}"]
    if request.state == RequestState.FAILED.value:
        said.append(f"An attempt on {day_text(request.failed_at)} did not succeed; it will be repeated.")
    return verdict, said


def _left(stage: str) -> str:
    deleting = "deleting the last copies from the store, and signing the receipt"
    return {
        "published": deleting,
        "purged": "signing the receipt",
    }.get(stage, f"training the affected models again, {deleting}")


def _similar(request: RequestStatus) -> list[str]:
    if request.include_similar or not request.similar.points:
        return []
    many = with_noun(request.similar.subjects, "other name", "other names")
    return [
        (
            f"We also hold data under {many} that differ from those given only in upper and lower case or in spaces. If"
            " such a spelling is yours as well, write to us with the exact spelling: it was not touched."
        )
    ]


def _delays(request: RequestStatus) -> list[str]:
    moved = [
        f"The due date was moved once, from {day_text(each.previous_due_at)}. Reason on record: {each.reason}"
        for each in request.extensions
    ]
    paused = [
        f"The request was on hold from {day_text(each.held_at)} to {day_text(each.released_at)}. Reason on record:"
        f" {each.reason}"
        for each in request.holds
    ]
    return [*moved, *paused]
