"""Shell scripts of the project parse as a whole: bash reads a script as it goes, and finds a broken end only there."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHELLS = (b"#!/usr/bin/env bash", b"#!/bin/bash", b"#!/bin/sh")
SCRIPTS = sorted(
    path
    for folder in (ROOT / ".ci", ROOT / "deploy", ROOT / "docs")
    for path in folder.rglob("*")
    if path.is_file() and path.read_bytes()[:64].splitlines()[:1] in [[shell] for shell in SHELLS]
)


def test_the_way_of_ci_is_among_the_scripts() -> None:
    """The search above finds what it is for."""
    assert ROOT / ".ci" / "run" in SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_script_parses_to_its_end(script: Path) -> None:
    """A script cut in the middle, or joined with another, does not parse."""
    read = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (read.returncode, read.stderr) == (0, "")
