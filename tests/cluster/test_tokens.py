"""Tokens: shown once, kept as digests, with a role and an end; revoked for good."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count

import pytest

from cluster.tokens import TOKENS_KEY, TokenRegister, known_token
from storage.errors import Corrupt, Invalid, OutcomeUnknown, Unavailable
from storage.objects import ObjectKey, VersionTag
from storage.stores.memory import MemoryStore
from tests.doubles.time_and_names import VirtualClock

_STORES = count()
LATER = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    """An empty store."""
    found = MemoryStore(f"tokens-{next(_STORES)}")
    yield found
    found.forget()


@pytest.fixture
def register(store: MemoryStore) -> TokenRegister:
    """An empty register."""
    return TokenRegister(store, VirtualClock())


def test_a_token_is_known_by_its_text_alone(register: TokenRegister) -> None:
    """The text of each of several tokens is recognised; any other text is not a token."""
    made = [register.create(role, days=30, note=f"for {role}") for role in ("predict", "erase", "audit", "predict")]
    assert [each.record for each in made] == list(register.records())
    for each in made:
        assert known_token(register.records(), each.text) == each.record
    text = made[0].text
    wrong = ["", "sisa", text[:-1], text + "0", text.upper(), text[:-1] + "_", text.replace("sisa", "SISA")]
    other_secret = f"{text[:17]}{made[1].text[17:]}"
    other_id = f"sisa_{'0' * 12}{text[17:]}"
    assert [known_token(register.records(), each) for each in (*wrong, other_secret, other_id)] == [None] * 9


def test_the_store_does_not_hold_the_secret(store: MemoryStore, register: TokenRegister) -> None:
    """What is stored, listed and shown of a token has no part of its secret."""
    made = register.create("predict", days=1)
    secret = made.text.rpartition("_")[2]
    assert len(secret) == 64
    assert secret.encode() not in store.get(TOKENS_KEY).payload
    assert secret not in repr(made)
    assert secret not in repr(register.records())
    assert made.record.digest not in repr(made)


def test_tokens_end(register: TokenRegister) -> None:
    """A token ends when its days are over or when it is revoked; a second revocation changes nothing."""
    made, other = register.create("audit", days=2), register.create("audit", days=3650)
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert not made.record.is_over(now)
    assert made.record.is_over(LATER)
    assert not other.record.is_over(LATER)
    revoked = register.revoke(other.record.token_id)
    assert revoked.is_over(now)
    assert register.revoke(other.record.token_id) == revoked
    assert [each.revoked_at != "" for each in register.records()] == [False, True]
    with pytest.raises(Invalid, match="there is no such token"):
        register.revoke("0" * 12)


@pytest.mark.parametrize(
    ("role", "days", "note", "text"),
    [
        ("admin", 1, "", "a token's role is one of predict, erase, audit, officer, federate, got 'admin'"),
        ("predict", 0, "", "above 0 and at most 3650 days"),
        ("predict", float("nan"), "", "above 0 and at most 3650 days"),
        ("predict", 4000, "", "above 0 and at most 3650 days"),
        ("predict", 1, "\x1b[2J", "200 printable characters"),
        ("predict", 1, "x" * 201, "200 printable characters"),
    ],
)
def test_tokens_that_are_not_made(register: TokenRegister, role: str, days: float, note: str, text: str) -> None:
    """An unknown role, a life without end, a note that would act on a terminal: nothing is made."""
    with pytest.raises(Invalid, match=text):
        register.create(role, days=days, note=note)
    assert register.records() == ()


class _Doubtful(MemoryStore):
    """A store whose every other write lands and says that it does not know."""

    def put_if_match(self, key: ObjectKey, payload: bytes, expected: VersionTag) -> VersionTag:
        """Write, and do not know."""
        MemoryStore.put_if_match(self, key, payload, expected)
        raise OutcomeUnknown("the store timed out")


def test_a_doubtful_write_makes_one_token(store: MemoryStore, register: TokenRegister) -> None:
    """Where the store does not say whether a write landed, the register is read again: no token is lost or doubled."""
    register.create("audit", days=1)
    made = TokenRegister(_Doubtful(store.name), VirtualClock()).create("predict", days=1)
    assert [each.role for each in register.records()] == ["audit", "predict"]
    assert TokenRegister(_Doubtful(store.name), VirtualClock()).revoke(made.record.token_id).revoked_at


class _Swept(MemoryStore):
    """A store in which somebody takes writes under way for leftovers, again and again."""

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Write, unless swept away."""
        if SWEEPS:
            SWEEPS.pop()
            raise Unavailable("the store's file system failed; nothing was published")
        return MemoryStore.put_if_absent(self, key, payload)


SWEEPS: list[int] = []


def test_a_sweep_hinders_nobody_for_long(store: MemoryStore) -> None:
    """A write that a coordinator's sweep deleted is repeated; if it keeps failing, the error says so."""
    register = TokenRegister(_Swept(store.name), VirtualClock())
    SWEEPS[:] = [1] * 5
    made = register.create("predict", days=1).record
    assert register.records() == (made,)
    store.delete(TOKENS_KEY)
    SWEEPS[:] = [1] * 100
    with pytest.raises(Unavailable, match="nothing was published"):
        register.create("predict", days=1)
    SWEEPS.clear()


def test_a_damaged_register_admits_nobody(store: MemoryStore, register: TokenRegister) -> None:
    """A register that was altered by hand is refused as a whole."""
    register.create("predict", days=1)
    stored = store.get(TOKENS_KEY)
    store.put_if_match(TOKENS_KEY, stored.payload.replace(b'"predict"', b'"audit"  '), stored.tag)
    with pytest.raises(Corrupt, match="not what was written"):
        register.records()
