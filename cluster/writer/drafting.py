"""Drafting an erasure request: turns the caller's names into keyed digests and a request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

import numpy as np

from cluster.config.specification import FederationSpecification
from coordinator.delays import Pause
from coordinator.receipts.statements import Commitment
from coordinator.requests import Correction, ErasureRequest, Readmission
from shards.routing import DIGEST_BYTES, Naming, PartitionKey, SubjectDigest, point_digest, subject_digests
from shards.subjects import SubjectForm, forms_and_skeletons, in_form, skeleton
from shards.tombstones import DigestSet
from storage.digests import Sha256, sha256
from storage.errors import Invalid, InvariantBroken
from storage.objects import NewName

_AT_ONCE: Final = 4096
"""Names that are digested together."""


class FormlessName(Invalid):
    """A name does not have the declared form; ``context`` holds its position in the call, from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roll:
    """The names of a call, by digest, in the order in which they were given."""

    subjects: bytes
    """Digests of the names given as subjects, joined; repeats stay."""
    ids: bytes
    """Digests of the names given as ids; these are digests of subjects, too, if each data point is its own subject."""
    ids_are_subjects: bool

    @property
    def names(self) -> DigestSet:
        """Each name once."""
        subjects = self.subjects + self.ids if self.ids_are_subjects else self.subjects
        points = b"" if self.ids_are_subjects else self.ids
        return DigestSet.joined(subjects=subjects, points=points)

    def positions(self, names: DigestSet) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the positions of ``names`` among the subjects, and among the ids, from 0."""
        of_ids = names.subjects if self.ids_are_subjects else names.points
        return _positions(self.subjects, names.subjects), _positions(self.ids, of_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestDraft:
    """A request without the names themselves, and what the answer to its submitter needs."""

    request: ErasureRequest
    names: DigestSet
    roll: Roll | None
    """None: it names everybody."""
    salt: str
    """Opens the request's commitment; only the submitter gets it, and it is not stored."""


def new_request_id(new_name: NewName) -> str:
    """Return an id for a request whose sender gave none."""
    return f"er-{new_name()[:12]}"


def roll_of(
    specification: FederationSpecification,
    key: PartitionKey,
    naming: Naming,
    subjects: Iterable[str | int],
    ids: Iterable[str | int],
    *,
    request_id: str = "",
    commitment: Commitment | None = None,
) -> Roll:
    """Return the subjects and data points named, by keyed digest; whole numbers are treated as in the data.

    Names are read in batches and not kept, because a file may hold a million. They are added to the ``commitment``.
    Raises ``Invalid`` when nothing is named, for something that is not a name, and for a name that is the
    ``request_id`` in any spelling, because ids stay in journals, receipts and the log for ever; ``FormlessName`` for a
    name without the declared form.
    """
    ids_are_subjects = specification.data.subject_column == specification.data.id

    def digested(
        kind: str, given: Iterable[str | int], digest: Callable[[list[str]], Iterable[bytes]], form: SubjectForm
    ) -> bytes:
        joined, names = bytearray(), texts(f"{kind}s", given)
        while some := list(islice(names, _AT_ONCE)):
            if request_id:
                refuse_own_name(request_id, some, form)
            if commitment is not None:
                commitment.add(kind, some)
            try:
                joined += b"".join(digest(some))
            except Invalid:
                raise _without_form(kind, some, len(joined) // DIGEST_BYTES, form) from None
        return bytes(joined)

    def of_subjects(names: list[str]) -> list[SubjectDigest]:
        return subject_digests(key, names, naming)

    def of_points(names: list[str]) -> Iterable[bytes]:
        return (point_digest(key, name) for name in names)

    roll = Roll(
        subjects=digested("subject", subjects, of_subjects, naming.form),
        ids=digested("id", ids, *((of_subjects, naming.form) if ids_are_subjects else (of_points, "exact"))),
        ids_are_subjects=ids_are_subjects,
    )
    if not roll.subjects and not roll.ids:
        raise Invalid("no subject and no data point is named", "Name them with --subject, --id or --file.")
    return roll


def request_of(
    specification: FederationSpecification,
    names: DigestSet,
    request_id: str,
    received: datetime,
    *,
    held: str = "",
    include_similar: bool = False,
    commitment: Sha256 | None = None,
    correction: Correction | None = None,
) -> ErasureRequest:
    """Return the new request; ``held``: the reason why it is paused, if it is."""
    at = received.isoformat(timespec="milliseconds")
    due = received + timedelta(days=specification.erasure.deadline_days)
    return ErasureRequest(
        request_id=request_id,
        body=_body(names, include_similar=include_similar),
        names=None,
        subjects=len(names.subjects) // DIGEST_BYTES,
        ids=len(names.points) // DIGEST_BYTES,
        received_at=at,
        due_at=due.isoformat(timespec="milliseconds"),
        include_similar=include_similar,
        commitment=commitment,
        correction=correction,
        pause=Pause(reason=held, held_at=at) if held else None,
    )


def readmission_of(names: DigestSet, request_id: str, reason: str, at: datetime) -> Readmission:
    """Return the new readmission."""
    return Readmission(
        request_id=request_id,
        body=_readmission_body(names),
        subjects=len(names.subjects) // DIGEST_BYTES,
        reason=reason,
        at=at.isoformat(timespec="milliseconds"),
    )


def bodies_naming(names: DigestSet) -> tuple[Sha256, ...]:
    """Return the bodies of an erasure request, with and without similar names, and a readmission of these alone."""
    return (*(_body(names, include_similar=similar) for similar in (False, True)), _readmission_body(names))


def refuse_own_name(request_id: str, names: Sequence[str], form: SubjectForm) -> None:
    """Raise ``Invalid`` when one of the names is the id of the request, in any spelling."""
    if _is_among(request_id, names, form):
        raise Invalid(
            "the request id is one of the names that it erases",
            "Choose an id that is not a person's name: receipts and the log keep request ids for ever.",
        )


def texts(what: str, given: Iterable[str | int]) -> Iterator[str]:
    """Yield names as texts, one by one. Raises ``Invalid`` for a single text, and for values that are not names."""
    if isinstance(given, str | bytes):
        # Its characters would be taken for names: subjects="17" would erase subjects 1 and 7.
        raise Invalid(f"{what} is one text, not a list of names", f"Write {what}=[...], even for a single name.")
    for name in given:
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise Invalid(f"{what} holds a {type(name).__name__}", "Give names as texts or whole numbers.")
        if name == "":
            raise Invalid(f"{what} holds an empty name", "Leave it out.")
        yield str(name)


def _body(names: DigestSet, *, include_similar: bool) -> Sha256:
    """Return the digest that decides whether two requests with one id are the same; without the option, as in 0.1."""
    return sha256(b"sisa/similar/" + names.digest().encode()) if include_similar else names.digest()


def _readmission_body(names: DigestSet) -> Sha256:
    return sha256(b"sisa/readmission/" + names.digest().encode())


def _without_form(kind: str, names: Sequence[str], before: int, form: SubjectForm) -> FormlessName:
    """Return the error for the first of ``names`` that does not have the form; ``before`` names precede them."""
    for number, name in enumerate(names, start=before + 1):
        try:
            in_form(name, form)
        except Invalid as error:
            remedy = f"Correct it, or leave it out: names have had the form {form!r} here since the first training."
            return FormlessName(error.fact, remedy, **{f"{kind}_number": number})
    raise InvariantBroken("a name could not be digested, yet it has the declared form")


def _is_among(request_id: str, names: Sequence[str], form: SubjectForm) -> bool:
    """Return whether one of the names is the id in another spelling: with its skeleton, or as its telephone number."""
    if skeleton(request_id).encode("utf-8", "surrogatepass") in forms_and_skeletons(names, "exact")[1]:
        return True
    # Only the form ``phone`` unites names with different skeletons, such as +49 (30) 1234 and 0049301234.
    own = _in_form(request_id, form) if form == "phone" else ""
    return bool(own) and any(_in_form(name, form) == own for name in names)


def _in_form(name: str, form: SubjectForm) -> str:
    """Return the name in the declared form; empty if it does not have that form, and so cannot be a subject's."""
    try:
        return in_form(name, form)
    except Invalid:
        return ""


def _positions(joined: bytes, wanted: bytes) -> tuple[int, ...]:
    given_N, wanted_M = (np.frombuffer(each, dtype=f"S{DIGEST_BYTES}") for each in (joined, wanted))
    return tuple(np.flatnonzero(np.isin(given_N, wanted_M)).tolist())
