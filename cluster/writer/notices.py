"""Notices of requests that the witness keeps, so that a federation restored from a backup can repeat later requests.

A notice has the request and the keyed digests that it names, encrypted under a key derived from the partition key. The
witness learns only how many requests there are and which of them are held or cancelled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from coordinator.decisions.events import ErasureAccepted
from coordinator.engine.codec import decode_event, encode_event
from coordinator.requests import ErasureRequest, InlineDigests, RequestState
from shards.routing import PartitionKey
from shards.tombstones import DigestSet
from storage.digests import canonical_json
from storage.encodings import from_base64, to_base64
from storage.encryption.cipher import decrypt, encrypt, fresh_nonce
from storage.errors import Corrupt, SisaError
from storage.objects import ObjectKey
from storage.transparency.witness import Witness, notice_key

ASKED: Final = "asked"
HELD: Final = "held"
CANCELLED: Final = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessNotice:
    """A request as the witness knows it."""

    request: ErasureRequest
    """The request as it was accepted."""
    names: DigestSet
    stands: str
    """``ASKED``, ``HELD`` or ``CANCELLED``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessNotices:
    """Notices of one federation."""

    witness: Witness
    federation: str
    """Its id, which new notices carry."""
    key: PartitionKey
    tell: Callable[[str], None]

    def accepted(self, request: ErasureRequest, names: DigestSet) -> None:
        """Send the request to the witness, before it is acknowledged."""
        event = ErasureAccepted(request=replace(request, names=InlineDigests.of(names)))
        place = notice_key(self.federation, request.request_id)
        sealed = encrypt(canonical_json(encode_event(event)), place, self._secret, fresh_nonce())
        stands = HELD if request.pause else ASKED
        self._try(
            lambda: self.witness.note(place, lambda found: found or {"sealed": to_base64(sealed), "stands": stands})
        )

    def ruled(self, request: ErasureRequest) -> None:
        """Record with the witness that the request is held, released or cancelled."""
        is_cancelled = request.state is RequestState.CANCELLED
        stands = CANCELLED if is_cancelled else HELD if request.pause else ASKED
        place = notice_key(self.federation, request.request_id)
        self._try(lambda: self.witness.note(place, lambda found: found and {**found, "stands": stands}))

    def noted(self, federations: Iterable[str]) -> list[WitnessNotice]:
        """Return the witness's notices of these federations' requests, in the order in which they were received.

        Raises ``Corrupt`` when a notice cannot be opened with this partition key, and what its store raises.
        """
        found = [self._opened(place, fields) for each in federations for place, fields in self.witness.noted(each)]
        return sorted(found, key=lambda notice: (notice.request.received_at, notice.request.request_id))

    def _opened(self, place: ObjectKey, fields: Any) -> WitnessNotice:
        event = decode_event(json.loads(decrypt(from_base64(fields["sealed"]), place, self._secret)))
        if not isinstance(event, ErasureAccepted) or not isinstance(event.request.names, InlineDigests):
            raise Corrupt(
                "a notice of the witness does not hold an accepted request", "Keep the witness as it is.", key=place
            )
        return WitnessNotice(request=event.request, names=event.request.names.digests(), stands=fields["stands"])

    @property
    def _secret(self) -> bytes:
        return hashlib.blake2b(self.key, digest_size=32, person=b"sisa/notices").digest()

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except SisaError as error:  # the request is carried out without the witness
            self.tell(f"the witness did not take the notice of a request: {error.message}")
