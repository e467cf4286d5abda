"""From a backup to a federation that may answer: it is restored and adopted, and later erasures are repeated first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from cluster.backups.backup import KEYS, OBJECTS
from cluster.backups.restore import (
    Circumstances,
    adopt_restored,
    end_restore,
    open_contents,
    restore_objects,
)
from cluster.config.specification import FederationSpecification
from cluster.writer.identity import partition_key
from cluster.writer.notices import ASKED, CANCELLED, HELD, WitnessNotice
from cluster.writer.place import settle_identity
from cluster.writer.writer import Writer, WriterSetup, writer_setup, writing
from coordinator.engine.ended import find_request
from coordinator.engine.ledger import read_state
from coordinator.interventions import Cancel, Hold, Release
from coordinator.ports import Listener
from coordinator.receipts.rollback import forgotten_by
from coordinator.requests import RequestState
from storage.backups.sources import Readable
from storage.encryption.store import SealedStore
from storage.errors import Conflict


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """The requests after the backup that were repeated."""

    again: tuple[str, ...] = ()
    """Requests that the witness knew and the backup did not: accepted again, their data points removed."""
    entries: int = 0
    """Entries of the receipts' log that were recovered from the witness."""
    behind: int = 0
    """How many statements the witness's newest checkpoint is ahead of the log; their content is unknown."""
    forgotten: tuple[str, ...] = ()
    """Requests that the log states to be carried out, and whose names are unknown here: submit them again."""
    is_known: bool = False
    """Whether a witness knows what was erased since the backup; without a witness it is unknown."""


NOBODY_TELLS = Erased()


def erase_since(specification: FederationSpecification, listener: Listener) -> Erased:
    """Repeat the erasures after the backup that the witness knows of, and return them.

    The log's newer entries are recovered first: until every request that they state is carried out again, the
    federation does not answer. Raises what the witness raises: without it the restore is not finished.
    """
    setup = writer_setup(specification, listener=listener)
    if specification.receipts.witness is None:
        return NOBODY_TELLS
    state = read_state(setup.store)
    if state is None or not state.is_begun:
        return Erased(is_known=True)
    with writing(setup, "restore") as writer:
        registrar = setup.registrar
        entries = registrar.recover()
        identity = settle_identity(setup.store)
        notices = setup.notices(identity.id, partition_key(setup.store, specification, draw=False))
        noted = notices.noted((identity.id, *identity.earlier)) if notices is not None else []
        again = [each.request.request_id for each in noted if _redo(setup, writer, each)]
        writer.quarantine()
        forgotten = forgotten_by(setup.store, lambda: writer.state)
        return Erased(
            again=tuple(again),
            entries=entries,
            behind=registrar.unwitnessed(),
            forgotten=tuple(each for each in forgotten if writer.state.request(each) is None),
            is_known=True,
        )


def _redo(setup: WriterSetup, writer: Writer, notice: WitnessNotice) -> bool:
    """Bring a request to the state that the witness records; return whether the backup did not know it."""
    request_id = notice.request.request_id
    known = find_request(setup.store, lambda: writer.state, request_id)
    if known is None:
        if notice.stands == CANCELLED:
            return False
        known = writer.accept(replace(notice.request, names=None), notice.names)
        is_news = True
    else:
        is_news = False
    if known.state is RequestState.ACCEPTED:
        if notice.stands == CANCELLED:
            writer.intervene(request_id, Cancel(reason="it was cancelled after the backup was made"))
        elif notice.stands == HELD and known.pause is None:
            writer.intervene(request_id, Hold(reason="it was held after the backup was made"))
        elif notice.stands == ASKED and known.pause is not None:
            writer.intervene(request_id, Release())
    return is_news


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A federation that was restored."""

    id: str
    """Its id from now on."""
    at: str
    """The time whose state the backup holds, in UTC; empty: it is a plain copy, whose time is unknown."""
    place: str
    """The place that it was restored from."""
    number: int | None
    """The backup's number; None: it is a plain copy."""
    objects: int
    erased: Erased


def restore(
    store: SealedStore,
    source: Readable,
    keys: Readable | None,
    given: Circumstances,
    *,
    reason: str,
    erase: Callable[[], Erased],
    number: int | None = None,
) -> Restored:
    """Restore the last backup in ``source``, or backup ``number``, into ``store``, with the keys from ``keys``.

    ``erase`` repeats later erasures; until it returns nothing is answered and nothing trained. Everything may be
    repeated after an interruption. Raises as ``restore_objects`` does.
    """
    objects = open_contents(source, OBJECTS, number)
    opened_keys = None if keys is None else open_contents(keys, KEYS, objects.about.get("keys"))
    if opened_keys is not None and opened_keys.about.get("federation") != objects.about.get("federation"):
        raise Conflict(
            "the keys are another federation's",
            "Name the place that 'sisa backup --keys' was given.",
            keys=opened_keys.place,
        )
    restore_objects(store, objects, opened_keys, given)
    adoption = adopt_restored(store, reason, given.now)
    erased = erase()
    end_restore(store)
    return Restored(
        id=adoption.id,
        at=objects.at,
        place=objects.place,
        number=objects.number,
        objects=len(objects.sizes),
        erased=erased,
    )
