"""Names the release that a process runs, in a text that every release can read, and compares it at first contact.

Command, coordinator, workers, replicas and the actors of sites send each other pickled values of this system's classes,
whose fields may differ in another release. So a process reads what it was sent only if releases and formats are equal.
Over HTTP the versions of the API and of the sites' protocol decide instead.

Do not change the names of this module, of ``received`` and of ``said_by``, their arguments, or the form of the texts,
because other releases rely on them. A release before 0.2 is recognised by not having this module.
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
"""Version of the protocol between a federation and its sites over HTTP."""

EARLIER: Final = "one before 0.2"
"""The name shown for a release that cannot report its own."""

REMEDY: Final = (
    "Install the newer one wherever this federation is used, then run 'sisa stop' and 'sisa launch', and 'sisa serve'"
    " where it is served: see docs/upgrades.md."
)

HEADER: Final = "Sisa-Release"
"""The header by which a server reports its versions in every answer, and its release to callers with a token."""

_Value = TypeVar("_Value")


_CONTRACT: Final = {"api": "the HTTP API", "sites": "the protocol between sites"}


class OtherRelease(Conflict):
    """The other side runs another release, or speaks another version of the API; nothing that it sent was used."""


def own_release() -> str:
    """Return the text by which this process identifies itself: its release, and all versions that have to agree."""
    return f"{RELEASE}+{own_contract()}.state{FORMAT_VERSION}.training{TRAINER_FORMAT}"


def said_by(_actor: object) -> str:
    """Return ``own_release`` of an actor's process, in which Ray calls this through the handle's ``__ray_call__``."""
    return own_release()


def own_contract() -> str:
    """Return the versions that have to agree over HTTP, such as ``api1.sites1``."""
    return f"api{API}.sites{SITES}"


def refuse_other(fact: str, remedy: str = REMEDY, /, **sides: str) -> None:
    """Raise ``OtherRelease`` with ``fact`` when the two ``sides``, each a name and its release's text, differ."""
    one, other = sides.values()
    if one != other:
        raise OtherRelease(fact, remedy, **people_read(sides))


def refuse_other_contract(said: str, parts: Collection[str]) -> None:
    """Raise ``OtherRelease`` when a server speaks another version of the ``parts`` of the contract than this client.

    A part that the server does not name has version 1: servers of that version did not report it.
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
    """Return the release that a text names; empty if it names no release."""
    return said.partition("+")[0]


def speaks(said: str, what: str) -> int | None:
    """Return the version of ``what`` that a text names; None if it does not name one.

    >>> speaks("0.2.0+api1.sites2", "sites"), speaks("0.2.0", "sites")
    (2, None)
    """
    found = re.search(rf"[+.]{what}(\d+)(?:\.|$)", said)
    return int(found[1]) if found else None


def refusal_in(text: str, what: str) -> OtherRelease | None:
    """Return the error for a ``what`` that runs another release, if the text of Ray's error says so; otherwise None.

    Ray passes on only the text of an error that is raised while a process starts or unpickles its arguments.
    """
    if found := re.search(rf"^{re.escape(__name__)}\.OtherRelease: (.+)$", text, re.MULTILINE):
        fact, end, remedy = found[1].strip().partition("]. ")
        return OtherRelease(f"{fact}]", remedy) if end else OtherRelease(fact)
    if re.search(rf"No module named '{re.escape(__name__)}'", text):
        return OtherRelease(f"{what} runs another release", REMEDY, there=EARLIER, here=RELEASE)
    return None


class Sent(Generic[_Value]):
    """A value for a process that may run another release, which reads it only if the releases are equal."""

    def __init__(self, value: _Value, release: str = "", payload: bytes = b"") -> None:
        """Only ``received`` gives ``release`` and ``payload``, in place of the value."""
        self._value, self._payload = value, payload
        self._from = release or own_release()

    def __reduce__(self) -> tuple[Any, tuple[str, bytes]]:
        if self._payload:
            return received, (self._from, self._payload)
        from ray import cloudpickle  # noqa: PLC0415  clients load no Ray

        # Ray's type hints do not export ``cloudpickle.dumps``.
        return received, (self._from, cloudpickle.dumps(self._value))  # pyright: ignore[reportPrivateImportUsage]

    def opened(self, what: str) -> _Value:
        """Return the value, in the process ``what``. Raises ``OtherRelease`` with both sides and the machine's name."""
        theirs, own = self._from, own_release()
        if theirs != own:
            sides = people_read({what.replace(" ", "_"): own, "started_by": theirs})
            fact = f"the {what} runs another release than the process that started it"
            raise OtherRelease(fact, REMEDY, **sides, machine=socket.gethostname())
        if self._payload:
            self._value, self._payload = pickle.loads(self._payload), b""  # noqa: S301  as all that Ray carries
        return self._value


def received(release: str, payload: bytes) -> Sent[Any]:
    """Return a value that another process has sent, still pickled."""
    return Sent(None, release, payload)


def people_read(sides: dict[str, str]) -> dict[str, str]:
    """Return the release of each side; if equal releases have different formats, the whole texts.

    >>> people_read({"a": "1.0+state4", "b": "1.0+state4"}), people_read({"a": "1.0+state4", "b": "1.0+state5"})
    ({'a': '1.0', 'b': '1.0'}, {'a': '1.0+state4', 'b': '1.0+state5'})
    """
    releases = {who: release_in(said) for who, said in sides.items()}
    return releases if len(set(releases.values())) == len(set(sides.values())) else sides
