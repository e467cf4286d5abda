"""Encodes one state after another of a federation: an element that has not changed is not encoded again.

The state of a thousand shards is many megabytes, and an erasure changes one shard. The bytes are those of
``canonical_json(encode_state(state))``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from coordinator.engine.codec import ELEMENTS, encode_element, encode_frame, first_format
from coordinator.state import FederationState
from storage.digests import CanonicalJson, Json, canonical_json, canonical_object


@dataclass(frozen=True, slots=True)
class _Encoded:
    """An element and its text; it keeps the element alive, so that no other one gets its ``id``."""

    element: Any
    version: int
    text: bytes


@dataclass(slots=True)
class StateEncoder:
    """Holds the text of each element of the state that it encoded last. For one thread at a time."""

    _known: Mapping[int, _Encoded] = field(default_factory=dict)

    def __call__(self, state: FederationState, beside: Mapping[str, Json] | None = None) -> CanonicalJson:
        """Return the state, with the additional fields ``beside``, as a manifest's body."""
        version, frame = encode_frame(state)
        parts = {name: canonical_json(value) for name, value in frame.items()}
        known: dict[int, _Encoded] = {}
        for name in ELEMENTS:
            elements = list(self._encoded(name, getattr(state, name), known))
            if elements:
                version = max(version, first_format(name), *(each.version for each in elements))
                parts[name] = b"[%b]" % b",".join([each.text for each in elements])
        self._known = known
        fields = {"format_version": version, **(beside or {})}
        encoded = {name: canonical_json(value) for name, value in fields.items()}
        return CanonicalJson(canonical_object({**encoded, "state": canonical_object(parts)}))

    def _encoded(self, name: str, elements: tuple[Any, ...], known: dict[int, _Encoded]) -> Iterator[_Encoded]:
        """Yield each element's text, and note it in ``known``.

        They are known by identity: to compare two elements, or to hash one, would take as long as to encode it.
        """
        for element in elements:
            found = self._known.get(id(element)) or known.get(id(element))
            if found is None:
                version, values = encode_element(name, element)
                found = _Encoded(element, version, canonical_json(values))
            known[id(element)] = found
            yield found
