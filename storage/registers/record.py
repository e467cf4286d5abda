"""A record: one small object that several writers change atomically.

``control/tokens`` and the roster of sites are such records: too small and too rarely changed for a journal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from storage.digests import Json
from storage.errors import ObjectChanged, ObjectExists, ObjectMissing, OutcomeUnknown, Unavailable
from storage.objects import ObjectKey, ObjectStore, VersionTag
from storage.records import decode_record, encode_record

_ATTEMPTS: Final = 64
_HINDERED_ATTEMPTS: Final = 8
"""A sweep may remove a write in progress as a leftover (``ObjectStore.unfinished``): then nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRegister:
    """The record at ``key``. Holds no state: every call reads the store."""

    store: ObjectStore
    key: ObjectKey
    field_names: frozenset[str]
    """The fields it has."""

    def read(self) -> Mapping[str, Json] | None:
        """Return the fields; None when there is no record yet. Raises as ``decode_record`` does."""
        return self._stored()[0]

    def change(
        self, changed: Callable[[Mapping[str, Json] | None], Mapping[str, Json]], busy: Unavailable | None = None
    ) -> Mapping[str, Json]:
        """Write what ``changed`` makes of the fields, durably, and return it; nothing when that is what there is.

        ``changed`` is called again when others were quicker or an outcome is in doubt, so it must give the same for
        what it has made already. Raises ``Unavailable`` when others are always quicker, ``busy`` where it is given.
        """
        for attempt in range(_ATTEMPTS):
            fields, tag = self._stored()
            after = changed(fields)
            if after == fields:
                if tag is None or self.store.get_durable(self.key).tag == tag:
                    return after
                continue
            try:
                if tag is None:
                    self.store.put_if_absent(self.key, encode_record(after))
                else:
                    self.store.put_if_match(self.key, encode_record(after), tag)
            except (ObjectExists, ObjectChanged, OutcomeUnknown):
                continue
            except Unavailable:
                if attempt >= _HINDERED_ATTEMPTS:
                    raise
                continue
            return after
        raise busy or Unavailable("others change the record faster than it can be written", "Try again.", key=self.key)

    def _stored(self) -> tuple[Mapping[str, Json] | None, VersionTag | None]:
        try:
            stored = self.store.get(self.key)
        except ObjectMissing:
            return None, None
        return decode_record(stored.payload, self.key, self.field_names), stored.tag
