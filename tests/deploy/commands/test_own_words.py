"""What is typed after ``sisa`` reaches the command, and is in its command line no more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_TELL = """
import json
from pathlib import Path
from deploy.commands.own_words import own_words

words = own_words()
line = Path("/proc/self/cmdline").read_bytes().decode()
print(json.dumps([words, line.split(chr(0)), len(list(Path("/proc/self/fd").iterdir()))]))
"""


def _reported(*words: str) -> tuple[list[str], list[str], int]:
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", _TELL, *words], capture_output=True, check=True)
    found, line, files = json.loads(ended.stdout)
    return found, line, files


@pytest.mark.parametrize(
    "words",
    [
        ("erase", "--subject", "Erika Mustermann"),
        ("erase", "--subject=Erika", "@memory:1", "@memory:77"),
        ("--site", "north", "erase", "Érika\n\t€", ""),
        ("erase", "\udcff", "x" * 100_000),
    ],
)
def test_the_command_has_its_words_and_its_command_line_has_none(words: tuple[str, ...]) -> None:
    """All arguments arrive unchanged; the command line still shows which command runs, and no file stays open."""
    found, line, files = _reported(*words)
    shown = [words[0]] if words[0].isalpha() else []
    assert found == list(words)
    assert line[1:4] == ["-W", "ignore", "-c"]
    assert [*line[5:-2], line[-1]] == [*shown, ""]
    assert line[-2].startswith("@memory:")
    assert line[-2].removeprefix("@memory:").isdecimal()
    assert files == _reported("status")[2]


def test_one_word_is_left_as_it_is() -> None:
    """``sisa status`` is started once: there is nothing to take away."""
    assert _reported("status")[:2] == (["status"], [sys.executable, "-W", "ignore", "-c", _TELL, "status", ""])
    assert _reported()[0] == []


def test_the_installed_command_does_it(tmp_path: Path) -> None:
    """The command itself has no name in its command line while it waits for a file of names."""
    fifo = tmp_path / "names"
    code = f"import os; os.mkfifo({str(fifo)!r})"
    subprocess.run([sys.executable, "-c", code], check=True)
    command = ("-c", "from deploy.commands.cli import main; main()", "erase", "--file", str(fifo), "--url", "http://x")
    with subprocess.Popen(
        [sys.executable, *command], env={"SISA_TOKEN": "x", "PYTHONPATH": ":".join(sys.path)}
    ) as held:
        with fifo.open("w"):  # returns when the command reads there
            line = Path(f"/proc/{held.pid}/cmdline").read_bytes()
        held.kill()
    assert b"names" not in line
    assert b"erase\0@memory:" in line
