"""One replica's objects, put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cluster.config.serve import ServeSettings
from cluster.config.sites import SiteSettings
from cluster.config.specification import FederationSpecification
from cluster.ensemble.replica_state import Standing
from cluster.ensemble.site_report import Telling
from cluster.serving.auth import Gate
from cluster.serving.batcher import Answering
from cluster.serving.erasures import Accepting, Erasures
from cluster.tokens import TokenRegister
from cluster.writer.writer import writer_setup
from coordinator.ports import Clock, ignore_notice
from coordinator.receipts.issuer import Registrar
from storage.objects import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The objects that the endpoints use. They work from the start until ``close``."""

    specification: FederationSpecification
    clock: Clock
    standing: Standing
    answering: Answering
    erasures: Erasures
    telling: Telling
    gate: Gate
    registrar: Registrar
    store: ObjectStore

    @property
    def serve(self) -> ServeSettings:
        """The settings that limit one caller."""
        return self.specification.serve

    def check(self) -> None:
        """Raise ``Unavailable`` when it cannot answer now, ``InvariantBroken`` when it never will."""
        self.answering.check()

    def close(self) -> None:
        """Refuse what was not answered, and end the threads."""
        self.answering.close()


def open_service(
    specification: FederationSpecification,
    find: Callable[[], Accepting | None],
    clock: Clock | None = None,
    *,
    site: SiteSettings | None = None,
) -> Service:
    """Return a replica's objects, at work; ``find`` returns the coordinator if one runs. Reads nothing yet.

    ``site`` holds the site's own settings. Without them no weights leave, and no other federation may look people up.
    """
    setup = writer_setup(specification, listener=ignore_notice, clock=clock)
    settings = specification.serve
    standing = Standing(specification, setup.store, setup.clock)
    gate = Gate(
        TokenRegister(setup.store, setup.clock),
        setup.clock,
        refresh_seconds=settings.refresh_seconds,
        per_minute=settings.requests_per_minute,
        lookups_per_minute=settings.lookups_per_minute,
    )
    return Service(
        specification=specification,
        clock=setup.clock,
        standing=standing,
        answering=Answering(standing, settings.refresh_seconds, gate.refresh),
        erasures=Erasures(setup, standing, find),
        telling=Telling(specification, standing, setup.store, site),
        gate=gate,
        registrar=setup.registrar,
        store=setup.store,
    )
