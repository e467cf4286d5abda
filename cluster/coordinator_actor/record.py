"""Two records in the store: where a coordinator was launched, and which releases it and the server run.

They do not show whether these processes are still running. Reading them does not need Ray.

control/coordinator     where it was launched
control/releases        the release of each, as ``cluster.release.own_release`` reports it
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
    """Address of the Ray cluster, as other processes on this network reach it."""
    namespace: str
    head: int | None
    """Process id of the Ray head that was started for it alone; None: the cluster existed before."""


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
    """Write the record, replacing an earlier one."""
    payload = canonical_json(asdict(launched))
    try:
        store.put_if_absent(RECORD_KEY, payload)
    except ObjectExists:
        store.put_if_match(RECORD_KEY, payload, store.get(RECORD_KEY).tag)


def note_release(store: ObjectStore, process: Literal["coordinator", "server"], *, is_there: bool) -> None:
    """Record that the coordinator, or the server's replicas, run this process's release, or that they have ended."""
    said = own_release() if is_there else None
    if noted_releases(store).get(process) == said:
        return

    def changed(fields: Mapping[str, Json] | None) -> Mapping[str, Json]:
        known = fields and fields["processes"]
        kept = {name: each for name, each in known.items() if name != process} if isinstance(known, dict) else {}
        return {"processes": kept if said is None else {**kept, process: said}}

    _releases(store).change(changed)


def noted_releases(store: ObjectStore) -> dict[str, str]:
    """Return the recorded releases of coordinator and server, where they are recorded."""
    try:
        fields = _releases(store).read()
    except (Corrupt, Invalid):
        return {}  # only displays depend on it, and the next 'sisa launch' reports the damage
    known = fields and fields["processes"]
    return {name: str(each) for name, each in known.items()} if isinstance(known, dict) else {}


def releases_of(store: ObjectStore) -> dict[str, str]:
    """Return the releases of this command and of a running coordinator and server, in the form for people."""
    noted = noted_releases(store)
    if read_record(store) is None:
        noted.pop("coordinator", None)
    else:
        noted.setdefault("coordinator", EARLIER)
    return people_read({"command": own_release(), **noted})


def _releases(store: ObjectStore) -> RecordRegister:
    return RecordRegister(store=store, key=RELEASES_KEY, field_names=frozenset({"processes"}))
