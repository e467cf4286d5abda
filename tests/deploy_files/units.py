"""The systemd units, read: what each starts, and in which environment."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tests.deploy_files.manifests import ROOT

FOLDER: Final = ROOT / "deploy" / "systemd"


@dataclass(frozen=True, slots=True)
class Unit:
    """What a unit says."""

    text: str
    settings: tuple[tuple[str, str], ...]

    def setting(self, name: str) -> str:
        """Return the one value of a setting."""
        (value,) = (value for key, value in self.settings if key == name)
        return value

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that it sets."""
        pairs = [value.partition("=") for key, value in self.settings if key == "Environment"]
        return {name: value for name, _, value in pairs}

    @property
    def command(self) -> tuple[str, ...]:
        """The words that it starts."""
        return tuple(shlex.split(self.setting("ExecStart")))


def read_unit(name: str) -> Unit:
    """Return the unit of this name."""
    text = (FOLDER / f"{name}.service").read_text(encoding="utf-8")
    lines = (line.partition("=") for line in text.splitlines() if line and line[0] not in "#[")
    return Unit(text, tuple((key, value) for key, _, value in lines))
