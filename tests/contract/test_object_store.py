"""The contract of ``ObjectStore``: every test runs on every store."""

from __future__ import annotations

import os
import pickle
import secrets
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.digests import sha256
from storage.errors import (
    Conflict,
    Invalid,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
)
from storage.objects import ObjectKey, ObjectStore, VersionTag, object_key
from storage.stores.local import LocalStore
from storage.stores.memory import MemoryStore
from storage.stores.probe import probe_store
from tests.contract.conftest import Traits

WRITERS = 8
KEY = object_key("folder/name-1")
OTHER = object_key("folder/name-2")
BAD_KEYS = (
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/../b",
    ".hidden",
    "a/.hidden",
    "Upper",
    "sp ace",
    "a\\b",
    "é",
    "a\n",
    "a\0",
    "x" * 201,
)


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    """The keys under ``prefix``, sorted: a store promises no order."""
    return sorted(info.key for info in store.list(prefix))


# ------------------------------------------------------------------------------------------------ create and read


def test_what_is_made_durable_stays_what_it_is(store: ObjectStore) -> None:
    """Making an object durable returns it, with the tag that it has, and leaves nothing beside it."""
    tag = store.put_if_absent(KEY, b"content")
    before = keys(store)
    assert store.get_durable(KEY) == store.get(KEY)
    assert store.get(KEY).tag == tag
    assert keys(store) == before
    assert list(store.unfinished("")) == []
    store.put_if_match(KEY, b"more", tag)
    assert store.get_durable(KEY).payload == b"more"
    with pytest.raises(ObjectMissing, match="no such object"):
        store.get_durable(OTHER)


@pytest.mark.parametrize("payload", [b"", b"\0", b"text", bytes(range(256)) * 300, b"x" * 3_000_001])
def test_what_was_put_is_returned(store: ObjectStore, payload: bytes) -> None:
    """Every payload comes back byte for byte, with the tag that the put returned."""
    tag = store.put_if_absent(KEY, payload)
    found = store.get(KEY)
    assert found.payload == payload
    assert found.tag == tag


def test_a_taken_key_is_not_created_again(store: ObjectStore) -> None:
    """The second creation is refused, even of equal content, and the first content stays."""
    store.put_if_absent(KEY, b"first")
    for payload in (b"second", b"first"):
        with pytest.raises(ObjectExists, match=r"an object with this key exists.*folder/name-1"):
            store.put_if_absent(KEY, payload)
    assert store.get(KEY).payload == b"first"


def test_a_refused_creation_is_a_conflict(store: ObjectStore) -> None:
    """Callers that only know kinds see a refused creation as a conflict."""
    store.put_if_absent(KEY, b"first")
    with pytest.raises(Conflict, match="exists"):
        store.put_if_absent(KEY, b"second")


def test_a_refused_creation_leaves_nothing(store: ObjectStore) -> None:
    """A creation that loses leaves neither an object nor a leftover."""
    store.put_if_absent(KEY, b"first")
    with pytest.raises(ObjectExists, match="exists"):
        store.put_if_absent(KEY, b"second")
    assert keys(store) == [KEY]
    assert list(store.unfinished("")) == []


def test_a_missing_object_is_not_returned(store: ObjectStore) -> None:
    """Reading what is not there says so, in an empty store, beside objects and under an object."""
    with pytest.raises(ObjectMissing, match=r"no such object.*folder/name-1"):
        store.get(KEY)
    store.put_if_absent(KEY, b"x")
    for absent in (OTHER, object_key("elsewhere"), object_key(f"{KEY}/below"), object_key("folder")):
        with pytest.raises(ObjectMissing, match=f"no such object.*{absent}"):
            store.get(absent)


def test_tags_tell_contents_apart(store: ObjectStore) -> None:
    """Equal contents have equal tags, different contents different ones."""
    first = store.put_if_absent(KEY, b"one")
    second = store.put_if_absent(OTHER, b"two")
    third = store.put_if_absent(object_key("folder/name-3"), b"one")
    assert first == third
    assert first != second


@pytest.mark.parametrize("text", BAD_KEYS)
def test_keys_outside_the_grammar_are_refused(store: ObjectStore, text: str) -> None:
    """No operation accepts a key outside the grammar."""
    key = ObjectKey(text)
    operations: list[Callable[[], object]] = [
        lambda: store.put_if_absent(key, b"x"),
        lambda: store.put_if_match(key, b"x", VersionTag("0")),
        lambda: store.get(key),
        lambda: store.delete(key),
    ]
    for operation in operations:
        with pytest.raises(Invalid, match="an object key has segments"):
            operation()


def test_long_keys_are_objects(store: ObjectStore) -> None:
    """A key of several segments of 200 characters is as good as any."""
    key = object_key("/".join(("a" * 200, "b" * 200, "c" * 200)))
    tag = store.put_if_absent(key, b"x")
    store.put_if_match(key, b"y", tag)
    assert keys(store, "a" * 200) == [key]


def test_a_key_below_an_object_is_refused(store: ObjectStore, traits: Traits) -> None:
    """An object's key cannot become a folder, or the store has no folders and keeps the two apart."""
    store.put_if_absent(KEY, b"x")
    if not traits.has_folders:
        store.put_if_absent(object_key(f"{KEY}/below"), b"y")
        store.delete(KEY)
        assert keys(store) == [f"{KEY}/below"]
        return
    with pytest.raises(Invalid, match="Choose another key"):
        store.put_if_absent(object_key(f"{KEY}/below"), b"y")
    assert keys(store) == [KEY]


def test_a_folder_is_refused_as_a_key(store: ObjectStore, traits: Traits) -> None:
    """A folder of keys cannot become an object, or the store has no folders; no object in it is lost."""
    store.put_if_absent(KEY, b"x")
    if not traits.has_folders:
        with suppress(Invalid):
            store.put_if_absent(object_key("folder"), b"y")
        store.delete(object_key("folder"))
        assert keys(store) == [KEY]
        return
    for _ in range(2):
        with pytest.raises(Invalid, match="Choose another key"):
            store.put_if_absent(object_key("folder"), b"y")
        store.delete(KEY)
    assert keys(store) == []


# ------------------------------------------------------------------------------------------------------- replace


def test_a_replacement_under_the_right_tag_is_returned(store: ObjectStore) -> None:
    """A replacement is visible at once and its tag is the next one to expect."""
    tag = store.put_if_absent(KEY, b"0")
    for number in range(1, 6):
        tag = store.put_if_match(KEY, b"%d" % number, tag)
        assert store.get(KEY).payload == b"%d" % number
        assert store.get(KEY).tag == tag


def test_a_stale_tag_is_refused(store: ObjectStore) -> None:
    """A replacement under an older tag changes nothing."""
    stale = store.put_if_absent(KEY, b"first")
    store.put_if_match(KEY, b"second", stale)
    with pytest.raises(ObjectChanged, match=r"changed since it was read.*folder/name-1"):
        store.put_if_match(KEY, b"third", stale)
    assert store.get(KEY).payload == b"second"
    assert list(store.unfinished("")) == []


@pytest.mark.parametrize("tag", ["", "0", sha256(b"of something else")])
def test_a_made_up_tag_is_refused(store: ObjectStore, tag: str) -> None:
    """A tag that no put returned matches nothing."""
    store.put_if_absent(KEY, b"first")
    with pytest.raises(ObjectChanged, match="changed since it was read"):
        store.put_if_match(KEY, b"second", VersionTag(tag))


def test_a_missing_object_is_not_replaced(store: ObjectStore) -> None:
    """Replacing what is not there says so and creates nothing: in an empty store, beside others, at a folder."""
    tag = VersionTag(sha256(b"x"))
    with pytest.raises(ObjectMissing, match="no such object"):
        store.put_if_match(KEY, b"y", tag)
    store.put_if_absent(KEY, b"x")
    for absent in (OTHER, object_key("folder"), object_key(f"{KEY}/below")):
        with pytest.raises(ObjectMissing, match="no such object"):
            store.put_if_match(absent, b"y", tag)
    assert keys(store) == [KEY]


def test_a_deleted_object_is_not_replaced(store: ObjectStore) -> None:
    """A replacement cannot bring a deleted object back."""
    tag = store.put_if_absent(KEY, b"x")
    store.delete(KEY)
    with pytest.raises(ObjectMissing, match="no such object"):
        store.put_if_match(KEY, b"y", tag)
    assert keys(store) == []


def test_a_replacement_by_equal_content_keeps_the_tag(store: ObjectStore) -> None:
    """Equal tags mean equal contents, so replacing by the same bytes keeps the tag valid."""
    tag = store.put_if_absent(KEY, b"x")
    assert store.put_if_match(KEY, b"x", tag) == tag


# ---------------------------------------------------------------------------------------------------------- list


def test_an_empty_store_lists_nothing(store: ObjectStore) -> None:
    """A store nobody wrote to has no objects, leftovers or foreign names, and looking makes none."""
    assert keys(store) == []
    assert list(store.unfinished("")) == []
    assert list(store.foreign()) == []
    assert store.remove_unfinished("") == 0


_BY_PREFIX = {
    "": ["a/b/1", "a/b/2", "a/bc/1", "ab/1", "b"],
    "a": ["a/b/1", "a/b/2", "a/bc/1", "ab/1"],
    "a/": ["a/b/1", "a/b/2", "a/bc/1"],
    "a/b": ["a/b/1", "a/b/2", "a/bc/1"],
    "a/b/": ["a/b/1", "a/b/2"],
    "a/b/2": ["a/b/2"],
    "a/b/2/": [],
    "a/b/3": [],
    "b": ["b"],
    "b/": [],
    "c/d": [],
    "../": [],
    "/": [],
    "a//": [],
    ".": [],
}


def test_list_is_by_prefix(store: ObjectStore) -> None:
    """The listing holds exactly the keys that start with the prefix, wherever the prefix ends."""
    for text in ("a/b/1", "a/b/2", "a/bc/1", "ab/1", "b"):
        store.put_if_absent(object_key(text), b"x")
    assert {prefix: keys(store, prefix) for prefix in _BY_PREFIX} == _BY_PREFIX


def test_list_tells_sizes(store: ObjectStore) -> None:
    """The listing says how many bytes each payload has, after replacements too."""
    tag = store.put_if_absent(KEY, b"12345")
    store.put_if_absent(OTHER, b"")
    assert {info.key: info.payload_bytes for info in store.list("")} == {KEY: 5, OTHER: 0}
    store.put_if_match(KEY, b"1234567", tag)
    assert {info.key: info.payload_bytes for info in store.list("")} == {KEY: 7, OTHER: 0}


def test_a_listing_bears_deletions_and_creations(store: ObjectStore) -> None:
    """A listing under way survives a store that changes, and shows what was there all the time."""
    for number in range(16):
        store.put_if_absent(object_key(f"{number % 4}/{number:02}"), b"x")
    seen = set()
    for position, info in enumerate(store.list("")):
        seen.add(info.key)
        if position == 0:
            for number in range(16):
                if number % 4 > 1 and number % 3 == 0:
                    store.delete(object_key(f"{number % 4}/{number:02}"))
                store.put_if_absent(object_key(f"new-{number}/x"), b"x")
    stayed = {f"{n % 4}/{n:02}" for n in range(16) if not (n % 4 > 1 and n % 3 == 0)}
    assert stayed <= seen


# -------------------------------------------------------------------------------------------------------- delete


def test_a_deleted_object_is_gone(store: ObjectStore) -> None:
    """After a deletion the object is neither returned nor listed, and its neighbour is untouched."""
    store.put_if_absent(KEY, b"x")
    store.put_if_absent(OTHER, b"y")
    store.delete(KEY)
    with pytest.raises(ObjectMissing, match="no such object"):
        store.get(KEY)
    assert keys(store) == [OTHER]


def test_deletion_may_be_repeated(store: ObjectStore) -> None:
    """Deleting what is not there is no error: in an empty store, twice, at a folder, below an object."""
    store.delete(KEY)
    store.put_if_absent(KEY, b"x")
    store.delete(object_key("folder"))
    store.delete(object_key(f"{KEY}/below"))
    assert store.get(KEY).payload == b"x"
    store.delete(KEY)
    store.delete(KEY)
    assert keys(store) == []


def test_a_deleted_key_is_free(store: ObjectStore) -> None:
    """Create-if-absent forgets: a deleted key can be created again (which is why the register has a floor)."""
    store.put_if_absent(KEY, b"first")
    store.delete(KEY)
    store.put_if_absent(KEY, b"second")
    assert store.get(KEY).payload == b"second"


# ------------------------------------------------------------------------------------------------ all of it at once


def test_a_pickled_store_is_the_same_store(store: ObjectStore) -> None:
    """A store that went through pickle reaches the same objects."""
    store.put_if_absent(KEY, b"x")
    again = pickle.loads(pickle.dumps(store))
    assert again.get(KEY).payload == b"x"
    again.put_if_absent(OTHER, b"y")
    assert store.get(OTHER).payload == b"y"
    assert again.location == store.location


def test_the_probe_passes(store: ObjectStore) -> None:
    """A store that keeps the contract passes the start-up probe, which leaves no object behind."""
    store.put_if_absent(KEY, b"x")
    probe_store(store)
    assert keys(store) == [KEY]
    assert list(store.unfinished("")) == []
    assert list(store.foreign()) == []


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["create", "replace", "stale", "delete"]), st.sampled_from(["a/x", "a/y", "b"]), st.binary()
    ),
    max_size=30,
)


@settings(max_examples=25, deadline=None)
@given(steps=_STEPS, kind=st.sampled_from(["local", "memory"]))
def test_any_history_equals_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, bytes]], kind: str
) -> None:
    """After any history of operations the store holds what a plain dictionary would."""
    name = secrets.token_hex(8)
    store: ObjectStore = LocalStore(os.fspath(tmp_path_factory.mktemp("s"))) if kind == "local" else MemoryStore(name)
    expected: dict[str, bytes] = {}
    for step, text, payload in steps:
        refused = _apply(store, step, object_key(text), payload, expected.get(text))
        if step == "delete":
            expected.pop(text, None)
        elif not refused:
            expected[text] = payload
    assert {info.key: store.get(info.key).payload for info in store.list("")} == expected
    MemoryStore(name).forget()


def _apply(store: ObjectStore, step: str, key: ObjectKey, payload: bytes, current: bytes | None) -> bool:
    """Do one step; return whether it was refused as the dictionary says it must be."""
    tag = VersionTag(sha256(current or b"") if step == "replace" else "stale")
    try:
        if step == "delete":
            store.delete(key)
        elif step == "create":
            store.put_if_absent(key, payload)
        else:
            store.put_if_match(key, payload, tag)
    except ObjectExists:
        assert step == "create"
        assert current is not None
        return True
    except ObjectMissing:
        assert step in {"replace", "stale"}
        assert current is None
        return True
    except ObjectChanged:
        assert step == "stale"
        return True
    assert step in {"delete", "create"} or current is not None
    return False
