"""The journal over a bad network: everything acknowledged is there, once, without gaps."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random
from typing import TypeVar

import pytest

from storage.digests import sha256
from storage.errors import Conflict, OutcomeUnknown, Unavailable
from storage.registers.journal import START, Journal, Position
from storage.s3.client import S3Store
from tests.doubles.stores.fault_proxy import Chaos, fault_proxy
from tests.volume import examples

pytestmark = [pytest.mark.s3, pytest.mark.volume, pytest.mark.usefixtures("no_waiting")]

WRITERS = 3
APPENDS = examples(60, few=20)
SHARE = 0.25
SEED = 20261123

Result = TypeVar("Result")


def insist(act: Callable[[], Result]) -> Result:
    """Repeat the same call until its outcome is known."""
    while True:
        try:
            return act()
        except (Unavailable, OutcomeUnknown):
            continue


def append_all(journal: Journal, writer: int) -> list[tuple[int, str]]:
    """Append entries that name the writer; return number and nonce of each that was acknowledged."""
    acknowledged: list[tuple[int, str]] = []
    place = START
    while len(acknowledged) < APPENDS:
        nonce = f"{writer}-{len(acknowledged)}"
        try:
            place = insist(partial(journal.append, [writer], after=place, token=1, nonce=nonce))
        except Conflict:
            place = _end(journal, place)
            continue
        acknowledged.append((place.number, nonce))
    return acknowledged


def _end(journal: Journal, after: Position) -> Position:
    last = insist(partial(journal.read, after))[-1]
    return Position(number=last.number, digest=sha256(last.to_bytes()))


def test_no_append_is_lost_or_doubled(seaweedfs_endpoint: str) -> None:
    """3 writers append many entries each while a quarter of all requests fail: exactly those that were acknowledged are
    there. Then all but the last ten are pruned, and a reader that asks for those gets an error.
    """
    prefix = f"journal/{secrets.token_hex(8)}"
    with fault_proxy(seaweedfs_endpoint) as proxy:
        journal = Journal(S3Store("plain", prefix, proxy.endpoint))
        proxy.chaos = Chaos(
            random=Random(SEED),  # noqa: S311  the same faults in every run
            share=SHARE,
            methods=("GET", "PUT", "HEAD"),
            actions=("busy", "fails_after", "resets_before", "drops_after", "truncates"),
        )
        with ThreadPoolExecutor(WRITERS) as pool:
            acknowledged = [each for done in pool.map(partial(append_all, journal), range(WRITERS)) for each in done]
        faults = len(proxy.struck)
        entries = Journal(S3Store("plain", prefix, seaweedfs_endpoint)).read(START)
        insist(partial(journal.prune, len(entries) - 10))
    assert sorted(acknowledged) == [(entry.number, entry.nonce) for entry in entries]
    assert [entry.number for entry in entries] == list(range(1, WRITERS * APPENDS + 1))
    assert max(Counter(entry.nonce for entry in entries).values()) == 1
    assert faults > 0.55 * WRITERS * APPENDS
    truth = Journal(S3Store("plain", prefix, seaweedfs_endpoint))
    behind = entries[-11]
    assert truth.read(Position(number=behind.number, digest=sha256(behind.to_bytes()))) == entries[-10:]
    with pytest.raises(Conflict, match=rf"were pruned \[after=0 floor={len(entries) - 9}\]"):
        truth.read(START)
