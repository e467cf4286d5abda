"""The objects behind the API of a federation of several sites: the federation, and the gate that admits callers."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from threading import Lock

import numpy as np
import numpy.typing as npt

from cluster.config.serve import ServeSettings
from cluster.config.sites import SitesSpecification, open_own_store
from cluster.results.federation import ErasureAnswer
from cluster.results.sites import SitesStatus
from cluster.runtime.system import SystemClock
from cluster.serving.auth import Gate
from cluster.serving.bodies import BodyReader
from cluster.serving.endpoints import Named
from cluster.sites.fan_out import CombinedAnswer
from cluster.sites.federation import SiteFederation
from cluster.tokens import TokenRegister
from cluster.writer.drafting import new_request_id
from coordinator.ports import Clock
from coordinator.receipts.issuer import Registrar
from coordinator.status import RequestStatus, for_the_public
from storage.errors import Invalid, ObjectMissing, SisaError, Unavailable
from storage.objects import ObjectStore, new_name


class SitesService:
    """A federation as its own API needs it. Calls block: they are for threads, not for event loops."""

    def __init__(self, specification: SitesSpecification, clock: Clock, federation: SiteFederation) -> None:
        """Ask no site yet."""
        store = open_own_store(specification)
        self.store: ObjectStore = store
        """The federation's own store: its tokens, and the console's key."""
        self.specification = specification
        self.federation = federation
        self.gate = Gate(
            TokenRegister(store, clock),
            clock,
            refresh_seconds=specification.serve.refresh_seconds,
            per_minute=specification.serve.requests_per_minute,
            lookups_per_minute=specification.serve.lookups_per_minute,
        )
        self._clock = clock
        self._lock = Lock()
        self._reader: BodyReader | None = None  # under ``_lock``

    @property
    def clock(self) -> Clock:
        """See ``Behind.clock``."""
        return self._clock

    @property
    def registrar(self) -> Registrar:
        """See ``Behind.registrar``."""
        return self.federation.registrar

    @property
    def serve(self) -> ServeSettings:
        """See ``Behind.serve``."""
        return self.specification.serve

    def check(self) -> None:
        """Raise ``Unavailable`` when no site is a member. Answers themselves report sites that are away.

        It also lets the gate reload tokens if that is due, because there may have been no request for a while.
        """
        self.refresh()
        if not any(site.is_member for site in self.federation.roster.read().sites):
            raise Unavailable("no site has joined the federation yet", "Run 'sisa train'.")

    def refresh(self) -> None:
        """Reload tokens if that is due; if the register is away, the gate reports it."""
        with suppress(SisaError):
            self.gate.refresh()

    def reader(self) -> BodyReader:
        """Return the reader of bodies, with the sites' names of features, in the federation's order."""
        with self._lock:
            if self._reader is None:
                standing = self.federation.layout()
                common = self.specification.sites[0].specification.data
                self._reader = BodyReader(
                    data=replace(common, features=standing.features, scale=1.0),  # each site scales by itself
                    width=standing.width,
                    most_points=self.specification.serve.max_points,
                )
            return self._reader

    def answer(self, features_NF: npt.NDArray[np.float32], names: tuple[str, ...]) -> CombinedAnswer:
        """Return the federation's answer; see ``SiteFederation.answer``."""
        try:
            return self.federation.answer(features_NF, names)
        except SisaError:
            with self._lock:
                self._reader = None  # features may have other names by now
            raise

    def submit(self, wanted: Named, request_id: str | None) -> tuple[ErasureAnswer, bool]:
        """Return the request, accepted by the site, and whether it is new; raises as ``SiteFederation.erase`` does."""
        if not wanted.site:
            raise Invalid("no site is named: people are looked for at one site and nowhere else", "Add 'site'.")
        own_id = request_id or new_request_id(new_name)
        is_new = request_id is None or not self._has(wanted.site, own_id)
        answer = self.federation.erase(
            wanted.site,
            subjects=wanted.subjects,
            ids=wanted.ids,
            request_id=own_id,
            held=wanted.held,
            wait=False,
            include_similar=wanted.include_similar,
        )
        return answer, is_new

    def find(self, request_id: str, site: str | None) -> tuple[str, RequestStatus]:
        """Return the site that has a request, and the request's status; see ``SiteFederation.request``."""
        return self.federation.request(request_id, site)

    def receipt(self, request_id: str, site: str | None, by: str) -> bytes:
        """Return a request's receipt ``by`` the ``site`` or the ``federation``; see ``SiteFederation.receipt``."""
        if by not in {"site", "federation"}:
            raise Invalid("'by' is site or federation", "See /docs.")
        found = self.federation.receipt(request_id, site)
        return (found.at_site if by == "site" else found.at_federation).to_bytes()

    def status(self, *, is_public: bool) -> SitesStatus:
        """Return the status of the federation and its sites; with ``is_public``, see ``for_the_public``."""
        status = self.federation.status()
        if not is_public:
            return status
        sites = (replace(each, status=each.status and for_the_public(each.status)) for each in status.sites)
        return replace(status, store="", sites=tuple(sites))

    def close(self) -> None:
        """Stop waiting for sites."""
        self.federation.close()

    def _has(self, site: str, request_id: str) -> bool:
        try:
            self.federation.link(site).request(request_id)
        except ObjectMissing:
            return False
        return True


def open_sites_service(
    specification: SitesSpecification, federation: SiteFederation | None = None, clock: Clock | None = None
) -> SitesService:
    """Return a replica's objects; ``federation`` defaults to the one that the specification describes."""
    return SitesService(specification, clock or SystemClock(), federation or SiteFederation(specification, clock=clock))
