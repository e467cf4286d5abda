"""Requests: who asked to be erased, and how that stands."""

from __future__ import annotations

from fastapi import Request
from starlette.responses import Response

from cluster.serving.console.pages import Page, Pages
from cluster.serving.console.sign_in import SignedIn
from cluster.serving.service import Service


class RequestPages:
    """The pages about erasure requests."""

    def __init__(self, pages: Pages, service: Service) -> None:
        self._pages = pages
        self._service = service

    @property
    def routes(self) -> tuple[Page, ...]:
        """Its routes."""
        return (Page(path="/requests", act=self.listed, roles=("officer", "audit")),)

    async def listed(self, request: Request, signed_in: SignedIn) -> Response:
        """Show the requests."""
        return self._pages.rendered(request, signed_in, "requests.html.jinja")
