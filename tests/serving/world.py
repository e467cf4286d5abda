"""A federation, its coordinator and one replica's API, all in this process."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from starlette.testclient import TestClient

from cluster.config.specification import FederationSpecification, read_specification
from cluster.coordinator_actor.log_lines import LogLines
from cluster.coordinator_actor.resident import Resident
from cluster.runtime.system import SystemClock
from cluster.serving.app import build_app
from cluster.serving.erasures import Accepting
from cluster.serving.service import Service, open_service
from cluster.tokens import Role, TokenRegister
from cluster.writer.writer import writer_setup
from tests.doubles.user_folder import FEATURES, UserFolder, small_points

PATIENCE_SECONDS = 60.0
"""How long a failing test waits; one that passes does not."""

ROLES: tuple[Role, ...] = get_args(Role)


def rows(count: int = 3) -> list[list[int]]:
    """Return the features of the first data points."""
    columns = small_points()
    return [[columns[f"x{feature:02d}"][number] for feature in range(FEATURES)] for number in range(count)]


def points(count: int = 3) -> dict[str, Any]:
    """Return a body that asks about the first data points."""
    return {"points": [{"id": number, "features": values} for number, values in enumerate(rows(count))]}


@dataclass(slots=True)
class World:
    """What the tests of the API talk to."""

    home: UserFolder
    resident: Resident
    service: Service
    client: TestClient
    tokens: Mapping[Role, str]
    log: io.StringIO
    coordinator: list[Accepting] = field(default_factory=list)
    """The coordinator that takes requests; empty: there is not one."""

    def headers(self, role: Role, **further: str) -> dict[str, str]:
        """Return the headers of somebody with a token of this role; underscores are hyphens."""
        more = {name.replace("_", "-"): value for name, value in further.items()}
        return {"Authorization": f"Bearer {self.tokens[role]}", **more}

    def predict(self, body: object = None, **headers: str) -> Any:
        """Ask for predictions, in JSON unless the headers say otherwise."""
        asked = points() if body is None else body
        return self.client.post("/v1/predictions", json=asked, headers=self.headers("predict", **headers))

    def erase(self, *subjects: str, key: str | None = None, **body: object) -> Any:
        """Submit an erasure request."""
        headers = self.headers("erase", **({"Idempotency_Key": key} if key else {}))
        return self.client.post("/v1/erasures", json={"subjects": subjects, **body}, headers=headers)

    def get(self, path: str, role: Role = "audit") -> Any:
        """Get what is at a path."""
        return self.client.get(path, headers=self.headers(role))

    def until_idle(self) -> None:
        """Return when the coordinator has done all that may be done now."""
        heard = self.resident.hear(0, 0.0)
        while not heard.idle:
            heard = self.resident.hear(heard.upto, PATIENCE_SECONDS)

    def lines(self) -> list[dict[str, Any]]:
        """Return what was logged."""
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


def coordinator_of(specification: FederationSpecification) -> Resident:
    """Return a coordinator that has trained the federation."""
    made = Resident(lambda listener: writer_setup(specification, listener=listener))
    made.train()
    return made


def open_world(home: UserFolder, resident: Resident) -> World:
    """Return a world with its own replica, at work."""
    specification = read_specification(home.config)
    coordinator: list[Accepting] = [resident]
    service = open_service(specification, lambda: coordinator[0] if coordinator else None)
    register = TokenRegister(home.objects, SystemClock())
    log = io.StringIO()
    app = build_app(service, LogLines(specification.name, service.clock, log))
    return World(
        home=home,
        resident=resident,
        service=service,
        client=TestClient(app, raise_server_exceptions=False),
        tokens={role: register.create(role, days=1).text for role in ROLES},
        log=log,
        coordinator=coordinator,
    )


def error_of(answer: Any, status: int, kind: str) -> dict[str, str]:
    """Return an answer's error, checked to be of the one shape that all errors have."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body.keys() == {"error"}
    error: dict[str, str] = body["error"]
    assert error.keys() == {"kind", "message", "remedy"}
    assert error["kind"] == kind
    assert error["message"]
    assert error["remedy"]
    return error
