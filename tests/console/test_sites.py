"""The console of a federation of several sites: each site as far as it allows, and requests that a site carries out."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

import cluster.training.workers
from cluster.serving.console.pages import PEOPLE, Page
from cluster.tokens import Role
from storage.errors import Unavailable
from tests.console.people import ADDRESS, Person
from tests.console.test_roles import assert_listed
from tests.doubles.workers.local_workers import LocalWorkers
from tests.serving.world import PATIENCE_SECONDS, rows
from tests.sites.near.served import served
from tests.sites.near.site_folders import SITES, SiteFolders
from tests.sites.near.test_sites_api import PERSON, SitesServer, front_of


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SitesServer]:
    """A federation's own server, and its sites."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
        patch.setattr(cluster.training.workers, "join_ray", lambda _: False)
        with served(SiteFolders(tmp_path_factory.mktemp("desk")).fill()) as made:
            front = front_of(made)
            yield front
            front.service.close()


def _person(desk: SitesServer, role: Role) -> Person:
    made = Person(TestClient(desk.client.app, ADDRESS, raise_server_exceptions=False))
    assert made.sign_in(desk.tokens[role]).status_code == 303
    return made


def _words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_the_document_has_the_table_of_sites(desk: SitesServer) -> None:
    """The table of pages in docs/console.md is that of the code, and each page is for its roles alone."""
    routes = desk.client.app.state.console  # type: ignore[attr-defined]
    assert_listed(iter(routes), is_of_sites=True)
    people = {role: _person(desk, role) for role in PEOPLE}
    for page in (each for each in routes if isinstance(each, Page) and each.path != "/sign-out"):
        path = page.path.replace("{request_id}", "nothing")
        for role, who in people.items():
            status = (who.get(path) if page.method == "GET" else who.post(path)).status_code
            assert (status == 403) == (role not in page.roles), (page.path, role, status)


def test_every_site_is_shown_as_far_as_it_allows(desk: SitesServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members are shown with what they let a federation see; one that is away with the reason, which runs nothing."""
    auditor = _person(desk, "audit")
    words = _words(auditor.get("/federation").text)
    assert all(f"{site} member" in words for site in SITES)
    assert words.count("Constituents that answer 2 of 2") == len(SITES)
    site = SITES[0]

    def away() -> None:
        raise Unavailable("<script>alert(1)</script> is away", "")

    monkeypatch.setattr(desk.service.federation.link(site), "status", away)
    page = auditor.get("/federation").text
    assert f"{site} cannot be reached" in _words(page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; is away" in page
    assert "<script>alert" not in page
    assert "not in order" in auditor.get("/evidence").text


def test_an_officer_asks_a_site_to_erase_somebody(desk: SitesServer) -> None:
    """From the form to both receipts; the name is in no address and no log line."""
    officer = _person(desk, "officer")
    answer = officer.post("/requests", subjects=f" {PERSON} \n\n", site="north", hold="legal hold 17")
    assert answer.status_code == 200
    assert "Keep this: it is shown once" in answer.text
    assert PERSON not in answer.text
    (request_id,) = set(re.findall(r"er-[0-9a-f]+", answer.text))
    assert request_id in officer.get("/requests").text
    page = _words(officer.get(f"/requests/{request_id}?site=north").text)
    assert "Accepted; nothing is erased yet" in page
    assert "legal hold 17" in page
    assert PERSON not in desk.log.getvalue()
    assert officer.post("/requests", subjects=PERSON, site="nowhere").status_code == 422
    assert officer.post("/requests", subjects="", site="north").status_code == 422
    assert _person(desk, "audit").post("/requests", subjects=PERSON, site="north").status_code == 403


def test_receipts_of_a_site_are_files(desk: SitesServer) -> None:
    """A complete request has the site's receipt and the federation's, each as a file to keep."""
    officer = _person(desk, "officer")
    answer = officer.post("/requests", subjects="north-secret-person-004", site="north")
    (request_id,) = set(re.findall(r"er-[0-9a-f]+", answer.text))
    resident = desk.served.sites["north"].resident
    heard = resident.hear(0, 0.0)
    while not heard.idle:
        heard = resident.hear(heard.upto, PATIENCE_SECONDS)
    assert "The data are gone from this site" in officer.get(f"/requests/{request_id}").text
    for by in ("site", "federation"):
        found = officer.get(f"/requests/{request_id}/receipt?by={by}")
        assert found.headers["content-disposition"].startswith("attachment")
        assert found.json() == desk.get(f"/v1/erasures/{request_id}/receipt?by={by}").json()
    assert officer.get(f"/requests/{request_id}/receipt?by=nobody").status_code == 422


def test_an_answer_of_the_sites_is_tried(desk: SitesServer) -> None:
    """The form has the features that the sites share, and the answer says which sites gave it."""
    trying = _person(desk, "predict")
    assert trying.get("/federation").status_code == 403
    answer = trying.post("/try", None, **{f"f{place}": str(value) for place, value in enumerate(rows(1)[0])})
    assert f"The answer is <strong>{desk.predict().json()['predictions'][0]['prediction']}</strong>" in answer.text
    assert all(f"Site {site} 2 of 2 answered" in _words(answer.text) for site in SITES)
