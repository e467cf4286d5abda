"""The federation's state as the body of a manifest, and back."""

from __future__ import annotations

from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from coordinator.state import FederationState
from storage.errors import Corrupt, Invalid

FORMAT_VERSION: Final = 1

_ADAPTER: Final = TypeAdapter(FederationState)


def encode_state(state: FederationState) -> dict[str, Any]:
    """Return the state as JSON values."""
    return {"format_version": FORMAT_VERSION, "state": _ADAPTER.dump_python(state, mode="json")}


def decode_state(body: dict[str, Any]) -> FederationState:
    """Return the state that ``encode_state`` wrote.

    Raises ``Invalid`` when a newer version of this software wrote it, ``Corrupt`` when nothing of ours did.
    """
    version = body.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise Invalid(
            f"the federation was written in format {version}, this version reads up to {FORMAT_VERSION}",
            "upgrade sisa-ray",
        )
    try:
        return _ADAPTER.validate_python(body.get("state"))
    except ValidationError as error:
        raise Corrupt(f"the manifest does not hold a federation: {error.error_count()} problems") from error
