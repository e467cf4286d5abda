"""Naming whom or what to erase: from what the caller says to keyed digests and a request."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from cluster.specification import FederationSpecification
from coordinator.requests import ErasureRequest
from shards.routing import PartitionKey, point_digest, subject_digest
from shards.tombstones import DigestSet
from storage.errors import Invalid


def digests_of(
    specification: FederationSpecification,
    key: PartitionKey,
    subjects: Iterable[str | int],
    ids: Iterable[str | int],
) -> DigestSet:
    """Return the keyed digests of the subjects and data points named; whole numbers read as they do in data.

    Raises ``Invalid`` when nothing is named, or something that is no name.
    """
    named, single = _texts("subjects", subjects), _texts("ids", ids)
    if specification.data.subject_column == specification.data.id:
        named, single = named + single, []  # each point is its own subject: routing finds it without a search
    if not named and not single:
        raise Invalid("no subject and no data point is named", "name them with --subject, --id or --file")
    return DigestSet.of(
        subjects=(subject_digest(key, each) for each in named),
        points=(point_digest(key, each) for each in single),
    )


def request_of(
    specification: FederationSpecification, names: DigestSet, request_id: str, received: datetime, held: str = ""
) -> ErasureRequest:
    """Return the request as it arrives; ``held``: the reason why it arrives paused."""
    due = received + timedelta(days=specification.erasure.deadline_days)
    return ErasureRequest(
        request_id=request_id,
        body=names.digest(),
        names=None,
        subjects=sum(1 for _ in names.subject_digests()),
        ids=sum(1 for _ in names.point_digests()),
        received_at=received.isoformat(timespec="milliseconds"),
        due_at=due.isoformat(timespec="milliseconds"),
        held=held,
    )


def _texts(what: str, given: Iterable[str | int]) -> list[str]:
    if isinstance(given, str | bytes):
        # Its characters would be taken for names: subjects="17" would erase subjects 1 and 7.
        raise Invalid(f"{what} is one text, not a list of names", f"write {what}=[...], even for a single name")
    names = list(given)
    if strange := [type(name).__name__ for name in names if isinstance(name, bool) or not isinstance(name, str | int)]:
        raise Invalid(f"{what} holds a {strange[0]}", "names are texts or whole numbers")
    if "" in names:
        raise Invalid(f"{what} holds an empty name", "leave it out")
    return [str(name) for name in names]
