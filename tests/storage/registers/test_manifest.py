"""The manifest register: one line of numbers, one writer, nothing lost, nothing doubled."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Literal

import pytest

from storage.digests import CanonicalJson, Json, canonical_json
from storage.errors import (
    Conflict,
    Fenced,
    Invalid,
    InvariantBroken,
    ObjectMissing,
    OutcomeUnknown,
    SisaError,
    Unavailable,
)
from storage.objects import ObjectKey, ObjectStore, StoredObject, VersionTag, new_name, object_key
from storage.registers.manifest import Manifest, ManifestRegister
from storage.stores.memory import MemoryStore
from tests.doubles.stores.faulty_store import Crash, Fault, FaultyStore
from tests.storage.registers.filled import filled

BODY: dict[str, Json] = {
    "generation": 3,
    "shards": [{"digest": "ab", "slices": 5}],
    "ratio": 0.25,
    "name": "Zürich",
    "none": None,
}


# -------------------------------------------------------------------------------------------------- commit and read


def test_an_empty_register_has_no_manifest(store: ObjectStore) -> None:
    """Before the first commit there is no manifest, the floor is 0, and looking writes nothing."""
    register = ManifestRegister(store)
    assert register.latest() is None
    assert register.floor() == 0
    assert register.prune(0) == 0
    assert list(store.list("")) == []


def test_commits_follow_one_another(store: ObjectStore) -> None:
    """Each commit gets the next number and is the latest at once."""
    register = ManifestRegister(store)
    for number in range(1, 12):
        made = register.commit({**BODY, "n": number}, after=number - 1, token=2, nonce=f"n{number}")
        assert made == Manifest(number=number, token=2, nonce=f"n{number}", body={**BODY, "n": number})
        assert register.latest() == made
        assert register.read(number) == made


def test_keys_have_twenty_digits(store: ObjectStore) -> None:
    """Numbers are zero-padded, so that the order of names is the order of numbers."""
    register = filled(store, 11)
    register.claim_token()
    assert sorted(info.key for info in store.list("")) == [
        "control/token/00000000000000000002",
        *(f"manifest/{number:020d}" for number in range(1, 12)),
    ]


def test_a_commit_may_be_repeated(store: ObjectStore) -> None:
    """The same commit with the same nonce is one commit, also after others followed."""
    register = filled(store, 2)
    for _ in range(2):
        assert register.commit({"n": 2}, after=1, token=1, nonce="nonce-2").number == 2
    register.commit({"n": 3}, after=2, token=1, nonce="nonce-3")
    assert register.commit({"n": 2}, after=1, token=1, nonce="nonce-2").number == 2
    assert len(list(store.list("manifest/"))) == 3


def test_tuples_are_returned_as_they_read_back(store: ObjectStore) -> None:
    """A commit returns what a reader gets, not what the caller passed."""
    made = ManifestRegister(store).commit({"list": (1, 2)}, after=0, token=1, nonce="n")
    assert made.body == {"list": [1, 2]}
    assert ManifestRegister(store).latest() == made


def test_a_body_that_is_no_json_is_refused(store: ObjectStore) -> None:
    """A body that could not be read back is refused and nothing is written."""
    with pytest.raises(Invalid, match="JSON cannot hold"):
        ManifestRegister(store).commit({"x": float("nan")}, after=0, token=1, nonce="n")
    assert list(store.list("")) == []


@pytest.mark.parametrize(("after", "token", "nonce"), [(-1, 1, "n"), (0, 0, "n"), (0, 1, "")])
def test_a_commit_without_its_parts_is_a_bug(store: ObjectStore, after: int, token: int, nonce: str) -> None:
    """A negative number, an unclaimed token or an empty nonce is a bug of the caller."""
    with pytest.raises(InvariantBroken, match="a claimed token and a nonce"):
        ManifestRegister(store).commit({}, after=after, token=token, nonce=nonce)


def test_a_missing_manifest_says_so(store: ObjectStore) -> None:
    """Reading a number that is not there names its key."""
    with pytest.raises(ObjectMissing, match="manifest/00000000000000000007"):
        filled(store, 2).read(7)


def test_foreign_objects_do_not_disturb(store: ObjectStore) -> None:
    """Objects beside the numbers are passed over."""
    register = filled(store, 2)
    for text in ("manifest/note", "manifest/9", "manifest/00000000000000000009.old", "manifest-old/x"):
        store.put_if_absent(object_key(text), b"x")
    latest = register.latest()
    assert latest is not None
    assert latest.number == 2


def test_a_register_pickles(store: ObjectStore) -> None:
    """A register that went through pickle reads the same manifests."""
    register = filled(store, 2)
    assert pickle.loads(pickle.dumps(register)).latest() == register.latest()
    assert pickle.loads(pickle.dumps(register.latest())) == register.latest()


# ----------------------------------------------------------------------------------------------- conflict and fence


def test_another_commit_is_a_conflict(store: ObjectStore) -> None:
    """A number that another commit of an equal or lower token has is a conflict, and stays as it is."""
    register = filled(store, 2, token=3)
    for token in (3, 4):
        with pytest.raises(Conflict, match=r"another manifest has this number \[number=2\]"):
            register.commit({"n": 9}, after=1, token=token, nonce="other")
    assert register.read(2).body == {"n": 2}


def test_a_gap_is_a_conflict(store: ObjectStore) -> None:
    """No number is left out: what is to be followed must be there."""
    for count, after in ((0, 1), (2, 3)):
        register = filled(store, count)
        with pytest.raises(Conflict, match=f"not in the store.*after={after}"):
            register.commit({}, after=after, token=1, nonce="n")
    assert len(list(store.list("manifest/"))) == 2


def test_one_nonce_for_two_commits_is_a_bug(store: ObjectStore) -> None:
    """A nonce that comes back with another body is a bug of the writer, not a success."""
    register = filled(store, 1)
    with pytest.raises(InvariantBroken, match="one nonce was used for two different commits"):
        register.commit({"n": 9}, after=0, token=1, nonce="nonce-1")


def test_a_lower_token_is_fenced(store: ObjectStore) -> None:
    """After a commit with a higher token the lower one commits nothing, neither next nor again."""
    register = filled(store, 1, token=1)
    register.commit({"n": 2}, after=1, token=2, nonce="higher")
    for after in (0, 1, 2, 3):
        with pytest.raises(Fenced, match=r"higher fencing token has committed.*token=1 higher=2.*Stop this process"):
            register.commit({}, after=after, token=1, nonce="nonce-1")
    assert len(list(store.list("manifest/"))) == 2


class _Overtaken(FaultyStore):
    """A store where another writer commits between this writer's look and its put."""

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Let the other writer in first."""
        if key.startswith("manifest/"):
            rival = ManifestRegister(self.inner)
            current = rival.latest()
            rival.commit({"rival": True}, after=current.number if current else 0, token=2, nonce="rival")
        return self.inner.put_if_absent(key, payload)


@pytest.mark.parametrize(("token", "error"), [(1, Fenced), (2, Conflict), (3, Conflict)])
def test_being_overtaken_is_reported_by_the_token(store: ObjectStore, token: int, error: type[SisaError]) -> None:
    """Overtaken between look and put, a writer is fenced by a higher token and in conflict with any other."""
    with pytest.raises(error, match=r"higher fencing token|another manifest has this number"):
        ManifestRegister(_Overtaken(store)).commit({}, after=0, token=token, nonce="mine")
    assert ManifestRegister(store).read(1).body == {"rival": True}


def test_one_of_eight_writers_commits_each_number(store: ObjectStore) -> None:
    """8 writers that append at once, re-reading after conflicts, lose nothing, double nothing and leave no gap."""
    register = ManifestRegister(store)
    start = threading.Barrier(8)

    def write(writer: int) -> None:
        start.wait()
        done = 0
        while done < 5:
            current = register.latest()
            after = current.number if current else 0
            try:
                register.commit({"who": writer, "n": done}, after=after, token=1, nonce=f"{writer}-{done}-{after}")
            except Conflict:
                continue
            done += 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    bodies = [register.read(number).body for number in range(1, 41)]
    assert sorted((body["who"], body["n"]) for body in bodies) == [(w, n) for w in range(8) for n in range(5)]
    assert len(list(store.list("manifest/"))) == 40


# ------------------------------------------------------------------------------------------------------ doubt, crash


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("times", [1, 5])
def test_a_put_in_doubt_is_resolved(store: ObjectStore, when: Literal["before", "after"], times: int) -> None:
    """Whether the put landed or not, the commit finds out by its nonce and is there once."""
    faulty = FaultyStore(store)
    register = filled(faulty, 1)
    faulty.plan(*(Fault(when=when, operation="put_if_absent", nth=nth) for nth in range(1, times + 1)))
    assert register.commit({"n": 2}, after=1, token=1, nonce="mine").number == 2
    assert ManifestRegister(store).latest() == Manifest(number=2, token=1, nonce="mine", body={"n": 2})


def test_a_false_refusal_is_recognised_as_success(store: ObjectStore) -> None:
    """A client that retries by itself reports its own success as 'exists'; the nonce proves it its own."""

    class Retrying(FaultyStore):
        def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
            self.inner.put_if_absent(key, payload)
            return self.inner.put_if_absent(key, payload)

    assert ManifestRegister(Retrying(store)).commit({"n": 1}, after=0, token=1, nonce="mine").number == 1


def test_endless_doubt_is_unknown(store: ObjectStore) -> None:
    """A store that never says whether the put landed leaves the outcome unknown, not failed."""
    faults = (Fault(when="before", operation="put_if_absent", nth=nth) for nth in range(1, 200))
    with pytest.raises(OutcomeUnknown, match=r"does not say whether the manifest landed.*number=1"):
        ManifestRegister(FaultyStore(store, tuple(faults))).commit({}, after=0, token=1, nonce="n")


def test_an_absent_store_is_reported(store: ObjectStore) -> None:
    """A store that is away is reported as such, and the commit can be repeated."""
    register = ManifestRegister(
        FaultyStore(store, (Fault(when="before", operation="put_if_absent", error=Unavailable),))
    )
    with pytest.raises(Unavailable, match="planned fault"):
        register.commit({"n": 1}, after=0, token=1, nonce="n")
    assert register.commit({"n": 1}, after=0, token=1, nonce="n").number == 1


def test_a_crash_at_any_step_loses_nothing(store: ObjectStore) -> None:
    """A writer that dies before or after any operation of token, commit or prune: what was committed stays readable,
    and a new writer continues with a higher token.
    """
    faulty = FaultyStore(store)
    for when in ("before", "after"):
        for nth in range(1, 40):
            faulty.plan(Fault(when=when, nth=nth, error=Crash))
            before = ManifestRegister(store).latest()
            number = before.number if before else 0
            try:
                _life(ManifestRegister(faulty), number, f"{when}-{nth}")
            except Crash:
                survivor = ManifestRegister(store)
                current = survivor.latest()
                assert (current.number if current else 0) in {number, number + 1}
                assert survivor.claim_token() > (current.token if current else 0)
                continue
            break
        assert nth > 10


def _life(register: ManifestRegister, number: int, nonce: str) -> None:
    token = register.claim_token()
    made = register.commit({"n": number + 1}, after=number, token=token, nonce=nonce)
    register.prune(max(made.number - 1, 1))


def test_an_encoded_body_is_the_same_manifest(store: ObjectStore) -> None:
    """A body that is in canonical form already is written as the body that it encodes."""
    register = ManifestRegister(store)
    head = register.commit_encoded(CanonicalJson(canonical_json(BODY)), after=0, token=1, nonce="n")
    assert register.commit(BODY, after=0, token=1, nonce="n").head == head
    assert register.read(1) == Manifest(number=1, token=1, nonce="n", body=BODY)


def test_a_register_that_remembers_reads_no_manifest_that_it_wrote() -> None:
    """The last writer is found by a listing; its manifest is read only if it is another register's."""
    store = CountingGets(f"remembering-{new_name()}")
    register = ManifestRegister(store, remembers={})
    for number in range(1, 4):
        register.commit({"n": number}, after=number - 1, token=1, nonce=f"n{number}")
        register.prune(keep_from=number)
        assert register.highest_token() == 1
    assert [key for key in store.got if key.startswith("manifest/")] == []
    ManifestRegister(store).commit({"n": 4}, after=3, token=9, nonce="other")
    assert register.highest_token() == 9
    with pytest.raises(Fenced, match="higher fencing token"):
        register.commit({"n": 5}, after=4, token=1, nonce="n5")


class CountingGets(MemoryStore):
    """Notes the keys that are read."""

    got: ClassVar[list[ObjectKey]] = []

    def get(self, key: ObjectKey) -> StoredObject:
        """Note the key, and return the object."""
        self.got.append(key)
        return super().get(key)
