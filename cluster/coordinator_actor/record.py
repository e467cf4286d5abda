"""Where a coordinator was launched, as the store says it.

control/coordinator     says nothing of whether it lives
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final

from storage.digests import canonical_json
from storage.errors import Corrupt, ObjectExists, ObjectMissing
from storage.objects import ObjectStore, object_key

RECORD_KEY: Final = object_key("control/coordinator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """Where a coordinator was launched."""

    address: str
    """Of the Ray cluster, as other processes of this network reach it."""
    namespace: str
    head: int | None
    """Process of the Ray head that was started for it alone; None: the cluster was there before."""


def read_record(store: ObjectStore) -> Launched | None:
    """Return where a coordinator was launched; None when none was. Raises ``Corrupt`` when the record is damaged."""
    try:
        payload = store.get(RECORD_KEY).payload
    except ObjectMissing:
        return None
    try:
        return Launched(**json.loads(payload))
    except (ValueError, TypeError) as error:
        raise Corrupt("the record of the coordinator is damaged", "run 'sisa stop', then 'sisa launch'") from error


def write_record(store: ObjectStore, launched: Launched) -> None:
    """Put the record, or put it anew."""
    payload = canonical_json(asdict(launched))
    try:
        store.put_if_absent(RECORD_KEY, payload)
    except ObjectExists:
        store.put_if_match(RECORD_KEY, payload, store.get(RECORD_KEY).tag)
