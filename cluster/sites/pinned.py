"""Sites on one Ray cluster: an actor on a node of the site does there what ``NearSite`` does here.

This process joins the cluster and reads no store but the federation's own: the site's credentials are on the site's
nodes. Names of people travel in small pieces, for what is large goes through Ray's object store, which may spill to a
disk where no erasure reaches; so do checkpoints. What an actor is made with Ray keeps, so the partition key that the
specification gives is not part of it: it follows in a message when the actor asks for it.
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
from cluster.runtime.system import new_name
from cluster.sites.link import NearSite
from cluster.training.worker import keep_silent
from cluster.writer.identity import with_key_in_store
from cluster.writer.stores import open_objects
from coordinator.ports import Clock, Listener
from coordinator.sites import SiteAnswer, SiteStanding
from coordinator.status import FederationStatus, RequestStatus
from storage.errors import Invalid, Unavailable

_PIECE_BYTES: Final = 64 * 1024
"""Of names and of checkpoints in one message: below what Ray keeps outside of messages (100 kB)."""

_AROUND_BYTES: Final = 32
"""What a name's place in a message takes, at most."""

_LOOK_SECONDS: Final = 1.0
"""How often it is looked whether a site's node is still there while it works."""

_LOST: Final = (RayActorError, ObjectLostError)
"""What a call raises whose actor, or whose large answer, went with a process or a node."""

_Name = tuple[str, str | int]


class KeyNotThere(Unavailable):
    """The site's process was started, or restarted, and has not received the partition key that is given for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyless:
    """A site without the partition key that its specification gives."""

    site: ListedSite
    was_given: bool
    """Whether there was one."""

    @classmethod
    def of(cls, site: ListedSite) -> Keyless:
        """Return ``site`` without its key."""
        return cls(site=_with_key(site, None), was_given=site.specification.partition.key is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Handed:
    """A request whose names were handed over before."""

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
        # Made at the first call: an error here comes back as itself, one in __init__ as a dead actor. Of two that two
        # threads make at once, one is forgotten.
        keep_silent()
        check_rooms()
        check_here(self._site.specification.cluster.labels)
        return NearSite(self._site, _unheard)

    @ray.method(concurrency_group="requests")
    def take_key(self, key: str) -> None:
        """Take the partition key that the specification gives; a process that is started again has none."""
        self._key = key

    @ray.method(concurrency_group="requests")
    def keep_key(self) -> None:
        """Have the site's store keep the partition key; see ``with_key_in_store``."""
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
        """Return a piece of what ``Desk.checkpoint`` returns; it ends with one that is not full."""
        named, whole = self._sent
        if offset == 0 or named != (shard, sha256):
            named, whole = (shard, sha256), self._near.checkpoint(shard, sha256)
        piece = whole[offset : offset + _PIECE_BYTES]
        # Read from the store once for all of its pieces, and not kept when the last one has left.
        self._sent = (named, whole) if len(piece) == _PIECE_BYTES else (None, b"")
        return piece

    @ray.method(concurrency_group="questions")
    def status(self) -> FederationStatus:
        """See ``Federation.status``."""
        return self._near.status()

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
        """Submit the request that names were handed over for; see ``Federation.erase``. The answer holds no name."""
        near = self._near  # first: where the key is missing the same is called again, and the names are still there
        named = self._named.pop(handed.ticket, [])
        if len(named) != handed.names:
            raise Unavailable("the site was started anew while a request was handed over", "Submit it again.")
        # Not as lists: then the answer tells unknown names by position alone.
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
    def verify(self) -> Verification:
        """See ``Federation.verify``."""
        return self._near.verify()

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
    """A site whose data and constituents are on the cluster's nodes with its labels, and nowhere else."""

    def __init__(
        self, site: ListedSite, listener: Listener, clock: Clock | None = None, patience_seconds: float = 60.0
    ) -> None:
        """Starts nothing yet. ``patience_seconds``: how long its actor may take to come up or to answer a question."""
        del clock  # the site's own counts there
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

    def verify(self) -> Verification:
        """See ``SiteLink.verify``."""
        found: Verification = self._worked("verify")
        return found

    def launch(self) -> None:
        """Start the site's coordinator there; it goes on without this process."""
        self._worked("launch")

    def stop(self) -> bool:
        """End the site's coordinator; return whether there was one."""
        found: bool = self._worked("stop")
        return found

    def keep_key(self) -> None:
        """Have the site's store keep the partition key that the specification gives, if it gives one."""
        if self._key is not None:
            self._asked("keep_key")

    def close(self) -> None:
        """See ``SiteLink.close``."""
        with self._lock:
            if self._actor is not None and ray.is_initialized():
                ray.kill(self._actor)
            self._actor = None

    def _asked(self, method: str, *arguments: object) -> Any:
        """Return what a method gives that answers at once; a site where it does not is away."""
        return self._got(method, arguments, monotonic() + self._patience_seconds)

    def _worked(self, method: str, *arguments: object) -> Any:
        """Return what a method gives that may take long, as long as a node of the site is there."""
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
                self._end(actor)  # once the site has the same release, another one will do
                raise Unavailable(f"the site is away: {refused.message}", refused.remedy, site=self.name) from error
            self._forget(actor, error)
            self._check_there()
            raise self._away("its process was lost, and is started anew") from error

    def _started(self) -> Any:
        """Return the actor, started on a node of the site. Raises ``Unavailable`` when there is none."""
        with self._lock:
            join_ray(self._site.specification.cluster)
            self._check_there()
            if self._actor is None:
                self._actor = SiteActor.options(**selecting(self._site.specification.cluster.labels)).remote(
                    Sent(Keyless.of(self._site))
                )
            return self._actor

    def _forget(self, actor: Any, error: Exception) -> None:
        """Let an actor go that is dead for good: the next call starts another one."""
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
        return Unavailable(f"the site is away: {fact}", "It goes on when the site is back.", site=self.name)


def _with_key(site: ListedSite, key: str | None) -> ListedSite:
    own = site.specification
    return replace(site, specification=replace(own, partition=replace(own.partition, key=key)))


def _pieces(names: Iterable[_Name]) -> Iterator[list[_Name]]:
    """Yield names in messages that Ray keeps nowhere but in memory. Raises ``Invalid`` for one that fits in none."""
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


def _unheard(_: object) -> None:
    """Hear nothing: what happens at a site is told there."""
