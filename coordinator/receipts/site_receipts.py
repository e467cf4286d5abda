"""Statements of a federation of several sites about an erasure at one site: which receipt the site issued. Pure.

The site's own receipt states what was done. It is signed with the site's keys and is in the site's log. The federation
states that it has seen this receipt, so that neither statement can be replaced later without contradicting the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from coordinator.receipts.bundles import ReceiptBundle, statement_of
from coordinator.receipts.kinds import SITE_PREDICATE_TYPE
from storage.digests import Sha256, sha256

FORMAT_VERSION: Final = 1

PROVES: Final = (
    "The federation was given this receipt by the site, of which the digest is stated here, at this place of the "
    "federation's append-only log. What the receipt proves, it says itself."
)
DOES_NOT_PROVE: Final = (
    "It does not prove what was done at the site: the federation cannot look into the site's store, and does not."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteEvidence:
    """A site's receipt, as the federation states it. Implements ``coordinator.receipts.evidence.Evidence``."""

    federation: str
    site: str
    request: str
    """The request's id at the site."""
    digest: Sha256
    """The request digest in the site's receipt."""
    receipt: Sha256
    """Digest of the site's whole receipt bundle."""
    index: int
    """Its index in the site's log."""
    checkpoint: str
    """The checkpoint of the site's log."""

    @classmethod
    def of(cls, federation: str, site: str, bundle: ReceiptBundle) -> SiteEvidence:
        """Return the evidence for ``bundle``. Raises ``Corrupt`` when it is not a receipt."""
        request = statement_of(bundle)["predicate"]["request"]
        return cls(
            federation=federation,
            site=site,
            request=request["id"],
            digest=request["digest"],
            receipt=sha256(bundle.to_bytes()),
            index=bundle.index,
            checkpoint=bundle.checkpoint,
        )

    @property
    def request_id(self) -> str:
        """The request's id in the federation: two sites may use the same id."""
        return request_at(self.site, self.request)

    @property
    def request_digest(self) -> Sha256:
        """See ``Evidence.request_digest``."""
        return self.digest

    @property
    def predicate_type(self) -> str:
        """See ``Evidence.predicate_type``."""
        return SITE_PREDICATE_TYPE

    def predicate(self, issued_at: str) -> dict[str, Any]:
        """See ``Evidence.predicate``."""
        return {
            "format_version": FORMAT_VERSION,
            "proves": PROVES,
            "does_not_prove": DOES_NOT_PROVE,
            "issued_at": issued_at,
            "federation": self.federation,
            "request": {"id": self.request_id, "digest": self.digest},
            "site": {
                "name": self.site,
                "request": self.request,
                "receipt": self.receipt,
                "index": self.index,
                "checkpoint": self.checkpoint,
            },
        }


def request_at(site: str, request_id: str) -> str:
    """Return the federation's name for a site's request.

    >>> request_at("north", "er-1")
    'north:er-1'
    """
    return f"{site}:{request_id}"
