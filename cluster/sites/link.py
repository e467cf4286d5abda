"""Links to sites. The federation reaches a site only through its link, and never reads the site's store.

Shape legend: N points, F features.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cluster.config.sites import ListedSite
from cluster.coordinator_actor.record import read_record
from cluster.federation import Federation
from cluster.results.federation import ErasureAnswer, SubjectFound, Verification
from cluster.runtime.session import is_to_start_ray
from cluster.sites.site_server import Desk
from cluster.writer.stores import open_objects
from coordinator.effects import HoldoutMeasure
from coordinator.ports import Clock, Listener
from coordinator.sites import SiteAnswer, SiteStanding
from coordinator.status import FederationStatus, RequestStatus, for_the_federation, without_effect


class SiteLink(Protocol):
    """How the federation reaches one site. While the site is away, calls raise ``Unavailable``; all may be repeated."""

    @property
    def name(self) -> str:
        """The site's name."""
        ...

    def standing(self, requests: int = 0) -> SiteStanding:
        """See ``Desk.standing``."""
        ...

    def answer(self, features_NF: npt.NDArray[np.float32], names: tuple[str, ...]) -> SiteAnswer:
        """See ``Desk.answer``."""
        ...

    def checkpoint(self, shard: int, sha256: str) -> bytes:
        """See ``Desk.checkpoint``."""
        ...

    def train(self) -> FederationStatus:
        """Train at the site; see ``Federation.train``."""
        ...

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
        """See ``Federation.erase``; the answer gives unknown names at least by position."""
        ...

    def erase_everyone(self, request_id: str) -> RequestStatus:
        """See ``Federation.erase_everyone``."""
        ...

    def measure(self) -> HoldoutMeasure:
        """See ``Telling.measure``."""
        ...

    def lookup(self, subjects: Iterable[str | int]) -> tuple[SubjectFound, ...]:
        """See ``Telling.lookup``."""
        ...

    def request(self, request_id: str) -> RequestStatus:
        """Return an erasure request's status. Raises ``ObjectMissing`` when the site has no request with this id."""
        ...

    def receipt(self, request_id: str) -> bytes:
        """Return the receipt of a request as its file's bytes. Raises ``ObjectMissing`` until there is one."""
        ...

    def status(self) -> FederationStatus:
        """Return the status of the site and its requests."""
        ...

    def verify(self, *, everything: bool = False) -> Verification:
        """See ``Federation.verify``."""
        ...

    def close(self) -> None:
        """Release what the link holds."""
        ...


class NearSite:
    """A site whose store this process can reach, such as a folder when a federation is tried on one machine.

    As over any other link, what was measured on the site's hold-out points crosses it only by ``measure``.
    """

    def __init__(self, site: ListedSite, listener: Listener, clock: Clock | None = None) -> None:
        """Read nothing yet."""
        self._site = site
        self._listener = listener
        self._clock = clock
        self._desk = Desk(site, clock)

    @property
    def name(self) -> str:
        """See ``SiteLink.name``."""
        return self._site.name

    def standing(self, requests: int = 0) -> SiteStanding:
        """See ``SiteLink.standing``."""
        return self._desk.standing(requests)

    def answer(self, features_NF: npt.NDArray[np.float32], names: tuple[str, ...]) -> SiteAnswer:
        """See ``SiteLink.answer``."""
        return self._desk.answer(features_NF, names)

    def checkpoint(self, shard: int, sha256: str) -> bytes:
        """See ``SiteLink.checkpoint``."""
        return self._desk.checkpoint(shard, sha256)

    def train(self) -> FederationStatus:
        """See ``SiteLink.train``."""
        with self._federation() as federation:
            return for_the_federation(federation.train())

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
        with self._federation() as federation:
            return without_effect(
                federation.erase(
                    subjects=subjects,
                    ids=ids,
                    request_id=request_id,
                    held=held,
                    wait=wait,
                    include_similar=include_similar,
                )
            )

    def erase_everyone(self, request_id: str) -> RequestStatus:
        """See ``SiteLink.erase_everyone``."""
        with self._federation() as federation:
            return without_effect(federation.erase_everyone(request_id))

    def measure(self) -> HoldoutMeasure:
        """See ``SiteLink.measure``."""
        return self._desk.measure()

    def lookup(self, subjects: Iterable[str | int]) -> tuple[SubjectFound, ...]:
        """See ``SiteLink.lookup``."""
        return self._desk.lookup(subjects)

    def request(self, request_id: str) -> RequestStatus:
        """See ``SiteLink.request``."""
        with self._federation() as federation:
            return without_effect(federation.request(request_id))

    def receipt(self, request_id: str) -> bytes:
        """See ``SiteLink.receipt``."""
        with self._federation() as federation:
            return federation.registrar.find(request_id).to_bytes()

    def status(self) -> FederationStatus:
        """See ``SiteLink.status``."""
        with self._federation() as federation:
            return for_the_federation(federation.status())

    def verify(self, *, everything: bool = False) -> Verification:
        """See ``SiteLink.verify``."""
        with self._federation() as federation:
            return federation.verify(everything=everything)

    def close(self) -> None:
        """See ``SiteLink.close``."""

    def would_start_ray(self) -> bool:
        """Return whether training starts a local Ray: this process has joined none, and no coordinator was launched."""
        specification = self._site.specification
        return is_to_start_ray(specification.cluster) and read_record(open_objects(specification)) is None

    def _federation(self) -> Federation:
        # A new one for each call, so that its workers' processors are free for the next site.
        return Federation(self._site.specification, listener=self._listener, clock=self._clock)
