"""Letters: the answer comes first, nothing in it runs, and none is written with a receipt that is not genuine."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest

from cluster.letters.letter import Letter, PersonalPart, letter_about
from cluster.letters.page import letter_page, letter_policy
from coordinator.delays import EndedPause, Extension
from coordinator.receipts.bundles import ReceiptBundle
from coordinator.receipts.evidence import ErasureEvidence, statement
from coordinator.receipts.kinds import PAYLOAD_TYPE
from coordinator.receipts.statements import NothingFound, Readmitted, Refuted
from coordinator.requests import Cost, Readmission, Refutation, Similar
from coordinator.status import RequestStatus
from shards.learner_kinds.guarantees import Certified
from shards.specification import ShardId, SliceIndex
from storage.digests import sha256
from storage.errors import Corrupt, Invalid
from storage.objects import object_key
from storage.stores.memory import MemoryStore
from storage.transparency.envelope import sign_envelope
from storage.transparency.layout import LogLayout
from storage.transparency.log import TransparencyLog
from tests.coordinator.receipts.facts import evidence_of
from tests.coordinator.receipts.test_bundles import KEYS, LOG_KEY, RECEIPT_KEY
from tests.coordinator.records import request_of

NOW = datetime(2026, 11, 30, 9, 30, tzinfo=UTC)
RECEIVED = "2026-11-01T08:00:00.000+00:00"
DUE = "2026-12-01T08:00:00.000+00:00"
LATER = "2026-11-02T10:15:00.000+00:00"
ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


def status(state: str = "complete", **changes: Any) -> RequestStatus:
    """Return a request that named one person, of whom 4 data points were found."""
    facts: dict[str, Any] = {
        "request_id": "er-7",
        "state": state,
        "stage": state,
        "subjects": 1,
        "ids": 0,
        "points": 4,
        "unknown": 0,
        "shards": (ShardId(1),),
        "received_at": RECEIVED,
        "due_at": DUE,
        "overdue": False,
        "reason": "",
        "times": {"accepted": RECEIVED, "quarantined": LATER, state: LATER},
        "held": "",
        "held_at": "",
        "holds": (),
        "extensions": (),
        "failed_at": "",
        "expected": None,
        "spent": Cost(),
    }
    return RequestStatus(**{**facts, **changes})


def signed(payload: bytes) -> ReceiptBundle:
    """Return a statement, signed and in a log of its own."""
    store = MemoryStore("letters")
    store.forget()
    layout = LogLayout(origin="sisa-ray/tests")
    log = TransparencyLog(store, layout, signer=LOG_KEY, keys=lambda: (LOG_KEY.public,), admits=lambda _: True)
    envelope = sign_envelope(payload, PAYLOAD_TYPE, RECEIPT_KEY)
    (index,) = log.append([envelope])
    found = log.prove(index)
    return ReceiptBundle(
        envelope=envelope, index=index, proof=found.proof, checkpoint=found.checkpoint, keys=(KEYS[0], KEYS[1])
    )


def evidence(**changes: Any) -> ErasureEvidence:
    """Return the facts of the request."""
    return replace(evidence_of("er-7"), commitment=sha256(b"names"), **changes)


def receipt(**changes: Any) -> ReceiptBundle:
    """Return the request's receipt."""
    return signed(statement(evidence(**changes), LATER))


def letter(request: RequestStatus | None, bundle: ReceiptBundle | None = None, **more: Any) -> Letter:
    """Return the letter about a request."""
    return letter_about(request, bundle, keys=KEYS, written_at=NOW, federation="Example Bank", **more)


def words(found: Letter) -> str:
    """Return the letter's text, as a person reads it, on one line."""
    return _Text.of(letter_page(found))


class _Text(HTMLParser):
    """Collects the text of a page's body."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    @classmethod
    def of(cls, page: str) -> str:
        made = cls()
        made.feed(page)
        return " ".join(" ".join(made.parts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


WITHDRAWN = {"reason": "the asker took it back", "times": {"accepted": RECEIVED, "cancelled": LATER}}
HELD = {"held": "legal hold 7", "held_at": LATER, "stage": "accepted", "times": {"accepted": RECEIVED}}
UNTOUCHED = {"times": {"accepted": RECEIVED}}
STATES: list[tuple[str, dict[str, Any], str, str]] = [
    ("complete", {}, "Yes, your data is erased.", "We have erased 4 data points"),
    ("complete", {"unknown": 2, "subjects": 3}, "Yes, what we held is erased.", "For 2 of the 3 names"),
    ("complete", {"similar": Similar(points=5, subjects=1)}, "Yes, your data is erased.", "under 1 other name"),
    ("refused", {"points": 0}, "We hold no data about you.", "On 2 November 2026 we searched all data"),
    ("refused", {"points": 0, "subjects": 2}, "We hold no data about you.", "for any of the 2 names"),
    ("cancelled", WITHDRAWN, "The request was withdrawn.", "before anything was erased. Reason on record: the asker"),
    ("waiting", HELD, "Not yet: the request is on hold.", "since 2 November 2026. Reason on record: legal hold 7"),
    ("accepted", UNTOUCHED, "Not yet: the request is accepted", "This is due by 1 December 2026."),
    ("accepted", {**UNTOUCHED, "overdue": True}, "Not yet: the request is", "due on 1 December 2026, so we are late."),
    ("retraining", {}, "Partly: it is no longer used", "Since 2 November 2026 no answer of this system uses a model"),
    ("published", {}, "Partly: it is no longer used", "to be done: deleting the last copies"),
    ("purged", {}, "Partly: it is no longer used", "to be done: signing the receipt"),
    ("failed", {"stage": "retraining", "failed_at": LATER}, "Partly", "An attempt on 2 November 2026 did not succeed"),
    ("complete", {"kind": "rectification"}, "Yes, your data is corrected.", "We have corrected 4 data points"),
    ("refused", {"kind": "rectification"}, "Nothing was to be corrected.", "or they have these values already"),
    ("quarantined", {"kind": "rectification"}, "Partly", "a model that had learned from your old values"),
]


@pytest.mark.parametrize(("state", "changes", "verdict", "sentence"), STATES)
def test_the_answer_comes_first(state: str, changes: dict[str, Any], verdict: str, sentence: str) -> None:
    """Each state of a request has its answer, before everything else, and says what remains."""
    found = letter(status(state, **changes))
    assert found.answer.verdict.startswith(verdict)
    assert sentence in " ".join(found.answer.sentences)
    text = words(found)
    assert text.index(found.answer.verdict) < text.index("What was asked")
    assert "1 November 2026, 08:00 UTC" in text
    assert "Example Bank" in text


def test_delays_are_said_with_their_reasons() -> None:
    """Pauses that are over and an extension are part of the answer."""
    request = status(
        holds=(EndedPause(reason="court 3", held_at=RECEIVED, released_at=LATER, previous_due_at=DUE),),
        extensions=(Extension(at=LATER, reason="many requests", previous_due_at=DUE),),
    )
    text = words(letter(request))
    assert "on hold from 1 November 2026 to 2 November 2026. Reason on record: court 3" in text
    assert "moved once, from 1 December 2026. Reason on record: many requests" in text


def test_a_receipt_in_plain_words() -> None:
    """With a receipt the letter says what was found, removed, proven, not proven and not covered, and how to check."""
    found = letter(status(), receipt())
    text = words(found)
    parts = ["What we found", "What happened, and when", "What was removed", "What is proven", "What is not proven"]
    parts += ["What is not covered", "How to check it yourself", "In the receipt's own words"]
    assert [part for part in parts if part not in text] == []
    assert sorted(parts, key=text.index) == parts
    assert "sisa-check receipt receipt-er-7.json --key operator.keys" in text
    assert {key.key_id for key in KEYS} <= set(re.findall(r"[0-9a-f]{64}", text))
    assert found.receipt is not None
    assert found.receipt.checkpoint.splitlines()[0] in text
    assert "Files outside the store that the data points were read from are not erased" in text


def test_leftovers_are_not_hidden() -> None:
    """If the search after the purge found something, the letter says so."""
    clean, dirty = receipt(), receipt(scan=replace(evidence().scan, findings=2))
    assert "found nothing that should not be there" in words(letter(status(), clean))
    text = words(letter(status(), dirty))
    assert "found 2 objects that should not be there" in text
    assert "found nothing that should not be there" not in text


def test_a_certified_guarantee_is_not_called_exact() -> None:
    """A learner that only promises models hard to distinguish is described as that, with its limits."""
    exact = words(letter(status(), receipt()))
    assert "are those that training without this data gives" in exact
    text = words(letter(status(), receipt(guarantee=Certified(epsilon=0.5, delta=0.001))))
    assert "are not exactly those that training without this data gives" in text
    assert "epsilon 0.5 and delta 0.001" in text
    assert "are those that training without this data gives" not in text
    assert "train the models again" not in text


def test_nothing_is_held() -> None:
    """The signed statement that nothing was found is a letter of its own kind, without a removal."""
    request = replace(request_of("er-7"), commitment=sha256(b"names"))
    bundle = signed(
        statement(
            NothingFound(
                federation="Example Bank",
                request=request,
                points=116,
                being_erased=1,
                generation=3,
                form="exact",
                store=evidence().store,
            ),
            LATER,
        )
    )
    text = words(letter(status("refused", points=0), bundle))
    assert "We hold no data about you." in text
    assert "Searched 116 data points" in text
    assert "Data of 1 other request was out of use and not yet deleted" in text
    assert "What was removed" not in text
    assert "--salt SALT" in text


@pytest.mark.parametrize(("without_ids", "says"), [(0, "stays erased"), (1, "comes back as well if a source")])
def test_somebody_comes_back(without_ids: int, says: str) -> None:
    """A readmission has no status: its letter is written from its statement, with the reason."""
    readmission = Readmission(
        request_id="re-1", body=sha256(b"1"), subjects=1, without_ids=without_ids, reason=ATTACK, at=LATER
    )
    found = letter(None, signed(statement(Readmitted(federation="Example Bank", readmission=readmission), LATER)))
    assert found.request_id == "re-1"
    text = words(found)
    assert "From now on, new data is accepted again." in text
    assert says in text
    assert ATTACK in text
    assert "<script" not in letter_page(found)


def test_what_is_no_letter_to_a_person() -> None:
    """Neither an unknown request nor a statement about a constituent is answered with a letter."""
    with pytest.raises(Invalid, match="there is no such request"):
        letter(None)
    refutation = Refutation(
        shard=ShardId(0),
        slice=SliceIndex(1),
        checkpoint=object_key("shards/x"),
        lineage=sha256(b"1"),
        digest=sha256(b"2"),
        retrained_digest=None,
        at=LATER,
    )
    about = Refuted(federation="f", refutation=refutation, requests=())
    with pytest.raises(Invalid, match="answers no request of a person"):
        letter(None, signed(statement(about, LATER)))
    with pytest.raises(Invalid, match="there is no such request"):
        letter(None, receipt())


def test_no_letter_with_a_false_receipt() -> None:
    """A receipt that was altered, is by other keys, or is another request's, is refused."""
    good = receipt()
    with pytest.raises(Corrupt, match="the receipt is not genuine"):
        letter(status(), replace(good, index=5))
    with pytest.raises(Corrupt, match="the receipt is not genuine"):
        letter_about(status(), good, keys=KEYS[:1], written_at=NOW)
    with pytest.raises(Corrupt, match="the receipt is that of another request"):
        letter(status(request_id="er-8"), good)


def test_nothing_in_a_letter_runs_or_loads() -> None:
    """Names, reasons and ids are text in it; its own policy forbids scripts, forms and everything from elsewhere."""
    hostile = status("cancelled", request_id=ATTACK, **{**WITHDRAWN, "reason": ATTACK})
    found = letter(hostile, personal=PersonalPart(salutation=f"Dear {ATTACK}"))
    page = letter_page(found)
    reader = _Text()
    reader.feed(page)
    assert reader.tags.isdisjoint({"script", "img", "iframe", "form", "a", "link", "object"})
    assert words(found).count(ATTACK) == 4  # title, number, salutation, reason
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in letter_policy()
    assert re.search(r'http-equiv="Content-Security-Policy" content="default-src &#39;none&#39;', page)
    assert reader.attributes == {"lang", "charset", "http-equiv", "content", "name", "class"}
    assert "url(" not in style[1]


def test_the_personal_part() -> None:
    """Without a salutation the letter addresses nobody; with one it is printed as given, and so is the salt."""
    assert "Dear" not in words(letter(status(), receipt()))
    text = words(letter(status(), receipt(), personal=PersonalPart(salutation="Dear Ms Example,", salt="ab" * 16)))
    assert "Dear Ms Example, Yes" in text
    assert f"--salt {'ab' * 16} --subject" in text


@pytest.mark.parametrize(
    ("personal", "fact"),
    [
        ({"salutation": "Dear\nMs"}, "one line"),
        ({"salutation": "x" * 201}, "one line"),
        ({"salt": "not hexadecimal!"}, "a salt is"),
        ({"salt": "ab"}, "a salt is"),
    ],
)
def test_what_cannot_be_printed(personal: dict[str, str], fact: str) -> None:
    """A salutation of several lines and a salt that is not one are refused, without being repeated."""
    with pytest.raises(Invalid, match=fact) as caught:
        PersonalPart(**personal)
    assert next(iter(personal.values())) not in str(caught.value)
