"""The console's pages of each kind of server, and their routes: one table of paths and the roles that may see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from fastapi import FastAPI
from starlette.responses import HTMLResponse

from cluster.serving.console.entrance import Entrance, StaticFiles
from cluster.serving.console.evidence_page import EvidencePage, own_checks
from cluster.serving.console.federation_page import FederationPage
from cluster.serving.console.pages import PREFIX, Entry, OpenPage, Page, Pages
from cluster.serving.console.request_pages import RequestPages
from cluster.serving.console.sites_pages import SitesPages, site_checks
from cluster.serving.console.trial_page import Predicts, TrialPage
from cluster.serving.endpoints import Endpoints
from cluster.serving.service import Service
from cluster.serving.sites_service import SitesService
from shards.specification import DataSettings

_MENU: Final = (
    Entry(path="/requests", label="Requests", roles=("officer", "audit")),
    Entry(path="/federation", label="Federation", roles=("officer", "audit")),
    Entry(path="/try", label="Try it", roles=("predict", "officer")),
    Entry(path="/evidence", label="Evidence", roles=("officer", "audit")),
)


def add_console(app: FastAPI, endpoints: Endpoints, service: Service, predicts: Predicts) -> None:
    """Put a federation's console into ``app``; ``predicts`` answers bodies of predictions."""
    files = StaticFiles()
    pages = Pages(endpoints, service, service.specification.name, _MENU, files.version)
    entrance = Entrance(pages, files)
    routes = (
        *entrance.routes,
        *RequestPages(pages, service).routes,
        *FederationPage(pages, service).routes,
        *TrialPage(pages, lambda: _declared(service), predicts).routes,
        *EvidencePage(pages, service, lambda: own_checks(service)).routes,
        entrance.elsewhere,
    )
    _add(app, endpoints, pages, routes)


def add_sites_console(app: FastAPI, endpoints: Endpoints, service: SitesService, predicts: Predicts) -> None:
    """Put the console of a federation of several sites into ``app``; ``predicts`` answers bodies of predictions."""
    files = StaticFiles()
    pages = Pages(endpoints, service, service.specification.name, _MENU, files.version)
    entrance = Entrance(pages, files)
    routes = (
        *entrance.routes,
        *SitesPages(pages, service).routes,
        *TrialPage(pages, lambda: service.reader().data, predicts).routes,
        *EvidencePage(pages, service, lambda: site_checks(service), has_sites=True).routes,
        entrance.elsewhere,
    )
    _add(app, endpoints, pages, routes)


def _declared(service: Service) -> DataSettings:
    data = service.standing.trained().data
    assert data is not None
    return replace(service.specification.data, features=data.layout.features)


def _add(app: FastAPI, endpoints: Endpoints, pages: Pages, routes: Sequence[Page | OpenPage]) -> None:
    app.state.console = routes
    for page in routes:
        path = f"{PREFIX}{page.path}"
        if page.lane is not None:
            endpoints.lanes[path] = page.lane
        app.add_api_route(
            path,
            pages.guarded(page),
            methods=[page.method],
            name=f"console {page.method} {page.path}",
            response_class=HTMLResponse,
            response_model=None,
            include_in_schema=False,
        )
