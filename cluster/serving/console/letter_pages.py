"""Receipts and letters: download a receipt, check it in place, and write the letter to the person who asked."""

from __future__ import annotations

from contextlib import suppress

from fastapi import Request
from starlette.responses import HTMLResponse, Response

from cluster.letters.evidence import in_plain_words
from cluster.letters.letter import Letter, PersonalPart, letter_about
from cluster.letters.page import letter_page, letter_policy
from cluster.letters.words import receipt_file_name
from cluster.serving.bodies import JSON
from cluster.serving.console.pages import HEADERS, Page, Pages
from cluster.serving.console.sign_in import SignedIn
from cluster.serving.service import Service
from coordinator.receipts.bundles import ReceiptBundle, ReceiptCheck, bundle_from_bytes, verify_bundle
from coordinator.receipts.openings import commitment, commitment_in
from coordinator.requests import check_request_id
from storage.errors import ObjectMissing

_PAGE = "/requests/{request_id}"


class LetterPages:
    """The pages about one request's receipt and its letter."""

    def __init__(self, pages: Pages, service: Service) -> None:
        self._pages = pages
        self._service = service

    @property
    def routes(self) -> tuple[Page, ...]:
        """Its routes."""
        return (
            Page(path=f"{_PAGE}/receipt", act=self.receipt, roles=("officer", "audit")),
            Page(path=f"{_PAGE}/check", act=self.check, roles=("officer", "audit")),
            Page(path=f"{_PAGE}/check", act=self.check_names, roles=("officer",), method="POST"),
            Page(path=f"{_PAGE}/letter", act=self.letter, roles=("officer", "audit")),
            Page(path=f"{_PAGE}/letter", act=self.personal_letter, roles=("officer",), method="POST"),
        )

    async def receipt(self, request: Request, signed_in: SignedIn) -> Response:
        """Return the receipt as a file, byte for byte what 'sisa-check' verifies."""
        request_id = request.path_params["request_id"]
        bundle = await self._pages.call(lambda: self._bundle(signed_in, request_id))
        return self._file(bundle.to_bytes(), JSON, receipt_file_name(request_id))

    async def check(self, request: Request, signed_in: SignedIn) -> Response:
        """Show whether the receipt is genuine by the keys that are published here, and what it says."""
        return await self._checked(request, signed_in, {})

    async def check_names(self, request: Request, signed_in: SignedIn) -> Response:
        """Also show whether the receipt is about the names entered, which are not kept."""
        return await self._checked(request, signed_in, dict(await self._pages.form(request, signed_in)))

    async def letter(self, request: Request, signed_in: SignedIn) -> Response:
        """Return the letter without a salutation."""
        return await self._written(request, signed_in, PersonalPart(), as_file=False)

    async def personal_letter(self, request: Request, signed_in: SignedIn) -> Response:
        """Return the letter with the officer's entries for it, which are not kept."""
        fields = await self._pages.form(request, signed_in)
        salutation, salt = fields.get("salutation", "").strip(), fields.get("salt", "").strip().lower()
        as_file = fields.get("as") == "file"
        return await self._written(request, signed_in, PersonalPart(salutation=salutation, salt=salt), as_file=as_file)

    async def _checked(self, request: Request, signed_in: SignedIn, fields: dict[str, str]) -> Response:
        request_id = request.path_params["request_id"]
        bundle, check = await self._pages.call(lambda: self._verified(signed_in, request_id))
        statement = check.statement or {}
        committed = commitment_in(statement) if check.is_valid else None
        names = [line.strip() for line in fields.get("names", "").splitlines() if line.strip()]
        salt = fields.get("salt", "").strip().lower()
        about = None if not names else committed is not None and committed == commitment(salt, subjects=names)
        return self._pages.rendered(
            request,
            signed_in,
            "check.html.jinja",
            request_id=request_id,
            path=request.url.path.removesuffix("/check"),
            check=check,
            plain=in_plain_words(statement, bundle.index) if check.is_valid else None,
            commits=committed is not None,
            about=about,
            bundle=bundle,
        )

    async def _written(
        self, request: Request, signed_in: SignedIn, personal: PersonalPart, *, as_file: bool
    ) -> Response:
        request_id = request.path_params["request_id"]
        letter = await self._pages.call(lambda: self._letter(signed_in, request_id, personal))
        page = letter_page(letter)
        if as_file:
            return self._file(page.encode(), "text/html", receipt_file_name(request_id, "html", "letter"))
        policy = f"{letter_policy()}; frame-ancestors 'none'"
        return HTMLResponse(page, headers={**HEADERS, "Content-Security-Policy": policy})

    def _letter(self, signed_in: SignedIn, request_id: str, personal: PersonalPart) -> Letter:
        check_request_id(request_id)
        status = bundle = None
        with suppress(ObjectMissing):
            status = self._service.erasures.find(signed_in.token, request_id)
        with suppress(ObjectMissing):
            bundle = self._bundle(signed_in, request_id)
        if status is None and bundle is None:
            raise ObjectMissing("there is no such request", "Check its id: requests are never deleted.")
        return letter_about(
            status,
            bundle,
            keys=self._service.registrar.public_keys() if bundle is not None else (),
            written_at=self._service.clock.now(),
            personal=personal,
            federation=self._service.specification.name,
        )

    def _bundle(self, signed_in: SignedIn, request_id: str) -> ReceiptBundle:
        check_request_id(request_id)
        return bundle_from_bytes(self._service.erasures.receipt(signed_in.token, request_id))

    def _verified(self, signed_in: SignedIn, request_id: str) -> tuple[ReceiptBundle, ReceiptCheck]:
        bundle = self._bundle(signed_in, request_id)
        return bundle, verify_bundle(bundle, self._service.registrar.public_keys())

    def _file(self, payload: bytes, media_type: str, name: str) -> Response:
        disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(payload, media_type=media_type, headers={**HEADERS, **disposition})
