"""Conditional puts recognise their own success, and never claim another writer's."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import (
    Invalid,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    OutcomeUnknown,
    SisaError,
    Unavailable,
)
from storage.objects import VersionTag, object_key
from storage.s3.bucket import Mark, PutOutcome, Seen
from storage.s3.conditional_put import ConditionalPut, Verdict, judge
from tests.storage.s3.fake_bucket import FakeBucket, tag_of

NAME = "prefix/key"
KEY = object_key("key")
OLD = tag_of(b"old")


def mark(nonce: str, replaced: VersionTag | None = None) -> Mark:
    """Return the mark of a put."""
    return Mark(nonce=nonce, sha256="0" * 64, replaced=replaced)


def put(bucket: FakeBucket, expected: VersionTag | None = None) -> VersionTag:
    """Put ``new`` under nonce ``mine``."""
    return ConditionalPut(
        bucket=bucket, name=NAME, key=KEY, payload=b"new", expected=expected, nonce="mine", pause=lambda _: None
    ).run()


def with_old() -> FakeBucket:
    """Return a bucket that holds another writer's ``old``."""
    bucket = FakeBucket()
    bucket.store(NAME, b"old", mark("other"))
    return bucket


LOST_ANSWERS = [PutOutcome.DOUBTFUL, PutOutcome.NOT_DONE, PutOutcome.REFUSED, PutOutcome.MISSING]


@pytest.mark.parametrize("expected", [None, OLD])
@pytest.mark.parametrize("outcome", LOST_ANSWERS)
def test_a_success_whose_answer_is_lost_is_recognised(outcome: PutOutcome, expected: VersionTag | None) -> None:
    """For every answer, a put that landed is recognised by its nonce and not sent again."""
    bucket = FakeBucket() if expected is None else with_old()
    bucket.answers = [(outcome, True)]
    assert put(bucket, expected) == tag_of(b"new")
    assert len(bucket.puts) == 1


@pytest.mark.parametrize("expected", [None, OLD])
@pytest.mark.parametrize("times", range(1, 6))
def test_a_put_without_effect_is_sent_again_under_the_same_nonce(times: int, expected: VersionTag | None) -> None:
    """Attempts that changed nothing are repeated, up to six in all, and the nonce stays."""
    bucket = FakeBucket() if expected is None else with_old()
    bucket.answers = [(PutOutcome.DOUBTFUL, False)] * times
    assert put(bucket, expected) == tag_of(b"new")
    assert [each.nonce for each in bucket.puts] == ["mine"] * (times + 1)


def test_a_lost_creation_says_so() -> None:
    """Another's object at the key is a conflict, also after an attempt in doubt: theirs was a creation too."""
    for answers in ([], [(PutOutcome.DOUBTFUL, False)]):
        bucket = with_old()
        bucket.answers = answers
        with pytest.raises(ObjectExists, match="an object with this key exists.*key=key"):
            put(bucket)


def test_a_lost_replacement_says_so() -> None:
    """Another's replacement of the same tag is a conflict, in doubt or not."""
    for answers in ([], [(PutOutcome.DOUBTFUL, False)]):
        bucket = with_old()
        bucket.store(NAME, b"theirs", mark("other", OLD))
        bucket.answers = answers
        with pytest.raises(ObjectChanged, match="changed since it was read"):
            put(bucket, OLD)


def test_a_replacement_of_nothing_says_so() -> None:
    """If there is no object to replace, in doubt or not, it is reported as missing."""
    for outcome in LOST_ANSWERS:
        bucket = FakeBucket(answers=[(outcome, False)])
        with pytest.raises(ObjectMissing, match="no such object"):
            put(bucket, OLD)


def test_a_put_that_may_have_been_replaced_is_unknown() -> None:
    """After doubt, another's content that replaced something unknown may have replaced mine: nobody can say."""
    for expected, replaced in ((None, tag_of(b"new")), (OLD, tag_of(b"new"))):
        bucket = with_old()
        bucket.store(NAME, b"theirs", mark("other", replaced))
        bucket.answers = [(PutOutcome.DOUBTFUL, False)]
        with pytest.raises(OutcomeUnknown, match="did not say whether the write landed.*key=key.*Read the object"):
            put(bucket, expected)


def test_six_answers_in_doubt_are_unknown() -> None:
    """The last attempt may still arrive, so an absent object proves nothing."""
    bucket = FakeBucket(answers=[(PutOutcome.DOUBTFUL, False)] * 6)
    with pytest.raises(OutcomeUnknown, match="cause=doubtful"):
        put(bucket)


def test_six_refusals_to_act_are_no_doubt() -> None:
    """If every answer says that nothing was done, the error says that nothing was published."""
    bucket = FakeBucket(answers=[(PutOutcome.NOT_DONE, False)] * 6)
    with pytest.raises(Unavailable, match=r"6 times in a row; nothing was published.*cause=not done"):
        put(bucket)


@pytest.mark.parametrize(("expected", "named"), [(None, "If-None-Match"), (OLD, "If-Match")])
def test_six_refusals_without_a_reason_are_the_servers(expected: VersionTag | None, named: str) -> None:
    """A server that denies a condition which, by its own answers, holds is not waited for: its puts are not usable."""
    bucket = FakeBucket() if expected is None else with_old()
    bucket.answers = [(PutOutcome.REFUSED, False)] * 6
    with pytest.raises(Unavailable, match=rf"refuses to .*\({named}\): its conditional puts are not usable.*key=key"):
        put(bucket, expected)


@pytest.mark.parametrize(
    ("outcome", "kind"), [(PutOutcome.DOUBTFUL, OutcomeUnknown), (PutOutcome.NOT_DONE, Unavailable)]
)
def test_doubt_outlives_a_failed_look(outcome: PutOutcome, kind: type[SisaError]) -> None:
    """An error while the outcome is being read is raised as such only when the put cannot have landed."""
    bucket = FakeBucket(answers=[(outcome, True)], looks=[Unavailable("away", "wait")])
    with pytest.raises(kind, match="away|did not say"):
        put(bucket)


def test_a_folder_is_named() -> None:
    """A refused name that no object has, but that other keys begin with, is a folder."""
    bucket = FakeBucket(answers=[(PutOutcome.REFUSED, False)] * 3)
    bucket.store(f"{NAME}/below", b"x", mark("other"))
    with pytest.raises(Invalid, match="folder of other objects' keys.*Choose another key"):
        put(bucket)


@dataclass
class Interrupted(FakeBucket):
    """Another writer replaces the object right after a put lands."""

    def look(self, name: str) -> Seen | None:
        """Let the other writer go first."""
        if len(self.puts) == 1 and self.held.get(name):
            self.store(name, b"theirs", mark("other", tag_of(self.held[name][-1].payload)))
        return super().look(name)


@pytest.mark.parametrize("expected", [None, OLD])
def test_a_landed_put_that_was_replaced_is_never_called_lost(expected: VersionTag | None) -> None:
    """A put that landed and was replaced before the look is unknown: to call it lost would do its work twice."""
    bucket = Interrupted(answers=[(PutOutcome.DOUBTFUL, True)])
    if expected is not None:
        bucket.store(NAME, b"old", mark("other"))
    with pytest.raises(OutcomeUnknown, match="did not say"):
        put(bucket, expected)


TAGS = st.sampled_from([None, VersionTag("a"), VersionTag("b"), VersionTag("c")])
MARKS = st.builds(mark, st.sampled_from(["mine", "other"]), TAGS)
SEEN = st.none() | st.builds(lambda tag, found: Seen(tag=VersionTag(tag), mark=found), st.sampled_from("abc"), MARKS)


@given(seen=SEEN, replaced=TAGS, doubt=st.booleans())
def test_only_the_nonce_makes_it_mine(seen: Seen | None, replaced: VersionTag | None, *, doubt: bool) -> None:
    """A put counts as landed exactly if the object has its nonce, and only doubt makes it unknown."""
    verdict = judge(seen=seen, mark=mark("mine", replaced), doubt=doubt)
    mine = seen is not None and seen.mark is not None and seen.mark.nonce == "mine"
    assert (verdict is Verdict.MINE) == mine
    assert verdict is not Verdict.UNKNOWN or doubt
