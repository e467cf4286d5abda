"""Requests: their list and state, and what an officer may do about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from fastapi import Request
from starlette.responses import Response

from cluster.serving.access_log import note
from cluster.serving.console.answers import KINDS, STATES, STEPS, page_answer
from cluster.serving.console.letter_pages import LetterPages
from cluster.serving.console.listing import GROUPS, RequestListing
from cluster.serving.console.pages import Answered, Page, Pages
from cluster.serving.console.people_pages import PeoplePages
from cluster.serving.console.sign_in import SignedIn
from cluster.serving.console.wording import day
from cluster.serving.endpoints import whole_number
from cluster.serving.service import Service
from coordinator.interventions import Cancel, Extend, Hold, Intervention, Release
from coordinator.requests import check_request_id
from coordinator.status import RequestStatus
from storage.errors import Invalid, ObjectMissing

_PAGE = "/requests/{request_id}"


class RequestPages:
    """The pages about erasure requests."""

    def __init__(self, pages: Pages, service: Service) -> None:
        self._pages = pages
        self._service = service
        self._listing = RequestListing(service.store, service.standing.current)
        self._people = PeoplePages(pages, service)
        self._letters = LetterPages(pages, service)

    @property
    def routes(self) -> tuple[Page, ...]:
        """Its routes; those with a fixed second part come before those of single requests."""
        changes = (("hold", _hold), ("release", _release), ("extend", _extend), ("cancel", _cancel))
        return (
            Page(path="/requests", act=self.listed, roles=("officer", "audit")),
            *self._people.routes,
            Page(path=_PAGE, act=self.shown, roles=("officer", "audit")),
            Page(path=f"{_PAGE}/progress", act=self.progress, roles=("officer", "audit")),
            *(
                Page(path=f"{_PAGE}/{name}", act=self._changing(wanted), roles=("officer",), method="POST")
                for name, wanted in changes
            ),
            *self._letters.routes,
        )

    async def listed(self, request: Request, signed_in: SignedIn) -> Response:
        """Show the requests, a page of them at a time."""
        number, group = whole_number(request, "page"), request.query_params.get("state", "all")
        now = self._service.clock.now()
        page = await self._pages.call(lambda: self._listing.page(group, number, now))
        return self._pages.rendered(
            request, signed_in, "requests.html.jinja", page=page, groups=GROUPS, states=STATES, kinds=KINDS
        )

    async def shown(self, request: Request, signed_in: SignedIn) -> Response:
        """Show one request: whether the data is gone, what happened when, and what may be done about it."""
        request_id = request.path_params["request_id"]
        try:
            found = await self._pages.call(lambda: self._find(signed_in, request_id))
        except ObjectMissing:
            if (readmission := await self._pages.call(lambda: self._readmission(signed_in, request_id))) is None:
                raise
            facts: dict[str, Any] = {
                "readmission": readmission,
                "path": self._path(request, request_id),
                "has_receipt": True,
            }
            return self._pages.rendered(request, signed_in, "readmission.html.jinja", **facts)
        facts = self._facts(request, found)
        most_days = self._service.specification.erasure.extension_days
        return self._pages.rendered(request, signed_in, "request.html.jinja", most_days=most_days, **facts)

    async def progress(self, request: Request, signed_in: SignedIn) -> Response:
        """Return the part of a request's page that changes while it is carried out."""
        found = await self._pages.call(lambda: self._find(signed_in, request.path_params["request_id"]))
        return self._pages.rendered(request, signed_in, "request_state.html.jinja", **self._facts(request, found))

    def _changing(self, wanted: Callable[[Mapping[str, str]], Intervention]) -> Callable[[Request, SignedIn], Answered]:
        """Return the action that has the coordinator change a request as a form of its page says, and then shows it."""

        async def act(request: Request, signed_in: SignedIn) -> Response:
            request_id = request.path_params["request_id"]
            check_request_id(request_id)
            intervention = wanted(await self._pages.form(request, signed_in))
            erasures = self._service.erasures
            await self._pages.submit(lambda: erasures.intervene(signed_in.token, request_id, intervention))
            note(request.scope, request_id=request_id)
            return self._pages.to(request, f"/requests/{quote(request_id, safe='')}")

        return act

    def _find(self, signed_in: SignedIn, request_id: str) -> RequestStatus:
        check_request_id(request_id)
        return self._service.erasures.find(signed_in.token, request_id)

    def _readmission(self, signed_in: SignedIn, request_id: str) -> object | None:
        return self._service.erasures.readmission(signed_in.token, request_id)

    def _path(self, request: Request, request_id: str) -> str:
        return self._pages.address(request, f"/requests/{quote(request_id, safe='')}")

    def _facts(self, request: Request, found: RequestStatus) -> dict[str, Any]:
        """Return what templates need to show a request."""
        is_open = found.state not in ("complete", "refused", "cancelled")
        untouched = is_open and found.stage == "accepted"
        return {
            "asked": found,
            "path": self._path(request, found.request_id),
            "answer": page_answer(found),
            "state": STATES[found.state],
            "kind": KINDS[found.kind],
            "events": _events(found),
            "is_open": is_open,
            "untouched": untouched,
            "may_hold": untouched and not found.held,
            "may_cancel": untouched,
            "may_extend": is_open and not found.extensions and not found.overdue,
            "has_receipt": found.state in ("complete", "refused"),
        }


def _events(found: RequestStatus) -> list[tuple[str, str]]:
    """Return what happened to a request and when, earliest first; events of the same moment keep their order."""
    times = {"accepted": found.received_at, **found.times}
    events = [(times[name], text) for name, text in STEPS.items() if name in times]
    events += [
        (each.at, f"The due date was moved, from {day(each.previous_due_at)}. Reason: {each.reason}")
        for each in found.extensions
    ]
    for pause in found.holds:
        events.append((pause.held_at, f"Put on hold. Reason: {pause.reason}"))
        events.append((pause.released_at, "Released"))
    if found.held:
        events.append((found.held_at, f"Put on hold. Reason: {found.held}"))
    if found.failed_at:
        events.append((found.failed_at, "An attempt failed; it will be repeated"))
    return sorted(events, key=lambda event: event[0])


def _hold(fields: Mapping[str, str]) -> Intervention:
    return Hold(reason=fields.get("reason", "").strip())


def _release(fields: Mapping[str, str]) -> Intervention:
    del fields
    return Release()


def _extend(fields: Mapping[str, str]) -> Intervention:
    days = fields.get("days", "")
    if not (days.isascii() and days.isdecimal() and len(days) <= 4):
        raise Invalid("the number of days is not a whole number", "Write how many days later it is to be due.")
    return Extend(days=int(days), reason=fields.get("reason", "").strip())


def _cancel(fields: Mapping[str, str]) -> Intervention:
    return Cancel(reason=fields.get("reason", "").strip())
