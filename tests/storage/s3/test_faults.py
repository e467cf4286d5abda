"""Every fault at every request of the S3 store: the operation succeeds, or its error is true."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import get_args

import pytest

from storage.errors import SisaError, Unavailable
from storage.s3.client import S3Store
from tests.doubles.stores.fault_proxy import Action, FaultProxy, Rule, fault_proxy
from tests.storage.s3.s3_world import OPERATIONS, Operation, World

pytestmark = [pytest.mark.s3, pytest.mark.usefixtures("no_waiting")]

WITH_PAYLOAD = frozenset(
    {
        "create",
        "replace",
        "create in parts: part",
        "create in parts: complete",
        "read",
        "delete: objects",
        "lease: take",
        "lease: look",
    }
)
"""Requests whose damage someone can notice: a listing carries no digest."""

WITH_CONDITION = frozenset({"create", "replace", "create in parts: complete", "lease: take"})
"""Requests that are ever answered 409."""


def sensible(operation: Operation, action: Action) -> bool:
    """Whether such a request can meet such a fault."""
    match action:
        case "flips_a_bit":
            return operation.name in WITH_PAYLOAD
        case "conflict":
            return operation.name in WITH_CONDITION
        case "key_error":
            return operation.name == "delete: objects"
        case _:
            return True


CELLS = [(operation, action) for operation in OPERATIONS for action in get_args(Action) if sensible(operation, action)]


@pytest.fixture(scope="module")
def proxy(seaweedfs_endpoint: str) -> Iterator[FaultProxy]:
    """A proxy in front of a real server."""
    with fault_proxy(seaweedfs_endpoint) as running:
        yield running


@pytest.fixture
def world(proxy: FaultProxy, seaweedfs_endpoint: str) -> World:
    """An empty store behind the proxy."""
    prefix = f"faults/{secrets.token_hex(8)}"
    return World(
        store=S3Store("plain", prefix, proxy.endpoint, read_timeout_seconds=0.4),
        direct=S3Store("plain", prefix, seaweedfs_endpoint),
    )


def test_the_table_is_as_large_as_it_says() -> None:
    """Twelve faults at fourteen requests, less what cannot happen."""
    assert len(get_args(Action)) == 12
    assert len(OPERATIONS) == 14
    assert len(CELLS) == 139


@pytest.mark.parametrize(("operation", "action"), CELLS, ids=lambda cell: getattr(cell, "name", cell))
def test_a_fault_ends_well(proxy: FaultProxy, world: World, operation: Operation, action: Action) -> None:
    """After one fault the operation has taken effect and says so, or it says what is wrong and that is true."""
    operation.before(world)
    method, pattern = operation.request
    proxy.plan(Rule(method=method, pattern=pattern, action=action))
    try:
        operation.run(world)
    except SisaError as error:
        refused: SisaError | None = error
    else:
        refused = None
    assert proxy.struck == [action]
    if action == "clock_skew":
        assert isinstance(refused, Unavailable)
        assert operation.undone(world)
    else:
        assert refused is None, str(refused)
        assert operation.done(world)
