"""What ``sisa report`` writes and prints: the letter to the person who asked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.letters.letter import Letter, PersonalPart, letter_about
from cluster.letters.page import letter_page
from coordinator.receipts.bundles import ReceiptBundle, bundle_from_bytes
from coordinator.status import RequestStatus
from deploy.views.erasure import request_if_known
from deploy.views.output import ExitCode, Outcome, Problem
from storage.errors import Corrupt, Invalid, ObjectMissing
from storage.transparency.keys import PublicKey

if TYPE_CHECKING:
    from cluster.client import Client
    from cluster.federation import Federation
    from cluster.sites.federation import SiteFederation


def letter_outcome(
    federation: Federation, request_id: str, out: Path, personal: PersonalPart, written_at: datetime
) -> Outcome:
    """Write the letter about a request or a readmission; its receipt is checked with the federation's own keys."""
    request, bundle = request_if_known(federation, request_id), None
    keys: tuple[PublicKey, ...] = ()
    with suppress(ObjectMissing):
        bundle, keys = federation.registrar.find(request_id), federation.registrar.public_keys()
    name = federation.specification.name
    return _written(out, request, bundle, keys=keys, written_at=written_at, personal=personal, federation=name)


def remote_letter(
    client: Client,
    request_id: str,
    out: Path,
    personal: PersonalPart,
    written_at: datetime,
    site: str | None = None,
) -> Outcome:
    """Write the letter about a request that a server has; its receipt is checked with the keys in it alone."""
    request = bundle = None
    with suppress(ObjectMissing):
        request = client.request(request_id, site)
    with suppress(ObjectMissing):
        bundle = bundle_from_bytes(client.receipt(request_id, site))
    return _written(out, request, bundle, keys=(), written_at=written_at, personal=personal, federation="")


def letter_at_sites(
    federation: SiteFederation, request_id: str, out: Path, personal: PersonalPart, written_at: datetime
) -> Outcome:
    """Write the letter about a request to one of several sites, with the receipt of the site that carried it out."""
    site, request = federation.request(request_id)
    bundle = None
    with suppress(ObjectMissing):
        bundle = federation.receipt(request_id, site).at_site
    return _written(out, request, bundle, keys=(), written_at=written_at, personal=personal, federation=site)


def _written(
    out: Path,
    request: RequestStatus | None,
    bundle: ReceiptBundle | None,
    *,
    keys: Sequence[PublicKey],
    written_at: datetime,
    personal: PersonalPart,
    federation: str,
) -> Outcome:
    if out.is_dir():
        raise Invalid("the letter is to be written to a folder", "Name a file, such as letter.html.", file=str(out))
    try:
        letter = letter_about(
            request, bundle, keys=keys, written_at=written_at, personal=personal, federation=federation
        )
    except Corrupt as error:
        problem = Problem(kind="proof_failed", message=error.message, remedy=error.remedy)
        return Outcome(problem=problem, code=ExitCode.PROOF_FAILED)
    unfinished = out.with_name(f".{out.name}.partial")
    unfinished.write_text(letter_page(letter), encoding="utf-8", newline="\n")
    unfinished.replace(out)
    data = {
        "request_id": letter.request_id,
        "state": "readmitted" if request is None else request.state,
        "out": str(out),
        "answer": letter.answer.verdict,
        "receipt": None if letter.receipt is None else letter.receipt.file,
        "salutation": bool(personal.salutation),
    }
    return Outcome(data=data, text=_text(letter, out))


def _text(letter: Letter, out: Path) -> str:
    """Return what is to be done with the letter."""
    lines = [f"wrote {out}: {letter.answer.verdict}"]
    if letter.receipt is not None:
        lines.append(f"send it with the receipt: sisa receipt {letter.request_id} > {letter.receipt.file}")
        if letter.receipt.commits_to_names and not letter.personal.salt:
            lines.append("and with the request's salt, if you have it: it shows whom the receipt is about")
    return "\n".join(lines)
