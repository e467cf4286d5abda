"""People who use the console in this process: a browser without scripts, signed in with a token of a role."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.testclient import TestClient

from cluster.tokens import Role
from tests.serving.world import World

ADDRESS = "http://localhost"
"""An address on this machine: on any other, browsers send the console's cookies over TLS only."""
_CSRF = re.compile(r'name="csrf" value="([0-9a-f]+)"')


@dataclass(slots=True)
class Person:
    """Somebody with a browser."""

    client: TestClient
    csrf: str = field(default="", repr=False)

    def get(self, path: str = "", **headers: str) -> Any:
        """Open a page beneath /console; redirects are not followed."""
        return self.client.get(f"/console{path}", headers=headers, follow_redirects=False)

    def post(self, path: str, headers: Mapping[str, str] | None = None, **fields: str) -> Any:
        """Send a form with the secret of this sign-in; redirects are not followed."""
        body = {"csrf": self.csrf, **fields}
        return self.client.post(f"/console{path}", data=body, headers=headers, follow_redirects=False)

    def sign_in(self, token: str) -> Any:
        """Sign in, and keep the secret of the forms that the first page has."""
        answer = self.client.post("/console/sign-in", data={"token": token}, follow_redirects=False)
        if answer.status_code == 303:
            found = _CSRF.search(self.client.get(answer.headers["location"]).text)
            self.csrf = found[1] if found else ""
        return answer


def stranger(world: World) -> Person:
    """Return somebody with a browser who is not signed in."""
    return Person(TestClient(world.client.app, ADDRESS, raise_server_exceptions=False))


def person(world: World, role: Role = "officer") -> Person:
    """Return somebody who is signed in with a token of this role."""
    made = stranger(world)
    answer = made.sign_in(world.tokens[role])
    assert answer.status_code == 303, answer.text
    return made
