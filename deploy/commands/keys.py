"""The command ``sisa keys``: which keys sign receipts and the log, and new ones in their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.commands.shared import DEFAULT_CONFIG, AsJson, Config, with_federation
from deploy.views.output import Outcome

if TYPE_CHECKING:
    from coordinator.receipts.issuer import Registrar
    from storage.transparency.key_rotation import KeyStatement

_STATES = {
    "signs": "signs",
    "retired": "verifies; its private half is destroyed",
    "replaced": "replaced, but its private half is still there: run 'sisa keys --rotate'",
    "away": "its private half is not here",
}


def keys(
    rotate: Annotated[bool, typer.Option("--rotate", help="Make new keys and destroy the old private ones.")] = False,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """List the keys that sign receipts and the receipts' log, or replace them.

    What old keys signed stays verifiable: their public halves stay published. Rotation takes nothing back: where a
    private key may have been stolen, keep a checkpoint of the log ('sisa log --json') from before elsewhere.
    """
    with_federation(lambda federation: keys_outcome(federation.registrar, rotate=rotate), config, as_json)


def keys_outcome(registrar: Registrar, *, rotate: bool) -> Outcome:
    """Return the list of keys, after a rotation if it is wanted. Raises ``Invalid`` when there is none to replace."""
    from storage.errors import Invalid

    found = registrar.key_statements()
    if rotate and not found:
        raise Invalid("there are no signing keys yet", "they are made with the first receipt, when they are needed")
    if rotate:
        found = registrar.rotate_keys()
    return Outcome(
        data={"rotated": rotate, "keys": [_fields(each) for each in found]}, text=_text(found, rotate=rotate)
    )


def _fields(found: KeyStatement) -> dict[str, str | None]:
    return {
        "key_id": found.key.key_id,
        "purpose": found.key.purpose,
        "state": found.state.value,
        "since": found.since,
        "public_key": found.key.to_text(),
    }


def _text(found: Sequence[KeyStatement], *, rotate: bool) -> str:
    from deploy.views.text import table

    if not found:
        return "no signing keys yet: they are made with the first receipt"
    lines = [
        (each.key.key_id[:16], each.key.purpose, each.since or "the start", _STATES[each.state.value]) for each in found
    ]
    told = table(("key", "signs", "since", "state"), lines)
    return f"{told}\nnew keys sign from now on; hand out their public halves ('sisa keys --json')" if rotate else told
