"""Manifests over a bad network: everything acknowledged is there, once, without gaps."""

from __future__ import annotations

import secrets
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random

import pytest

from storage.errors import Conflict, OutcomeUnknown, Unavailable
from storage.registers.manifest import ManifestRegister
from storage.s3.client import S3Store
from tests.doubles.stores.fault_proxy import Chaos, fault_proxy
from tests.volume import examples

pytestmark = [pytest.mark.s3, pytest.mark.volume, pytest.mark.usefixtures("no_waiting")]

WRITERS = 3
APPENDS = examples(40, few=15)
SHARE = 0.25
SEED = 20261123


def append_all(register: ManifestRegister, writer: int) -> list[tuple[int, str]]:
    """Commit manifests that name the writer; return number and nonce of each that was acknowledged."""
    acknowledged: list[tuple[int, str]] = []
    for step in range(APPENDS):
        nonce = f"{writer}-{step}"
        while len(acknowledged) == step:
            try:
                after = _latest(register)
                number = _commit(register, writer, after, nonce)
            except Conflict:
                continue
            acknowledged.append((number, nonce))
    return acknowledged


def _latest(register: ManifestRegister) -> int:
    while True:
        try:
            current = register.latest()
        except Unavailable:
            continue
        return current.number if current else 0


def _commit(register: ManifestRegister, writer: int, after: int, nonce: str) -> int:
    """Commit under one nonce until the outcome is known: after doubt, repeat with the same arguments."""
    while True:
        try:
            return register.commit({"writer": writer}, after=after, token=1, nonce=nonce).number
        except (Unavailable, OutcomeUnknown):
            continue


def test_no_append_is_lost_or_doubled(seaweedfs_endpoint: str) -> None:
    """3 writers append many manifests each while a quarter of all requests fail: exactly as many are there."""
    prefix = f"register/{secrets.token_hex(8)}"
    with fault_proxy(seaweedfs_endpoint) as proxy:
        register = ManifestRegister(S3Store("plain", prefix, proxy.endpoint))
        proxy.chaos = Chaos(
            random=Random(SEED),  # noqa: S311  the same faults in every run
            share=SHARE,
            methods=("GET", "PUT", "HEAD"),
            actions=("busy", "fails_after", "resets_before", "drops_after", "truncates"),
        )
        with ThreadPoolExecutor(WRITERS) as pool:
            acknowledged = [each for done in pool.map(partial(append_all, register), range(WRITERS)) for each in done]
        faults = len(proxy.struck)
    truth = ManifestRegister(S3Store("plain", prefix, seaweedfs_endpoint))
    held = [(number, truth.read(number).nonce) for number in range(1, WRITERS * APPENDS + 1)]
    assert sorted(acknowledged) == held
    assert max(Counter(nonce for _, nonce in held).values()) == 1
    latest = truth.latest()
    assert latest is not None
    assert latest.number == WRITERS * APPENDS
    assert faults > 0.8 * WRITERS * APPENDS
