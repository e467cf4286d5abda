"""An object is created once, for every answer that the store may give to the attempt."""

from __future__ import annotations

import pytest

from storage.errors import OutcomeUnknown, StoreFull
from storage.objects import ObjectStore, object_key
from storage.registers.create_once import create_or_read
from tests.doubles.stores.faulty_store import Fault, FaultyStore

KEY = object_key("folder/object")


def test_the_first_payload_stays(store: ObjectStore) -> None:
    """The first creator's payload is returned to everyone, for ever."""
    assert create_or_read(store, KEY, b"first") == b"first"
    assert create_or_read(store, KEY, b"second") == b"first"
    assert store.get(KEY).payload == b"first"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("times", [1, 2, 63])
def test_an_unknown_outcome_is_looked_up(store: ObjectStore, when: str, times: int) -> None:
    """A write whose outcome is unknown is read back, and repeated under the same name until it is there."""
    faults = [Fault(when=when, operation="put_if_absent", nth=nth) for nth in range(1, times + 1)]  # type: ignore[arg-type]
    assert create_or_read(FaultyStore(store, tuple(faults)), KEY, b"mine") == b"mine"
    assert store.get(KEY).payload == b"mine"


def test_it_ends(store: ObjectStore) -> None:
    """After 64 unknown outcomes the caller gets an error; other errors are raised at once."""
    faults = tuple(Fault(when="before", operation="put_if_absent", nth=nth) for nth in range(1, 65))
    with pytest.raises(OutcomeUnknown, match=r"does not say whether the object was created \[key=folder/object\]"):
        create_or_read(FaultyStore(store, faults), KEY, b"mine")
    full = FaultyStore(store, (Fault(when="before", operation="put_if_absent", error=StoreFull),))
    with pytest.raises(StoreFull, match="planned fault"):
        create_or_read(full, KEY, b"mine")
