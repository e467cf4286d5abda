"""People: what the federation holds about names that an officer enters, and requests for them.

No name is in an address.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fastapi import Request
from starlette.responses import Response

from cluster.results.federation import Search, SubjectFound
from cluster.serving.access_log import note
from cluster.serving.console.pages import Page, Pages
from cluster.serving.console.sign_in import SignedIn
from cluster.serving.http_errors import Refused, problem_of, too_large
from cluster.serving.schemas import KEY, MOST_LOOKED_UP
from cluster.serving.service import Service
from cluster.writer.drafting import new_request_id
from storage.errors import Conflict, Invalid
from storage.objects import new_name

_REFERENCE: Final = re.compile(KEY["schema"]["pattern"])  # type: ignore[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class LookedUp:
    """What a look-up shows of one name."""

    name: str
    held: bool
    found: SubjectFound | None
    """None: too many names were looked up to say this for each."""


class PeoplePages:
    """The pages that take people's names: names are only in the body of a form and in the answer to it."""

    def __init__(self, pages: Pages, service: Service) -> None:
        self._pages = pages
        self._service = service

    @property
    def routes(self) -> tuple[Page, ...]:
        """Its routes."""
        return tuple(
            Page(path=path, act=act, roles=("officer",), method="POST")
            for path, act in (
                ("/requests/look-up", self.look_up),
                ("/requests", self.submit),
                ("/requests/statement", self.submit),
                ("/requests/readmit", self.readmit),
                ("/trace", self.trace),
            )
        )

    async def look_up(self, request: Request, signed_in: SignedIn) -> Response:
        """Show whether and what is held of each name, similar spellings, and what erasing them would cost."""
        names = await self._named(request, signed_in, await self._pages.form(request, signed_in), is_look_up=True)
        return await self._looked_up(request, signed_in, names)

    async def _looked_up(
        self, request: Request, signed_in: SignedIn, names: list[str], problem: Invalid | Conflict | None = None
    ) -> Response:
        """Return the page about the names; with the ``problem`` of a request for them, to be corrected there."""
        found, search = await self._pages.call(lambda: self._searched(names))
        return self._pages.rendered(
            request,
            signed_in,
            "people.html.jinja",
            200 if problem is None else problem_of(problem).status,
            problem=problem,
            names="\n".join(names),
            people=found,
            search=search,
            similar=search.similar,
            held=sum(each.held for each in found),
            erased=sum(each.found is not None and each.found.erased for each in found),
            request_id=new_request_id(new_name),
            most_traced=min(MOST_LOOKED_UP, self._service.serve.max_names),
        )

    async def submit(self, request: Request, signed_in: SignedIn) -> Response:
        """Submit an erasure request for the names; if it finds nobody, it ends with a signed statement of that."""
        fields = await self._pages.form(request, signed_in)
        names = await self._named(request, signed_in, fields)
        erasures = self._service.erasures
        try:
            reference = _reference(fields)
            answer, is_new = await self._pages.submit(
                lambda: erasures.submit(
                    signed_in.token,
                    names,
                    (),
                    reference,
                    fields.get("hold", "").strip(),
                    include_similar=fields.get("include_similar") == "yes",
                )
            )
        except (Invalid, Conflict) as error:
            note(request.scope, kind=error.kind)
            self._service.gate.count_lookup(signed_in.token)  # the page says again what is held
            return await self._looked_up(request, signed_in, names, error)
        note(request.scope, request_id=answer.request_id)
        return self._pages.rendered(request, signed_in, "submitted.html.jinja", answer=answer, is_new=is_new)

    async def readmit(self, request: Request, signed_in: SignedIn) -> Response:
        """Let erased people come back, for a reason that is on record."""
        fields = await self._pages.form(request, signed_in)
        names = await self._named(request, signed_in, fields)
        reference, reason = _reference(fields), fields.get("reason", "").strip()
        answer = await self._pages.submit(lambda: self._service.erasures.readmit(names, reason, reference))
        note(request.scope, request_id=answer.request_id)
        return self._pages.rendered(request, signed_in, "readmitted.html.jinja", answer=answer)

    async def trace(self, request: Request, signed_in: SignedIn) -> Response:
        """Show where people's data are, and which generations may have answered with them."""
        names = await self._named(request, signed_in, await self._pages.form(request, signed_in), is_look_up=True)
        most = min(MOST_LOOKED_UP, self._service.serve.max_names)
        if len(names) > most:
            raise Refused(too_large(f"more than {most:,} names are to be traced at once", "Trace fewer at a time."))
        found = await self._pages.call(lambda: self._service.standing.trace(names))
        people = list(zip(names, found.subjects, strict=True))
        together = found.together
        return self._pages.rendered(
            request, signed_in, "trace.html.jinja", names="\n".join(names), people=people, together=together
        )

    async def _named(
        self, request: Request, signed_in: SignedIn, fields: Mapping[str, str], *, is_look_up: bool = False
    ) -> list[str]:
        """Return the names in a form, one from each line, each once; a look-up is counted, as over the API.

        Raises ``Invalid`` without a name, ``Refused`` when there are too many, or after too many look-ups.
        """
        if is_look_up:
            self._service.gate.count_lookup(signed_in.token)
        lines = (line.strip() for line in fields.get("names", "").splitlines())
        names = list(dict.fromkeys(line for line in lines if line))
        note(request.scope, names=len(names))
        if not names:
            raise Invalid("no name was entered", "Enter at least one name, each on a line of its own.")
        if len(names) > (most := self._service.serve.max_names):
            raise Refused(too_large(f"more than {most:,} names were entered", "Send several requests."))
        return names

    def _searched(self, names: list[str]) -> tuple[list[LookedUp], Search]:
        """Return what is held about each name, and about all together; for very many names, only about all together."""
        self._service.standing.trained()
        search = self._service.standing.reading.search(names, ())
        unknown = set(search.unknown_subjects)
        each: list[SubjectFound | None] = [None] * len(names)
        if len(names) <= MOST_LOOKED_UP:
            each = list(self._service.standing.lookup(names))
        return [
            LookedUp(name=name, held=number not in unknown, found=found)
            for number, (name, found) in enumerate(zip(names, each, strict=True))
        ], search


def _reference(fields: Mapping[str, str]) -> str | None:
    """Return the id that the officer gave a request, or else the one that the form was made with.

    Since each form has an id, a form that is sent twice is one request. Raises ``Invalid``.
    """
    reference = fields.get("reference", "").strip() or fields.get("request_id", "")
    if reference and not _REFERENCE.fullmatch(reference):
        raise Invalid(
            "a reference is 1 to 200 of A-Z, a-z, 0-9, '.', '_', ':', '-', a letter or digit first",
            "Choose another, such as the number of a ticket, or leave it out. It must not be a name: it is kept.",
        )
    return reference or None
