"""The command in a separate process, which dies or waits at a chosen message of its progress."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS: Final = 600
"""How long a failing test waits; one that passes does not."""

PLAIN: Final = "from deploy.commands.cli import main; main()"
"""The command."""

_STRUCK = """
import io
import os
import signal
import sys

from deploy.commands.cli import main

act, word = sys.argv.pop(1), sys.argv.pop(1)


class Struck(io.TextIOBase):
    def fileno(self):
        return 2

    def write(self, text):
        os.write(2, text.encode())
        if word in text:
            if act == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            os.read(0, 1)
        return len(text)


sys.stderr = Struck()
main()
"""


def command(
    *words: str, folder: Path, further: Mapping[str, str] | None = None, script: str = PLAIN
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; with ``further`` environment variables, or by another ``script`` that ends in it."""
    return subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=folder,
        env={**_environment(), **(further or {})},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def killed(word: str, *words: str, folder: Path) -> str:
    """Run the command until it says ``word``: at that moment it dies by SIGKILL. Return what it had said."""
    ended = subprocess.run(
        [sys.executable, "-c", _STRUCK, "die", word, *words],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert ended.returncode == -9, ended.stderr
    assert not ended.stdout
    return ended.stderr


@contextmanager
def halted(word: str, *words: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the command until it says ``word``; it waits there until something is written to its stdin."""
    with subprocess.Popen(
        [sys.executable, "-c", _STRUCK, "wait", word, *words],
        cwd=folder,
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        try:
            reported = []
            for line in process.stderr:
                reported.append(line)
                if word in line:
                    break
            assert word in reported[-1], reported
            yield process
        finally:
            process.kill()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}
