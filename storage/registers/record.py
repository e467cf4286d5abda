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
"""Attempts at which ``Unavailable`` is retried: a sweep may delete a write in progress, which then wrote nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRegister:
    """The record at ``key``. Holds no state: every call reads the store."""

    store: ObjectStore
    key: ObjectKey
    field_names: frozenset[str]
    """The names of the record's fields."""

    def read(self) -> Mapping[str, Json] | None:
        """Return the fields; None when there is no record yet. Raises as ``decode_record`` does."""
        return self._stored()[0]

    def change(
        self, changed: Callable[[Mapping[str, Json] | None], Mapping[str, Json]], busy: Unavailable | None = None
    ) -> Mapping[str, Json]:
        """Replace the fields by what ``changed`` returns for them, durably, and return that.

        Writes nothing if the fields stay the same. ``changed`` is called again when another writer was first, or when
        it is unknown whether the write succeeded, so for its own result it must return the same. Raises ``busy``, by
        default ``Unavailable``, when other writers are always first.
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
