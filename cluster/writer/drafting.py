"""Naming whom or what to erase: from what the caller says to keyed digests and a request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

import numpy as np

from cluster.config.specification import FederationSpecification
from coordinator.receipts.statements import Commitment
from coordinator.requests import ErasureRequest, Readmission
from shards.routing import DIGEST_BYTES, Naming, PartitionKey, SubjectDigest, point_digest, subject_digests
from shards.subjects import SubjectForm, forms_and_skeletons, in_form, skeleton
from shards.tombstones import DigestSet
from storage.digests import Sha256, sha256
from storage.errors import Invalid, InvariantBroken
from storage.objects import NewName

_AT_ONCE: Final = 4096
"""Names that are digested together."""


class FormlessName(Invalid):
    """A name has not the form that names have here; ``context`` says which one of the call's it is, from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roll:
    """The names of a call, by digest, in the order in which they were given."""

    subjects: bytes
    """Digests of what was given as subjects, joined; repeats stay."""
    ids: bytes
    """Of what was given as ids; digests of subjects, too, where each data point is its own subject."""
    ids_are_subjects: bool

    @property
    def names(self) -> DigestSet:
        """Each name once."""
        subjects = self.subjects + self.ids if self.ids_are_subjects else self.subjects
        points = b"" if self.ids_are_subjects else self.ids
        return DigestSet.joined(subjects=subjects, points=points)

    def positions(self, names: DigestSet) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return where ``names`` stand among the subjects, and among the ids, counted from 0."""
        of_ids = names.subjects if self.ids_are_subjects else names.points
        return _positions(self.subjects, names.subjects), _positions(self.ids, of_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestDraft:
    """A request as it leaves the process that was asked: names no more, but what its answer needs of them."""

    request: ErasureRequest
    names: DigestSet
    roll: Roll | None
    """None: it names everybody."""
    salt: str
    """What opens the request's commitment; for whoever asked, and kept by nobody else."""


def new_request_id(new_name: NewName) -> str:
    """Return an id for a request to which its sender gave none."""
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
    """Return the subjects and data points named, by keyed digest; whole numbers read as they do in data.

    Names are taken some at a time and not kept: a million of them may come from a file. ``commitment`` takes them, too.
    Raises ``Invalid`` when nothing is named, something that is not a name, or the ``request_id`` itself, in whatever
    spelling: it stands in journals, receipts and the log for ever. ``FormlessName`` for one without the declared form.
    """
    ids_are_subjects = specification.data.subject_column == specification.data.id

    def digested(
        kind: str, given: Iterable[str | int], digest: Callable[[list[str]], Iterable[bytes]], form: SubjectForm
    ) -> bytes:
        joined, names = bytearray(), texts(f"{kind}s", given)
        while some := list(islice(names, _AT_ONCE)):
            if request_id and _is_among(request_id, some, form):
                raise Invalid(
                    "the request id is one of the names that it erases",
                    "Choose an id that names nobody: request ids are kept for ever, in receipts and in the log.",
                )
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
    held: str = "",
    **more: Any,
) -> ErasureRequest:
    """Return the request as it arrives; ``held``: the reason why it arrives paused; ``more``: fields of it."""
    due = received + timedelta(days=specification.erasure.deadline_days)
    return ErasureRequest(
        request_id=request_id,
        body=_body(names, include_similar=more.get("include_similar", False)),
        names=None,
        subjects=len(names.subjects) // DIGEST_BYTES,
        ids=len(names.points) // DIGEST_BYTES,
        received_at=received.isoformat(timespec="milliseconds"),
        due_at=due.isoformat(timespec="milliseconds"),
        held=held,
        **more,
    )


def readmission_of(names: DigestSet, request_id: str, reason: str, at: datetime) -> Readmission:
    """Return the readmission as it arrives."""
    return Readmission(
        request_id=request_id,
        body=sha256(b"sisa/readmission/" + names.digest().encode()),
        subjects=len(names.subjects) // DIGEST_BYTES,
        reason=reason,
        at=at.isoformat(timespec="milliseconds"),
    )


def texts(what: str, given: Iterable[str | int]) -> Iterator[str]:
    """Yield names as texts, one by one. Raises ``Invalid`` for what is no list of names, and for what is no name."""
    if isinstance(given, str | bytes):
        # Its characters would be taken for names: subjects="17" would erase subjects 1 and 7.
        raise Invalid(f"{what} is one text, not a list of names", f"Write {what}=[...], even for a single name.")
    for name in given:
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise Invalid(f"{what} holds a {type(name).__name__}", "Names are texts or whole numbers.")
        if name == "":
            raise Invalid(f"{what} holds an empty name", "Leave it out.")
        yield str(name)


def _body(names: DigestSet, *, include_similar: bool) -> Sha256:
    """Return what makes two requests of one id the same; of a plain one what 0.1 made of it."""
    return sha256(b"sisa/similar/" + names.digest().encode()) if include_similar else names.digest()


def _without_form(kind: str, names: Sequence[str], before: int, form: SubjectForm) -> FormlessName:
    """Return the error for the first of the names, with ``before`` others before them, that has not the form."""
    for number, name in enumerate(names, start=before + 1):
        try:
            in_form(name, form)
        except Invalid as error:
            remedy = f"Correct it, or leave it out: names have had the form {form!r} here since the first training."
            return FormlessName(error.fact, remedy, **{f"{kind}_number": number})
    raise InvariantBroken("a name could not be digested, yet it has the declared form")


def _is_among(request_id: str, names: Sequence[str], form: SubjectForm) -> bool:
    """Return whether one of the names is the id in another spelling: of the same skeleton, or one telephone number."""
    if skeleton(request_id).encode("utf-8", "surrogatepass") in forms_and_skeletons(names, "exact")[1]:
        return True
    # Of all forms ``phone`` alone unites names of different skeletons, such as +49 (30) 1234 and 0049301234.
    own = _in_form(request_id, form) if form == "phone" else ""
    return bool(own) and any(_in_form(name, form) == own for name in names)


def _in_form(name: str, form: SubjectForm) -> str:
    """Return the name in its form; empty: it has none, and is nobody's."""
    try:
        return in_form(name, form)
    except Invalid:
        return ""


def _positions(joined: bytes, wanted: bytes) -> tuple[int, ...]:
    given_N, wanted_M = (np.frombuffer(each, dtype=f"S{DIGEST_BYTES}") for each in (joined, wanted))
    return tuple(np.flatnonzero(np.isin(given_N, wanted_M)).tolist())
