"""The roster: which sites take part, and the latest state seen of each; and the names of features.

control/sites       compare-and-swap; see ``storage.registers.record``
control/features    the same: the features' names, in the order of data points given as lists
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from cluster.sites.site_server import other_names
from coordinator.ports import Clock
from coordinator.sites import Roster, SiteMark, SiteRecord, SiteStanding, advanced
from storage.digests import Json
from storage.objects import ObjectStore, object_key
from storage.registers.record import RecordRegister

FEATURES_KEY: Final = object_key("control/features")
ROSTER_KEY: Final = object_key("control/sites")


class RosterRegister:
    """The roster of one federation. Holds no state: every call reads the store."""

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._record = RecordRegister(store=store, key=ROSTER_KEY, field_names=frozenset({"sites"}))
        self._clock = clock

    def read(self) -> Roster:
        """Return the roster as it is now. Raises ``Corrupt``."""
        return _decoded(self._record.read())

    def join(self, name: str) -> Roster:
        """Let a site take part; durable when this returns. Raises ``Conflict`` when it was withdrawn."""
        at = self._now()
        return self._change(lambda roster: roster.joined(name, at))

    def withdraw(self, name: str, reason: str) -> Roster:
        """Take a site out of the ensemble for good; durable when this returns. Raises ``Invalid`` for a non-member."""
        at = self._now()
        return self._change(lambda roster: roster.withdrawn(name, at, reason))

    def note_purged(self, name: str) -> Roster:
        """Record that a withdrawn site is empty."""
        at = self._now()
        return self._change(lambda roster: roster.purged(name, at))

    def advance(self, name: str, standing_after: Callable[[int], SiteStanding]) -> SiteMark:
        """Return the site's mark, brought up to date with its standing; a new mark is durable when this returns.

        ``standing_after`` asks the site, given how many of its requests are known here. Raises ``Invalid`` or
        ``Conflict`` when it is not a member, or another site than before, ``Unavailable`` when it was set back.
        """
        known = self.read().member(name).mark
        mark = advanced(known, standing_after(known.requests if known else 0), name)
        if mark != known:
            self._change(lambda roster: roster.marked(name, mark))
        return mark

    def _change(self, changed: Callable[[Roster], Roster]) -> Roster:
        return _decoded(self._record.change(lambda fields: _encoded(changed(_decoded(fields)))))

    def _now(self) -> str:
        return self._clock.now().isoformat(timespec="milliseconds")


class FeatureOrder:
    """The names of the federation's features, in order. Holds no state: every call reads the store."""

    def __init__(self, store: ObjectStore) -> None:
        self._record = RecordRegister(store=store, key=FEATURES_KEY, field_names=frozenset({"features"}))

    def ordered(self, own: tuple[str, ...]) -> tuple[str, ...]:
        """Return the features of a site in the federation's order, or unchanged if no order is recorded for them."""
        known = self._known()
        return known if set(known) == set(own) else own

    def note(self, own: tuple[str, ...], *, decides: bool) -> str:
        """Record the features of a site that takes part; return how their names differ from those recorded.

        They are recorded if nothing is, or if the site ``decides`` and its names differ. If only the order differs, the
        recorded order stays.
        """
        known = self._known()
        others = other_names(known, own)
        if others and (decides or not known):
            self._record.change(lambda _: {"features": list(own)})
            return ""
        return others

    def _known(self) -> tuple[str, ...]:
        fields: Any = self._record.read()
        return tuple(fields["features"]) if fields else ()


def _encoded(roster: Roster) -> dict[str, Json]:
    return {"sites": [asdict(site) for site in roster.sites]}


def _decoded(fields: Mapping[str, Json] | None) -> Roster:
    listed: Any = fields["sites"] if fields else ()
    return Roster(sites=tuple(_site(dict(each)) for each in listed))


def _site(fields: dict[str, Any]) -> SiteRecord:
    mark = fields.pop("mark")
    return SiteRecord(mark=SiteMark(**mark) if mark else None, **fields)
