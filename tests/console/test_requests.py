"""Requests: an officer's way from a name to a letter, what each page says, and that names stay where they belong."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from coordinator.receipts.bundles import bundle_from_bytes, statement_of
from coordinator.receipts.openings import commitment, commitment_in
from tests.console.people import Person, person
from tests.doubles.user_folder import MARKED
from tests.serving.world import World

OTHER = "secret-person-001"
NOBODY = "nobody-of-this-name"
ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
SALT = re.compile(r'id="salt">([0-9a-f]{32})<')


def text(answer: Any) -> str:
    """Return a page's text on one line."""
    assert answer.headers["content-type"].startswith("text/html"), answer.headers
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", answer.text)).split())


def field(page: str, name: str) -> str:
    """Return the value of a hidden field."""
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found is not None, page
    return html.unescape(found[1])


def submitted(officer: Person, *names: str, **fields: str) -> Any:
    """Submit a request; return the page that answers it."""
    answer = officer.post("/requests", None, **{"names": "\n".join(names), **fields})
    assert answer.status_code == 200, answer.text
    return answer


def test_from_a_name_to_a_letter(officer: Person, world: World) -> None:
    """An officer looks somebody up, submits, follows the request to its receipt, checks that, and writes the letter."""
    found = officer.post("/requests/look-up", names=f"  {MARKED}\r\n")
    assert "Yes: 4 data points of this person are held." in text(found)
    assert "trains 1 model again" in text(found)
    names, request_id = field(found.text, "names"), field(found.text, "request_id")
    accepted = submitted(officer, names, request_id=request_id)
    salt = SALT.search(accepted.text)
    assert salt is not None
    assert MARKED not in accepted.text
    world.until_idle()
    page = officer.get(f"/requests/{request_id}")
    assert "Yes, the data is gone." in text(page)
    assert "every 2s" not in page.text
    receipt = officer.get(f"/requests/{request_id}/receipt")
    assert receipt.headers["content-disposition"] == f'attachment; filename="receipt-{request_id}.json"'
    assert bundle_from_bytes(receipt.content) == world.service.registrar.find(request_id)
    assert "The receipt is genuine." in text(officer.get(f"/requests/{request_id}/check"))
    about = officer.post(f"/requests/{request_id}/check", names=MARKED, salt=salt[1])
    assert "It is about these names." in text(about)
    assert MARKED not in about.text
    assert "It is not about these names" in text(
        officer.post(f"/requests/{request_id}/check", names=OTHER, salt=salt[1])
    )
    letter = officer.post(f"/requests/{request_id}/letter", salutation="Dear Ms Marked", salt=salt[1])
    assert "Dear Ms Marked," in text(letter)
    assert "Yes, your data is erased." in text(letter)
    assert f"--salt {salt[1]}" in text(letter)
    assert "style-src 'sha256-" in letter.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in letter.headers["content-security-policy"]
    assert letter.headers["cache-control"] == "no-store"
    saved = officer.post(f"/requests/{request_id}/letter", None, **{"salutation": "", "salt": "", "as": "file"})
    assert saved.headers["content-disposition"] == f'attachment; filename="letter-{request_id}.html"'
    assert "Dear" not in saved.text


def test_a_form_that_is_sent_twice_is_one_request(officer: Person, world: World) -> None:
    """The id is that of the form: a second click does not ask again, and the salt is shown once."""
    request_id = field(officer.post("/requests/look-up", names=MARKED).text, "request_id")
    first, again = (submitted(officer, MARKED, request_id=request_id) for _ in range(2))
    assert (len(SALT.findall(first.text)), len(SALT.findall(again.text))) == (1, 0)
    assert "was accepted before" in text(again)
    assert len(world.resident.state().requests) == 1
    other = officer.post("/requests", names=OTHER, request_id=request_id)
    assert other.status_code == 409


def test_nothing_is_held(officer: Person, world: World) -> None:
    """For an unknown person the officer gets a signed statement, and a salt that shows that it is about the name."""
    found = officer.post("/requests/look-up", names=NOBODY)
    assert "Nothing is held under this name." in text(found)
    assert "/console/requests/statement" in found.text
    answer = officer.post("/requests/statement", names=NOBODY, reference="ticket-7")
    salt = SALT.search(answer.text)
    assert salt is not None
    world.until_idle()
    assert "Nothing is held under these names." in text(officer.get("/requests/ticket-7"))
    statement = statement_of(bundle_from_bytes(officer.get("/requests/ticket-7/receipt").content))
    assert commitment_in(statement) == commitment(salt[1], subjects=[NOBODY])
    assert "It is about these names." in text(officer.post("/requests/ticket-7/check", names=NOBODY, salt=salt[1]))
    assert "We hold no data about you." in text(officer.get("/requests/ticket-7/letter"))


def test_many_names_and_similar_spellings(officer: Person) -> None:
    """Each pasted name has its line, repeats count once; similar spellings are counted and can be included."""
    found = officer.post("/requests/look-up", names=f"{MARKED}\n{NOBODY}\n\nSecret Person 001\n{MARKED}")
    said = text(found)
    assert "Yes: 4 data points of 1 of 3 names are held." in said
    assert "1 other name with 4 data points differs only in upper and lower case or in spaces" in said
    assert 'name="include_similar"' in found.text
    accepted = submitted(officer, "Secret Person 001", reference="er-1", include_similar="yes")
    assert "er-1" in accepted.text


def test_hold_extend_release_and_withdraw(officer: Person, world: World) -> None:
    """What an officer may do is offered while it may be done, and is done by the coordinator with its reason."""
    submitted(officer, MARKED, reference="er-1", hold="legal hold 7")
    page = officer.get("/requests/er-1")
    assert "No, it is on hold." in text(page)
    assert "Reason: legal hold 7" in text(page)
    assert "/er-1/hold" not in page.text
    moved = officer.post("/requests/er-1/extend", days="10", reason="for the court")
    assert (moved.status_code, moved.headers["location"]) == (303, "/console/requests/er-1")
    assert "Reason: for the court" in text(officer.get("/requests/er-1"))
    assert "/er-1/extend" not in officer.get("/requests/er-1").text
    assert officer.post("/requests/er-1/release").status_code == 303
    world.until_idle()
    done = officer.get("/requests/er-1")
    assert "Yes, the data is gone." in text(done)
    happened = ["Accepted", "Put on hold. Reason: legal hold 7", "The due date was moved", "Released", "Models without"]
    assert sorted(happened, key=text(done).index) == happened
    assert "What you can do now" not in done.text
    assert officer.post("/requests/er-1/hold", reason="too late").status_code == 409
    submitted(officer, OTHER, reference="er-2", hold="legal hold 8")
    assert officer.post("/requests/er-2/cancel", reason="").status_code == 422
    assert officer.post("/requests/er-2/cancel", reason="taken back").status_code == 303
    assert "Reason: taken back" in text(officer.get("/requests/er-2"))
    assert officer.post("/requests/er-2/extend", days="x", reason="y").status_code == 422


def test_somebody_comes_back(officer: Person, world: World) -> None:
    """After an erasure a look-up offers the readmission, which has a page, a statement and a letter of its own."""
    submitted(officer, MARKED, reference="er-1")
    world.until_idle()
    found = officer.post("/requests/look-up", names=MARKED)
    assert "yes, and kept out" in text(found)
    answer = officer.post("/requests/readmit", names=f"{MARKED}\n{NOBODY}", reason="a new contract", reference="re-1")
    assert "1 person may come back" in text(answer)
    assert NOBODY in text(answer)
    world.until_idle()
    page = officer.get("/requests/re-1")
    assert "Reason: a new contract" in text(page)
    assert MARKED not in page.text
    assert "From now on, new data is accepted again." in text(officer.get("/requests/re-1/letter"))
    assert "The receipt is genuine." in text(officer.get("/requests/re-1/check"))
    assert "re-1" in text(officer.get("/requests?state=readmitted"))


def test_a_trace(officer: Person, world: World) -> None:
    """A trace shows where the data are; of somebody erased, the request and the generations before it."""
    assert "These stored models have learned from them" in text(officer.post("/trace", names=MARKED))
    submitted(officer, MARKED, reference="er-1")
    world.until_idle()
    said = text(officer.post("/trace", names=f"{MARKED}\n{OTHER}"))
    assert "Nothing is held: erased, and kept out." in said
    assert "er-1 : erasure, complete" in said


def test_names_reasons_and_ids_are_text(officer: Person, world: World) -> None:
    """Nothing that people type can run: on the page of a look-up, of a request, of a trace, in a letter."""
    submitted(officer, MARKED, reference="er-1", hold=ATTACK)
    officer.post("/requests/er-1/extend", days="3", reason=ATTACK)
    pages = [
        officer.post("/requests/look-up", names=ATTACK),
        officer.post("/trace", names=ATTACK),
        officer.get("/requests/er-1"),
        officer.get("/requests/er-1/progress"),
        officer.post("/requests/er-1/letter", salutation=f"Dear {ATTACK}"),
        officer.get(f"/requests?state={ATTACK}"),
        officer.get(f"/requests/{ATTACK.replace('/', '')}"),
    ]
    assert [page.status_code for page in pages] == [200] * 6 + [404]
    assert [page.text.count("<script>") + page.text.count("<img") for page in pages] == [0] * 7
    assert sum(ATTACK in text(page) or html.escape(ATTACK) in page.text for page in pages) >= 4
    world.resident.stop()


def test_names_stay_out_of_addresses_titles_and_the_log(officer: Person, world: World) -> None:
    """Every name travels in the body of a form; the log has how many they were, and no answer may be kept."""
    for path in ("/requests/look-up", "/trace", "/requests", "/requests/readmit", "/requests/statement"):
        answer = officer.post(path, names=MARKED, reason="a new contract")
        assert answer.headers["cache-control"] == "no-store"
        assert "no-store" in answer.headers["cache-control"]
        title = re.search(r"<title>(.*?)</title>", answer.text)
        assert title is not None
        assert MARKED not in title[1]
        assert MARKED not in str(answer.url)
        assert not re.search(rf'(?:href|action)="[^"]*{MARKED}', answer.text)
    assert MARKED not in world.log.getvalue()
    assert {line["names"] for line in world.lines() if line["method"] == "POST" and "names" in line} == {1}


def test_a_name_is_no_reference(officer: Person) -> None:
    """A reference stays for good, so that it may not be a name, nor hold characters that addresses lack."""
    for reference in (MARKED, "a b", "../x"):
        answer = officer.post("/requests", names=MARKED, reference=reference)
        assert answer.status_code == 422
        assert "Nothing was submitted" in text(answer)
        assert field(answer.text, "names") == MARKED  # nothing has to be typed again
    assert officer.post("/requests", names=" \n ").status_code == 422


def test_looking_up_is_limited(officer: Person, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look-ups and traces on pages count as those over the API do."""
    moment = world.service.clock.monotonic()
    monkeypatch.setattr(world.service.clock, "monotonic", lambda: moment)
    for _ in range(30):
        assert officer.post("/requests/look-up", names="").status_code == 422
    assert officer.post("/trace", names=MARKED).status_code == 429
    assert officer.get("/requests").status_code == 200


def test_an_auditor_reads_and_changes_nothing(world: World) -> None:
    """An auditor sees requests and receipts; forms that name people or change something are the officer's."""
    submitted(person(world), MARKED, reference="er-1", hold="legal hold 7")
    auditor = person(world, "audit")
    assert "No, it is on hold." in text(auditor.get("/requests/er-1"))
    assert "<textarea" not in auditor.get("/requests").text
    assert "What you can do now" not in auditor.get("/requests/er-1").text
    for path in ("/requests/look-up", "/requests", "/requests/readmit", "/trace", "/requests/er-1/release"):
        assert auditor.post(path, names=MARKED).status_code == 403
    assert world.resident.state().requests[0].pause is not None
