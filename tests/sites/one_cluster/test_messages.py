"""What crosses between a driver and a site's process: in pieces that Ray keeps nowhere but in memory."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from cluster.release import Sent
from cluster.results.federation import SubjectFound
from cluster.sites.pinned import Keyless, PinnedSite, SiteShell, _Handed, _Name, _pieces
from coordinator.requests import NONE_SIMILAR
from storage.errors import Invalid, Unavailable
from tests.sites.near.site_folders import SiteFolders

INLINE_BYTES = 100 * 1024
"""What is larger goes through Ray's object store."""


class _Asked:
    """A link to a site that records what is sent, and answers with the length of each name."""

    def __init__(self) -> None:
        self.sent: list[list[str]] = []

    def asked(self, method: str, names: list[str]) -> tuple[SubjectFound, ...]:
        assert method == "lookup"
        self.sent.append(names)
        return tuple(SubjectFound(points=len(name), similar=NONE_SIMILAR, erased=False) for name in names)


class _Unknowing:
    """A site that keeps how names were given to it."""

    def erase(self, *, subjects: Iterable[str], ids: Iterable[str], include_similar: bool, **_: object) -> None:
        self.given = [subjects, ids]
        self.include_similar = include_similar


class _Counted:
    """A site with one checkpoint, which is read from its store again and again."""

    def __init__(self, payload: bytes) -> None:
        self.reads = 0
        self._payload = payload

    def checkpoint(self, shard: int, sha256: str) -> bytes:
        self.reads += 1
        assert (shard, sha256) == (1, "digest")
        return self._payload


@pytest.fixture
def shell(tmp_path: Path) -> Any:
    """A site's process that has touched nothing yet; untyped, for checkers take its methods for remote ones."""
    return SiteShell(Sent(Keyless.of(SiteFolders(tmp_path).fill().site("north"))))


@pytest.mark.parametrize("name", ["a", "person-17", "人" * 1_000, 2**70])
def test_names_travel_in_small_messages(name: str | int) -> None:
    """Names of any kind arrive completely and in order, in messages small enough for Ray to pass on inline."""
    named: list[_Name] = [("subject", name), ("id", name)] * 2_500
    pieces = list(_pieces(named))
    assert list(chain.from_iterable(pieces)) == named
    assert max(len(pickle.dumps(piece)) for piece in pieces) < INLINE_BYTES


def test_a_name_that_no_message_can_hold_is_refused() -> None:
    """Even such a long name must not put names into Ray's object store."""
    with pytest.raises(Invalid, match="a name takes 300032 bytes, and 65536 is the most"):
        list(_pieces([("subject", "人" * 100_000)]))


def test_who_is_looked_up_travels_in_small_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of any length arrive in messages small enough for Ray to pass on inline; the answers keep their order."""
    way = _Asked()
    link = PinnedSite(SiteFolders(tmp_path).fill().site("north"), lambda _: None)
    monkeypatch.setattr(link, "_asked", way.asked)
    names = ["人" * (number % 700) + "a" for number in range(1_000)]
    assert [each.points for each in link.lookup(iter(names))] == [len(name) for name in names]
    assert max(len(pickle.dumps(piece)) for piece in way.sent) < INLINE_BYTES
    assert len(way.sent) >= 10


def test_an_answer_holds_no_name(shell: Any) -> None:
    """What a site's process answers to a request tells unknown names by position: no name comes back through Ray."""
    in_folders = _Unknowing()
    shell.__dict__["_near"] = in_folders
    shell.name("ticket", [("subject", "nobody"), ("id", "nothing")])
    handed = _Handed(ticket="ticket", names=2, request_id="er-1", held="", wait=True, include_similar=True)
    shell.erase(handed)
    assert not any(isinstance(given, Sequence) for given in in_folders.given)
    assert [list(given) for given in in_folders.given] == [["nobody"], ["nothing"]]
    assert in_folders.include_similar


def test_half_a_request_is_none(shell: Any) -> None:
    """A process that lost some of a request's names, such as by a restart, submits nothing for the others."""
    shell.__dict__["_near"] = _Unknowing()
    shell.name("ticket", [("subject", "somebody")])
    handed = _Handed(ticket="ticket", names=2, request_id="er-1", held="", wait=True, include_similar=False)
    with pytest.raises(Unavailable, match="the site's process restarted while a request was handed over"):
        shell.erase(handed)
    assert not shell._named


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 300_000])
def test_a_checkpoint_is_read_once_for_all_of_its_pieces(shell: Any, size: int) -> None:
    """However many pieces it takes, and from beginning to end; nothing of it is kept afterwards."""
    whole = bytes(number % 251 for number in range(size))
    in_folders = _Counted(whole)
    shell.__dict__["_near"] = in_folders
    pieces = [shell.checkpoint(1, "digest", 0)]
    while len(pieces[-1]) == 64 * 1024:
        pieces.append(shell.checkpoint(1, "digest", len(pieces) * 64 * 1024))
    assert b"".join(pieces) == whole
    assert in_folders.reads == 1
    assert shell._sent == (None, b"")
