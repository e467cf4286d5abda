"""Numbered objects and the floor under them."""

from __future__ import annotations

from typing import Literal

import pytest

from storage.digests import Json
from storage.errors import Corrupt, Unavailable
from storage.objects import ObjectStore, object_key
from storage.records import encode_record
from storage.registers.manifest import ManifestRegister
from storage.registers.numbered import Floor, Numbers, misshapen, scalar
from tests.doubles.stores.faulty_store import Fault, FaultyStore

KEY = object_key("control/some-floor")


def some_floor(store: ObjectStore) -> Floor:
    """A floor under nothing in particular."""
    return Floor(store=store, key=KEY, under="things")


def test_numbers_are_listed_rising(store: ObjectStore) -> None:
    """What is present is every number, in the order of numbers; other names and other folders do not count."""
    numbers = Numbers(store, "folder/things")
    assert numbers.present() == ()
    for number in (10, 9, 2, 10**19):
        store.put_if_absent(numbers.key(number), b"x")
    for text in ("folder/things/11", "folder/things/0000000000000000001x", "folder/things-old/00000000000000000001"):
        store.put_if_absent(object_key(text), b"x")
    assert numbers.present() == (2, 9, 10, 10**19)
    assert numbers.key(9) == "folder/things/00000000000000000009"


def test_a_number_that_is_not_there_has_no_payload(store: ObjectStore) -> None:
    """Absence is an answer, not an error."""
    numbers = Numbers(store, "things")
    store.put_if_absent(numbers.key(1), b"one")
    assert numbers.payload(1) == b"one"
    assert numbers.payload(2) is None


def test_numbers_are_deleted_in_order(store: ObjectStore) -> None:
    """The numbers given are deleted one after another, and counted."""
    faulty = FaultyStore(store)
    numbers = Numbers(faulty, "things")
    for number in range(1, 6):
        store.put_if_absent(numbers.key(number), b"x")
    assert numbers.delete(number for number in (1, 2, 4)) == 3
    assert [key for operation, key in faulty.calls if operation == "delete"] == [numbers.key(n) for n in (1, 2, 4)]
    assert numbers.present() == (3, 5)
    assert numbers.delete(()) == 0


def test_a_floor_rises_and_never_falls(store: ObjectStore) -> None:
    """Raising returns the floor there is: what was asked for, or what is higher already."""
    floor = some_floor(store)
    assert floor.read() == 0
    assert floor.raise_to(0) == 0
    assert list(store.list("")) == []
    assert [floor.raise_to(wanted) for wanted in (3, 2, 3, 7)] == [3, 3, 3, 7]
    assert floor.read() == 7
    assert store.get(KEY).payload == encode_record({"floor": 7})


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("operation", ["put_if_absent", "put_if_match"])
def test_a_floor_in_doubt_is_read_again(
    store: ObjectStore, when: Literal["before", "after"], operation: Literal["put_if_absent", "put_if_match"]
) -> None:
    """Whether the put landed or not, the floor is there when raising returns."""
    faulty = FaultyStore(store)
    floor = some_floor(faulty)
    if operation == "put_if_match":
        floor.raise_to(1)
    faulty.plan(Fault(when=when, operation=operation))
    assert floor.raise_to(4) == 4
    assert some_floor(store).read() == 4


def test_a_floor_that_others_hold_is_reported(store: ObjectStore) -> None:
    """A floor whose every put is in doubt ends in an error that says under what it lies."""
    faults = tuple(Fault(when="before", operation="put_if_absent", nth=nth) for nth in range(1, 200))
    with pytest.raises(Unavailable, match=r"floor under the things could not be raised \[floor=2\]\. Try again"):
        some_floor(FaultyStore(store, faults)).raise_to(2)
    assert some_floor(store).read() == 0


@pytest.mark.parametrize("value", ["3", None, True, 3.0, [3]])
def test_a_floor_of_another_type_is_damage(store: ObjectStore, value: str | float | list[int] | None) -> None:
    """A sealed floor that is not a number is refused."""
    store.put_if_absent(KEY, encode_record({"floor": value}))
    with pytest.raises(Corrupt, match=r"not what its key and format say \[key=control/some-floor field=floor\]"):
        some_floor(store).read()


def test_a_scalar_is_of_its_kind() -> None:
    """Fields come back as what they must be, or not at all."""
    fields: dict[str, Json] = {"number": 1, "name": "x", "flag": True}
    assert scalar(fields, "number", int, KEY) == 1
    assert scalar(fields, "name", str, KEY) == "x"
    with pytest.raises(Corrupt, match="field=number"):
        scalar(fields, "number", str, KEY)
    for name in ("name", "flag"):
        with pytest.raises(Corrupt, match=f"field={name}"):
            scalar(fields, name, int, KEY)
    assert misshapen(KEY, "name").context == {"key": KEY, "field": "name"}


# ------------------------------------------------------------------------------------------- fencing tokens are numbers


def test_the_highest_token_is_the_last_claimed(store: ObjectStore) -> None:
    """Before the first claim it is 0, then the token last claimed, whether or not anything was committed with it."""
    register = ManifestRegister(store)
    assert register.highest_token() == 0
    assert list(store.list("")) == []
    for _ in range(3):
        assert register.claim_token() == register.highest_token()
    register.commit({}, after=0, token=2, nonce="n")
    assert register.highest_token() == 3


def test_the_highest_token_may_be_the_committed_one(store: ObjectStore) -> None:
    """A token that was committed with counts although its object is gone; looking claims nothing."""
    register = ManifestRegister(store)
    register.commit({}, after=0, token=7, nonce="n")
    assert register.highest_token() == 7
    assert register.highest_token() == 7
    assert register.claim_token() == 8
