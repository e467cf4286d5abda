"""A federation that is served by replicas on Ray Serve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from cluster.client import Client
from cluster.config.specification import FederationSpecification, read_specification
from cluster.runtime.system import SystemClock
from cluster.serving.deployment import serve_federation, stop_serving
from cluster.tokens import Role, TokenRegister
from coordinator.engine.ledger import read_state
from coordinator.state import FederationState
from tests.doubles.stores.s3_servers import free_ports
from tests.doubles.user_folder import UserFolder
from tests.serving.world import ROLES, points

REPLICAS = 2


@dataclass(frozen=True, slots=True)
class Served:
    """The federation."""

    home: UserFolder
    specification: FederationSpecification
    url: str
    tokens: Mapping[Role, str]
    launched: bool
    """Whether a coordinator was launched for it."""

    def client(self, role: Role) -> Client:
        """Return a client with a token of this role."""
        return Client(self.url, self.tokens[role])

    def state(self) -> FederationState:
        """Return the state in the store."""
        state = read_state(self.home.objects)
        assert state is not None
        return state

    def answers_now(self) -> bool:
        """Return whether an answer is of the current generation, which one of the replicas may read later."""
        with self.client("predict") as client:
            return client.predict(points()["points"]).generation == self.state().generation

    def replicas(self) -> list[str]:
        """Return the names of the replicas' actors."""
        named = ray.util.list_named_actors(all_namespaces=True)
        return [each["name"] for each in named if each["name"].startswith("SERVE_REPLICA::")]


def serve_settings() -> dict[str, object]:
    """Return settings for several replicas behind a free port, and as many requests as anybody likes."""
    (port,) = free_ports(1)
    return {
        "serve__port": port,
        "serve__prefix": "/small",
        "serve__replicas": REPLICAS,
        "serve__refresh_seconds": 0.2,
        "serve__requests_per_minute": 1_000_000,
    }


@contextmanager
def served_on_ray(home: UserFolder) -> Iterator[Served]:
    """Serve the home's federation, as its specification says; its coordinator is at work at the end as well."""
    specification = read_specification(home.config)
    serving = serve_federation(specification)
    assert serving.url == f"http://127.0.0.1:{specification.serve.port}/small"
    register = TokenRegister(home.objects, SystemClock())
    tokens = {role: register.create(role, days=1).text for role in ROLES}
    try:
        yield Served(home, specification, serving.url, tokens, serving.launched)
    finally:
        assert stop_serving(specification)
