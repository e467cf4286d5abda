"""``sisa report``: the letter about a request, and none where its receipt is not genuine."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.receipts.archive import bundle_key
from tests.doubles.user_folder import MARKED, UserFolder

SALUTATION = "Dear Ms <Example>"


@pytest.fixture
def erased(trained: UserFolder) -> UserFolder:
    """A federation with one complete erasure, er-1."""
    assert trained.json("erase", "--subject", MARKED, "--request-id", "er-1").data["state"] == "complete"
    return trained


def test_from_a_request_to_a_letter(erased: UserFolder) -> None:
    """The letter is a file of its own; the command says what it answers and what to send with it."""
    out = erased.folder / "letter.html"
    said = erased.json("report", "er-1", "--out", str(out), "--salutation", SALUTATION)
    assert said.data == {
        "request_id": "er-1",
        "state": "complete",
        "out": str(out),
        "answer": "Yes, your data is erased.",
        "receipt": "receipt-er-1.json",
        "salutation": True,
    }
    page = out.read_text(encoding="utf-8")
    assert "Dear Ms &lt;Example&gt;," in page
    assert "We have erased 4 data points" in page
    assert MARKED not in page
    plain = erased.run("report", "er-1", "--out", str(out))
    assert plain.code == 0
    assert "sisa receipt er-1 > receipt-er-1.json" in plain.out
    assert "Dear" not in out.read_text(encoding="utf-8")
    assert sorted(each.name for each in erased.folder.glob("*.partial")) == []


def test_nothing_held_withdrawn_and_back_again(erased: UserFolder) -> None:
    """A request that found nobody, one on hold, and a readmission have their letters; an unknown id does not."""
    out = str(erased.folder / "letter.html")
    erased.json("erase", "--subject", "nobody", "--request-id", "er-2")
    erased.json("erase", "--subject", "secret-person-001", "--request-id", "er-3", "--hold", "legal hold 7")
    erased.json("readmit", "--subject", MARKED, "--reason", "a new contract", "--request-id", "re-1")
    assert erased.json("report", "er-2", "--out", out).data["answer"] == "We hold no data about you."
    assert erased.json("report", "er-3", "--out", out).data["receipt"] is None
    assert "legal hold 7" in Path(out).read_text(encoding="utf-8")
    assert erased.json("report", "re-1", "--out", out).data["state"] == "readmitted"
    assert "a new contract" in Path(out).read_text(encoding="utf-8")
    unknown = erased.json("report", "er-9", "--out", out)
    assert unknown.code == 2
    assert "there is no such request" in unknown.error["message"]


def test_no_letter_with_a_receipt_that_was_changed(erased: UserFolder) -> None:
    """If the receipt in the store is not what was signed, the code says so and no letter is written."""
    out = erased.folder / "letter.html"
    key = bundle_key("er-1")
    altered = erased.objects.get(key).payload.replace(b'"index":0', b'"index":3')
    erased.objects.delete(key)
    erased.objects.put_if_absent(key, altered)
    said = erased.json("report", "er-1", "--out", str(out))
    assert (said.code, said.error["kind"]) == (3, "proof_failed")
    assert not out.exists()


def test_what_cannot_be_written(erased: UserFolder) -> None:
    """A folder, a salt that is not one, and a salutation of two lines are bad input; nothing is written."""
    out = erased.folder / "letter.html"
    for words, fact in (
        (("--out", str(erased.folder)), "to a folder"),
        (("--out", str(out), "--salt", "no"), "a salt is"),
        (("--out", str(out), "--salutation", "a\nb"), "one line"),
    ):
        said = erased.json("report", "er-1", *words)
        assert (said.code, fact in said.error["message"]) == (2, True)
    assert not out.exists()
