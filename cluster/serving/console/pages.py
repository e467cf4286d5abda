"""What all pages of the console share: who is signed in, the forms that pages send, templates, and errors as pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from urllib.parse import parse_qsl

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse, Response

from cluster.serving.access_log import note
from cluster.serving.bodies import media_type_of
from cluster.serving.console import wording
from cluster.serving.console.sign_in import (
    COOKIE,
    SignedIn,
    SignIns,
    check_origin,
    check_secret,
    is_secure,
    signed_out,
)
from cluster.serving.endpoints import Behind, Endpoints
from cluster.serving.http_errors import HttpProblem, Refused, internal, problem_of, unreadable
from cluster.serving.intake import Lane, Room
from cluster.tokens import Role
from storage.errors import SisaError

PREFIX: Final = "/console"
FORM: Final = "application/x-www-form-urlencoded"
PEOPLE: Final[tuple[Role, ...]] = ("officer", "audit", "predict")
"""The roles of people who use the console; the other two are for programs."""

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # 'no-referrer' would make browsers hide from where they send forms
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""On every page, so that nothing in a name, a reason or a site's answer can run, and no other page can frame it."""

SIGN_INS: Final = Room(requests=64, bodies=32, token_bodies=32)
_SIGN_IN_BYTES: Final = 8 * 1024
_FIELDS: Final = 200

_Result = TypeVar("_Result")

Answered = Awaitable[Response]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A route of the console for people who are signed in."""

    path: str
    """Beneath ``PREFIX``."""
    act: Callable[[Request, SignedIn], Answered]
    roles: tuple[Role, ...]
    method: Literal["GET", "POST"] = "GET"
    lane: Lane | None = None
    """The class of its requests, if it has one of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPage:
    """A route of the console that needs no sign-in."""

    path: str
    act: Callable[[Request], Answered]
    method: Literal["GET", "POST"] = "GET"
    lane: Lane | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry of the menu."""

    path: str
    label: str
    roles: tuple[Role, ...]


class Pages:
    """One replica's console, as its pages use it. Belongs to one event loop."""

    def __init__(self, endpoints: Endpoints, behind: Behind, name: str, menu: tuple[Entry, ...], version: str) -> None:
        """``name`` is the federation's; ``version`` is part of the addresses of static files."""
        self.endpoints = endpoints
        self.sign_ins = SignIns(behind.store, behind.clock)
        self.entries = Lane(
            "sign-ins",
            SIGN_INS,
            replace(behind.serve, max_body_bytes=_SIGN_IN_BYTES),
        )
        """Separate from other requests: their callers are not known yet."""
        self._clock = behind.clock
        self._gate = behind.gate
        self._name = name
        self._menu = menu
        self._version = version
        self._templates = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        for shown in (wording.moment, wording.day, wording.number, wording.plural, wording.sized, wording.share):
            self._templates.filters[shown.__name__] = shown

    async def call(self, act: Callable[[], _Result]) -> _Result:
        """See ``Endpoints.call``."""
        return await self.endpoints.call(act)

    async def submit(self, act: Callable[[], _Result]) -> _Result:
        """See ``Endpoints.submit``."""
        return await self.endpoints.submit(act)

    def address(self, request: Request, path: str = "") -> str:
        """Return the path of a page, with the prefix under which this server is reached."""
        return f"{request.scope.get('root_path', '').rstrip('/')}{PREFIX}{path}"

    async def signed_in(self, request: Request, *roles: Role) -> SignedIn:
        """Return who is signed in, after the gate has admitted the token behind the cookie.

        Raises ``Refused``: 401 when nobody is signed in any longer, and as ``Gate.admit`` does.
        """
        opened = await self.endpoints.at_gate(lambda: self.sign_ins.open(request.cookies.get(COOKIE, "")))
        record = await self.endpoints.admit_by(request, {"authorization": f"Bearer {opened.token}"}, *roles)
        return SignedIn(token=record, csrf=opened.csrf, ends_at=opened.ends_at)

    async def check_still(self, signed_in: SignedIn) -> None:
        """Raise ``Refused`` with 401 once the sign-in or its token is over; not counted among the token's requests."""
        if signed_in.ends_at <= self._clock.now():
            raise signed_out("your sign-in is over")
        await self.endpoints.at_gate(lambda: self._gate.check_still(signed_in.token))

    async def form(self, request: Request, signed_in: SignedIn) -> Mapping[str, str]:
        """Return the fields of a form that a page of this sign-in has sent; its secret is not among them.

        Raises ``Refused``: 403 when it is not such a form, 400 when it cannot be read, and as ``Lane.body`` does.
        """
        check_origin(request.headers)
        fields = await self.fields(request, self.endpoints.changes, signed_in.token.token_id)
        check_secret(fields.pop("csrf", request.headers.get("x-csrf-token", "")), signed_in.csrf)
        return fields

    async def fields(self, request: Request, lane: Lane, caller: str) -> dict[str, str]:
        """Return the fields of a form's body, received as one of ``caller`` in ``lane``. Raises as ``form`` does."""
        media_type_of(request.headers, (FORM,))
        async with lane.body(request, caller) as payload:
            return await lane.handle(len(payload), lambda: _fields(payload))

    def rendered(
        self, request: Request, signed_in: SignedIn | None, template: str, status: int = 200, **facts: Any
    ) -> Response:
        """Return the page: ``template`` rendered with ``facts``."""
        role = signed_in.token.role if signed_in else None
        base = self.address(request)
        text = self.part(
            template,
            base=base,
            static=f"{base}/static/{self._version}",
            federation=self._name,
            me=signed_in,
            menu=[entry for entry in self._menu if role in entry.roles],
            here=request.url.path.removeprefix(base),
            now=self._clock.now().isoformat(),
            **facts,
        )
        return HTMLResponse(text, status_code=status, headers=HEADERS)

    def part(self, template: str, **facts: Any) -> str:
        """Render ``template`` with ``facts``, for a part of a page that looks the same to everybody."""
        return self._templates.get_template(template).render(**facts)

    def to(self, request: Request, path: str) -> Response:
        """Return the answer that sends a browser to a page, after a form."""
        return RedirectResponse(self.address(request, path), status_code=303, headers=HEADERS)

    def first(self, signed_in: SignedIn) -> str:
        """Return the path of the first page that the user may see."""
        return next(entry.path for entry in self._menu if signed_in.token.role in entry.roles)

    def remember(self, request: Request, answer: Response, cookie: str) -> None:
        """Put a sign-in's cookie on the answer; an empty one ends it.

        It lasts until the browser closes or the sign-in ends.
        """
        answer.set_cookie(
            COOKIE,
            cookie,
            max_age=None if cookie else 0,
            path=self.address(request),
            secure=is_secure(request.url.scheme, request.headers),
            httponly=True,
            samesite="strict",
        )

    def guarded(self, page: Page | OpenPage) -> Callable[[Request], Answered]:
        """Return the page's endpoint: it lets in those whom the page is for, and answers errors with a page."""

        async def endpoint(request: Request) -> Response:
            signed_in = None
            try:
                if isinstance(page, OpenPage):
                    return await page.act(request)
                signed_in = await self.signed_in(request, *page.roles)
                return await page.act(request, signed_in)
            except Refused as refused:
                problem = refused.problem
            except SisaError as error:
                problem = problem_of(error)
            except Exception:  # noqa: BLE001  its text may quote the request
                problem = internal()
            note(request.scope, kind=problem.kind)
            return await self._refused(request, signed_in, problem)

        return endpoint

    async def _refused(self, request: Request, signed_in: SignedIn | None, problem: HttpProblem) -> Response:
        if problem.status == 401:
            return self._to_sign_in(request, problem)
        if signed_in is None:  # the menu is for those who may see some page, even if not this one
            with suppress(Refused, SisaError):
                signed_in = await self.signed_in(request, *PEOPLE)
        answer = self.rendered(request, signed_in, "error.html.jinja", problem.status, problem=problem)
        if wait := problem.headers.get("Retry-After"):
            answer.headers["Retry-After"] = wait
        return answer

    def _to_sign_in(self, request: Request, problem: HttpProblem) -> Response:
        if request.headers.get("hx-request"):
            return Response(status_code=401, headers={**HEADERS, "HX-Redirect": self.address(request, "/sign-in")})
        if request.headers.get("accept") == "text/event-stream":
            return Response(status_code=401, headers=HEADERS)
        message = problem.message if request.cookies.get(COOKIE) else ""
        answer = self.rendered(request, None, "sign_in.html.jinja", 401, message=message, remedy=problem.remedy)
        self.remember(request, answer, "")
        return answer


def _fields(payload: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            payload.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(payload),
            errors="strict",
            max_num_fields=_FIELDS,
        )
    except ValueError:
        raise unreadable("the form cannot be read", "Open the page again, and send the form from there.") from None
    if len(dict(pairs)) != len(pairs):
        raise unreadable("the form has a field twice", "Open the page again, and send the form from there.")
    return dict(pairs)
