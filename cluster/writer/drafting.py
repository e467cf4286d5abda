"""Naming whom or what to erase: from what the caller says to keyed digests and a request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import chain

from cluster.config.specification import FederationSpecification
from coordinator.ports import Names
from coordinator.requests import ErasureRequest
from shards.routing import DIGEST_BYTES, PartitionKey, point_digest, subject_digest
from shards.tombstones import DigestSet
from storage.errors import Invalid


def new_request_id(names: Names) -> str:
    """Return an id for a request to which its sender gave none."""
    return f"er-{names()[:12]}"


def digests_of(
    specification: FederationSpecification,
    key: PartitionKey,
    subjects: Iterable[str | int],
    ids: Iterable[str | int],
) -> DigestSet:
    """Return the keyed digests of the subjects and data points named; whole numbers read as they do in data.

    Names are taken one by one and not kept: a million of them may come from a file.
    Raises ``Invalid`` when nothing is named, or something that is no name.
    """
    named, single = texts("subjects", subjects), texts("ids", ids)
    if specification.data.subject_column == specification.data.id:
        named, single = chain(named, single), iter(())  # each point is its own subject: routing finds it
    names = DigestSet.of(
        subjects=(subject_digest(key, each) for each in named),
        points=(point_digest(key, each) for each in single),
    )
    if not len(names):
        raise Invalid("no subject and no data point is named", "name them with --subject, --id or --file")
    return names


def request_of(
    specification: FederationSpecification, names: DigestSet, request_id: str, received: datetime, held: str = ""
) -> ErasureRequest:
    """Return the request as it arrives; ``held``: the reason why it arrives paused."""
    due = received + timedelta(days=specification.erasure.deadline_days)
    return ErasureRequest(
        request_id=request_id,
        body=names.digest(),
        names=None,
        subjects=len(names.subjects) // DIGEST_BYTES,
        ids=len(names.points) // DIGEST_BYTES,
        received_at=received.isoformat(timespec="milliseconds"),
        due_at=due.isoformat(timespec="milliseconds"),
        held=held,
    )


def texts(what: str, given: Iterable[str | int]) -> Iterator[str]:
    """Yield names as texts, one by one. Raises ``Invalid`` for what is no list of names, and for what is no name."""
    if isinstance(given, str | bytes):
        # Its characters would be taken for names: subjects="17" would erase subjects 1 and 7.
        raise Invalid(f"{what} is one text, not a list of names", f"write {what}=[...], even for a single name")
    for name in given:
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise Invalid(f"{what} holds a {type(name).__name__}", "names are texts or whole numbers")
        if name == "":
            raise Invalid(f"{what} holds an empty name", "leave it out")
        yield str(name)
