"""The command ``sisa keys``: list the keys that sign receipts and the log, or replace them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.commands.shared import DEFAULT_CONFIG, AsJson, Config, with_federation
from deploy.views.output import Outcome

if TYPE_CHECKING:
    from cluster.federation import Federation
    from cluster.sites.federation import SiteFederation
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
    export: Annotated[
        Path | None,
        typer.Option(
            "--export",
            metavar="FILE",
            help="Write all public keys to this file, which auditors pass to 'receipt --key'.",
        ),
    ] = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """List the keys that sign receipts and the receipts' log, or replace them.

    What old keys signed stays verifiable, because their public halves stay published. They sign the new keys, so those
    who have the old keys can check that the new ones are yours ('sisa-check keys'). Rotation does not revoke a stolen
    key: if one may have been stolen, keep an earlier checkpoint of the log ('sisa log --json') elsewhere.
    """

    def action(federation: Federation | SiteFederation) -> Outcome:
        if rotate:
            federation.check_original()
        return keys_outcome(federation.registrar, federation.specification.name, rotate=rotate, export=export)

    with_federation(action, config, as_json, action)


def keys_outcome(registrar: Registrar, name: str, *, rotate: bool, export: Path | None = None) -> Outcome:
    """Rotate and export the keys of the federation ``name`` as asked, and return their list.

    Raises ``Invalid`` when there are no keys to replace or to export.
    """
    from storage.errors import Invalid

    found = registrar.key_statements()
    if (rotate or export is not None) and not found:
        raise Invalid(
            "there are no signing keys yet", "Run this again after the first receipt: the keys are made for it."
        )
    if rotate:
        found = registrar.rotate_keys()
    data: dict[str, Any] = {"rotated": rotate, "keys": [_fields(each) for each in found]}
    text = _text(found, rotate=rotate)
    if export is not None:
        _write(export, exported(found, name))
        data["exported"] = str(export)
        text += f"\n{len(found)} public keys are in {export}: give it to those who check receipts"
    return Outcome(data=data, text=text)


def exported(found: Sequence[KeyStatement], name: str) -> str:
    """Return all public keys as one text, including retired ones, because what they signed stays valid."""
    from storage.transparency.key_rotation import key_text

    return "".join(
        [
            f"# Public keys of the federation {name}, which sign its receipts and their log.\n",
            "# To check a receipt: sisa receipt --check RECEIPT --key THIS-FILE\n",
            *(f"# {_STATES[each.state.value]}\n{key_text(each.key, each.endorsement)}" for each in found),
        ]
    )


def _write(file: Path, text: str) -> None:
    """Write the file atomically."""
    unfinished = file.with_name(f".{file.name}.partial")
    unfinished.write_text(text, encoding="utf-8", newline="\n")
    unfinished.replace(file)


def _fields(found: KeyStatement) -> dict[str, str | None]:
    from storage.transparency.envelope import envelope_signer

    return {
        "key_id": found.key.key_id,
        "purpose": found.key.purpose,
        "state": found.state.value,
        "since": found.since,
        "signed_by": None if found.endorsement is None else envelope_signer(found.endorsement),
        "public_key": found.key.to_text(),
    }


def _text(found: Sequence[KeyStatement], *, rotate: bool) -> str:
    from deploy.views.tables import table

    if not found:
        return "no signing keys yet: they are made with the first receipt"
    lines = [
        (each.key.key_id[:16], each.key.purpose, each.since or "the start", _STATES[each.state.value]) for each in found
    ]
    shown = table(("key", "signs", "since", "state"), lines)
    advice = "new keys sign from now on; give their public halves to auditors ('sisa keys --export')"
    return f"{shown}\n{advice}" if rotate else shown
