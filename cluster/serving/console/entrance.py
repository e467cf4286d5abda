"""Signing in and out of the console, and the files that its pages load."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from fastapi import Request
from starlette.responses import Response

from cluster.serving.console.pages import HEADERS, PEOPLE, OpenPage, Page, Pages
from cluster.serving.console.sign_in import SignedIn, check_origin
from cluster.serving.http_errors import HttpProblem, Refused
from storage.errors import SisaError

_TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_FOREVER: Final = "public, max-age=31536000, immutable"
"""Browsers may cache static files only: each address has fixed content, without personal data."""


class StaticFiles:
    """The files that pages load, read once; their common version is a digest of all of them."""

    def __init__(self) -> None:
        files = sorted((Path(__file__).parent / "static").glob("*.*"))
        self._contents = {file.name: file.read_bytes() for file in files if file.suffix in _TYPES}
        whole = b"".join(name.encode() + b"\0" + content for name, content in self._contents.items())
        self.version = hashlib.sha256(whole).hexdigest()[:12]

    async def answer(self, request: Request) -> Response:
        """Return a file. Raises ``Refused`` with 404 when there is no such file of this version."""
        name = request.path_params["name"]
        if request.path_params["version"] != self.version or name not in self._contents:
            raise _nothing()
        headers = {**HEADERS, "Cache-Control": _FOREVER}
        return Response(self._contents[name], media_type=_TYPES[Path(name).suffix], headers=headers)


class Entrance:
    """The pages that need no sign-in, and the one that ends a sign-in."""

    def __init__(self, pages: Pages, files: StaticFiles) -> None:
        self._pages = pages
        self._files = files

    @property
    def elsewhere(self) -> OpenPage:
        """The route for all paths that no page has."""
        return OpenPage(path="/{path:path}", act=self.missing)

    @property
    def routes(self) -> tuple[Page | OpenPage, ...]:
        """Its routes."""
        return (
            OpenPage(path="", act=self.start),
            OpenPage(path="/sign-in", act=self.ask),
            OpenPage(path="/sign-in", act=self.enter, method="POST", lane=self._pages.entries),
            Page(path="/sign-out", act=self.leave, roles=PEOPLE, method="POST"),
            OpenPage(path="/static/{version}/{name}", act=self._files.answer),
        )

    async def missing(self, request: Request) -> Response:
        """Raise ``Refused`` with 404."""
        del request
        raise _nothing()

    async def start(self, request: Request) -> Response:
        """Send a signed-in user to their first page, and others to the sign-in form."""
        return self._pages.to(request, self._pages.first(await self._pages.signed_in(request, *PEOPLE)))

    async def ask(self, request: Request) -> Response:
        """Show the form that takes a token; send a signed-in user to their first page."""
        try:
            return await self.start(request)
        except (Refused, SisaError):
            return self._pages.rendered(request, None, "sign_in.html.jinja", message="", remedy="")

    async def enter(self, request: Request) -> Response:
        """Sign a user in with the token in a form, and send the browser to their first page."""
        pages = self._pages
        check_origin(request.headers)
        token = (await pages.fields(request, pages.entries, "")).get("token", "").strip()
        try:
            record = await pages.endpoints.admit_by(request, {"authorization": f"Bearer {token}"}, *PEOPLE)
        except Refused as refused:
            problem = refused.problem
            if problem.status not in {401, 403}:
                raise
            facts = {"message": problem.message, "remedy": problem.remedy}
            return pages.rendered(request, None, "sign_in.html.jinja", problem.status, **facts)
        cookie = await pages.call(lambda: pages.sign_ins.seal(token))
        known = await pages.call(lambda: pages.sign_ins.open(cookie))
        answer = pages.to(request, pages.first(SignedIn(token=record, csrf=known.csrf, ends_at=known.ends_at)))
        pages.remember(request, answer, cookie)
        return answer

    async def leave(self, request: Request, signed_in: SignedIn) -> Response:
        """End the sign-in in this browser."""
        await self._pages.form(request, signed_in)
        answer = self._pages.to(request, "/sign-in")
        self._pages.remember(request, answer, "")
        return answer


def _nothing() -> Refused:
    return Refused(
        HttpProblem(
            status=404, kind="missing", message="there is no such page", remedy="Use the menu, or check the link."
        )
    )
