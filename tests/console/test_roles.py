"""Roles: every route of the console, with a token of every role and without one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.serving.console.pages import OpenPage, Page
from tests.console.people import Person, person, stranger
from tests.serving.world import ROLES, World

DOCUMENT = Path(__file__).parents[2] / "docs/console.md"


@pytest.fixture
def people(still_world: World) -> dict[str, Person]:
    """Somebody for every role that can sign in, and somebody without a token."""
    return {"": stranger(still_world)} | {role: person(still_world, role) for role in ("officer", "audit", "predict")}


def _routes(world: World) -> Iterator[Page | OpenPage]:
    return iter(world.client.app.state.console)  # type: ignore[attr-defined]


def _status(who: Person, page: Page | OpenPage) -> int:
    path = re.sub(r"\{[^}]*\}", "nothing", page.path)
    status: int = (who.get(path) if page.method == "GET" else who.post(path)).status_code
    return status


def test_a_page_is_for_its_roles_alone(still_world: World, people: dict[str, Person]) -> None:
    """Nobody else gets past the door: 401 without a sign-in, 403 with a token of another role."""
    for page in _routes(still_world):
        if not isinstance(page, Page) or page.path.endswith("/live") or page.path == "/sign-out":
            continue
        for role, who in people.items():
            status = _status(who, page)
            expected = {"": 401}.get(role, 0 if role in page.roles else 403)
            assert status == expected or (not expected and status not in {401, 403, 500}), (page.path, role, status)


def test_live_pages_are_for_their_roles_alone(still_world: World, people: dict[str, Person]) -> None:
    """A stream is refused before it begins."""
    for page in (each for each in _routes(still_world) if each.path.endswith("/live")):
        assert isinstance(page, Page)
        assert _status(people[""], page) == 401
        assert _status(people["predict"], page) == 403


def test_the_document_has_the_table(still_world: World) -> None:
    """The table of pages in docs/console.md is that of the code."""
    assert_listed(_routes(still_world), is_of_sites=False)


def assert_listed(routes: Iterator[Page | OpenPage], *, is_of_sites: bool) -> None:
    """Check that the document's table for a federation, or for one of several sites, has these routes and no others."""
    text = DOCUMENT.read_text(encoding="utf-8").partition("## Several sites")[2 if is_of_sites else 0]
    rows = re.findall(r"^\| `(GET|POST) /console([^`]*)` \| ([^|]*) \|", text, re.MULTILINE)
    listed = {(method, path, roles.strip()) for method, path, roles in rows}
    made = {
        (page.method, page.path, ", ".join(role for role in ROLES if role in page.roles))
        if isinstance(page, Page)
        else (page.method, page.path, "nobody needs to be signed in")
        for page in routes
        if page.path != "/{path:path}"
    }
    assert listed == made
