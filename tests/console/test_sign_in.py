"""Signing in to the console, and out of it."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from starlette.testclient import TestClient

from cluster.serving.console.sign_in import COOKIE, SignIns
from cluster.serving.http_errors import Refused
from cluster.tokens import Role, TokenRegister
from storage.stores.memory import MemoryStore
from tests.console.people import ADDRESS, person, stranger
from tests.doubles.time_and_names import VirtualClock
from tests.serving.world import World


def test_a_person_signs_in_and_out(world: World) -> None:
    """Signing in leads to the role's first page; signing out ends it in this browser."""
    officer = stranger(world)
    answer = officer.sign_in(world.tokens["officer"])
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/requests")
    assert "Signed in as <strong>officer</strong>" in officer.get("/requests").text
    left = officer.post("/sign-out")
    assert (left.status_code, left.headers["location"]) == (303, "/console/sign-in")
    assert officer.get("/requests").status_code == 401


def test_the_cookie_is_kept_from_scripts_other_sites_and_the_network(still_world: World) -> None:
    """The cookie is for this console alone, and for TLS alone unless the browser is on this machine."""
    near = stranger(still_world).sign_in(still_world.tokens["audit"]).headers["set-cookie"]
    assert "; HttpOnly; Path=/console; SameSite=strict" in near
    assert "Secure" not in near
    far = stranger(still_world)
    far.client.base_url = far.client.base_url.copy_with(host="console.example")
    assert "Secure" in far.sign_in(still_world.tokens["audit"]).headers["set-cookie"]


def test_the_cookie_does_not_show_the_token(still_world: World) -> None:
    """A cookie holds the token encrypted, and differs at each sign-in."""
    one, other = (person(still_world).client.cookies[COOKIE] for _ in range(2))
    assert one != other
    assert still_world.tokens["officer"] not in one


@pytest.mark.parametrize("role", ["erase", "federate"])
def test_programs_have_no_console(still_world: World, role: Role) -> None:
    """The page says that tokens of programs cannot sign in, and which can."""
    answer = stranger(still_world).sign_in(still_world.tokens[role])
    assert answer.status_code == 403
    assert f"a token with the role &#39;{role}&#39; may not do this" in answer.text
    assert "set-cookie" not in answer.headers


def test_an_unknown_token_signs_nobody_in(still_world: World) -> None:
    """The page says that the token is not known, and does not repeat it."""
    answer = stranger(still_world).sign_in("sisa_" + "0" * 12 + "_" + "1" * 64)
    assert answer.status_code == 401
    assert "the token is not known" in answer.text
    assert "1111" not in answer.text


def test_a_revoked_token_ends_the_sign_in(world: World) -> None:
    """After a token is revoked, the pages of those who are signed in with it lead to signing in."""
    auditor = person(world, "audit")
    assert auditor.get("/requests").status_code == 200
    TokenRegister(world.home.objects, world.service.clock).revoke(world.tokens["audit"].split("_")[1])
    world.service.gate._read_at = None
    answer = auditor.get("/requests")
    assert answer.status_code == 401
    assert "the token was revoked" in answer.text
    assert "Max-Age=0" in answer.headers["set-cookie"]


def test_a_sign_in_ends_by_itself() -> None:
    """After twelve hours a cookie opens nothing; all replicas agree on what it holds."""
    store, clock = MemoryStore("sign-ins"), VirtualClock()
    cookie = SignIns(store, clock).seal("sisa_text")
    other = SignIns(store, clock)
    assert other.open(cookie).token.endswith("_text")
    clock.advance_to(clock.now() + timedelta(hours=12))
    with pytest.raises(Refused, match="signed in for 12 hours, and that is over"):
        other.open(cookie)


@pytest.mark.parametrize("damage", [str.lower, lambda cookie: cookie[:-8], lambda _: "%", lambda _: "ä" * 9])
def test_a_damaged_cookie_signs_nobody_in(still_world: World, damage: object) -> None:
    """A cookie that this console did not make, or that was changed, is refused."""
    assert callable(damage)
    sign_ins = SignIns(still_world.service.store, still_world.service.clock)
    with pytest.raises(Refused, match="not valid here"):
        sign_ins.open(damage(sign_ins.seal("sisa_text")))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost"}, 303),
    ],
)
def test_only_own_pages_send_forms(still_world: World, headers: dict[str, str], status: int) -> None:
    """A form that a browser says was sent from another site's page does nothing, even with the right secret."""
    assert person(still_world).post("/sign-out", headers).status_code == status


@pytest.mark.parametrize("secret", ["", "0" * 32, "ä"])
def test_a_form_needs_the_secret_of_its_sign_in(still_world: World, secret: str) -> None:
    """A form without the secret of this sign-in does nothing."""
    auditor = person(still_world, "audit")
    assert auditor.post("/sign-out", csrf=secret).status_code == 403
    assert auditor.get("/requests").status_code == 200


@pytest.mark.parametrize("path", ["/sign-in", "/requests", "/sign-out"])
def test_pages_cannot_be_framed_kept_or_made_to_run(still_world: World, path: str) -> None:
    """Every answer forbids frames, foreign scripts and caches, even an error."""
    headers = person(still_world).get(path).headers if path != "/sign-out" else person(still_world).post(path).headers
    assert headers["x-frame-options"] == "DENY"
    assert "default-src 'none'; script-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"


def test_the_console_is_where_the_api_is(still_world: World) -> None:
    """Below a prefix, every address of a page has it, and so has the place where the cookie is sent."""
    client = TestClient(still_world.client.app, ADDRESS, root_path="/clinic", raise_server_exceptions=False)
    answer = client.post("/clinic/console/sign-in", data={"token": still_world.tokens["audit"]}, follow_redirects=False)
    assert answer.headers["location"] == "/clinic/console/requests"
    assert "Path=/clinic/console;" in answer.headers["set-cookie"]
    page = client.get("/clinic/console/federation").text
    assert re.findall(r'(?:href|src|action)="(/(?!clinic)[^"]*)"', page) == []
    assert '<a href="/clinic/console/federation" aria-current="page">' in page
    assert client.get(re.findall(r'href="([^"]*console.css)"', page)[0]).status_code == 200


def test_static_files_are_kept_and_nothing_else_is_there(still_world: World) -> None:
    """A page's files may be kept for good, as their address changes with their content; other names are missing."""
    nobody = stranger(still_world)
    page = nobody.get("/sign-in").text
    address = page.partition('rel="stylesheet" href="/console')[2].partition('"')[0]
    assert "immutable" in nobody.get(address).headers["cache-control"]
    assert nobody.get(address.replace("console.css", "..%2Fconsole.py")).status_code == 404
    assert nobody.get("/static/0123456789ab/console.css").status_code == 404
