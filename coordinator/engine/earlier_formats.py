"""Brings requests that were stored in format 4 or earlier into the current form. Pure.

Those formats write an empty text for the absence of a pause, failure or reason, and have no separate record of what was
found for a request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_FOUND: Final = ("points", "unknown", "missing", "similar", "expected")


def grouped(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stored request in the form of format 5.

    A release that did not record from which slices a shard was affected trained it again from the first one. A request
    that arrived paused has been so since it was received. Raises ``TypeError``, ``ValueError`` or ``LookupError`` when
    it is not a request.
    """
    values = dict(request)
    held, held_at = values.pop("held", ""), values.pop("held_at", "")
    failure, failed_at = values.pop("failure", ""), values.pop("failed_at", "")
    extensions = values.pop("extensions", ())
    first = {int(shard): slice_ for shard, slice_ in dict(values.pop("from_slices", {})).items()}
    found: dict[str, Any] = {name: values.pop(name) for name in _FOUND if name in values}
    found["from_slices"] = {shard: first.get(shard, 1) for shard in values.pop("shards", ())}
    return {
        **values,
        **{name: values.get(name) or None for name in ("reason", "commitment", "by")},
        "pause": {"reason": held, "held_at": held_at or request["received_at"]} if held else None,
        "failure": {"reason": failure, "at": failed_at} if failure else None,
        "extension": extensions[0] if extensions else None,
        "found": found,
    }
