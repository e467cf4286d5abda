"""A letter's content, as values, from a request's status and its receipt. Pure: time and keys come in as arguments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cluster.letters.answers import LetterAnswer, answer_to, readmission_answer
from cluster.letters.evidence import Pairs, PlainStatement, guarantee_in, in_plain_words, steps_of
from cluster.letters.words import day_text, moment_text, receipt_file_name, with_noun
from coordinator.receipts.bundles import ReceiptBundle, verify_bundle
from coordinator.receipts.kinds import READMISSION_TYPE, REFUTATION_TYPE
from coordinator.receipts.openings import commitment_in
from coordinator.requests import RequestState
from coordinator.status import RequestStatus
from storage.errors import Corrupt, Invalid
from storage.transparency.keys import PublicKey

_MOST_CHARACTERS: Final = 200
_WITHDRAWN: Final = "A withdrawn request is not carried out, and has no receipt. You may send a new one at any time."
_TO_COME: Final = (
    "This letter is not a receipt: nothing is signed yet. When the request has been carried out we sign a receipt,"
    " which you can check yourself. Ask us for it with the number of your request."
)
_SALT: Final = re.compile(r"[0-9a-f]{16,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalPart:
    """What the officer enters for one letter; it is not stored."""

    salutation: str = ""
    """Such as ``Dear Ms Example``; empty: the letter addresses nobody by name."""
    salt: str = ""
    """The secret number of the request, which only the answer to its submission had."""

    def __post_init__(self) -> None:
        """Raise ``Invalid`` unless both can be printed in a letter. The texts themselves are left out of the error."""
        if len(self.salutation) > _MOST_CHARACTERS or not self.salutation.isprintable():
            raise Invalid(
                f"a salutation is one line of up to {_MOST_CHARACTERS} printable characters",
                "Shorten it, or leave it out.",
            )
        if self.salt and not _SALT.fullmatch(self.salt):
            raise Invalid(
                "a salt is 16 to 128 hexadecimal digits, as the answer to the request had it",
                "Copy it again, or leave it out: then the letter says that you send it separately.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterReceipt:
    """The receipt that goes with a letter, and how to check it."""

    file: str
    """The name under which it is handed over."""
    index: int
    log_size: int
    origin: str
    issued_at: str
    keys: tuple[tuple[str, str], ...]
    """Purpose and id of the keys that signed."""
    checkpoint: str
    """The log's signed checkpoint."""
    commits_to_names: bool
    """Whether the salt can show whom it is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A letter's content: plain text, which the page escapes."""

    federation: str
    """Empty: not known here."""
    request_id: str
    written_on: str
    personal: PersonalPart
    answer: LetterAnswer
    asked: Pairs
    steps: Pairs
    statement: PlainStatement | None
    """None: nothing is signed yet."""
    receipt: LetterReceipt | None
    outlook: str
    """What comes next, where nothing is signed."""


def letter_about(
    request: RequestStatus | None,
    bundle: ReceiptBundle | None,
    *,
    keys: Sequence[PublicKey] = (),
    written_at: datetime,
    personal: PersonalPart | None = None,
    federation: str = "",
) -> Letter:
    """Return the letter about a request in its current state, or about a readmission, which has no status.

    ``keys``: the operator's, to check the receipt; without them those in it, which show only that it is unaltered.
    Raises ``Invalid`` when there is nothing to write about, ``Corrupt`` when the receipt is not genuine or is that of
    another request.
    """
    statement, receipt = (None, None) if bundle is None else _checked(bundle, keys or bundle.keys)
    if statement is not None and statement["predicateType"] == REFUTATION_TYPE:
        raise Invalid(
            "this statement is about a constituent that a verification found wrong: it answers no request of a person",
            "Name an erasure request, a correction or a readmission.",
        )
    if request is None and (statement is None or statement["predicateType"] != READMISSION_TYPE):
        raise Invalid("there is no such request", "See 'sisa request list' for all of them.")
    stated = {} if statement is None else statement["predicate"]
    if request is not None and stated and stated["request"]["id"] != request.request_id:
        raise Corrupt("the receipt is that of another request", "Ask for it again.", request=request.request_id)
    guarantee = "" if statement is None else guarantee_in(statement)
    return Letter(
        federation=str(stated.get("federation") or federation),
        request_id=request.request_id if request is not None else stated["request"]["id"],
        written_on=day_text(written_at.isoformat()),
        personal=personal or PersonalPart(),
        answer=_readmitted(stated) if request is None else answer_to(request, guarantee=guarantee),
        asked=() if request is None else _asked(request),
        steps=_steps(stated) if request is None else _steps_of_request(request),
        statement=None if statement is None or bundle is None else in_plain_words(statement, bundle.index),
        receipt=receipt,
        outlook=_WITHDRAWN if request is not None and request.state == RequestState.CANCELLED.value else _TO_COME,
    )


def _checked(bundle: ReceiptBundle, keys: Sequence[PublicKey]) -> tuple[dict[str, Any], LetterReceipt]:
    check = verify_bundle(bundle, keys)
    if not check.is_valid or check.statement is None:
        raise Corrupt(
            f"the receipt is not genuine: {'; '.join(check.failures)}",
            "Write no letter with it. Find out who can write to the store: 'sisa verify' checks all receipts.",
        )
    predicate = check.statement["predicate"]
    return check.statement, LetterReceipt(
        file=receipt_file_name(str(predicate["request"]["id"])),
        index=check.index,
        log_size=check.log_size,
        origin=check.origin,
        issued_at=moment_text(str(predicate.get("issued_at", ""))),
        keys=tuple((key.purpose, key.key_id) for key in bundle.keys),
        checkpoint=bundle.checkpoint,
        commits_to_names=commitment_in(check.statement) is not None,
    )


def _asked(request: RequestStatus) -> Pairs:
    corrects = request.kind == "rectification"
    named = [
        *([with_noun(request.subjects, "person", "people")] if request.subjects else []),
        *([with_noun(request.ids, "single data point")] if request.ids else []),
    ]
    similar = (("Similar spellings", "included"),) if request.include_similar else ()
    open_ = request.state not in ("complete", "refused", "cancelled")
    return (
        ("Asked for", "correction" if corrects else "erasure"),
        ("Received", moment_text(request.received_at)),
        ("Named", " and ".join(named)),
        *similar,
        ("To be answered by" if open_ else "Was due by", day_text(request.due_at)),
    )


def _steps_of_request(request: RequestStatus) -> Pairs:
    times = {"accepted": request.received_at, **request.times}
    return steps_of(times, corrects=request.kind == "rectification")


def _steps(stated: dict[str, Any]) -> Pairs:
    times = stated["request"].get("times")
    return steps_of({str(state): str(at) for state, at in times.items()}) if isinstance(times, dict) else ()


def _readmitted(stated: dict[str, Any]) -> LetterAnswer:
    request = stated["request"]
    at = dict(_times(request)).get("readmitted", "")
    return readmission_answer(_number(request.get("subjects")), _number(request.get("without_ids")), at)


def _times(request: dict[str, Any]) -> list[tuple[str, str]]:
    times = request.get("times")
    return [(str(state), str(at)) for state, at in times.items()] if isinstance(times, dict) else []


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
