"""Which objects of a federation's store a backup holds, and in which of its places.

keys apart    the keyrings, the private keys that sign, the partition key: with them the rest can be read
left out      where a coordinator is, the API's tokens (revoked ones would be valid again), sign-ins,
              the last verification (of this store, not of the copy)
the rest      encrypted objects, state, receipts, log: useless without the keys
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cluster.coordinator_actor.ownership import PROOF_KEY
from cluster.coordinator_actor.record import RECORD_KEY, RELEASES_KEY
from cluster.tokens import SIGN_IN_KEY, TOKENS_KEY
from cluster.writer.identity import KEY_OBJECT
from cluster.writer.last_verification import VERIFICATION_KEY
from coordinator.receipts.rollback import RESTORING_KEY
from storage.encryption.keyring_location import IDENTITY, KEYRINGS
from storage.errors import Conflict, Invalid
from storage.objects import ObjectKey, ObjectStore
from storage.stores.local import LocalStore
from storage.stores.probe import PROBE_PREFIX
from storage.transparency.keys import SIGNING

LEFT_OUT: Final = frozenset(
    {RECORD_KEY, RELEASES_KEY, PROOF_KEY, SIGN_IN_KEY, TOKENS_KEY, RESTORING_KEY, VERIFICATION_KEY}
)


def is_secret(key: ObjectKey) -> bool:
    """Return whether an object of the store is a key or holds keys."""
    return key == KEY_OBJECT or key.startswith(SIGNING) or (key.startswith(f"{KEYRINGS}/") and key != IDENTITY)


def is_content(key: ObjectKey) -> bool:
    """Return whether an object of the store goes to the place of the backup itself."""
    return not is_secret(key) and key not in LEFT_OUT and not key.startswith(PROBE_PREFIX)


@dataclass(frozen=True, slots=True)
class Placed:
    """A store, and what errors call it."""

    store: ObjectStore
    word: str


def refuse_overlap(*places: Placed) -> None:
    """Raise ``Invalid`` when two of the places are the same, or one contains the other."""
    for number, one in enumerate(places):
        for other in places[:number]:
            here, there = (f"{each.store.location.rstrip('/')}/" for each in (one, other))
            if here.startswith(there) or there.startswith(here):
                raise Invalid(
                    f"{one.word} and {other.word} are one place, or one contains the other",
                    "Name separate places: access to one must not give access to the other.",
                    one=one.store.location,
                    other=other.store.location,
                )


def refuse_others(place: ObjectStore, is_ours: Callable[[ObjectKey], bool], what: str) -> None:
    """Raise ``Conflict`` when there is anything in ``place`` that does not belong there."""
    strange: str | None = next((info.key for info in place.list("") if not is_ours(info.key)), None)
    if strange is None and isinstance(place, LocalStore):
        strange = next(iter(place.foreign()), None)
    if strange is not None:
        raise Conflict(
            f"this place is not empty, and what is there is no {what}",
            "Name an empty place, or one that does not exist yet.",
            place=place.location,
            found=strange,
        )
