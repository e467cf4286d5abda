"""A proxy in front of an S3 server that records which account signed each request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from tests.doubles.stores.fault_proxy import Action, Chaos, Message, fault_proxy


class RecordedRequest(NamedTuple):
    """One request."""

    account: str
    """The access key that signed it; empty: nobody did."""
    method: str
    bucket: str
    key: str


@dataclass(slots=True, kw_only=True)
class RequestRecorder(Chaos):
    """Every request since the proxy began; strikes none of them."""

    random: Random = field(default_factory=lambda: Random(0))  # noqa: S311  never drawn from
    share: float = 0.0
    methods: tuple[str, ...] = ()
    actions: tuple[Action, ...] = ()
    asked: list[RecordedRequest] = field(default_factory=list)

    def draw(self, request: Message) -> Action | None:
        """Write down who asks."""
        signed = re.search(r"Credential=([^/]+)/", request.header("authorization"))
        bucket, _, key = request.target.partition("?")[0].lstrip("/").partition("/")
        self.asked.append(
            RecordedRequest(account=signed[1] if signed else "", method=request.method, bucket=bucket, key=key)
        )
        return None

    def accounts(self) -> dict[str, set[str]]:
        """Return for each bucket the accounts that requested anything in it."""
        return {bucket: {each.account for each in self.asked if each.bucket == bucket} for bucket in self._buckets()}

    def read(self, bucket: str, ending: str) -> set[str]:
        """Return the objects of a bucket that were read, of those whose names end so."""
        return {
            each.key
            for each in self.asked
            if each.method == "GET" and each.bucket == bucket and each.key.endswith(ending)
        }

    def _buckets(self) -> set[str]:
        return {each.bucket for each in self.asked}


@contextmanager
def overheard(upstream: str) -> Iterator[tuple[str, RequestRecorder]]:
    """Run a proxy in front of the server at ``upstream``; yield its endpoint, and a record of the accounts that ask."""
    with fault_proxy(upstream) as proxy:
        askers = RequestRecorder()
        proxy.chaos = askers
        yield proxy.endpoint, askers
