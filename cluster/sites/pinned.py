"""Sites on one Ray cluster: an actor on a node of the site runs ``NearSite`` there.

This process joins the cluster and reads only the federation's own store: a site's credentials are on the site's nodes.
Names of people and checkpoints are sent in small pieces, because Ray puts large values into its object store, which may
spill to a disk that no erasure reaches. Ray also keeps the arguments that an actor is made with, so a partition key in
the specification is not among them: it follows in a message when the actor asks for it.
Shape legend: N points, F features.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from threading import Lock
from time import monotonic
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import ray
from ray.exceptions import ActorDiedError, ObjectLostError, RayActorError

from cluster.config.sites import ListedSite
from cluster.coordinator_actor.actor import unwrapped
from cluster.coordinator_actor.launch import launch_coordinator, stop_coordinator
from cluster.release import OtherRelease, Sent, refusal_in
from cluster.results.federation import ErasureAnswer, SubjectFound, Verification
from cluster.runtime.guard import check_rooms
from cluster.runtime.labels import check_here, labels_in_words, nodes_with, selecting
from cluster.runtime.session import join_ray
from cluster.sites.link import NearSite
from cluster.training.actor import keep_silent
from cluster.writer.identity import with_key_in_store
from cluster.writer.stores import open_objects
from coordinator.effects import HoldoutMeasure
from coordinator.ports import Clock, Listener, ignore_notice
from coordinator.sites import SiteAnswer, SiteStanding
from coordinator.status import FederationStatus, RequestStatus
from storage.errors import Invalid, Unavailable
from storage.objects import new_name

_PIECE_BYTES: Final = 64 * 1024
"""Size of names or of a checkpoint in one message: below the size that Ray keeps outside of messages (100 kB)."""

_AROUND_BYTES: Final = 32
"""The overhead of a name in a message, at most."""

_LOOK_SECONDS: Final = 1.0
"""How often the caller checks that the site's node is still there while it works."""

_LOST: Final = (RayActorError, ObjectLostError)
"""Errors of a call whose actor, or whose large answer, was lost with a process or a node."""

_Name = tuple[str, str | int]


class KeyNotThere(Unavailable):
    """The site's process was started, or restarted, and has not received its partition key yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyless:
    """A site without the partition key of its specification."""

    site: ListedSite
    was_given: bool
    """Whether the specification gives one."""

    @classmethod
    def of(cls, site: ListedSite) -> Keyless:
        """Return ``site`` without its key."""
        return cls(site=_with_key(site, None), was_given=site.specification.partition.key is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Handed:
    """A request whose names were sent before."""

    ticket: str
    names: int
    request_id: str
    held: str
    wait: bool
    include_similar: bool


class SiteShell:
    """The actor: ``NearSite`` on a node of the site."""

    def __init__(self, sent: Sent[Keyless]) -> None:
        self._sent_site = sent
        self._key: str | None = None
        # Without a lock: each ticket has one caller, whose calls follow each other; the others are replaced as a whole.
        self._named: dict[str, list[_Name]] = {}
        self._sent: tuple[tuple[int, str] | None, bytes] = None, b""

    @property
    def _site(self) -> ListedSite:
        keyless = self._sent_site.opened("site process")
        if not keyless.was_given:
            return keyless.site
        if self._key is None:
            raise KeyNotThere("the site's process does not know the partition key yet", "Repeat the command.")
        return _with_key(keyless.site, self._key)

    @cached_property
    def _near(self) -> NearSite:
        # Made at the first call: an error here reaches the caller, one in __init__ would only kill the actor. If two
        # threads make one at the same time, one of the two is dropped.
        keep_silent()
        check_rooms()
        check_here(self._site.specification.cluster.labels)
        return NearSite(self._site, ignore_notice)

    @ray.method(concurrency_group="requests")
    def take_key(self, key: str) -> None:
        """Take the partition key of the specification; a restarted process does not have it."""
        self._key = key

    @ray.method(concurrency_group="requests")
    def keep_key(self) -> None:
        """Write the partition key to the site's store; see ``with_key_in_store``."""
        check_here(self._site.specification.cluster.labels)
        with_key_in_store(open_objects(self._site.specification), self._site.specification)

    @ray.method(concurrency_group="questions")
    def standing(self, requests: int) -> SiteStanding:
        """See ``Desk.standing``."""
        return self._near.standing(requests)

    @ray.method(concurrency_group="questions")
    def answer(self, features_NF: npt.NDArray[np.float32], names: tuple[str, ...]) -> SiteAnswer:
        """See ``Desk.answer``."""
        return self._near.answer(features_NF, names)

    @ray.method(concurrency_group="questions")
    def checkpoint(self, shard: int, sha256: str, offset: int) -> bytes:
        """Return a piece of what ``Desk.checkpoint`` returns; a piece that is not full is the last."""
        named, whole = self._sent
        if offset == 0 or named != (shard, sha256):
            named, whole = (shard, sha256), self._near.checkpoint(shard, sha256)
        piece = whole[offset : offset + _PIECE_BYTES]
        # Read from the store once for all pieces, and dropped after the last one.
        self._sent = (named, whole) if len(piece) == _PIECE_BYTES else (None, b"")
        return piece

    @ray.method(concurrency_group="questions")
    def status(self) -> FederationStatus:
        """See ``Federation.status``."""
        return self._near.status()

    @ray.method(concurrency_group="questions")
    def measure(self) -> HoldoutMeasure:
        """See ``Telling.measure``."""
        return self._near.measure()

    @ray.method(concurrency_group="questions")
    def lookup(self, subjects: list[str | int]) -> tuple[SubjectFound, ...]:
        """See ``Telling.lookup``."""
        return self._near.lookup(subjects)

    @ray.method(concurrency_group="questions")
    def request(self, request_id: str) -> RequestStatus:
        """See ``Federation.request``."""
        return self._near.request(request_id)

    @ray.method(concurrency_group="questions")
    def receipt(self, request_id: str) -> bytes:
        """See ``SiteLink.receipt``."""
        return self._near.receipt(request_id)

    @ray.method(concurrency_group="requests")
    def name(self, ticket: str, names: list[_Name]) -> None:
        """Take some names of a request that is about to be submitted."""
        self._named.setdefault(ticket, []).extend(names)

    @ray.method(concurrency_group="requests")
    def erase(self, handed: _Handed) -> ErasureAnswer:
        """Submit a request whose names were sent before; see ``Federation.erase``. The answer holds no name."""
        near = self._near  # first: it raises if the key is missing, and the repeated call still needs the names
        named = self._named.pop(handed.ticket, [])
        if len(named) != handed.names:
            raise Unavailable("the site's process restarted while a request was handed over", "Submit it again.")
        # As generators, so that the answer gives unknown names only by position.
        return near.erase(
            subjects=(name for kind, name in named if kind == "subject"),
            ids=(name for kind, name in named if kind == "id"),
            request_id=handed.request_id,
            held=handed.held,
            wait=handed.wait,
            include_similar=handed.include_similar,
        )

    @ray.method(concurrency_group="requests")
    def erase_everyone(self, request_id: str) -> RequestStatus:
        """See ``Federation.erase_everyone``."""
        return self._near.erase_everyone(request_id)

    @ray.method(concurrency_group="work")
    def train(self) -> FederationStatus:
        """See ``Federation.train``."""
        return self._near.train()

    @ray.method(concurrency_group="work")
    def verify(self, everything: bool) -> Verification:  # noqa: FBT001  as Ray passes it
        """See ``Federation.verify``."""
        return self._near.verify(everything=everything)

    @ray.method(concurrency_group="work")
    def launch(self) -> None:
        """Start the site's coordinator on a node of the site."""
        launch_coordinator(self._site.specification)

    @ray.method(concurrency_group="work")
    def stop(self) -> bool:
        """End the site's coordinator; return whether there was one."""
        return stop_coordinator(open_objects(self._site.specification))


_remote: Any = ray.remote  # its types know no concurrency groups
SiteActor = _remote(num_cpus=0, max_restarts=-1, concurrency_groups={"requests": 16, "questions": 16, "work": 2})(
    SiteShell
)


class PinnedSite:
    """A site whose data and constituents are only on the cluster's nodes with its labels."""

    def __init__(
        self, site: ListedSite, listener: Listener, clock: Clock | None = None, patience_seconds: float = 60.0
    ) -> None:
        """Start nothing yet. ``patience_seconds``: how long its actor may take to start or to answer a question."""
        del clock  # the site uses its own
        self._site = site
        self._key = site.specification.partition.key
        self._listener = listener
        self._patience_seconds = patience_seconds
        self._lock = Lock()
        self._actor: Any = None  # under ``_lock``

    @property
    def name(self) -> str:
        """See ``SiteLink.name``."""
        return self._site.name

    def standing(self, requests: int = 0) -> SiteStanding:
        """See ``SiteLink.standing``."""
        found: SiteStanding = self._asked("standing", requests)
        return found

    def answer(self, features_NF: npt.NDArray[np.float32], names: tuple[str, ...]) -> SiteAnswer:
        """See ``SiteLink.answer``."""
        found: SiteAnswer = self._asked("answer", features_NF, names)
        return found

    def checkpoint(self, shard: int, sha256: str) -> bytes:
        """See ``SiteLink.checkpoint``."""
        pieces: list[bytes] = []
        while not pieces or len(pieces[-1]) == _PIECE_BYTES:
            offset = len(pieces) * _PIECE_BYTES
            pieces.append(self._asked("checkpoint", shard, sha256, offset))
        return b"".join(pieces)

    def train(self) -> FederationStatus:
        """See ``SiteLink.train``."""
        found: FederationStatus = self._worked("train")
        return found

    def erase(
        self,
        *,
        subjects: Iterable[str | int],
        ids: Iterable[str | int],
        request_id: str,
        held: str,
        wait: bool,
        include_similar: bool = False,
    ) -> ErasureAnswer:
        """See ``SiteLink.erase``."""
        ticket, count = new_name(), 0
        named = chain((("subject", name) for name in subjects), (("id", name) for name in ids))
        for piece in _pieces(named):
            count += len(piece)
            self._asked("name", ticket, piece)
        handed = _Handed(
            ticket=ticket,
            names=count,
            request_id=request_id,
            held=held,
            wait=wait,
            include_similar=include_similar,
        )
        found: ErasureAnswer = self._worked("erase", handed)
        return found

    def erase_everyone(self, request_id: str) -> RequestStatus:
        """See ``SiteLink.erase_everyone``."""
        found: RequestStatus = self._worked("erase_everyone", request_id)
        return found

    def measure(self) -> HoldoutMeasure:
        """See ``SiteLink.measure``."""
        found: HoldoutMeasure = self._asked("measure")
        return found

    def lookup(self, subjects: Iterable[str | int]) -> tuple[SubjectFound, ...]:
        """See ``SiteLink.lookup``."""
        found: list[SubjectFound] = []
        for piece in _pieces(("subject", name) for name in subjects):
            found += self._asked("lookup", [name for _, name in piece])
        return tuple(found)

    def request(self, request_id: str) -> RequestStatus:
        """See ``SiteLink.request``."""
        found: RequestStatus = self._asked("request", request_id)
        return found

    def receipt(self, request_id: str) -> bytes:
        """See ``SiteLink.receipt``."""
        found: bytes = self._asked("receipt", request_id)
        return found

    def status(self) -> FederationStatus:
        """See ``SiteLink.status``."""
        found: FederationStatus = self._asked("status")
        return found

    def verify(self, *, everything: bool = False) -> Verification:
        """See ``SiteLink.verify``."""
        found: Verification = self._worked("verify", everything)
        return found

    def launch(self) -> None:
        """Start the site's coordinator there; it outlives this process."""
        self._worked("launch")

    def stop(self) -> bool:
        """End the site's coordinator; return whether there was one."""
        found: bool = self._worked("stop")
        return found

    def keep_key(self) -> None:
        """Write the partition key to the site's store, if the specification gives one."""
        if self._key is not None:
            self._asked("keep_key")

    def close(self) -> None:
        """See ``SiteLink.close``."""
        with self._lock:
            if self._actor is not None and ray.is_initialized():
                ray.kill(self._actor)
            self._actor = None

    def _asked(self, method: str, *arguments: object) -> Any:
        """Return the result of a method that answers quickly; a site that does not answer in time is away."""
        return self._got(method, arguments, monotonic() + self._patience_seconds)

    def _worked(self, method: str, *arguments: object) -> Any:
        """Return the result of a method that may take long; wait as long as a node of the site is there."""
        return self._got(method, arguments, math.inf)

    def _got(self, method: str, arguments: Sequence[object], until: float) -> Any:
        actor = self._started()
        try:
            return self._answered(actor, method, arguments, until)
        except KeyNotThere:
            self._answered(actor, "take_key", (self._key,), until)
            return self._answered(actor, method, arguments, until)

    def _answered(self, actor: Any, method: str, arguments: Sequence[object], until: float) -> Any:
        try:
            answer = getattr(actor, method).remote(*arguments)
            while not ray.wait([answer], timeout=_LOOK_SECONDS)[0]:
                self._check_there()
                if monotonic() > until:
                    raise self._away("it does not answer")
            return unwrapped(answer)
        except (OtherRelease, *_LOST) as error:
            refused = error if isinstance(error, OtherRelease) else refusal_in(str(error), "a node of the site")
            if refused is not None:
                self._end(actor)  # once the site has the same release, a new actor will work
                raise Unavailable(f"the site is away: {refused.message}", refused.remedy, site=self.name) from error
            self._forget(actor, error)
            self._check_there()
            raise self._away("its process was lost, and is restarted") from error

    def _started(self) -> Any:
        """Return the actor, started on a node of the site. Raises ``Unavailable`` when there is no such node."""
        with self._lock:
            join_ray(self._site.specification.cluster)
            self._check_there()
            if self._actor is None:
                self._actor = SiteActor.options(**selecting(self._site.specification.cluster.labels)).remote(
                    Sent(Keyless.of(self._site))
                )
            return self._actor

    def _forget(self, actor: Any, error: Exception) -> None:
        """Drop an actor that is dead for good: the next call starts another one."""
        with self._lock:
            if isinstance(error, ActorDiedError) and self._actor is actor:
                self._actor = None

    def _end(self, actor: Any) -> None:
        """End an actor: the next call starts another one."""
        with self._lock:
            if self._actor is actor:
                ray.kill(actor)
                self._actor = None

    def _check_there(self) -> None:
        labels = self._site.specification.cluster.labels
        if not nodes_with(labels):
            raise self._away(f"no node of the cluster has the labels {labels_in_words(labels)}")

    def _away(self, fact: str) -> Unavailable:
        return Unavailable(f"the site is away: {fact}", "Wait until the site is back.", site=self.name)


def _with_key(site: ListedSite, key: str | None) -> ListedSite:
    own = site.specification
    return replace(site, specification=replace(own, partition=replace(own.partition, key=key)))


def _pieces(names: Iterable[_Name]) -> Iterator[list[_Name]]:
    """Yield names in messages that Ray keeps only in memory. Raises ``Invalid`` for a name that is too long for one."""
    piece: list[_Name] = []
    size = 0
    for kind, name in names:
        more = len(str(name).encode()) + _AROUND_BYTES
        if more > _PIECE_BYTES:
            raise Invalid(f"a name takes {more} bytes, and {_PIECE_BYTES} is the most", "Submit it at the site itself.")
        if piece and size + more > _PIECE_BYTES:
            yield piece
            piece, size = [], 0
        piece.append((kind, name))
        size += more
    if piece:
        yield piece
