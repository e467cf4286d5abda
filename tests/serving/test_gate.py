"""The gate: a good token with the right role passes, as often as it may; nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import ClassVar

import pytest

from cluster.serving.auth import Gate
from cluster.serving.http_errors import Refused
from cluster.tokens import Role, TokenRecord, TokenRegister
from storage.errors import Unavailable
from storage.objects import ObjectKey, StoredObject
from storage.stores.memory import MemoryStore
from tests.doubles.time_and_names import VirtualClock
from tests.serving.access.table import NO_TOKEN, table
from tests.serving.world import ROLES, World, error_of

_STORES = count()


class _Away(MemoryStore):
    def get(self, key: ObjectKey) -> StoredObject:
        raise Unavailable("the disk is gone", "mount it")


class _Counting(MemoryStore):
    """Remembers what was read."""

    read: ClassVar[list[ObjectKey]] = []

    def get(self, key: ObjectKey) -> StoredObject:
        self.read.append(key)
        return super().get(key)


class _Still(VirtualClock):
    """A clock that stands until it is moved."""

    seconds = 1000.0

    def monotonic(self) -> float:
        """Return the moment."""
        return self.seconds


def gate_of(store: MemoryStore, clock: VirtualClock, per_minute: int = 1_000_000) -> Gate:
    """Return a gate over the store's tokens."""
    return Gate(TokenRegister(store, clock), clock, refresh_seconds=1.0, per_minute=per_minute, lookups_per_minute=2)


def refusal(gate: Gate, text: str, *roles: Role) -> Refused:
    """Return how a request with this token is refused."""
    with pytest.raises(Refused, match=".") as caught:
        gate.admit({"authorization": f"Bearer {text}"}, *(roles or ROLES))
    return caught.value


TABLE = table("route")


@pytest.mark.parametrize("role", ROLES)
def test_nobody_gets_weights_where_none_may_leave(still_world: World, role: Role) -> None:
    """A federation without sites gives no checkpoint to any role; its refusal differs from that of a wrong role."""
    state = still_world.resident.state()
    sha256 = state.shards[0].chain[-1].sha256
    answer = still_world.client.get(f"/v1/checkpoints/0/{sha256}", headers=still_world.headers(role))
    error_of(answer, 403, "withheld" if role == "federate" else "forbidden")


@pytest.mark.parametrize("role", ROLES)
def test_everyone_is_erased_by_a_federation_alone(still_world: World, role: Role) -> None:
    """A role that may erase single people may not erase everyone at once."""
    still_world.coordinator.clear()
    answer = still_world.client.post("/v1/erasures", json={"everyone": True}, headers=still_world.headers(role))
    still_world.coordinator.append(still_world.resident)
    if role == "federate":
        error_of(answer, 503, "unavailable")
    else:
        error_of(answer, 403, "forbidden")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer  ", "Basic c2VjcmV0", "Bearer sisa_0_1", "bearer é"])
@pytest.mark.parametrize(("method", "path"), [route for route in TABLE if TABLE[route][NO_TOKEN] == "–"])
def test_without_a_token_nothing_opens(still_world: World, method: str, path: str, header: str | None) -> None:
    """No token, half a token or another scheme: 401, with the scheme that is wanted."""
    headers = {} if header is None else {b"Authorization": header.encode("latin-1")}
    answer = still_world.client.request(method, path, headers=headers)
    error_of(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_tokens_of_another_federation_open_nothing() -> None:
    """A token is good for the federation in whose store it is registered."""
    clock = VirtualClock()
    here, there = (MemoryStore(f"gate-{next(_STORES)}") for _ in range(2))
    token = TokenRegister(there, clock).create("predict", days=1)
    assert refusal(gate_of(here, clock), token.text).problem.status == 401


def test_expired_and_revoked_tokens_are_reported_so() -> None:
    """A token that has expired or was revoked is refused, and the error says which of the two it is."""
    clock, store = VirtualClock(), MemoryStore(f"gate-{next(_STORES)}")
    register = TokenRegister(store, clock)
    expired, revoked = register.create("predict", days=0.0001), register.create("predict", days=1)
    gate = gate_of(store, clock)
    assert gate.admit({"authorization": f"Bearer {revoked.text}"}, "predict") == revoked.record
    register.revoke(revoked.record.token_id)
    for _ in range(10):  # each reading of the clock is a second
        clock.now()
    gate.refresh()
    assert "has expired" in str(refusal(gate, expired.text))
    assert "was revoked" in str(refusal(gate, revoked.text))


def test_a_new_token_opens_at_once() -> None:
    """A token made after the register was read last is looked for in the store."""
    clock, store = VirtualClock(), MemoryStore(f"gate-{next(_STORES)}")
    gate = gate_of(store, clock)
    gate.refresh()
    made = TokenRegister(store, clock).create("audit", days=1)
    assert gate.admit({"authorization": f"bearer {made.text}"}, "audit") == made.record


def test_a_known_token_is_admitted_without_the_store() -> None:
    """From memory the gate admits, refuses and counts as otherwise; what memory does not say, needs a reading."""
    clock, store = _Still(), _Counting(f"gate-{next(_STORES)}")
    made = TokenRegister(store, clock).create("predict", days=1)
    gate = gate_of(store, clock, per_minute=2)
    headers = {"authorization": f"Bearer {made.text}"}
    assert gate.admit_from_memory(headers, "predict") is None  # nothing was read yet
    gate.refresh()
    store.read.clear()
    assert gate.admit_from_memory(headers, "predict") == made.record
    with pytest.raises(Refused, match="may not do this"):
        gate.admit_from_memory(headers, "audit")
    with pytest.raises(Refused, match="a bearer token is needed"):
        gate.admit_from_memory({}, "predict")
    assert gate.admit_from_memory({"authorization": f"Bearer {made.text[:-1]}?"}, "predict") is None
    assert gate.admit_from_memory(headers, "predict") == made.record
    with pytest.raises(Refused, match="more than 2 times a minute"):
        gate.admit_from_memory(headers, "predict")
    clock.seconds += 6.0  # more than five refreshes
    assert gate.admit_from_memory(headers, "predict") is None
    assert not store.read


class _Overtaken(TokenRegister):
    """A register that is slow to read once: meanwhile something else is done."""

    def records(self) -> tuple[TokenRecord, ...]:
        """Return the tokens as they were before what is done meanwhile."""
        found = super().records()
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        return found

    meanwhile: Callable[[], object] = staticmethod(lambda: None)


def test_a_slow_reading_does_not_bring_back_older_tokens() -> None:
    """A reading that another one has overtaken is dropped: a token that has opened stays known."""
    clock = _Still()
    register = _Overtaken(MemoryStore(f"gate-{next(_STORES)}"), clock)
    gate = Gate(register, clock, refresh_seconds=1.0, per_minute=100, lookups_per_minute=2)

    def opens_with_a_new_token() -> None:
        clock.seconds += 0.5
        token = register.create("audit", days=1)
        assert gate.admit({"authorization": f"Bearer {token.text}"}, "audit") == token.record

    register.meanwhile = opens_with_a_new_token
    gate.refresh()
    assert [each.role for each in gate.tokens] == ["audit"]


def test_who_guesses_tokens_keeps_the_store_from_nobody() -> None:
    """However many tokens are not known, the store is read for them some times a second; a new one opens after that."""
    clock, store = _Still(), _Counting(f"gate-{next(_STORES)}")
    gate = gate_of(store, clock)
    gate.refresh()
    store.read.clear()
    guesses = [f"sisa_{number:012x}_{number:064x}" for number in range(100)]
    assert {refusal(gate, guess).problem.status for guess in guesses} == {401}
    assert 0 < len(store.read) <= 10
    made = TokenRegister(store, clock).create("audit", days=1)
    assert refusal(gate, made.text).problem.status == 401
    clock.seconds += 1
    assert gate.admit({"authorization": f"Bearer {made.text}"}, "audit") == made.record


def test_who_asks_too_often_waits() -> None:
    """A token has a minute's worth of requests, which fill up again; others have their own."""
    clock, store = VirtualClock(), MemoryStore(f"gate-{next(_STORES)}")
    one, other = (TokenRegister(store, clock).create("predict", days=1) for _ in range(2))
    gate = gate_of(store, clock, per_minute=2)
    headers = {"authorization": f"Bearer {one.text}"}
    gate.admit(headers, "predict")
    gate.admit(headers, "predict")
    limited = refusal(gate, one.text).problem
    assert (limited.status, limited.kind) == (429, "rate_limited")
    assert 1 <= int(limited.headers["Retry-After"]) <= 30
    gate.admit({"authorization": f"Bearer {other.text}"}, "predict")
    for _ in range(40):
        clock.monotonic()
    gate.admit(headers, "predict")


def test_a_register_that_is_away_opens_nothing_for_long() -> None:
    """Known tokens are accepted for a few more refreshes; then all requests are refused as unavailable."""
    clock, name = VirtualClock(), f"gate-{next(_STORES)}"
    made = TokenRegister(MemoryStore(name), clock).create("predict", days=1)
    gate = gate_of(MemoryStore(name), clock)
    headers = {"authorization": f"Bearer {made.text}"}
    gate.admit(headers, "predict")
    gate._register = TokenRegister(_Away(name), clock)
    gate.admit(headers, "predict")
    for _ in range(10):
        clock.monotonic()
    with pytest.raises(Unavailable, match="register of tokens cannot be read"):
        gate.admit(headers, "predict")
