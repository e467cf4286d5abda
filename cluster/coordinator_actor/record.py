"""Where a coordinator was launched, and of which release it and the server are, as the store says it.

Neither says whether they live; both are read without Ray.

control/coordinator     where it was launched
control/releases        of which release each is, as ``cluster.release.own_release`` says it
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final, Literal

from cluster.release import EARLIER, own_release, people_read
from storage.digests import Json, canonical_json
from storage.errors import Corrupt, Invalid, ObjectExists, ObjectMissing
from storage.objects import ObjectStore, object_key
from storage.registers.record import RecordRegister

RECORD_KEY: Final = object_key("control/coordinator")
RELEASES_KEY: Final = object_key("control/releases")


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
        raise Corrupt("the record of the coordinator is damaged", "Run 'sisa stop', then 'sisa launch'.") from error


def write_record(store: ObjectStore, launched: Launched) -> None:
    """Put the record, or put it anew."""
    payload = canonical_json(asdict(launched))
    try:
        store.put_if_absent(RECORD_KEY, payload)
    except ObjectExists:
        store.put_if_match(RECORD_KEY, payload, store.get(RECORD_KEY).tag)


def note_release(store: ObjectStore, process: Literal["coordinator", "server"], *, is_there: bool) -> None:
    """Note that the coordinator, or the server's replicas, run this process's release, or that they are no more."""
    said = own_release() if is_there else None
    if noted_releases(store).get(process) == said:
        return

    def changed(fields: Mapping[str, Json] | None) -> Mapping[str, Json]:
        known = fields and fields["processes"]
        kept = {name: each for name, each in known.items() if name != process} if isinstance(known, dict) else {}
        return {"processes": kept if said is None else {**kept, process: said}}

    _releases(store).change(changed)


def noted_releases(store: ObjectStore) -> dict[str, str]:
    """Return of which releases coordinator and server are; without those that are not there, or were not noted."""
    try:
        fields = _releases(store).read()
    except (Corrupt, Invalid):
        return {}  # nothing but what is shown depends on it, and the next 'sisa launch' says more
    known = fields and fields["processes"]
    return {name: str(each) for name, each in known.items()} if isinstance(known, dict) else {}


def releases_of(store: ObjectStore) -> dict[str, str]:
    """Return the releases of this command, and of coordinator and server where there are some, as people read them."""
    noted = noted_releases(store)
    if read_record(store) is None:
        noted.pop("coordinator", None)
    else:
        noted.setdefault("coordinator", EARLIER)
    return people_read({"command": own_release(), **noted})


def _releases(store: ObjectStore) -> RecordRegister:
    return RecordRegister(store=store, key=RELEASES_KEY, field_names=frozenset({"processes"}))
