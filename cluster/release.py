"""Which release of this system a process runs, in a text that every release reads; compared at every first contact.

Command, coordinator, workers, replicas and the actors of sites hand each other values of this system's classes, field
by field: in another release the same fields mean something else, or are others. So their releases and formats are
equal, or nothing of what was sent is read. Over HTTP the versions of the API and of the sites' protocol decide.

The name of this module, that of ``received``, its arguments and the form of the texts stay as they are: a release from
before them is recognised by that it does not have this module.
"""

from __future__ import annotations

import pickle
import re
import socket
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
"""What is said of a release that cannot say which one it is."""

REMEDY: Final = (
    "install the newer one wherever this federation is used, then run 'sisa stop' and 'sisa launch', and 'sisa serve'"
    " where it is served: see 'Upgrade' in docs/operations.md"
)

_Value = TypeVar("_Value")


class OtherRelease(Conflict):
    """The other side runs another release, or speaks another version of the API; nothing that it sent was used."""


def own_release() -> str:
    """Return what this process says of itself: its release, and the version of all that processes have to agree on."""
    return f"{RELEASE}+api{API}.sites{SITES}.state{FORMAT_VERSION}.training{TRAINER_FORMAT}"


def refuse_other(fact: str, remedy: str = REMEDY, /, **sides: str) -> None:
    """Raise ``OtherRelease`` with ``fact`` when the two sides, given as texts by who they are, differ in any part."""
    one, other = sides.values()
    if one != other:
        raise OtherRelease(fact, remedy, **_shown(sides))


def speaks(said: str, what: str) -> int | None:
    """Return the version of ``what`` that a text names; None where it names none.

    >>> speaks("0.2.0+api1.sites2", "sites"), speaks("0.2.0", "sites")
    (2, None)
    """
    found = re.search(rf"[+.]{what}(\d+)(?:\.|$)", said)
    return int(found[1]) if found else None


def refusal_in(text: str, what: str) -> OtherRelease | None:
    """Return why ``what`` came to nothing, where the text of Ray's error says that it runs another release.

    Ray turns into text what is raised while a process starts, or reads what it is sent.
    """
    if found := re.search(rf"^{re.escape(__name__)}\.OtherRelease: (.+)$", text, re.MULTILINE):
        return OtherRelease(found[1].strip())
    if re.search(rf"No module named '{re.escape(__name__)}'", text):
        return OtherRelease(f"{what} runs another release", REMEDY, there=EARLIER, here=RELEASE)
    return None


class Sent(Generic[_Value]):
    """A value on its way to a process that may run another release: there it is read once the releases are equal."""

    def __init__(self, value: _Value, release: str = "", payload: bytes = b"") -> None:
        """``release`` and ``payload`` are given by ``received``, which knows no value yet."""
        self._value, self._payload = value, payload
        self._from = release or own_release()

    def __reduce__(self) -> tuple[Any, tuple[str, bytes]]:
        if self._payload:
            return received, (self._from, self._payload)
        from ray import cloudpickle  # noqa: PLC0415  clients load no Ray

        return received, (self._from, cloudpickle.dumps(self._value))

    def opened(self, what: str) -> _Value:
        """Return the value, in ``what`` it was sent to. Raises ``OtherRelease``, naming both sides and the machine."""
        theirs, own = self._from, own_release()
        if theirs != own:
            sides = _shown({what.replace(" ", "_"): own, "started_by": theirs})
            fact = f"the {what} runs another release than the process that started it"
            raise OtherRelease(fact, REMEDY, **sides, machine=socket.gethostname())
        if self._payload:
            self._value, self._payload = pickle.loads(self._payload), b""  # noqa: S301  as all that Ray carries
        return self._value


def received(release: str, payload: bytes) -> Sent[Any]:
    """Return what another process has sent, not read yet."""
    return Sent(None, release, payload)


def _shown(sides: dict[str, str]) -> dict[str, str]:
    """Return the sides as people read them: with formats only where the releases are called alike."""
    releases = {who: said.partition("+")[0] for who, said in sides.items()}
    return releases if len(set(releases.values())) > 1 else sides
