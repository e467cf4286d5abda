"""Which release of this system a process runs, in a text that every release reads; compared at every first contact.

Command, coordinator, workers, replicas and the actors of sites send each other values of this system's classes, field
by field, and another release may have other fields, or give the same ones another meaning. So a process reads nothing
that it was sent unless their releases and formats are equal. Over HTTP the versions of the API and of the sites'
protocol decide.

The names of this module, of ``received`` and of ``said_by``, their arguments and the form of the texts never change:
earlier releases are recognised by their lack of this module.
"""

from __future__ import annotations

import pickle
import re
import socket
from collections.abc import Collection
from typing import Any, Final, Generic, TypeVar

from coordinator.engine.codec import FORMAT_VERSION
from shards.lineage import TRAINER_FORMAT
from storage.errors import Conflict
from storage.release import RELEASE

API: Final = 1
"""Version of the HTTP API; the paths name it, too."""

SITES: Final = 1
"""Version of what a federation asks its sites over HTTP, and of what they answer."""

EARLIER: Final = "one before 0.2"
"""The text for a release that cannot say which one it is."""

REMEDY: Final = (
    "Install the newer one wherever this federation is used, then run 'sisa stop' and 'sisa launch', and 'sisa serve'"
    " where it is served: see docs/upgrades.md."
)

HEADER: Final = "Sisa-Release"
"""What a server says of itself in every answer; the release only to callers with a token."""

_Value = TypeVar("_Value")


_CONTRACT: Final = {"api": "the HTTP API", "sites": "the protocol between sites"}


class OtherRelease(Conflict):
    """The other side runs another release, or speaks another version of the API; nothing that it sent was used."""


def own_release() -> str:
    """Return this process's release, with the versions of everything that processes have to agree on."""
    return f"{RELEASE}+{own_contract()}.state{FORMAT_VERSION}.training{TRAINER_FORMAT}"


def said_by(_actor: object) -> str:
    """Return ``own_release`` of an actor's process, as Ray calls it there; see ``__ray_call__`` in its handle."""
    return own_release()


def own_contract() -> str:
    """Return the versions of what is agreed on over HTTP, as in ``api1.sites1``."""
    return f"api{API}.sites{SITES}"


def refuse_other(fact: str, remedy: str = REMEDY, /, **sides: str) -> None:
    """Raise ``OtherRelease`` with ``fact`` when the two sides, given as texts by who they are, differ in any part."""
    one, other = sides.values()
    if one != other:
        raise OtherRelease(fact, remedy, **people_read(sides))


def refuse_other_contract(said: str, parts: Collection[str]) -> None:
    """Raise ``OtherRelease`` when a server speaks another version of the ``parts`` of the contract than this client.

    A part that it does not name has version 1, as in servers that did not report versions yet.
    """
    own = own_release()
    for part in parts:
        if (theirs := speaks(said, part) or 1) != (ours := speaks(own, part)):
            raise OtherRelease(
                f"the server speaks version {theirs} of {_CONTRACT[part]}, this client version {ours}",
                "Install one release on both sides: the newer one.",
                server=release_in(said) or "unknown",
                client=RELEASE,
            )


def release_in(said: str) -> str:
    """Return the release that a text names; empty where it names none."""
    return said.partition("+")[0]


def speaks(said: str, what: str) -> int | None:
    """Return the version of ``what`` that a text names; None where it names none.

    >>> speaks("0.2.0+api1.sites2", "sites"), speaks("0.2.0", "sites")
    (2, None)
    """
    found = re.search(rf"[+.]{what}(\d+)(?:\.|$)", said)
    return int(found[1]) if found else None


def refusal_in(text: str, what: str) -> OtherRelease | None:
    """Return the error if the text of Ray's error says that ``what`` runs another release.

    Ray turns an error into text if it is raised while a process starts, or while it reads what it was sent.
    """
    if found := re.search(rf"^{re.escape(__name__)}\.OtherRelease: (.+)$", text, re.MULTILINE):
        fact, end, remedy = found[1].strip().partition("]. ")
        return OtherRelease(f"{fact}]", remedy) if end else OtherRelease(fact)
    if re.search(rf"No module named '{re.escape(__name__)}'", text):
        return OtherRelease(f"{what} runs another release", REMEDY, there=EARLIER, here=RELEASE)
    return None


class Sent(Generic[_Value]):
    """A value sent to a process that may run another release: it is read there only if the releases are equal."""

    def __init__(self, value: _Value, release: str = "", payload: bytes = b"") -> None:
        """Only ``received`` gives ``release`` and ``payload``, and then no value."""
        self._value, self._payload = value, payload
        self._from = release or own_release()

    def __reduce__(self) -> tuple[Any, tuple[str, bytes]]:
        if self._payload:
            return received, (self._from, self._payload)
        from ray import cloudpickle  # noqa: PLC0415  clients load no Ray

        # Ray's types do not export cloudpickle.
        return received, (self._from, cloudpickle.dumps(self._value))  # pyright: ignore[reportPrivateImportUsage]

    def opened(self, what: str) -> _Value:
        """Return the value in ``what``, the receiver. Raises ``OtherRelease`` with both sides and the machine."""
        theirs, own = self._from, own_release()
        if theirs != own:
            sides = people_read({what.replace(" ", "_"): own, "started_by": theirs})
            fact = f"the {what} runs another release than the process that started it"
            raise OtherRelease(fact, REMEDY, **sides, machine=socket.gethostname())
        if self._payload:
            self._value, self._payload = pickle.loads(self._payload), b""  # noqa: S301  as all that Ray carries
        return self._value


def received(release: str, payload: bytes) -> Sent[Any]:
    """Return what another process has sent, without reading it."""
    return Sent(None, release, payload)


def people_read(sides: dict[str, str]) -> dict[str, str]:
    """Return each side's release, with the formats only if they differ between equal releases.

    >>> people_read({"a": "1.0+state4", "b": "1.0+state4"}), people_read({"a": "1.0+state4", "b": "1.0+state5"})
    ({'a': '1.0', 'b': '1.0'}, {'a': '1.0+state4', 'b': '1.0+state5'})
    """
    releases = {who: release_in(said) for who, said in sides.items()}
    return releases if len(set(releases.values())) == len(set(sides.values())) else sides
