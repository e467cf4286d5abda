"""The pages of a federation of several sites: what each site lets others see, and the requests at the sites."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fastapi import Request
from starlette.responses import Response

from cluster.results.sites import SitesStatus
from cluster.serving.access_log import note
from cluster.serving.console.evidence_page import Noticed
from cluster.serving.console.pages import HEADERS, Page, Pages
from cluster.serving.console.sign_in import SignedIn
from cluster.serving.endpoints import Named
from cluster.serving.erasures import checked_names
from cluster.serving.sites_service import SitesService
from cluster.tokens import Role
from coordinator.requests import RequestState, check_request_id
from coordinator.status import RequestStatus
from storage.errors import Invalid

_READERS: Final[tuple[Role, ...]] = ("officer", "audit")
_MOST_ROWS: Final = 50
_OPEN: Final = frozenset(state.value for state in RequestState if state.is_open)


class SitesPages:
    """The pages about sites and their requests. Every page is made from fresh answers of the sites."""

    def __init__(self, pages: Pages, service: SitesService) -> None:
        self._pages = pages
        self._service = service

    @property
    def routes(self) -> tuple[Page, ...]:
        """Its routes."""
        return (
            Page(path="/federation", act=self.federation, roles=_READERS),
            Page(path="/requests", act=self.requests, roles=_READERS),
            Page(path="/requests", act=self.submit, roles=("officer",), method="POST"),
            Page(path="/requests/{request_id}", act=self.request, roles=_READERS),
            Page(path="/requests/{request_id}/receipt", act=self.receipt, roles=_READERS),
        )

    async def federation(self, request: Request, signed_in: SignedIn) -> Response:
        """Show the sites, including those that cannot be reached."""
        status = await self._status()
        return self._pages.rendered(request, signed_in, "sites.html.jinja", whole=status)

    async def requests(self, request: Request, signed_in: SignedIn) -> Response:
        """Show the requests that the sites report, those due soonest first, and the form for a new one."""
        return await self._listed(request, signed_in)

    async def submit(self, request: Request, signed_in: SignedIn) -> Response:
        """Submit an erasure request to the site that the form names, and show what it answers."""
        fields = await self._pages.form(request, signed_in)
        names = checked_names(_lines(fields.get("subjects", "")), "subjects")
        if not names:
            raise Invalid("nobody is named", "Go back, and enter one name per line.")
        wanted = Named(
            subjects=names,
            ids=[],
            held=fields.get("hold", "").strip(),
            include_similar="include_similar" in fields,
            site=fields.get("site", ""),
        )
        note(request.scope, names=len(names))
        answer, _ = await self._pages.submit(lambda: self._service.submit(wanted, None))
        note(request.scope, request_id=answer.request_id)
        facts: dict[str, Any] = {"site": wanted.site, "found": answer, "salt": answer.salt}
        return self._pages.rendered(request, signed_in, "site_request.html.jinja", **facts)

    async def request(self, request: Request, signed_in: SignedIn) -> Response:
        """Show the site that has a request, and the request's status there."""
        request_id = _request_id(request)
        at = request.query_params.get("site")
        site, status = await self._pages.call(lambda: self._service.find(request_id, at))
        facts: dict[str, Any] = {"site": site, "found": status, "salt": ""}
        return self._pages.rendered(request, signed_in, "site_request.html.jinja", **facts)

    async def receipt(self, request: Request, signed_in: SignedIn) -> Response:
        """Return a request's receipt, issued by the site or by the federation, as a file."""
        del signed_in
        request_id = _request_id(request)
        site, by = request.query_params.get("site"), request.query_params.get("by", "site")
        bundle = await self._pages.call(lambda: self._service.receipt(request_id, site, by))
        headers = {**HEADERS, "Content-Disposition": f'attachment; filename="receipt-by-{by}.json"'}
        return Response(bundle, media_type="application/json", headers=headers)

    async def _listed(self, request: Request, signed_in: SignedIn) -> Response:
        status = await self._status()
        rows = sorted(_requests(status), key=lambda row: (row[1].state not in _OPEN, row[1].due_at))
        facts: dict[str, Any] = {"whole": status, "rows": rows[:_MOST_ROWS], "count": len(rows)}
        return self._pages.rendered(request, signed_in, "site_requests.html.jinja", **facts)

    async def _status(self) -> SitesStatus:
        return await self._pages.call(lambda: self._service.status(is_public=False))


def site_checks(service: SitesService) -> Iterator[Noticed]:
    """Yield a federation server's checks of its sites."""
    for site in service.status(is_public=False).sites:
        is_there = site.status is not None or site.membership == "purged"
        yield Noticed(
            check=f"site {site.site}",
            ok=is_there,
            text=f"it is {_article(site.membership)}, and it answers" if is_there else site.reason,
            remedy="" if is_there else "Ask the site's operator; the other sites keep answering.",
        )


def _article(membership: str) -> str:
    return "a member" if membership == "member" else membership


def _requests(status: SitesStatus) -> Iterator[tuple[str, RequestStatus]]:
    return ((site.site, each) for site in status.sites if site.status is not None for each in site.status.requests)


def _request_id(request: Request) -> str:
    request_id: str = request.path_params["request_id"]
    check_request_id(request_id)
    return request_id


def _lines(text: str) -> list[Any]:
    return [line.strip() for line in text.splitlines() if line.strip()]
