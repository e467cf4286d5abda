"""Forms and skeletons of people's names (E15)."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shards.routing import (
    SKELETON_BYTES,
    Naming,
    PartitionKey,
    slice_numbers,
    slice_of,
    slices_of,
    subject_digest,
    subject_digests,
)
from shards.subjects import FORMS, SubjectForm, forms_and_skeletons, in_form, skeleton, through_floats
from storage.errors import Invalid

KEY = PartitionKey(bytes(range(16)))
NAMES = st.one_of(
    st.text(min_size=1, max_size=12),
    st.from_regex(r"\A[ -~]{1,10}\Z"),
    st.from_regex(r"\A ?[+-]?[0-9]{1,5}(\.[0-9]{1,2})?([eE][0-9]{1,2})?\Z"),
)

RESPELLINGS = {
    "trimmed": (
        lambda name: f" {name}\t",
        lambda name: f"\u00a0{name}\u3000",
        lambda name: f"\u200b{name}\ufeff",
        lambda name: name[:1] + "\u200d" + name[1:],
        lambda name: f"\x07{name}\x00",
        lambda name: f"{name}\u3164",
        lambda name: f"\ufeff{name}\ufe0f",
        lambda name: unicodedata.normalize("NFD", name),
        lambda name: unicodedata.normalize("NFC", name),
    ),
    "casefold": (str.upper, str.lower, str.swapcase, str.casefold, lambda name: f"{name} "),
    "phone": (lambda name: f"+{name}", lambda name: f"00{name}", " ".join, lambda name: f"({name})"),
    "integer": (lambda name: f"00{name}", lambda name: f"{name}.0", lambda name: f" {name} ", lambda name: f"{name}e0"),
}
RESPELLINGS["email"] = RESPELLINGS["casefold"]
"""For each form, changes to a name that keep the person the same."""


@given(NAMES, st.sampled_from(FORMS))
def test_a_form_is_its_own_form(name: str, form: SubjectForm) -> None:
    """A name that already has the form does not change, so a name read from any source is the same person."""
    try:
        formed = in_form(name, form)
    except Invalid:
        return
    assert in_form(formed, form) == formed


@given(st.lists(NAMES, max_size=5), st.sampled_from(FORMS))
def test_many_names_are_as_each_one(names: Sequence[str], form: SubjectForm) -> None:
    """The fast path for many names gives the same results as one call per name."""
    try:
        each = [in_form(name, form) for name in names]
    except Invalid:
        return
    encoded = [name.encode("utf-8", "surrogatepass") for name in (*each, *map(skeleton, each))]
    assert forms_and_skeletons(names, form) == (encoded[: len(each)], encoded[len(each) :])


@pytest.mark.parametrize("form", RESPELLINGS)
@given(data=st.data())
def test_respellings_are_one_person(form: SubjectForm, data: st.DataObject) -> None:
    """Any chain of changes that a form ignores leads to the same digest and slice."""
    alphabet = st.characters(codec="ascii", categories=["L", "N"]) if form != "trimmed" else st.characters()
    digits = st.from_regex(r"\A[1-9][0-9]{0,8}\Z")
    name = data.draw(digits if form in {"phone", "integer"} else st.text(alphabet, min_size=1, max_size=10))
    assume(in_form_or_none(name, form) is not None)
    spelt = name
    for change in data.draw(st.lists(st.sampled_from(RESPELLINGS[form]), max_size=1 if form == "integer" else 4)):
        spelt = change(spelt)
    naming = Naming(form=form, by_skeleton=True)
    assert subject_digest(KEY, spelt, naming) == subject_digest(KEY, name, naming)


def in_form_or_none(name: str, form: SubjectForm) -> str | None:
    """Return the name in its form; None when it does not have one."""
    try:
        return in_form(name, form)
    except Invalid:
        return None


@given(NAMES, NAMES, st.sampled_from(FORMS))
def test_names_of_one_skeleton_share_a_slice(name: str, other: str, form: SubjectForm) -> None:
    """The skeleton decides a person's slice, and the first half of the digest identifies it."""
    naming = Naming(form=form, by_skeleton=True)
    formed, also = in_form_or_none(name, form), in_form_or_none(other, form)
    assume(formed is not None and also is not None)
    assert formed is not None
    assert also is not None
    digests = subject_digests(KEY, [name, other], naming)
    alike = skeleton(formed) == skeleton(also)
    assert (digests[0][:SKELETON_BYTES] == digests[1][:SKELETON_BYTES]) == alike
    assert (digests[0] == digests[1]) == (formed == also)
    found = {slice_of(digest, 7, 5, naming) for digest in digests}
    assert len(found) == 1 or not alike
    assert slices_of(b"".join(digests), 7, 5, naming) == found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Mia@Example.com", "mia@example.com"),
        ("Zoë Ångström", "Zoe\u0308 A\u030angstro\u0308m"),
        ("kim ", "kim"),
        ("KIM\u200b", "kim"),
        ("van der Berg", "Vander-Berg"),
        ("17", "17.0"),
        ("017", "1.7e1"),
        ("\ufb01ona", "fiona"),
        ("STRASSE", "straße"),
        ("\uff11\uff17", "17"),
        ("person_7", "Person 7"),
        ("0-17", "17"),
        ("\u210cans", "hans"),
        ("\u0390", "\u03aa\u0301"),
        ("--", "- -"),
    ],
)
def test_these_are_spelt_alike(one: str, other: str) -> None:
    """They differ in case, spacing, punctuation, Unicode form, or the way to write a whole number."""
    assert skeleton(one) == skeleton(other)


@pytest.mark.parametrize(("one", "other"), [("mia", "mio"), ("17", "71"), ("a+b", "ab"), ("1.5", "15"), ("-5", "5")])
def test_these_are_not(one: str, other: str) -> None:
    """Names with other letters, digits or symbols are different."""
    assert skeleton(one) != skeleton(other)


@pytest.mark.parametrize(
    ("name", "form", "formed"),
    [
        ("Zoe\u0308\u3164", "trimmed", "Zo\u00eb"),
        ("\x00Zoe\ufe0f\u200b", "trimmed", "Zoe"),
        ("\u1fb4\u0301", "casefold", "\u03ac\u0301\u03b9"),
        ("00", "phone", "00"),
        ("0000", "phone", "00"),
        ("000", "phone", "0"),
        ("\uff10\uff13\uff10 1", "phone", "0301"),
        ("-0.0", "integer", "0"),
        ("-1.7e1", "integer", "-17"),
        ("1200e-2", "integer", "12"),
    ],
)
def test_these_are_the_forms(name: str, form: SubjectForm, formed: str) -> None:
    """Invisible characters are removed, letters are case folded as in Unicode, numbers lose redundant digits."""
    assert in_form(name, form) == formed


@pytest.mark.parametrize(
    ("name", "form", "fact"),
    [
        (" \u200b", "trimmed", "nothing but white space"),
        ("\u3000", "email", "nothing but white space"),
        ("no digits", "phone", "no digit"),
        ("seventeen", "integer", "not a whole number"),
        ("1.5", "integer", "not a whole number"),
        ("1e999999", "integer", "not a whole number"),
    ],
)
def test_what_has_no_form_is_refused(name: str, form: SubjectForm, fact: str) -> None:
    """A name that does not have the declared form is refused, and the error does not quote it."""
    with pytest.raises(Invalid, match=fact) as error:
        in_form(name, form)
    assert name.strip() == "" or name not in str(error.value)


@given(st.integers(min_value=2**53 + 1, max_value=2**70))
def test_floats_that_lost_digits_are_seen(number: int) -> None:
    """A whole number written as a float is distinguished from one written as an integer."""
    assert through_floats(repr(float(number)))
    assert through_floats(f"{number}.0")
    assert not through_floats(str(number))


@given(st.integers(min_value=1 - 2**53, max_value=2**53 - 1))
def test_smaller_floats_are_whole(number: int) -> None:
    """Below 2**53 a float holds every whole number exactly."""
    assert not through_floats(repr(float(number)))


def test_skeletons_spread_evenly() -> None:
    """Routing by skeleton fills slices as evenly as routing by digest."""
    naming = Naming(form="trimmed", by_skeleton=True)
    digests = subject_digests(KEY, [f"person-{number}" for number in range(20_000)], naming)

    counts = np.bincount(slice_numbers(np.frombuffer(b"".join(digests), dtype="V16"), 5, 4, naming), minlength=20)
    assert counts.min() > 850
    assert counts.max() < 1150


def test_digests_are_fixed() -> None:
    """These values never change: a change to how names are digested would make every store unreadable."""
    naming = Naming(form="email", by_skeleton=True)
    digest = subject_digest(KEY, " Mia@Example.com", naming)
    assert digest.hex() == "2f2d46e203061f983d1f58070ac1f6d4"
    assert slice_of(digest, 5, 5, naming) == slice_of(subject_digest(KEY, "mia@EXAMPLE.com", naming), 5, 5, naming)
